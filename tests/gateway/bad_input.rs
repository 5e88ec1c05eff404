//! Bad input gets a clear refusal and changes nothing.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tollgate::proxy::Room;

use crate::support::{CHAT, TestGateway};

#[tokio::test]
async fn what_is_no_request_is_refused_and_nothing_recorded() {
    let gateway = TestGateway::start().await;
    let key = [("api-key", gateway.key.as_str())];
    let v1 = "/openai/v1/chat/completions";
    for (path, body) in [
        (CHAT, ""),
        (CHAT, "not json"),
        (CHAT, "[]"),
        (CHAT, r#"{"messages":[]"#),
        (CHAT, r#"{"messages":{}}"#),
        (CHAT, r#"{"messages":[],"stream":"yes"}"#),
        (CHAT, r#"{"messages":[],"max_tokens":"many"}"#),
        (v1, r#"{"messages":[]}"#),
        (v1, r#"{"model":["a"],"messages":[]}"#),
        ("/openai/v1/embeddings", r#"{"model":"e"}"#),
    ] {
        let answer = gateway.send("POST", path, &key, Some(body.to_owned())).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request_error"), "{body}");
        assert!(answer.json()["error"]["message"].as_str().unwrap().len() > 10, "{}", answer.body);
    }
    let answer = gateway.send("POST", CHAT, &key, None).await;
    assert_eq!(answer.status, 400, "a POST without a body");
    assert_eq!(gateway.counts().await["requests"], 0);
    assert_eq!(gateway.usage("").await["total"]["requests"], 0);
    assert_eq!(gateway.chat(&json!({"messages": [{"role": "user", "content": "x"}]}), "").await.status, 200);
}

#[tokio::test]
async fn invalid_utf8_is_refused() {
    let gateway = TestGateway::start().await;
    let body = b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}";
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\napi-key: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        gateway.key,
        body.len()
    );
    let answer = gateway.raw(&[head.as_bytes(), body].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("UTF-8"), "{answer}");
}

#[tokio::test]
async fn a_body_over_100_mib_is_refused_whether_it_says_so_or_not() {
    let gateway = TestGateway::start().await;
    let length = 101 * 1024 * 1024;
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\napi-key: {}\r\nconnection: close\r\n", gateway.key);
    let told = gateway.raw(format!("{head}content-length: {length}\r\n\r\n").as_bytes()).await;
    assert!(told.starts_with("HTTP/1.1 413") && told.contains("invalid_request_error"), "{told}");
    let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let send = async {
        writing.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
        let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 0x10_0000], b"\r\n"].concat();
        for _ in 0..102 {
            // The refusal may come, and the connection close, before all of it is sent.
            if writing.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let _ = writing.write_all(b"0\r\n\r\n").await;
    };
    let mut answer = vec![0; 64];
    let (read, ()) = tokio::join!(reading.read(&mut answer), send);
    let answer = String::from_utf8_lossy(&answer[..read.unwrap()]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(gateway.counts().await["requests"], 0);
}

#[tokio::test]
async fn a_large_body_goes_through() {
    let gateway = TestGateway::start().await;
    let text = "word ".repeat(4 * 1024 * 1024);
    let body = json!({"messages": [{"role": "user", "content": text}]});
    // Too long for a model, which is for the backend to say: it got all of it.
    let answer = gateway.chat(&body, "context-tokens=1000").await;
    assert_eq!(answer.status, 400, "{}", &answer.body[..200.min(answer.body.len())]);
    assert_eq!(gateway.received().await["body_bytes"], body.to_string().len());
}

#[tokio::test]
async fn headers_of_64_kib_are_refused() {
    let gateway = TestGateway::start().await;
    let long = "x".repeat(64 * 1024);
    let headers = [("api-key", gateway.key.as_str()), ("x-long", long.as_str())];
    let answer = gateway.send("POST", CHAT, &headers, Some("{}".to_owned())).await;
    assert_eq!((answer.status, answer.code().as_str()), (431, "invalid_request_error"));
}

#[tokio::test]
async fn half_a_body_and_then_silence_is_given_up() {
    let gateway = TestGateway::start().await;
    // The key is known from here on: looking it up is work on another thread, which paused time
    // would not wait for.
    gateway.send("POST", CHAT, &[("api-key", gateway.key.as_str())], Some("{}".to_owned())).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\napi-key: {}\r\n", gateway.key);
    let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(format!("{head}content-length: 100\r\n\r\n{{\"mess").as_bytes()).await.unwrap();
    // From here on time passes as soon as nothing else can happen.
    tokio::time::pause();
    let mut answer = vec![0; 1024];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
}

#[tokio::test]
async fn half_a_head_and_then_silence_is_closed() {
    let gateway = TestGateway::start().await;
    let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(b"POST /openai/v1/chat/completions HTTP/1.1\r\nho").await.unwrap();
    // The head must be on its way before time is let go.
    gateway.send("GET", "/", &[], None).await;
    tokio::time::pause();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "");
}

#[tokio::test]
async fn bodies_never_take_more_memory_than_there_is_for_them() {
    let gateway = TestGateway::start().await;
    let room = Room::of(64 * 1024);
    let address = gateway.serve_with_room(room.clone()).await;
    let url =
        format!("http://{address}/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21");
    let key = [("api-key", gateway.key.as_str())];
    let body = |chars| json!({"messages": [{"role": "user", "content": "a".repeat(chars)}]}).to_string();
    let ask = async |chars| crate::support::ask(&gateway.client, "POST", &url, &key, Some(body(chars))).await;
    let refused = ask(100 * 1024).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "gateway_unavailable"), "{}", refused.body);
    assert_eq!(refused.header("retry-after"), "1");
    // What was taken is given back, refused or served.
    for _ in 0..4 {
        assert_eq!(ask(30 * 1024).await.status, 200);
    }
}
