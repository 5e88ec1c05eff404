//! The ways of making load: as fast as replies come, at a fixed rate, paced streams, a crowd.
//!
//! It must never judge: it hands back what it saw. A reply that is not whole ends the benchmark.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use crate::Result;
use crate::client::{Call, Connection};
use crate::metronome::{Reader, Stamp};

/// More requests than this in flight mean that the rate is beyond what was asked to be well within.
const MOST_IN_FLIGHT: usize = 1024;
/// Between two connections of a crowd: all at once would overflow a listen queue.
const CROWD_STEP: Duration = Duration::from_millis(1);

pub(crate) async fn connect(address: SocketAddr, connections: usize) -> Result<Vec<Connection>> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(address).await?);
    }
    Ok(open)
}

/// Closed loop: each connection sends its next request when the last reply is whole. Returns the
/// connections and how many replies came.
pub(crate) async fn closed(
    connections: Vec<Connection>,
    call: &Arc<Call>,
    window: Duration,
) -> Result<(Vec<Connection>, u32)> {
    let until = Instant::now() + window;
    let mut workers = JoinSet::new();
    for mut connection in connections {
        let call = Arc::clone(call);
        workers.spawn(async move {
            let mut replies = 0;
            while Instant::now() < until {
                connection.exchange(&call).await?;
                replies += 1;
            }
            Result::Ok((connection, replies))
        });
    }
    let mut connections = Vec::new();
    let mut replies = 0;
    while let Some(ended) = workers.join_next().await {
        let (connection, its_replies) = ended??;
        connections.push(connection);
        replies += its_replies;
    }
    Ok((connections, replies))
}

/// How long a reply took, from the moment it was due to be asked for.
pub(crate) struct Latency {
    pub(crate) first_byte: Duration,
    pub(crate) whole: Duration,
}

/// Open loop: `rate` requests a second, whether replies come or not.
pub(crate) async fn open(
    address: SocketAddr,
    call: &Arc<Call>,
    rate: u32,
    window: Duration,
) -> Result<Vec<Latency>> {
    let total = u32::try_from(window.as_millis())? * rate / 1000;
    let idle = Arc::new(Mutex::new(Vec::new()));
    let mut in_flight = JoinSet::new();
    let mut latencies = Vec::new();
    let mut dues = metre(Duration::from_secs(1) / rate, total);
    while let Some(due) = dues.recv().await {
        let (call, idle) = (Arc::clone(call), Arc::clone(&idle));
        in_flight.spawn(async move { ask(address, &call, &idle, due).await });
        while let Some(ended) = in_flight.try_join_next() {
            latencies.push(ended??);
        }
        if in_flight.len() > MOST_IN_FLIGHT {
            return Err(format!("{rate} requests a second are too many here").into());
        }
    }
    while let Some(ended) = in_flight.join_next().await {
        latencies.push(ended??);
    }
    Ok(latencies)
}

async fn ask(
    address: SocketAddr,
    call: &Call,
    idle: &Mutex<Vec<Connection>>,
    due: Instant,
) -> Result<Latency> {
    let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut connection = match kept {
        Some(connection) => connection,
        None => Connection::open(address).await?,
    };
    let first = connection.exchange(call).await?;
    let whole = due.elapsed();
    idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    Ok(Latency { first_byte: first.duration_since(due), whole })
}

/// Says when each of `total` requests is due. A thread that sleeps does it: the runtime's own timer
/// has a grain of a millisecond, many times what is measured.
fn metre(interval: Duration, total: u32) -> UnboundedReceiver<Instant> {
    let (says, heard) = tokio::sync::mpsc::unbounded_channel();
    let begun = Instant::now();
    std::thread::spawn(move || {
        for number in 1..=total {
            let due = begun + interval * number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if says.send(due).is_err() {
                return; // nobody listens any more: the benchmark has failed
            }
        }
    });
    heard
}

/// What a way did to the chunks of paced streams.
#[derive(Default)]
pub(crate) struct Passage {
    /// From a chunk's sending to its being seen.
    pub(crate) delays: Vec<Duration>,
    /// By how much the gap between two chunks was longer than when they were sent.
    pub(crate) pauses: Vec<Duration>,
}

impl Passage {
    fn add(&mut self, stamps: &[Stamp]) {
        let delays = stamps.iter().map(|stamp| stamp.seen.duration_since(stamp.sent));
        let before = delays.clone();
        self.delays.extend(delays.clone());
        // A gap grows by as much as its second chunk takes longer than its first.
        let pauses = before.zip(delays.skip(1)).map(|(before, after)| after.saturating_sub(before));
        self.pauses.extend(pauses);
    }

    fn join(&mut self, other: Self) {
        self.delays.extend(other.delays);
        self.pauses.extend(other.pauses);
    }
}

/// Paced streams, two after each other on each of `connections`, `rounds` times. A stall that
/// Nagle's algorithm and delayed acknowledgements make between them comes with the second.
pub(crate) async fn paced(
    address: SocketAddr,
    call: &Arc<Call>,
    origin: Instant,
    connections: u32,
    rounds: u32,
) -> Result<[Passage; 2]> {
    let mut callers = JoinSet::new();
    for number in 0..connections {
        let call = Arc::clone(call);
        callers.spawn(async move {
            // One after the other, or all their chunks would come in one burst.
            tokio::time::sleep(CROWD_STEP * number).await;
            let mut passages = [Passage::default(), Passage::default()];
            for _ in 0..rounds {
                let mut connection = Connection::open(address).await?;
                for passage in &mut passages {
                    let mut reader = Reader::new(origin);
                    let seen = |body: &[u8]| reader.read(body, Instant::now());
                    connection.watch(&call, seen).await?;
                    passage.add(&reader.stamps);
                }
            }
            Result::Ok(passages)
        });
    }
    let mut all = [Passage::default(), Passage::default()];
    while let Some(ended) = callers.join_next().await {
        for (sum, passage) in all.iter_mut().zip(ended??) {
            sum.join(passage);
        }
    }
    Ok(all)
}

/// Many streams open at once.
pub(crate) struct Crowd {
    streams: JoinSet<Result<()>>,
    speaking: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Crowd {
    /// Opens `streams` connections and starts a stream on each.
    pub(crate) async fn gather(address: SocketAddr, call: &Arc<Call>, streams: usize) -> Result<Self> {
        let mut crowd = Self { streams: JoinSet::new(), speaking: Arc::default(), ended: Arc::default() };
        for _ in 0..streams {
            let mut connection = Connection::open(address).await?;
            let call = Arc::clone(call);
            let (speaking, ended) = (Arc::clone(&crowd.speaking), Arc::clone(&crowd.ended));
            crowd.streams.spawn(async move {
                let mut spoken = false;
                let heard = |_: &[u8]| {
                    if !spoken {
                        spoken = true;
                        speaking.fetch_add(1, Ordering::Relaxed);
                    }
                };
                connection.watch(&call, heard).await?;
                ended.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
            tokio::time::sleep(CROWD_STEP).await;
        }
        Ok(crowd)
    }

    /// Streams whose first chunk has come and whose last has not.
    pub(crate) fn open(&self) -> usize {
        self.speaking.load(Ordering::Relaxed) - self.ended.load(Ordering::Relaxed)
    }

    /// Waits until every stream is whole.
    pub(crate) async fn leave(mut self) -> Result<()> {
        while let Some(ended) = self.streams.join_next().await {
            ended??;
        }
        Ok(())
    }
}
