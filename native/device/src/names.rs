//! Names of a drive's files, one rule for every kind of drive.

use std::io::{self, ErrorKind};

pub(crate) const LOCK_FILE: &str = "lock";
/// Made by the host's file system check; counts as empty.
const HOST_FOLDER: &str = "lost+found";
/// Ends the name under which a file lives until it is whole.
pub(crate) const TEMPORARY_SUFFIX: &str = ".creating";
const NAME_BYTES_MAX: usize = 255 - TEMPORARY_SUFFIX.len();

/// Names that exist beside the drive's files and are not among them.
pub(crate) fn is_reserved(name: &str) -> bool {
    name == LOCK_FILE || name == HOST_FOLDER || name.ends_with(TEMPORARY_SUFFIX)
}

/// `InvalidInput` for names that leave the directory, are too long or are reserved.
pub(crate) fn check_name(name: &str) -> io::Result<()> {
    let odd = name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']);
    if odd || name.len() > NAME_BYTES_MAX || is_reserved(name) {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!("{name:?} cannot name a file of a drive"),
        ));
    }
    Ok(())
}
