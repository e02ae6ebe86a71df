//! The threads `cpra-shard-N`.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use super::StartError;
use crate::os::clock::Clock;
use crate::os::ebpf::ShardSignals;
use crate::os::privilege::Privilege;
use crate::os::shard_loop::{self, ShardBoard, ShardLoop};
use crate::os::uring::{self, UringRing};
use crate::os::wake::WakeFd;
use crate::pipeline::Bell;
use crate::shard::{self, Shard};
use crate::wire::tls::Contexts;
use crate::world::Catalog;

/// One of them, as it runs.
pub(super) struct ShardHandle {
    pub(super) thread: JoinHandle<io::Result<()>>,
    pub(super) board: Arc<ShardBoard>,
    pub(super) bell: Bell,
}

/// What a shard is made from.
pub(super) struct Machine {
    pub(super) settings: shard::Settings,
    pub(super) catalog: Arc<Catalog>,
    pub(super) contexts: Arc<dyn Contexts>,
    pub(super) signals: Option<ShardSignals>,
    pub(super) privilege: Privilege,
    pub(super) rates: shard::Rates,
}

/// A ring belongs to the thread that made it, so that the thread itself says whether it could be made.
pub(super) fn start_shard(
    machine: Machine,
    options: uring::Options,
    mailbox: shard_loop::Mailbox,
    door: WakeFd,
    bell: Bell,
) -> Result<ShardHandle, StartError> {
    let board = Arc::new(ShardBoard::default());
    let (ready, outcome) = mpsc::channel();
    let Machine { settings, catalog, contexts, signals, privilege, rates } = machine;
    let name = format!("cpra-shard-{}", settings.shard);
    let (shard_board, shard_bell) = (Arc::clone(&board), bell.clone());
    let body = move || {
        let ring = match UringRing::new(options) {
            Ok(ring) => ring,
            Err(error) => {
                let _ = ready.send(Err(StartError::from(error)));
                return Ok(());
            }
        };
        let shard = Shard::new(&settings, Arc::clone(&catalog), Clock.now()).secured_by(contexts).bounded_by(rates);
        let driver = ShardLoop::new(shard, ring, mailbox, &door, shard_bell, shard_board)
            .and_then(|driver| driver.signalled(signals))
            .and_then(|mut driver| driver.open_knocker(&catalog).map(|()| driver))
            .and_then(|mut driver| driver.open_pinger(&catalog).map(|means| (driver, means)));
        let driver = match driver {
            Ok((driver, means)) => {
                // The other shards' are alike.
                if let (0, Some([v4, v6])) = (settings.shard, means) {
                    tracing::info!(ipv4 = %v4, ipv6 = %v6, "how echo requests leave");
                }
                driver
            }
            Err(error) => {
                let _ = ready.send(Err(StartError::from(error)));
                return Ok(());
            }
        };
        // A reload brings another one, and this one is to go with it.
        drop(catalog);
        // Its sockets are open.
        if let Err(error) = privilege.give_up() {
            let _ = ready.send(Err(StartError::from(error)));
            return Ok(());
        }
        let _ = ready.send(Ok(()));
        let result = driver.run();
        if let Err(error) = &result {
            tracing::error!(%error, "the ring is broken; no check can run: the process ends");
            // A monitor that dies silently is what people fear most; the supervisor starts a fresh process.
            std::process::abort();
        }
        result
    };
    let thread = thread::Builder::new()
        .name(name)
        .spawn(body)
        .map_err(|error| StartError::Thread { thread: "cpra-shard", error })?;
    match outcome.recv() {
        Ok(Ok(())) => Ok(ShardHandle { thread, board, bell }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError::Descriptor(io::Error::other("a shard ended while it started"))),
    }
}
