//! Drives, time, chance and threads: the only crate that touches them. Everything above sees these traits, so that
//! the simulated, faulty twin can stand in for each.

pub mod aligned;
pub mod clock;
pub mod drive;
pub mod memory;
mod names;
pub mod patience;
pub mod process;
pub mod real;
pub mod rng;
pub mod sim;
pub mod threads;

pub use aligned::AlignedBuffer;
pub use clock::{Clock, RealClock};
pub use drive::{Answer, Drive, DriveSpace, Durability, FileId, First, Read, Source, Write, prefill};
pub use memory::SharedMemory;
pub use real::{DirectRead, RealDrive};
pub use rng::Rng;
pub use sim::{SimClock, SimDrive, SimWorld};
