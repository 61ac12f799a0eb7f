//! Directories on mounted disks.
use crate::drive::Write;
pub struct RealDrive {}
pub fn write_durable(writes: &[Write<'_>]) -> Vec<std::io::Result<()>> {
    writes.iter().map(|w| w.drive.write(w.file, w.offset, w.slices, crate::Durability::Durable)).collect()
}
