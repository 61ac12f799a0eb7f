//! The kernel module's switch: a connection is offered rings only if it was on when the mount was made.

use crate::dev::open_device;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";

fn is_on() -> io::Result<bool> {
    Ok(matches!(std::fs::read(SWITCH)?.first(), Some(b'Y' | b'1')))
}

/// Sees to it that the next mount is offered rings. `Err` says why that cannot be.
pub fn enable() -> Result<(), String> {
    // A module that nobody has used yet is loaded by this.
    open_device().map_err(|error| error.to_string())?;
    match is_on() {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("this kernel has no FUSE over io_uring (Linux 6.14, CONFIG_FUSE_IO_URING)".into());
        }
        Err(error) => return Err(format!("cannot read {SWITCH}: {error}")),
    }
    let switched = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(SWITCH)
        .and_then(|mut file| file.write_all(b"Y"));
    match switched.and_then(|()| is_on()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("{SWITCH} stays N")),
        Err(error) => Err(format!("{SWITCH} is N and cannot be set to Y here: {error}")),
    }
}
