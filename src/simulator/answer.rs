//! An answer that is written, and how it is sent.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};

use super::ask::{Ask, Operation};
use super::behaviour::{Behaviour, Fault};
use super::counts::Ticket;
use super::delivery::{self, Delivery, Stop, Stream};
use super::events::{Events, Habits};
use super::reply::Reply;
use super::usage::Usage;
use super::{chat, completions, embeddings, responses, whole};

/// What is to be sent.
pub(super) enum Answer {
    Whole { body: Bytes, usage: Usage, reports_usage: bool },
    Stream(Stream),
}

impl Answer {
    /// The answer to a request that is in order.
    pub(super) fn to(operation: Operation, ask: &Ask, streams: bool) -> Self {
        match operation {
            Operation::Chat => Self::saying(chat::reply(ask), ask, streams),
            Operation::Completions => Self::saying(completions::reply(ask), ask, streams),
            Operation::Responses => Self::responding(responses::reply(ask), ask, streams),
            Operation::Embeddings => Self::Whole {
                body: embeddings::body(ask, ask.behaviour.reports_usage).into(),
                usage: Usage { prompt: ask.prompt_tokens, ..Usage::default() },
                reports_usage: ask.behaviour.reports_usage,
            },
        }
    }

    fn saying(reply: Reply, ask: &Ask, streams: bool) -> Self {
        let reports_usage = ask.behaviour.reports_usage;
        if streams {
            let habits = Habits {
                tokens_per_chunk: ask.behaviour.tokens_per_chunk,
                includes_usage: reports_usage && ask.body["stream_options"]["include_usage"] == true,
                says_done: ask.behaviour.says_done,
            };
            return Self::Stream(Stream::Chat(Box::new(Events::new(reply, habits))));
        }
        Self::Whole { body: whole::write(&reply, reports_usage).into(), usage: reply.usage, reports_usage }
    }

    /// A response.
    pub(super) fn responding(response: responses::Response, ask: &Ask, streams: bool) -> Self {
        if streams {
            let (tokens, ends) = (ask.behaviour.tokens_per_chunk, ask.behaviour.says_done);
            let events = responses::events::Events::new(response, tokens, ends);
            return Self::Stream(Stream::Responses(Box::new(events)));
        }
        let (usage, reports_usage) = (response.usage, ask.behaviour.reports_usage);
        Self::Whole { body: response.whole().into(), usage, reports_usage }
    }

    /// Takes its time, and gives the body away together with the ticket.
    pub(super) async fn deliver(self, behaviour: &Behaviour, mut ticket: Ticket) -> Response {
        let stop = match behaviour.fault {
            Some(Fault::CutAfter(pieces)) => Stop::Cut(pieces),
            Some(Fault::StallAfter(pieces)) => Stop::Stall(pieces),
            _ => Stop::Never,
        };
        match self {
            Self::Whole { body, usage, reports_usage } => {
                ticket.begin(usage);
                delivery::pause(behaviour.time_to_first_token).await;
                delivery::speak(usage.completion, behaviour.tokens_per_second).await;
                whole_response(body, ticket, stop, reports_usage)
            }
            Self::Stream(events) => {
                ticket.begin(events.usage());
                delivery::pause(behaviour.time_to_first_token).await;
                // Thoughts take time, but are not heard.
                delivery::speak(events.usage().reasoning, behaviour.tokens_per_second).await;
                ticket.open();
                let delivery = Delivery::stream(events, ticket)
                    .stopping(stop)
                    .paced(delivery::per_token(behaviour.tokens_per_second))
                    .in_chunks_of(behaviour.chunk_bytes)
                    .malformed_after(behaviour.malformed_after);
                let mut response = Response::new(Body::new(delivery));
                let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
        }
    }
}

fn whole_response(body: Bytes, mut ticket: Ticket, stop: Stop, reports_usage: bool) -> Response {
    let length = body.len();
    let mut response = if stop == Stop::Never {
        ticket.completed(reports_usage);
        Response::new(Body::from(body))
    } else {
        ticket.answers();
        // One of the two halves at most, wherever a stream would have been cut.
        let delivery = Delivery::whole(body, ticket).stopping(stop.at_most(1));
        Response::new(Body::new(delivery))
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}
