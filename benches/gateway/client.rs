//! A client that costs next to nothing: requests are bytes made beforehand, and a reply is read only
//! as far as it takes to be sure that it is whole.
//!
//! It must never take a broken reply for a good one: status, framing, the number of events, the final
//! `[DONE]` and the terminating chunk are checked on every reply, or the benchmark ends.

use std::net::SocketAddr;
use std::time::Instant;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;

/// A chunk of a stream is a few hundred bytes, a whole reply about a kilobyte.
const READ_BYTES: usize = 16 * 1024;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const END_OF_EVENT: &[u8] = b"\n\n";
const LAST_EVENT: &[u8] = b"data: [DONE]\n\n";

/// A request, and what a good reply to it is.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) request: Vec<u8>,
    pub(crate) expected: Expected,
}

/// What the body of a good reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Any body, with status 200.
    Anything,
    /// A JSON body of this many bytes.
    Bytes(usize),
    /// This many server-sent events, `[DONE]` among them.
    Events(usize),
}

impl Expected {
    /// What the bodies that follow must be like, learnt from one that came without a gateway.
    pub(crate) fn of(body: &[u8]) -> Self {
        if body.ends_with(LAST_EVENT) { Self::Events(events_in(body)) } else { Self::Bytes(body.len()) }
    }

    fn check(self, body: &[u8]) -> Result<()> {
        let found = match self {
            Self::Anything => return Ok(()),
            Self::Bytes(_) => Self::Bytes(body.len()),
            Self::Events(_) if body.ends_with(LAST_EVENT) => Self::Events(events_in(body)),
            Self::Events(_) => return Err("a stream ended without [DONE]".into()),
        };
        if found == self {
            Ok(())
        } else {
            Err(format!("a reply had {found:?} where {self:?} was expected").into())
        }
    }
}

fn events_in(body: &[u8]) -> usize {
    memmem::find_iter(body, END_OF_EVENT).count()
}

/// A kept-alive connection; one request at a time.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Bytes as they came; those that have been understood are taken out.
    received: Vec<u8>,
    /// The body of the reply in hand, without its framing.
    body: Vec<u8>,
}

/// What is due next in a body.
enum Due {
    /// So many bytes, then the body is whole.
    Length(usize),
    /// A chunk's size.
    Size,
    /// So many bytes of a chunk.
    Chunk(usize),
    /// The line end after a chunk; the last one ends the body.
    LineEnd {
        last: bool,
    },
    Nothing,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(READ_BYTES), body: Vec::with_capacity(READ_BYTES) })
    }

    /// Sends the call and reads its reply to the end. Returns when the body's first bytes came.
    pub(crate) async fn exchange(&mut self, call: &Call) -> Result<Instant> {
        self.watch(call, |_| {}).await
    }

    /// The same; `seen` is shown the body so far whenever it has grown.
    pub(crate) async fn watch(&mut self, call: &Call, mut seen: impl FnMut(&[u8])) -> Result<Instant> {
        self.body.clear();
        self.stream.write_all(&call.request).await?;
        let mut due = self.head().await?;
        let mut first = None;
        loop {
            let known = self.body.len();
            due = self.take(due)?;
            if self.body.len() > known {
                first.get_or_insert_with(Instant::now);
                seen(&self.body);
            }
            if matches!(due, Due::Nothing) {
                break;
            }
            self.receive().await?;
        }
        if !self.received.is_empty() {
            return Err("bytes came after a reply had ended".into());
        }
        call.expected.check(&self.body)?;
        first.ok_or_else(|| "a reply had no body".into())
    }

    /// The body of the last reply.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    async fn receive(&mut self) -> Result<()> {
        self.received.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.received).await? == 0 {
            return Err("the connection was closed inside a reply".into());
        }
        Ok(())
    }

    /// Reads a reply's head and takes it out of what was received.
    async fn head(&mut self) -> Result<Due> {
        let end = loop {
            if let Some(end) = memmem::find(&self.received, END_OF_HEAD) {
                break end + END_OF_HEAD.len();
            }
            self.receive().await?;
        };
        let head = std::str::from_utf8(&self.received[..end])?;
        let due = framing(head);
        if !(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 201")) || due.is_none() {
            let all = String::from_utf8_lossy(&self.received);
            return Err(format!("not a good reply:\n{all}").into());
        }
        self.received.drain(..end);
        due.ok_or_else(|| "a reply had no length".into())
    }

    /// Moves what was received into the body, as far as it goes.
    fn take(&mut self, mut due: Due) -> Result<Due> {
        let mut at = 0;
        loop {
            let rest = &self.received[at..];
            due = match due {
                Due::Nothing | Due::Length(0) => {
                    due = Due::Nothing;
                    break;
                }
                Due::Length(bytes) | Due::Chunk(bytes) if !rest.is_empty() => {
                    let taken = bytes.min(rest.len());
                    self.body.extend_from_slice(&rest[..taken]);
                    at += taken;
                    match due {
                        Due::Length(_) => Due::Length(bytes - taken),
                        _ if taken == bytes => Due::LineEnd { last: false },
                        _ => Due::Chunk(bytes - taken),
                    }
                }
                Due::Size => {
                    let Some(line) = memmem::find(rest, b"\r\n") else {
                        break;
                    };
                    let bytes = usize::from_str_radix(std::str::from_utf8(&rest[..line])?, 16)?;
                    at += line + 2;
                    if bytes == 0 { Due::LineEnd { last: true } } else { Due::Chunk(bytes) }
                }
                Due::LineEnd { last } if rest.len() >= 2 => {
                    if !rest.starts_with(b"\r\n") {
                        return Err("a chunk did not end where its size said".into());
                    }
                    at += 2;
                    if last { Due::Nothing } else { Due::Size }
                }
                Due::Length(_) | Due::Chunk(_) | Due::LineEnd { .. } => break,
            };
        }
        self.received.drain(..at);
        Ok(due)
    }
}

/// How the body of a reply is framed; `None` where only the connection's end would tell.
fn framing(head: &str) -> Option<Due> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            value.parse().ok().map(Due::Length)
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            value.eq_ignore_ascii_case("chunked").then_some(Due::Size)
        } else {
            None
        }
    })
}
