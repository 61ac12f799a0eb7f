//! The one place where an error becomes an errno.

use holdfast_store::api::FsError;
use holdfast_store::error::Kind;

/// A positive errno.
pub type Errno = i32;

/// Of [`Kind::WouldWait`], and of nothing else: never sent.
pub const WOULD_WAIT: Errno = libc::EAGAIN;

pub fn errno_of(error: &FsError) -> Errno {
    match error {
        FsError::NotFound => libc::ENOENT,
        FsError::Exists => libc::EEXIST,
        FsError::NotDirectory => libc::ENOTDIR,
        FsError::IsDirectory => libc::EISDIR,
        FsError::NotEmpty => libc::ENOTEMPTY,
        FsError::NameTooLong => libc::ENAMETOOLONG,
        FsError::Invalid => libc::EINVAL,
        FsError::Permission => libc::EPERM,
        FsError::Access => libc::EACCES,
        FsError::TooManyLinks => libc::EMLINK,
        FsError::FileTooBig => libc::EFBIG,
        FsError::NoData => libc::ENODATA,
        FsError::Range => libc::ERANGE,
        FsError::NotSupported => libc::EOPNOTSUPP,
        FsError::CrossDevice => libc::EXDEV,
        FsError::ReadOnly => libc::EROFS,
        FsError::Stale => libc::ESTALE,
        FsError::NoSpace => libc::ENOSPC,
        FsError::Quota => libc::EDQUOT,
        FsError::NoSuchDeviceOrAddress => libc::ENXIO,
        FsError::TooBig => libc::E2BIG,
        FsError::Store(error) => match error.kind {
            Kind::NoSpace => libc::ENOSPC,
            Kind::Fenced => libc::EROFS,
            Kind::WouldWait => WOULD_WAIT,
            _ => libc::EIO,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_store::error::Error;

    /// ENOSYS is sticky per connection: no passing fault may ever become it.
    #[test]
    fn store_errors_choose_among_eio_enospc_erofs() {
        let of = |kind| errno_of(&FsError::Store(Error::new(kind, "x")));
        assert_eq!(of(Kind::NoSpace), libc::ENOSPC);
        assert_eq!(of(Kind::Fenced), libc::EROFS);
        for kind in [Kind::Corrupt, Kind::Closed, Kind::Internal, Kind::Unavailable, Kind::Invalid] {
            assert_eq!(of(kind), libc::EIO);
        }
        assert_eq!(errno_of(&FsError::NotSupported), libc::EOPNOTSUPP);
    }
}
