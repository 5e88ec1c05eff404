//! The way to a server, which can be shut: connections are cut then, and new ones closed at once.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::support::listener;

pub(super) struct Door {
    pub(super) address: SocketAddr,
    is_open: watch::Sender<bool>,
    _stop: DropGuard,
}

impl Door {
    pub(super) async fn to(server: SocketAddr) -> Self {
        let listener = listener().await;
        let address = listener.local_addr().unwrap();
        let (is_open, open) = watch::channel(true);
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        TaskTracker::new().spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let passing = pass(stream, server, open.clone());
                TaskTracker::new().spawn(stopping.clone().run_until_cancelled_owned(passing));
            }
        }));
        Self { address, is_open, _stop: stop.drop_guard() }
    }

    pub(super) fn set_open(&self, is_open: bool) {
        self.is_open.send_replace(is_open);
    }
}

async fn pass(mut from: TcpStream, server: SocketAddr, mut open: watch::Receiver<bool>) {
    if !*open.borrow_and_update() {
        return;
    }
    let Ok(mut to) = TcpStream::connect(server).await else { return };
    let shut = open.wait_for(|is_open| !is_open);
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
        _ = shut => {}
    }
}
