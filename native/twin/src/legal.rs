//! Every difference that the twin test tolerates, with its reason. Nothing is forgiven anywhere else: an
//! entry is either a thing that is not compared, or an op that is not generated because two correct file
//! systems may differ on it.

pub struct Legal {
    pub what: &'static str,
    pub how: &'static str,
    pub reason: &'static str,
}

pub const LEGAL: &[Legal] = &[
    Legal {
        what: "st_ino, st_dev, st_blocks, st_blksize",
        how: "not compared (hard links are compared by which names share an inode)",
        reason: "identity and allocation are the file system's own",
    },
    Legal {
        what: "size of a directory",
        how: "not compared",
        reason: "POSIX leaves it open; ext4 counts blocks that never shrink",
    },
    Legal {
        what: "offsets and order of directory entries",
        how: "listings are compared as sorted sets, directory handles are never seeked",
        reason: "cookies are opaque",
    },
    Legal {
        what: "atime",
        how: "compared only right after it was set",
        reason: "relatime, noatime and lazy updates are mount options",
    },
    Legal {
        what: "values of mtime and ctime that the clock gave",
        how: "mtime: `clock` against an exact value set by utimensat; ctime: whether an op moved it",
        reason: "two calls are never made at the same instant, and clocks have different grains",
    },
    Legal {
        what: "exact places that SEEK_DATA and SEEK_HOLE answer",
        how: "each side's answer is checked against its own bytes, both verdicts are compared",
        reason: "blocks may be preallocated, zeroed or packed; POSIX allows one hole, at the end",
    },
    Legal {
        what: "truncate(path) to the size that the file already has",
        how: "skipped",
        reason: "Linux says times move `if the size changed`; POSIX says always",
    },
    Legal {
        what: "chown(-1, -1)",
        how: "not generated",
        reason: "whether a change of nothing moves ctime is not specified",
    },
    Legal {
        what: "O_DIRECT at unaligned offset, length or memory",
        how: "direct I/O is aligned to 4096",
        reason: "alignment demands belong to the device; FUSE has none",
    },
    Legal {
        what: "offsets of 8 TiB and more",
        how: "not generated",
        reason: "ext4 with 4 KiB blocks ends at 16 TiB - 4 KiB; another limit is no defect",
    },
    Legal {
        what: "xattrs of more than about 3 KiB in sum on one inode",
        how: "values are at most 300 bytes of six names",
        reason: "ext4 keeps them in one block",
    },
    Legal {
        what: "security.* and trusted.* xattrs",
        how: "filtered from lists",
        reason: "security modules label inodes by file system type",
    },
    Legal {
        what: "opening device nodes",
        how: "fifos, sockets and devices are made, renamed, linked and looked at, never opened",
        reason: "the mount option nodev; an open fifo blocks",
    },
    Legal {
        what: "FALLOC_FL_COLLAPSE_RANGE, INSERT_RANGE, FICLONE",
        how: "not generated",
        reason: "FUSE in the kernel refuses them",
    },
    Legal {
        what: "where a short copy_file_range stops",
        how: "repeated until 0, an error or the whole length; the sum is compared",
        reason: "short copies are allowed",
    },
];

/// Printed by `holdfast-twin --legal`.
pub fn table() -> String {
    LEGAL
        .iter()
        .map(|legal| format!("- {}: {}. Reason: {}.\n", legal.what, legal.how, legal.reason))
        .collect()
}
