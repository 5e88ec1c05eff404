//! Who is sent what, and when: the one task that decides it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, gather, keep};
use super::spooled::{PASSED_OVER_FOR, Spooled, Step};
use super::telling::{self, Trouble};
use super::{AtOnce, BATCH, MANY, PATIENCE, Shown, Waiting};
use crate::domain::usage::{Standing, UsageEvent};
use crate::ports::{Undelivered, UsageDestination, with_causes};
use crate::spool::{NotKept, Spool};

/// Between the first two tries to send what lies in the spool; each next pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// However long the destination asks to be left alone.
const LONGEST_ASKED: Duration = Duration::from_mins(1);
/// A destination that answers later than this is slow. Then its ways are all taken before the first is free
/// again, unless they are taken one after the other.
const SLOW: Duration = Duration::from_millis(250);
/// While it is slow, events wait this long for others before they take one more way.
const SLOW_TURN: Duration = Duration::from_millis(100);
/// Of two seconds, so much remains for a turn.
const QUICK_ENOUGH: Duration = Duration::from_millis(1_500);
const _: () = assert!(QUICK_ENOUGH.as_millis() + 2 * SLOW_TURN.as_millis() < PATIENCE.as_millis());
/// Another process may have left something in the same folder.
const LOOK_AFTER: Duration = Duration::from_mins(5);
/// The process ends: whoever stops it waits two seconds, and the disk needs some of them.
const HURRY: Duration = Duration::from_millis(500);

pub(super) struct Run {
    destination: Arc<dyn UsageDestination>,
    at_once: AtOnce,
    spool: Spool,
    shown: Arc<Shown>,
    /// The destination took what it was sent last.
    is_up: bool,
    /// How long the destination's last answer took.
    took: Duration,
    /// The spool did not take what it was given last.
    is_full: bool,
    /// Something lies in the spool, as far as it can be read, or is held.
    waits: bool,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    sends: usize,
    keeps: usize,
    /// `None` while it is at work.
    spooled: Option<Box<Spooled>>,
    /// What is to be held when it is back.
    held: Vec<UsageEvent>,
    /// When the spool is sent from again.
    next_step: Option<Instant>,
    pause: Duration,
    /// The destination is left alone until then.
    not_before: Instant,
    trouble: Trouble,
    hurry: CancellationToken,
}

/// Something that was under way has ended.
enum Done {
    /// It took so long, if it arrived.
    Sent {
        batch: Batch,
        sent: Result<Duration, Undelivered>,
        is_last_resort: bool,
    },
    Kept {
        batch: Batch,
        kept: Result<(), NotKept>,
        was_sent: bool,
    },
    Stepped(Box<Spooled>, Step),
}

impl Run {
    pub(super) fn new(
        destination: Arc<dyn UsageDestination>,
        at_once: AtOnce,
        spool: Spool,
        shown: Arc<Shown>,
    ) -> Self {
        Self {
            spooled: Some(Box::new(Spooled::new(
                Arc::clone(&destination),
                spool.clone(),
                at_once.when_many_wait,
            ))),
            destination,
            at_once,
            spool,
            shown,
            is_up: true,
            took: Duration::ZERO,
            is_full: false,
            waits: false,
            under_way: FuturesUnordered::new(),
            sends: 0,
            keeps: 0,
            held: Vec::new(),
            // What an earlier process left there.
            next_step: Some(Instant::now()),
            pause: FIRST_PAUSE,
            not_before: Instant::now(),
            trouble: Trouble::default(),
            hurry: CancellationToken::new(),
        }
    }

    /// Runs until nobody can record any more and all that was recorded is safe.
    pub(super) async fn until(
        mut self,
        dropped: CancellationToken,
        mut queue: mpsc::UnboundedReceiver<Waiting>,
    ) {
        let mut waiting = Vec::with_capacity(BATCH);
        let (mut is_over, mut hurry) = (false, None);
        while !is_over || self.sends + self.keeps > 0 || !waiting.is_empty() {
            let step = self.next_step.filter(|_| self.spooled.is_some() && !dropped.is_cancelled());
            let room = BATCH - waiting.len();
            let turn = self.turn(&waiting).filter(|turn| *turn > Instant::now());
            tokio::select! {
                biased;
                Some(done) = self.under_way.next(), if !self.under_way.is_empty() => self.has_ended(done),
                count = queue.recv_many(&mut waiting, room), if !is_over && room > 0 => {
                    is_over = count == 0;
                    gather(&mut queue, &mut waiting).await;
                }
                () = at(step) => self.step(),
                () = at(turn) => {}
                () = dropped.cancelled(), if hurry.is_none() => hurry = Some(Instant::now() + HURRY),
                () = at(hurry.filter(|_| !self.hurry.is_cancelled())) => self.hurry.cancel(),
            }
            if !waiting.is_empty() && self.has_room_for(&waiting) {
                self.take(Batch::of(&mut waiting));
            }
            self.show();
        }
        self.end().await;
    }

    /// The process ends: what is only in memory gets its last chance.
    async fn end(mut self) {
        if self.is_full && self.spooled.is_none() {
            let step = tokio::time::timeout(HURRY, self.under_way.next());
            if let Ok(Some(Done::Stepped(spooled, _))) = step.await {
                self.spooled = Some(spooled);
            }
        }
        let events = match self.spooled {
            Some(spooled) => spooled.into_held(self.held),
            None => self.held,
        };
        if !events.is_empty() && keep(&self.spool, &events).await.is_err() {
            tracing::error!(events = events.len(), "usage that nothing takes goes with this process");
        }
    }

    fn show(&self) {
        self.shown.show(match (self.is_up, self.is_full) {
            (true, _) if self.waits => Standing::Waiting,
            (true, _) => Standing::Flowing,
            (false, false) => Standing::Spooling,
            (false, true) => Standing::Full,
        });
    }

    /// Whether so many events may leave now. A few need not wait for each other's round trip; more ways than
    /// that are worth their cost only to many.
    fn has_room_for(&self, waiting: &[Waiting]) -> bool {
        let are_worth_it = match self.turn(waiting) {
            Some(turn) => waiting.len() == BATCH || turn <= Instant::now(),
            None => waiting.len() >= MANY,
        };
        match self.is_up {
            true if are_worth_it => self.sends < self.at_once.when_many_wait,
            true => self.sends < self.at_once.always,
            false => self.keeps == 0,
        }
    }

    /// When a few events are worth a way of their own as well, since they cannot wait for another's end.
    fn turn(&self, waiting: &[Waiting]) -> Option<Instant> {
        let oldest = waiting.first().filter(|_| self.is_up && self.took > SLOW)?;
        Some(oldest.since + SLOW_TURN)
    }

    /// Whether replies may wait for a destination that takes so long to answer.
    fn is_quick_enough(&self) -> bool {
        // With a single way, an event waits for the one before as well.
        self.took < if self.at_once.when_many_wait > 1 { QUICK_ENOUGH } else { PATIENCE / 2 }
    }

    fn take(&mut self, batch: Batch) {
        if self.is_up { self.send(batch, false) } else { self.keep(batch, false) }
    }

    fn send(&mut self, batch: Batch, is_last_resort: bool) {
        self.sends += 1;
        let (destination, spool) = (Arc::clone(&self.destination), self.spool.clone());
        let hurry = self.hurry.clone();
        self.under_way.push(Box::pin(async move {
            let begun = Instant::now();
            let sent = batch.send(destination, &spool, hurry).await;
            Done::Sent { batch, sent: sent.map(|()| begun.elapsed()), is_last_resort }
        }));
    }

    fn keep(&mut self, batch: Batch, was_sent: bool) {
        self.keeps += 1;
        let spool = self.spool.clone();
        self.under_way.push(Box::pin(async move {
            let kept = keep(&spool, &batch.events).await;
            Done::Kept { batch, kept, was_sent }
        }));
    }

    fn step(&mut self) {
        self.next_step = None;
        if let Some(mut spooled) = self.spooled.take() {
            spooled.hold(std::mem::take(&mut self.held));
            self.under_way.push(Box::pin(async move {
                let (spooled, step) = spooled.step().await;
                Done::Stepped(spooled, step)
            }));
        }
    }

    fn has_ended(&mut self, done: Done) {
        match done {
            Done::Sent { batch, sent, is_last_resort } => {
                self.sends -= 1;
                match sent {
                    Ok(took) => {
                        batch.tell_safe();
                        self.took = took;
                        // One that left before another failed says nothing of what is now.
                        if is_last_resort {
                            self.is_well();
                        }
                    }
                    Err(why) => {
                        self.is_in_trouble(&why);
                        self.keep(batch, true);
                    }
                }
            }
            Done::Kept { batch, kept, was_sent } => {
                self.keeps -= 1;
                self.was_kept(batch, kept, was_sent);
            }
            Done::Stepped(spooled, step) => {
                // What nobody took may lie in the spool by now.
                self.is_full = self.is_full && (spooled.holds() || !self.held.is_empty());
                self.spooled = Some(spooled);
                self.stepped(step);
            }
        }
    }

    fn was_kept(&mut self, batch: Batch, kept: Result<(), NotKept>, was_sent: bool) {
        match kept {
            Ok(()) => {
                batch.tell_safe();
                self.is_full = false;
            }
            // The destination may take it by now.
            Err(_) if !was_sent => return self.send(batch, true),
            Err(why) => {
                self.is_full = true;
                telling::lost(&batch.events, &why);
                self.held.extend(batch.tell_unsafe(&why));
            }
        }
        self.waits = true;
        self.look_again(self.pause);
    }

    fn stepped(&mut self, step: Step) {
        match step {
            // It was, before what is on its way into it, or came into it since.
            Step::Empty | Step::Left
                if self.keeps > 0 || !self.held.is_empty() || self.next_step.is_some() =>
            {
                self.look_again(self.pause);
            }
            Step::Empty => {
                self.is_well();
                self.waits = false;
                self.look_again(LOOK_AFTER);
            }
            Step::Left => {
                self.is_well();
                self.waits = true;
                self.look_again(PASSED_OVER_FOR);
            }
            Step::Sent(took) => {
                (self.waits, self.took) = (true, took);
                // Replies do not wait for one that is too slow for them until the spool is empty.
                if self.is_quick_enough() {
                    self.is_well();
                }
                self.look_again(Duration::ZERO);
            }
            Step::Failed(why) => {
                self.waits = true;
                self.is_in_trouble(&why);
                self.look_again(self.pause);
                self.pause = (2 * self.pause).min(LONGEST_PAUSE);
            }
            Step::Unreadable => {
                // Nothing but a reply's own event can find out how the destination is.
                (self.is_up, self.waits) = (true, true);
                self.look_again(LONGEST_PAUSE);
            }
        }
    }

    fn look_again(&mut self, pause: Duration) {
        let then = self.not_before.max(Instant::now() + pause);
        self.next_step = Some(self.next_step.map_or(then, |next| next.min(then)));
    }

    fn is_well(&mut self) {
        (self.is_up, self.is_full, self.pause) = (true, false, FIRST_PAUSE);
        self.not_before = Instant::now();
        self.trouble.is_over(self.destination.name());
    }

    fn is_in_trouble(&mut self, why: &Undelivered) {
        self.is_up = false;
        self.trouble.is(self.destination.name(), &with_causes(why));
        let asked = match why {
            Undelivered::Unavailable { retry_after, .. } => retry_after.unwrap_or_default(),
            Undelivered::Refused(_) => Duration::ZERO,
        };
        self.not_before = Instant::now() + self.pause.max(asked.min(LONGEST_ASKED));
    }
}

/// Resolves then, or never.
async fn at(then: Option<Instant>) {
    match then {
        Some(then) => sleep_until(then).await,
        None => std::future::pending().await,
    }
}
