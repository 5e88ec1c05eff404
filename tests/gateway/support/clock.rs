//! Time that a test sets, so that a rest of a minute is over without waiting for it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tollgate::app::App;
use tollgate::domain::units::UnixMillis;
use tollgate::memory::SystemClock;
use tollgate::ports::{Clock, UsageSink};
use tollgate::proxy::{Pool, Proxy};

use super::TestGateway;

/// The system's clock, and as much more as the test has set it forward by.
pub(crate) struct SetClock {
    system: SystemClock,
    set: Mutex<Set>,
}

#[derive(Default)]
struct Set {
    forward: Duration,
    /// Where the system's clock was stopped.
    stopped: Option<Duration>,
}

impl SetClock {
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self { system: SystemClock::start(), set: Mutex::default() })
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.set.lock().unwrap().forward += by;
    }

    /// From now on no time passes but what the test sets: what is measured does not depend on how fast the
    /// machine is.
    pub(crate) fn stop(&self) {
        self.set.lock().unwrap().stopped = Some(self.system.elapsed());
    }
}

impl Clock for SetClock {
    /// The calendar is left alone, so that the reports of today have what happens.
    fn now(&self) -> UnixMillis {
        self.system.now()
    }

    fn elapsed(&self) -> Duration {
        let set = self.set.lock().unwrap();
        set.stopped.unwrap_or_else(|| self.system.elapsed()) + set.forward
    }
}

impl TestGateway {
    /// Serves the same gateway once more, by a clock that the test sets, with nothing known of its
    /// backends, its usage kept for the test.
    pub(crate) async fn serve_by(&self, clock: &Arc<SetClock>, usage: Arc<dyn UsageSink>) -> SocketAddr {
        let clock: Arc<dyn Clock> = clock.clone();
        let pool = Pool::new(Arc::clone(&clock));
        let proxy = Proxy { clock, pool, ..self.proxy_with(usage) };
        self.serve(App { proxy: Arc::new(proxy), ..self.app.clone() }).await
    }
}
