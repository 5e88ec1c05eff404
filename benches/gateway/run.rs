//! One run: everything once, each figure of one way right after that of another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::accounting::{Books, Figures, Hub};
use crate::calls::Kind;
use crate::client::{Call, Connection};
use crate::load::{self, Crowd, Passage};
use crate::metronome;
use crate::procs::{Cores, Process};
use crate::report::{self, Report};
use crate::ways::{Running, Stage, Way};
use crate::{Plan, Result};

/// In closed loop.
const CONNECTIONS: usize = 32;
/// So many that waiting for an acknowledgement does not bound the rate.
const MANY_CONNECTIONS: usize = 256;
/// In open loop, in requests a second: a small part of what any of the ways can do.
const WHOLE_RATE: u32 = 400;
const STREAM_RATE: u32 = 40;
const PACE: Duration = Duration::from_millis(5);
const PACED_CONNECTIONS: u32 = 16;
/// What nobody should notice.
const PAUSE: Duration = Duration::from_millis(1);
const CROWD: usize = 1000;
/// What a process is left alone before its memory is read.
const SETTLE: Duration = Duration::from_millis(500);

/// What a run works with.
pub(crate) struct Run<'a> {
    plan: &'a Plan,
    stage: Stage,
    ways: Vec<(Way, Running)>,
    whole: Arc<Call>,
    stream: Arc<Call>,
    stream_with_usage: Arc<Call>,
}

impl<'a> Run<'a> {
    pub(crate) async fn prepare(plan: &'a Plan, cores: Cores, nginx: bool, number: u32) -> Result<Self> {
        let mut stage = Stage::set(cores, nginx, &[PACE, plan.crowd_pace]).await?;
        // Who comes first changes: a machine that slows down must not always hit the same one.
        let first = number as usize % stage.ways.len();
        stage.ways.rotate_left(first);
        Ok(Self {
            plan,
            whole: stage.chat(Kind::Whole).await?,
            stream: stage.chat(Kind::Stream).await?,
            stream_with_usage: stage.chat(Kind::StreamWithUsage).await?,
            stage,
            ways: Vec::new(),
        })
    }

    pub(crate) async fn measure(mut self, report: &mut Report) -> Result<()> {
        self.starts(report).await?;
        for way in self.stage.ways.clone() {
            self.ways.push((way, self.stage.start(way).await?));
        }
        self.idle(report).await?;
        self.closed("JSON", &self.whole, report).await?;
        self.closed("stream", &self.stream, report).await?;
        let with_usage = &self.stream_with_usage;
        self.closed("stream with usage", with_usage, report).await?;
        self.open("JSON", &self.whole, WHOLE_RATE, report).await?;
        self.open("stream", &self.stream, STREAM_RATE, report).await?;
        self.paced(report).await?;
        self.crowd(report).await
    }

    /// The same gateway with its usage going nowhere, to the ledger, and to a hub.
    pub(crate) async fn accounting(&self, figures: &mut Figures) -> Result<()> {
        let hub = Hub::start().await?;
        for books in Books::ALL {
            let running = self.stage.start_keeping(books, &hub).await?;
            let connections = load::connect(running.chat, MANY_CONNECTIONS).await?;
            let (connections, _) = load::closed(connections, &self.whole, self.plan.warm_up).await?;
            let meter = Meter::start(running.process.as_ref())?;
            let (_, replies) = load::closed(connections, &self.whole, self.plan.window).await?;
            let used = meter.stop()?;
            figures.add("JSON, closed loop: rate (1/s)", books, f64::from(replies) / used.wall.as_secs_f64());
            let cpu = micros(used.cpu.unwrap_or_default());
            figures.add("JSON, closed loop: CPU time each (µs)", books, cpu / f64::from(replies));
            for (call, rate, names) in [
                (&self.whole, WHOLE_RATE, ["JSON: last byte p50 (µs)", "JSON: last byte p99 (µs)"]),
                (&self.stream, STREAM_RATE, ["stream: last byte p50 (µs)", "stream: first byte p50 (µs)"]),
            ] {
                load::open(running.chat, call, rate, self.plan.warm_up).await?;
                let latencies = load::open(running.chat, call, rate, self.plan.window).await?;
                let mut whole: Vec<_> = latencies.iter().map(|taken| micros(taken.whole)).collect();
                let first: Vec<_> = latencies.iter().map(|taken| micros(taken.first_byte)).collect();
                whole.sort_by(f64::total_cmp);
                let second = if rate == STREAM_RATE {
                    report::median(&first).unwrap_or_default()
                } else {
                    whole[whole.len() * 99 / 100]
                };
                figures.add(names[0], books, report::median(&whole).unwrap_or_default());
                figures.add(names[1], books, second);
            }
        }
        Ok(())
    }

    /// From the start of a process to its first answers.
    async fn starts(&self, report: &mut Report) -> Result<()> {
        let mut first_answers = [Vec::new(), Vec::new(), Vec::new()];
        let mut first_chats = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..self.plan.starts {
            for way in self.stage.ways.iter().copied() {
                let running = self.stage.start(way).await?;
                if let Some(process) = &running.process {
                    first_answers[way as usize].push(millis(process.started.elapsed()));
                    let mut connection = Connection::open(running.chat).await?;
                    connection.exchange(&self.whole).await?;
                    first_chats[way as usize].push(millis(process.started.elapsed()));
                }
            }
        }
        let group = "from a process's start";
        for way in self.stage.ways.iter().copied() {
            if let Some(taken) = report::median(&first_answers[way as usize]) {
                report.add(group, "first answer (GET /)", "ms", (way, taken));
            }
            if let Some(taken) = report::median(&first_chats[way as usize]) {
                report.add(group, "first chat after it", "ms", (way, taken));
            }
        }
        Ok(())
    }

    /// Memory after the first chat and before any load.
    async fn idle(&self, report: &mut Report) -> Result<()> {
        for (_, running) in &self.ways {
            let mut connection = Connection::open(running.chat).await?;
            connection.exchange(&self.whole).await?;
        }
        tokio::time::sleep(SETTLE).await;
        self.memory("idle, before load", report)
    }

    fn memory(&self, when: &'static str, report: &mut Report) -> Result<()> {
        for (way, running) in &self.ways {
            if let Some(process) = &running.process {
                report.add("memory", when, "MiB", (*way, resident_mib(process)?));
            }
        }
        Ok(())
    }

    /// As fast as replies come.
    async fn closed(&self, what: &str, call: &Arc<Call>, report: &mut Report) -> Result<()> {
        let group = format!("{what}, closed loop, {CONNECTIONS} connections");
        for (way, running) in &self.ways {
            let connections = load::connect(running.chat, CONNECTIONS).await?;
            let (connections, _) = load::closed(connections, call, self.plan.warm_up).await?;
            let meter = Meter::start(running.process.as_ref())?;
            let (_, replies) = load::closed(connections, call, self.plan.window).await?;
            let used = meter.stop()?;
            let replies = f64::from(replies);
            if let Some(cpu) = used.cpu {
                let busy = 100.0 * cpu.as_secs_f64() / used.wall.as_secs_f64();
                report.add(&group, "CPU time each", "µs", (*way, micros(cpu) / replies));
                report.add(&group, "gateway's core busy", "%", (*way, busy));
            }
            let rate = replies / used.wall.as_secs_f64();
            report.add(&group, "rate", "1/s", (*way, rate));
        }
        Ok(())
    }

    /// At a fixed rate, counted from when each request was due.
    async fn open(&self, what: &str, call: &Arc<Call>, rate: u32, to: &mut Report) -> Result<()> {
        let group = format!("{what}, open loop, {rate} a second");
        for (way, running) in &self.ways {
            load::open(running.chat, call, rate, self.plan.warm_up).await?;
            let latencies = load::open(running.chat, call, rate, self.plan.window).await?;
            let first = latencies.iter().map(|taken| micros(taken.first_byte));
            let names = [("first byte p50", 500), ("first byte p99", 990)];
            to.spread(&group, *way, first.collect(), &names);
            let whole = latencies.iter().map(|taken| micros(taken.whole));
            to.spread(&group, *way, whole.collect(), &[("last byte p50", 500), ("last byte p99", 990)]);
        }
        Ok(())
    }

    /// Streams as a model speaks: each chunk comes by itself.
    async fn paced(&self, report: &mut Report) -> Result<()> {
        let call = self.stage.paced(PACE);
        let (origin, rounds) = (self.stage.metronome.origin, self.plan.rounds);
        for (way, running) in &self.ways {
            let meter = Meter::start(running.process.as_ref())?;
            let passages = load::paced(running.paced, &call, origin, PACED_CONNECTIONS, rounds).await?;
            if let Some(cpu) = meter.stop()?.cpu {
                let group = "stream of 100 chunks, one each 5 ms";
                let each = micros(cpu) / f64::from(2 * PACED_CONNECTIONS * rounds);
                report.add(group, "CPU time each", "µs", (*way, each));
            }
            let [first, second] = passages;
            add_passage("chunks of a connection's first stream", first, *way, report);
            let group = "chunks of a connection's second stream";
            add_passage(group, second, *way, report);
        }
        Ok(())
    }

    /// Memory with many streams open, and when they have ended.
    async fn crowd(&self, report: &mut Report) -> Result<()> {
        let call = self.stage.paced(self.plan.crowd_pace);
        for (way, running) in &self.ways {
            let Some(process) = &running.process else {
                continue;
            };
            let crowd = Crowd::gather(running.paced, &call, CROWD).await?;
            // Well into the streams, and well before the first of them ends.
            tokio::time::sleep(self.plan.crowd_pace * metronome::CHUNKS / 4).await;
            if crowd.open() != CROWD {
                return Err(format!("{} of {CROWD} streams are open", crowd.open()).into());
            }
            let open = resident_mib(process)?;
            report.add("memory", "1,000 streams open", "MiB", (*way, open));
            crowd.leave().await?;
        }
        tokio::time::sleep(SETTLE).await;
        self.memory("after they have ended", report)
    }
}

fn add_passage(group: &str, passage: Passage, way: Way, report: &mut Report) {
    let long = passage.pauses.iter().filter(|pause| **pause > PAUSE);
    let share = 1e3 * ratio(long.count(), passage.pauses.len());
    let delays = passage.delays.into_iter().map(micros).collect();
    let names = [("on the way p50", 500), ("on the way p99", 990)];
    report.spread(group, way, delays, &names);
    let pauses = passage.pauses.into_iter().map(micros).collect();
    let names = [("pause added p50", 500), ("pause added p99", 990), ("longest pause added", 1000)];
    report.spread(group, way, pauses, &names);
    report.add(group, "pauses over 1 ms", "of 1,000", (way, share));
}

/// CPU and wall time between two moments.
struct Meter<'a> {
    process: Option<&'a Process>,
    cpu: Duration,
    begun: Instant,
}

struct Used {
    /// None where there is no gateway.
    cpu: Option<Duration>,
    wall: Duration,
}

impl<'a> Meter<'a> {
    fn start(process: Option<&'a Process>) -> Result<Self> {
        Ok(Self { process, cpu: process.map_or(Ok(Duration::ZERO), Process::cpu)?, begun: Instant::now() })
    }

    fn stop(self) -> Result<Used> {
        let wall = self.begun.elapsed();
        let cpu = self.process.map(Process::cpu).transpose()?;
        Ok(Used { cpu: cpu.map(|cpu| cpu.saturating_sub(self.cpu)), wall })
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn resident_mib(process: &Process) -> Result<f64> {
    let kib = u32::try_from(process.resident_bytes()? / 1024)?;
    Ok(f64::from(kib) / 1024.0)
}

fn ratio(part: usize, all: usize) -> f64 {
    let float = |count: usize| f64::from(u32::try_from(count).expect("no run has billions of chunks"));
    if all == 0 { 0.0 } else { float(part) / float(all) }
}
