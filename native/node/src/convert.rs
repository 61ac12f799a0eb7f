//! Arguments that JavaScript's types do not pin down: whole numbers, bytes, paths.

use crate::call::bad_argument;
use napi::bindgen_prelude::BigInt;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// As Linux has it, with the closing NUL.
const PATH_BYTES_MAX: usize = 4096;

/// A whole number in `0..=max`; Node-API itself would wrap negative ones and cut fractions off.
pub fn whole(what: &str, value: f64, max: u32) -> napi::Result<u32> {
    if value.fract() != 0.0 || !(0.0..=f64::from(max)).contains(&value) {
        return Err(bad_argument(format!("{what}: {value} is not a whole number from 0 to {max}")));
    }
    Ok(value as u32)
}

pub fn handle(what: &str, value: f64) -> napi::Result<u32> {
    whole(what, value, u32::MAX)
}

/// A `bigint` that fits 64 bits without a sign.
pub fn unsigned(what: &str, value: &BigInt) -> napi::Result<u64> {
    if value.words.len() > 1 || (value.sign_bit && value.words.iter().any(|word| *word != 0)) {
        return Err(bad_argument(format!("{what}: not a whole number from 0 to 2^64-1")));
    }
    Ok(value.words.first().copied().unwrap_or(0))
}

/// The same, for memory sizes.
pub fn memory(what: &str, value: &BigInt) -> napi::Result<usize> {
    usize::try_from(unsigned(what, value)?).map_err(|_| bad_argument(format!("{what}: too large for this machine")))
}

/// Copies the bytes at once: JavaScript may change or detach the buffer later.
pub fn bytes(what: &str, bytes: &[u8], most: usize) -> napi::Result<Vec<u8>> {
    if bytes.len() > most {
        return Err(bad_argument(format!("{what}: more than {most} bytes")));
    }
    Ok(bytes.to_vec())
}

/// The same of a path.
pub fn path(what: &str, bytes: &[u8]) -> napi::Result<PathBuf> {
    if bytes.is_empty() || bytes.len() >= PATH_BYTES_MAX || bytes.contains(&0) {
        let wanted = format!("a path has 1 to {} bytes and no NUL", PATH_BYTES_MAX - 1);
        return Err(bad_argument(format!("{what}: {wanted} (is the buffer detached?)")));
    }
    Ok(PathBuf::from(OsStr::from_bytes(bytes)))
}
