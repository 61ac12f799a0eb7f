//! Which of the two doors a mount takes, and why.

use crate::TransportWish;
use crate::uring;
use std::io;

/// A door, and the reason for it in words that finish "… because".
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Door {
    pub rings: bool,
    pub why: String,
}

impl Door {
    pub fn dev(why: impl Into<String>) -> Self {
        Self { rings: false, why: why.into() }
    }
    fn uring(why: &str) -> Self {
        Self { rings: true, why: why.into() }
    }
}

/// Nobody asked for either: the door that measures better on a machine like this one.
///
/// Rings ÷ `/dev/fuse`, medians of runs in turn over real volumes on two busy processors (Linux 6.18,
/// `holdfast-load`, RF 1): 4 KiB writes 1.3 (1 job) and 1.5 (4 jobs); creates 1.1 and 3; renames 2 and 2.3;
/// look-ups 1.1; cold random reads 1.4 and 1.6; streams 1.1–1.2; an fsync after each write: as long
/// (median latency), the drive decides. With ring threads that may not be pinned look-ups fell to 0.6.
fn preferred(all_processors_allowed: bool) -> Door {
    if all_processors_allowed {
        Door::uring("its queues measure faster where each has a processor of its own")
    } else {
        // A ring's thread that cannot be pinned to the callers' processor is slower than two readers.
        Door::dev("this process may not run on every processor, and rings are slower than /dev/fuse then")
    }
}

/// Settles the door before the mount is made, and switches the kernel's rings on when they are to be used.
///
/// Errors: `Unsupported` when rings were asked for and cannot be had.
pub fn choose(wish: TransportWish) -> io::Result<Door> {
    let door = match wish {
        TransportWish::Dev => Door::dev("it was asked for"),
        TransportWish::Uring => Door::uring("it was asked for"),
        TransportWish::Auto => preferred(uring::all_allowed()),
    };
    match if door.rings { uring::enable() } else { Ok(()) } {
        Ok(()) => Ok(door),
        Err(why) => without_rings(wish, why),
    }
}

/// Rings cannot be had: that ends a mount that demands them, and is the reason for `/dev/fuse` otherwise.
pub fn without_rings(wish: TransportWish, why: String) -> io::Result<Door> {
    match wish {
        TransportWish::Uring => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("transport uring: {why}")))
        }
        TransportWish::Dev | TransportWish::Auto => Ok(Door::dev(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demand_fails_where_a_wish_falls_back() {
        let refused = without_rings(TransportWish::Uring, "no".into()).expect_err("demanded");
        assert_eq!(
            (refused.kind(), refused.to_string().as_str()),
            (io::ErrorKind::Unsupported, "transport uring: no")
        );
        assert_eq!(without_rings(TransportWish::Auto, "no".into()).expect("a wish"), Door::dev("no"));
        assert_eq!(choose(TransportWish::Dev).expect("always there"), Door::dev("it was asked for"));
    }

    #[test]
    fn threads_that_cannot_be_pinned_are_not_preferred() {
        assert!(preferred(true).rings && !preferred(false).rings);
    }
}
