//! A directory tree as sorted lines of text: what must be equal when all ops are done.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use crate::op::Path;
use crate::probe::content;
use crate::side::{join, kept_xattrs, stat_text};
use crate::sys::{self, Code};

/// One line a name: attributes, xattrs, symlink target, content digest, and the first name that shares its
/// inode. Reads contents with the page cache dropped, so that the file system answers and not the kernel's
/// memory of it.
pub fn lines(root: i32) -> Result<Vec<String>, (Path, Code)> {
    let mut out = Vec::new();
    let mut first_names = BTreeMap::new();
    let mut todo = vec![Path(b".".to_vec())];
    while let Some(directory) = todo.pop() {
        out.push(line(root, &directory, &mut first_names)?);
        let entries = sys::list(root, &directory).map_err(|code| (directory.clone(), code))?;
        for (name, kind) in entries {
            let path = join(&directory, &name);
            if kind == libc::DT_DIR {
                todo.push(path);
            } else {
                out.push(line(root, &path, &mut first_names)?);
            }
        }
    }
    Ok(out)
}

fn line(root: i32, path: &Path, first_names: &mut BTreeMap<u64, Path>) -> Result<String, (Path, Code)> {
    let fail = |code| (path.clone(), code);
    let stat = sys::stat(root, path, false).map_err(fail)?;
    let mut text = format!("{path:?} {}", stat_text(&stat));
    let kind = stat.st_mode & libc::S_IFMT;
    if kind == libc::S_IFDIR || kind == libc::S_IFREG {
        unlock(root, path);
    }
    if kind != libc::S_IFDIR && stat.st_nlink > 1 {
        let first = first_names.entry(stat.st_ino).or_insert_with(|| path.clone());
        text.push_str(&format!(" same inode as {first:?}"));
    }
    let (code, names) = sys::list_xattr(root, path, 64 << 10);
    if code < 0 {
        text.push_str(&format!(" xattrs: {}", sys::code_text(code)));
    }
    for name in kept_xattrs(&names) {
        let (code, value) = sys::get_xattr(root, path, &Path(name.clone()), 64 << 10);
        let digest = crate::fill::digest(0, &value);
        text.push_str(&format!(" {}={code}:{digest:016x}", name.escape_ascii()));
    }
    if kind == libc::S_IFLNK {
        let (_, target) = sys::read_link(root, path);
        text.push_str(&format!(" to {:?}", Path(target)));
    }
    if kind == libc::S_IFREG {
        let fd = sys::open(root, path, libc::O_RDONLY | libc::O_NOFOLLOW, 0).map_err(fail)?;
        sys::evict(fd.as_raw_fd());
        let content = content(fd.as_raw_fd());
        if content.code < 0 {
            return Err(fail(content.code));
        }
        let digest: String = content.data.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!(" content {digest}"));
    }
    Ok(text)
}

/// Lets a user who is not root into what ops have closed to him. Root needs no leave.
fn unlock(root: i32, path: &Path) {
    // SAFETY: geteuid touches no memory.
    if unsafe { libc::geteuid() } != 0 {
        // A failure shows in the call that follows.
        sys::change_mode(root, path, 0o700);
    }
}

/// Removes everything below a directory.
pub fn clear(root: i32, directory: &Path) -> Result<(), (Path, Code)> {
    unlock(root, directory);
    let entries = sys::list(root, directory).map_err(|code| (directory.clone(), code))?;
    for (name, kind) in entries {
        let path = join(directory, &name);
        let flags = if kind == libc::DT_DIR {
            clear(root, &path)?;
            libc::AT_REMOVEDIR
        } else {
            0
        };
        let code = sys::unlink(root, &path, flags);
        if code < 0 {
            return Err((path, code));
        }
    }
    Ok(())
}
