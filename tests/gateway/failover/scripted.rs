//! A backend that sends bytes as a test wrote them, for what no HTTP server would send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::support::listener;

/// What is sent, each part after a pause in milliseconds; then the connection is closed.
pub(super) type Script = Vec<(u64, String)>;

pub(super) async fn scripted(script: Script) -> (SocketAddr, DropGuard) {
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let (stop, tasks, script) = (CancellationToken::new(), TaskTracker::new(), Arc::new(script));
    let (serving, stopped) = (tasks.clone(), stop.clone());
    tasks.spawn(async move {
        let accepting = async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serving.spawn(converse(stream, Arc::clone(&script)));
            }
        };
        stopped.run_until_cancelled(accepting).await;
    });
    (address, stop.drop_guard())
}

async fn converse(mut stream: TcpStream, script: Arc<Script>) {
    read_request(&mut stream).await;
    for (pause_ms, part) in script.iter() {
        tokio::time::sleep(Duration::from_millis(*pause_ms)).await;
        if stream.write_all(part.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A head, and a body of the length that it says.
async fn read_request(stream: &mut TcpStream) {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return;
            }
        }
        if stream.read_buf(&mut read).await.unwrap() == 0 {
            return;
        }
    }
}

/// The head of a stream's answer, whose body has no length.
pub(super) fn stream_head() -> String {
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned()
}

/// One HTTP chunk.
pub(super) fn chunk(bytes: &str) -> String {
    format!("{:x}\r\n{bytes}\r\n", bytes.len())
}
