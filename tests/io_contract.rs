//! One contract, every ring.
//!
//! The cases say what the shard relies on (`cpra/src/ring.rs`); each is generic over a [`rig::Rig`], which brings a
//! ring and the targets to try it on. `contract!` instantiates all of them for one rig.
//!
//! A case that cannot be tried here says so: `SKIPPED name: reason`. With `CPRA_NO_SKIP=1` that is a failure.

#[path = "io_contract/cases.rs"]
mod cases;
#[path = "io_contract/deck.rs"]
mod deck;
#[path = "io_contract/real.rs"]
mod real;
#[path = "io_contract/rig.rs"]
mod rig;
#[path = "io_contract/servers.rs"]
mod servers;
#[path = "io_contract/sim.rs"]
mod sim;
