//! System calls that Node does not offer.

use crate::call::{Answer, answer, in_thread, system_error};
use crate::convert;
use napi::Env;
use napi::bindgen_prelude::{Object, Uint8Array};
use napi_derive::napi;

#[napi(object)]
pub struct PeerCredentials {
    pub uid: u32,
    pub gid: u32,
    pub pid: i32,
}

/// Who is at the other end of a connected Unix socket, as the kernel noted it at connect (SO_PEERCRED).
#[napi(ts_return_type = "PeerCredentials | Failure")]
pub fn peer_credentials(fd: f64) -> napi::Result<Answer<PeerCredentials>> {
    let fd = convert::whole("fd", fd, i32::MAX as u32)? as i32;
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the pointers are to a live ucred and to its length; the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut credentials).cast(), &raw mut length)
    };
    if result != 0 || length as usize != size_of::<libc::ucred>() {
        let error = std::io::Error::last_os_error();
        return Ok(answer(Err(system_error("asking who is at the other end of a socket", &error))));
    }
    let libc::ucred { pid, uid, gid } = credentials;
    Ok(answer(Ok(PeerCredentials { uid, gid, pid })))
}

/// Takes the exclusive advisory lock (flock) of an open file; false when another holder has it. The lock lives
/// as long as the open file.
#[napi(ts_return_type = "boolean | Failure")]
pub fn lock_exclusive(fd: f64) -> napi::Result<Answer<bool>> {
    let fd = convert::whole("fd", fd, i32::MAX as u32)? as i32;
    // SAFETY: flock takes no pointers; a bad descriptor is an error, not a fault.
    let result = unsafe { libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB) };
    if result == 0 {
        return Ok(answer(Ok(true)));
    }
    let error = std::io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EWOULDBLOCK) {
        return Ok(answer(Ok(false)));
    }
    Ok(answer(Err(system_error("locking", &error))))
}

/// Takes away the mounts of dead daemons at `dir`; fulfils with whether there were any. A mount that answers is left
/// alone.
#[napi(ts_return_type = "Promise<boolean | Failure>")]
pub fn detach_stale<'env>(env: &'env Env, dir: Uint8Array) -> napi::Result<Object<'env>> {
    let dir = convert::path("dir", &dir)?;
    in_thread(env, "detach-stale", move || {
        let what = format!("detaching what a dead daemon left at {}", dir.display());
        holdfast_fuse::detach_stale(&dir).map_err(|error| system_error(&what, &error))
    })
}

/// Version of the addon; the same as the package's.
#[napi]
pub fn addon_version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
