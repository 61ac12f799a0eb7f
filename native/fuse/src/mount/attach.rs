//! Mounting and unmounting: mount(2) as root, else the setuid helper `fusermount3`; and aborting a stuck
//! connection.

use crate::MountOptions;
use crate::dev::open_device;
use std::ffi::{CStr, CString, OsString};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Type as mountinfo shows it.
pub const MOUNT_KIND: &str = "fuse.holdfast";
const HELPER: &str = "fusermount3";

pub fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path with a NUL byte"))
}

fn is_root() -> bool {
    // SAFETY: geteuid touches no memory.
    unsafe { libc::geteuid() == 0 }
}

fn named(error: io::Error, what: &str, dir: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", dir.display()))
}

/// Attaches a new connection at `dir` and returns it. INIT is not read yet.
pub fn mount(dir: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    if is_root() { mount_direct(dir, options) } else { mount_by_helper(dir, options) }
}

fn mount_direct(dir: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let device = open_device()?;
    let mut flags = 0;
    let chosen = [
        (!options.suid, libc::MS_NOSUID),
        (!options.dev, libc::MS_NODEV),
        (options.read_only, libc::MS_RDONLY),
        (options.noatime, libc::MS_NOATIME),
        (options.noexec, libc::MS_NOEXEC),
    ];
    for (wanted, flag) in chosen {
        flags |= if wanted { flag } else { 0 };
    }
    // SAFETY: these two touch no memory.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let mut data =
        format!("fd={},rootmode=40000,user_id={uid},group_id={gid},default_permissions", device.as_raw_fd());
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let text = |value: &str| {
        CString::new(value)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a mount source with a NUL byte"))
    };
    let (source, target, kind, data) =
        (text(&options.source)?, c_path(dir)?, text(MOUNT_KIND)?, text(&data)?);
    // SAFETY: all four strings end with NUL and outlive the call.
    let result =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    if result == 0 { Ok(device) } else { Err(named(io::Error::last_os_error(), "cannot mount at", dir)) }
}

/// Runs the helper and waits for it. `inherited`: the one descriptor that it gets.
fn run_helper(arguments: &[OsString], inherited: Option<RawFd>) -> io::Result<Output> {
    let mut command = Command::new(HELPER);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    if let Some(descriptor) = inherited {
        command.env("_FUSE_COMMFD", descriptor.to_string());
        let keep = move || {
            // SAFETY: fcntl is async-signal-safe, and the descriptor is open in the child: it was in the
            // parent.
            if unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        };
        // SAFETY: `keep` calls only fcntl, allocates nothing and takes no lock.
        unsafe { command.pre_exec(keep) };
    }
    command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            io::ErrorKind::NotFound,
            format!("{HELPER} is missing and only root can mount without it: install the package fuse3"),
        ),
        _ => error,
    })
}

fn helper_failed(output: &Output, what: &str, dir: &Path) -> io::Error {
    let said = String::from_utf8_lossy(&output.stderr);
    let kind = match () {
        () if said.contains("busy") => io::ErrorKind::ResourceBusy,
        () if said.contains("ermission denied") || said.contains("not permitted") => {
            io::ErrorKind::PermissionDenied
        }
        () => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("{what} {}: {}", dir.display(), said.trim()))
}

/// Options as the helper takes them: commas and backslashes in the source are escaped.
fn helper_options(options: &MountOptions) -> String {
    let mut source = String::new();
    for character in options.source.chars() {
        if matches!(character, ',' | '\\') {
            source.push('\\');
        }
        source.push(character);
    }
    let mut text = format!("fsname={source},subtype=holdfast,default_permissions");
    let chosen = [
        (options.allow_other, "allow_other"),
        (options.suid, "suid"),
        (!options.suid, "nosuid"),
        (options.dev, "dev"),
        (!options.dev, "nodev"),
        (options.read_only, "ro"),
        (options.noatime, "noatime"),
        (options.noexec, "noexec"),
    ];
    for (_, name) in chosen.iter().filter(|(wanted, _)| *wanted) {
        text.push(',');
        text.push_str(name);
    }
    text
}

fn mount_by_helper(dir: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let mut pair: [RawFd; 2] = [-1; 2];
    // SAFETY: `pair` has room for both descriptors.
    let made = unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr())
    };
    if made != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: socketpair has just made both; nobody else owns them.
    let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])) };
    let arguments = ["-o".into(), helper_options(options).into(), "--".into(), dir.as_os_str().to_owned()];
    let output = run_helper(&arguments, Some(theirs.as_raw_fd()))?;
    if !output.status.success() {
        return Err(helper_failed(&output, "cannot mount at", dir));
    }
    drop(theirs);
    receive_descriptor(&ours)
}

/// Takes the one descriptor that the helper sends (SCM_RIGHTS, one byte of data).
fn receive_descriptor(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let nothing = || io::Error::other(format!("{HELPER} sent no descriptor"));
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // u64s, so that the control message is aligned.
    let mut control = [0_u64; 8];
    // SAFETY: msghdr is plain data for which zeros are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: `message` points at a byte and a control buffer that outlive the call.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `message` was filled by recvmsg; the macros stay within msg_controllen.
    let descriptor = unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        if header.is_null()
            || (*header).cmsg_level != libc::SOL_SOCKET
            || (*header).cmsg_type != libc::SCM_RIGHTS
            || ((*header).cmsg_len as usize) < libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize
        {
            return Err(nothing());
        }
        libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()
    };
    if descriptor < 0 {
        return Err(nothing());
    }
    // SAFETY: the kernel has just installed it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Unmounts what lies on top at `dir`. Busy: `ErrorKind::ResourceBusy`. With `detach` it disappears from the
/// tree at once and ends when its last user has gone.
pub fn unmount(dir: &Path, detach: bool) -> io::Result<()> {
    let failed = |error: io::Error| match error.raw_os_error() {
        Some(libc::EBUSY) => io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!(
                "{} is in use: files are open below it, or a program's working directory is",
                dir.display()
            ),
        ),
        _ => named(error, "cannot unmount", dir),
    };
    if is_root() {
        let target = c_path(dir)?;
        let flags = libc::UMOUNT_NOFOLLOW | if detach { libc::MNT_DETACH } else { 0 };
        // SAFETY: `target` ends with NUL and outlives the call.
        let result = unsafe { libc::umount2(target.as_ptr(), flags) };
        return if result == 0 { Ok(()) } else { Err(failed(io::Error::last_os_error())) };
    }
    let mut arguments: Vec<OsString> = vec!["-u".into()];
    if detach {
        arguments.push("-z".into());
    }
    arguments.extend(["--".into(), dir.as_os_str().to_owned()]);
    let output = run_helper(&arguments, None)?;
    if output.status.success() { Ok(()) } else { Err(helper_failed(&output, "cannot unmount", dir)) }
}

/// Has the kernel write back all dirty pages of the file system at `dir`, and waits for it.
pub fn write_back(dir: &Path) -> io::Result<()> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC | libc::O_DIRECTORY).open(dir);
    let root = opened.map_err(|error| named(error, "cannot open", dir))?;
    // SAFETY: the descriptor is open for the call's length; syncfs touches no memory.
    let result = unsafe { libc::syncfs(root.as_raw_fd()) };
    if result == 0 { Ok(()) } else { Err(named(io::Error::last_os_error(), "cannot write back", dir)) }
}

/// Aborts a connection through fusectl: every request in it fails at once, and its readers end.
pub fn abort(connection: &str) -> io::Result<()> {
    let path = format!("/sys/fs/fuse/connections/{connection}/abort");
    let opened = OpenOptions::new().write(true).custom_flags(libc::O_CLOEXEC).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_root() => {
            open_private_control(connection)?
        }
        Err(error) => {
            let message = format!("cannot abort FUSE connection {connection} (is fusectl mounted?): {error}");
            return Err(io::Error::new(error.kind(), message));
        }
    };
    file.write_all(b"1")
}

/// Where fusectl is not mounted (containers), root takes an instance that is attached nowhere.
fn open_private_control(connection: &str) -> io::Result<std::fs::File> {
    const FSOPEN_CLOEXEC: u32 = 1;
    const FSCONFIG_CMD_CREATE: u32 = 6;
    const FSMOUNT_CLOEXEC: u32 = 1;
    let owned = |result: libc::c_long| match RawFd::try_from(result) {
        // SAFETY: a system call has just returned this descriptor to us.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    };
    let name: &CStr = c"fusectl";
    // SAFETY: `name` is a C string.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) })?;
    let nothing = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes neither key nor value.
    let created = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, nothing, nothing, 0)
    };
    if created != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fsmount takes only numbers.
    let root = owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })?;
    let path = CString::new(format!("{connection}/abort"))
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `path` is a C string, `root` an open directory.
    let file = unsafe { libc::openat(root.as_raw_fd(), path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    owned(file.into()).map(std::fs::File::from)
}

/// Best effort: INIT cannot raise readahead above the kernel's default, sysfs can.
pub fn raise_readahead(device: &str, bytes: usize) {
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Ok(mut file) = OpenOptions::new().write(true).custom_flags(libc::O_CLOEXEC).open(path) {
        let _only_slower = file.write_all((bytes / 1024).to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_cannot_smuggle_options_into_the_helper() {
        let options = MountOptions { source: "a,allow_other\\,suid".into(), ..MountOptions::default() };
        let text = helper_options(&options);
        let expected = "fsname=a\\,allow_other\\\\\\,suid,subtype=holdfast,default_permissions,nosuid,nodev";
        assert_eq!(text, expected);
    }
}
