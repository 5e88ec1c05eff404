//! What is asked for: the same bytes on every way.

use serde_json::json;

pub(crate) const CHAT: &str = "gpt-4o-mini";

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Whole,
    Stream,
    StreamWithUsage,
}

impl Kind {
    /// About a kilobyte, as a short conversation is.
    pub(crate) fn body(self) -> String {
        let system = "You are the assistant of a trading company. You answer in short, plain \
            sentences. You name the document that an answer is taken from. Where the documents do \
            not say, you say that you do not know, and whom to ask instead. You never give advice \
            on law, tax or medicine, and you never repeat personal data of customers or colleagues.";
        let user = "Our customer in Rotterdam asks why the second delivery of this month came two \
            days late, and whether the third one will be on time. The order is 4711, the carrier \
            changed last week, and the warehouse had its stocktaking on Monday and Tuesday. Please \
            write an answer that I can send on: what happened, what we have done about it, and what \
            the customer may expect from now on. Keep it below a hundred words, and leave out the \
            name of the carrier.";
        let mut body = json!({
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "model": CHAT, "temperature": 0.2, "max_tokens": 100,
        });
        match self {
            Self::Whole => {}
            Self::Stream => body["stream"] = json!(true),
            Self::StreamWithUsage => {
                body["stream"] = json!(true);
                body["stream_options"] = json!({"include_usage": true});
            }
        }
        body.to_string()
    }
}

/// With the headers that an SDK sends.
pub(crate) fn request(deployment: &str, key: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /openai/deployments/{deployment}/chat/completions?api-version=2024-10-21 HTTP/1.1\r\n\
         host: 127.0.0.1\r\nconnection: keep-alive\r\naccept: application/json\r\n\
         accept-encoding: gzip, deflate\r\ncontent-type: application/json\r\n\
         user-agent: AzureOpenAI/Python\r\nx-stainless-lang: python\r\n\
         x-stainless-retry-count: 0\r\napi-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
