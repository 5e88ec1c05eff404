//! The resource's own books, for tests that compare them with a gateway's.
//!
//! A [`Ticket`] stands for one request. However the request ends, its ticket is entered once: one that
//! is dropped before its end belongs to a client that hung up. Tokens are *reported* where usage went
//! out in the reply, *unreported* where it did not: not asked for, cut, or the client was gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::capacity::Used;
use super::usage::Usage;

/// Names come from callers: any beyond these are counted in the total alone.
const MAX_DEPLOYMENTS: usize = 1_000;

#[derive(Clone, Debug, Default, Serialize)]
struct Sums {
    requests: u64,
    #[serde(flatten)]
    usage: Usage,
}

impl Sums {
    fn add(&mut self, usage: Usage) {
        self.requests += 1;
        self.usage.prompt += usage.prompt;
        self.usage.completion += usage.completion;
        self.usage.cached += usage.cached;
        self.usage.reasoning += usage.reasoning;
    }
}

#[derive(Clone, Debug, Default, Serialize)]
struct Tally {
    requests: u64,
    /// By the status that went out; a connection that was closed instead is in `unanswered`.
    by_status: BTreeMap<u16, u64>,
    unanswered: u64,
    #[serde(flatten)]
    usage: Usage,
    reported: Sums,
    unreported: Sums,
    streams: u64,
    streams_open: u64,
    /// Requests whose client hung up before their answer was complete.
    cancelled: u64,
    /// What had been said to it.
    cancelled_completion_tokens: u64,
    /// Replies that we broke off.
    cut: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Book {
    total: Tally,
    deployments: BTreeMap<String, Tally>,
}

/// The book as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    book: &'a Book,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<Used>,
}

impl Book {
    fn enter(&mut self, deployment: &str, change: impl Fn(&mut Tally)) {
        change(&mut self.total);
        if deployment.is_empty() {
            return;
        }
        if let Some(tally) = self.deployments.get_mut(deployment) {
            change(tally);
        } else if self.deployments.len() < MAX_DEPLOYMENTS {
            change(self.deployments.entry(deployment.to_owned()).or_default());
        }
    }
}

/// The books.
#[derive(Debug, Default)]
pub(super) struct Books(Mutex<Book>);

impl Books {
    fn enter(&self, deployment: &str, change: impl Fn(&mut Tally)) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.enter(deployment, change);
    }

    pub(super) fn to_json(&self, capacity: Option<Used>) -> String {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_string(&Shown { book: &book, capacity })
            .expect("counts have string keys and finite numbers")
    }

    /// Begins anew; streams that are open stay counted as open.
    pub(super) fn reset(&self) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |tally: &Tally| Tally { streams_open: tally.streams_open, ..Tally::default() };
        book.total = fresh(&book.total);
        book.deployments.retain(|_, tally| {
            *tally = fresh(tally);
            tally.streams_open > 0
        });
    }
}

/// One request on its way into the books.
#[derive(Debug)]
pub(super) struct Ticket {
    books: Arc<Books>,
    deployment: String,
    /// What the reply costs if it comes to its end; until then `said` stands for its completion.
    usage: Usage,
    said: u64,
    /// Its headers went out.
    answered: bool,
    streams: bool,
    entered: bool,
}

impl Ticket {
    pub(super) fn new(books: &Arc<Books>) -> Self {
        Self {
            books: Arc::clone(books),
            deployment: String::new(),
            usage: Usage::default(),
            said: 0,
            answered: false,
            streams: false,
            entered: false,
        }
    }

    pub(super) fn concerns(&mut self, deployment: &str) {
        deployment.clone_into(&mut self.deployment);
    }

    /// Work on an answer has begun: its prompt has been read.
    pub(super) fn begin(&mut self, usage: Usage) {
        self.usage = usage;
    }

    pub(super) fn said(&mut self, tokens: u64) {
        self.said += tokens;
    }

    /// The headers go out, and the body may yet be broken off.
    pub(super) fn answers(&mut self) {
        self.answered = true;
    }

    /// A stream's headers go out.
    pub(super) fn open(&mut self) {
        self.answers();
        self.streams = true;
        self.books.enter(&self.deployment, |tally| {
            tally.streams += 1;
            tally.streams_open += 1;
        });
    }

    pub(super) fn refused(mut self, status: u16) {
        self.enter(Some(status), None, |_| ());
    }

    /// The connection was closed instead of an answer.
    pub(super) fn unanswered(mut self) {
        self.enter(None, None, |_| ());
    }

    /// The reply came to its end.
    pub(super) fn completed(&mut self, reported: bool) {
        self.enter(Some(200), Some((self.usage, reported)), |_| ());
    }

    /// We broke the reply off.
    pub(super) fn cut(&mut self) {
        let usage = self.so_far();
        self.enter(Some(200), Some((usage, false)), |tally| tally.cut += 1);
    }

    fn so_far(&self) -> Usage {
        Usage { completion: self.said, reasoning: 0, ..self.usage }
    }

    fn enter(&mut self, status: Option<u16>, used: Option<(Usage, bool)>, more: impl Fn(&mut Tally)) {
        if self.entered {
            return;
        }
        self.entered = true;
        let streams = self.streams;
        self.books.enter(&self.deployment, |tally| {
            tally.requests += 1;
            match status {
                Some(status) => *tally.by_status.entry(status).or_default() += 1,
                None => tally.unanswered += 1,
            }
            if let Some((usage, reported)) = used {
                let mut all = Sums { requests: 0, usage: tally.usage };
                all.add(usage);
                tally.usage = all.usage;
                let side = if reported { &mut tally.reported } else { &mut tally.unreported };
                side.add(usage);
            }
            if streams {
                tally.streams_open = tally.streams_open.saturating_sub(1);
            }
            more(tally);
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let usage = self.so_far();
        let used = (usage.prompt > 0).then_some((usage, false));
        let status = self.answered.then_some(200);
        self.enter(status, used, |tally| {
            tally.cancelled += 1;
            tally.cancelled_completion_tokens += usage.completion;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: Usage = Usage { prompt: 10, completion: 5, cached: 4, reasoning: 2 };

    fn ticket(books: &Arc<Books>) -> Ticket {
        let mut ticket = Ticket::new(books);
        ticket.concerns("gpt-4o");
        ticket.begin(USAGE);
        ticket
    }

    fn tally(books: &Books) -> Tally {
        books.0.lock().unwrap().deployments["gpt-4o"].clone()
    }

    #[test]
    fn a_stream_is_entered_once_whatever_happens_to_it() {
        let books = Arc::new(Books::default());
        let mut stream = ticket(&books);
        stream.open();
        assert_eq!(tally(&books).streams_open, 1);
        stream.completed(true);
        stream.cut();
        drop(stream);
        let tally = tally(&books);
        assert_eq!((tally.requests, tally.streams_open), (1, 0));
        assert_eq!(tally.reported.usage, USAGE);
        assert_eq!((tally.cut, tally.cancelled), (0, 0));
    }

    #[test]
    fn a_dropped_ticket_is_a_client_that_hung_up() {
        let books = Arc::new(Books::default());
        let mut stream = ticket(&books);
        stream.open();
        stream.said(3);
        drop(stream);
        drop(ticket(&books));
        let tally = tally(&books);
        assert_eq!((tally.cancelled, tally.cancelled_completion_tokens), (2, 3));
        assert_eq!(tally.unanswered, 1);
        assert_eq!(tally.unreported.usage.prompt, 20);
        assert_eq!(tally.unreported.usage.completion, 3);
    }

    #[test]
    fn a_reset_forgets_all_but_what_is_open() {
        let books = Arc::new(Books::default());
        ticket(&books).refused(429);
        let mut stream = ticket(&books);
        stream.open();
        books.reset();
        assert_eq!(tally(&books).streams_open, 1);
        assert!(tally(&books).by_status.is_empty());
        drop(stream);
        assert_eq!(tally(&books).streams_open, 0);
    }
}
