//! Cuts an exchange in which neither side has said a byte for too long.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::client::BoxError;

/// When the exchange was last heard of.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    last: Arc<Mutex<Instant>>,
    limit: Duration,
}

impl Activity {
    pub(super) fn new(limit: Duration) -> Self {
        Self { last: Arc::new(Mutex::new(Instant::now())), limit }
    }

    fn touch(&self) {
        *self.last.lock().unwrap() = Instant::now();
    }

    fn deadline(&self) -> Instant {
        *self.last.lock().unwrap() + self.limit
    }

    /// Returns once nothing was heard for the whole limit.
    pub(super) async fn expired(&self) {
        while self.deadline() > Instant::now() {
            sleep_until(self.deadline()).await;
        }
    }

    /// The body, each byte of which counts as activity.
    pub(super) fn watch<B>(&self, body: B) -> Watched<B> {
        Watched { body, activity: self.clone(), alarm: Box::pin(sleep_until(self.deadline())) }
    }
}

pub(super) struct Watched<B> {
    body: B,
    activity: Activity,
    alarm: Pin<Box<Sleep>>,
}

impl<B> HttpBody for Watched<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.activity.touch();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let deadline = self.activity.deadline();
            if deadline <= Instant::now() {
                return Poll::Ready(Some(Err("nothing was said for too long".into())));
            }
            self.alarm.as_mut().reset(deadline);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
