//! The group's log: the ring (acknowledged), the frames (durable), and what recovery makes of both.

pub mod births;
pub mod log;
pub mod place;
pub mod ring;
pub mod scan;
