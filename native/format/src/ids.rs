//! Names of things, one newtype each, so that they cannot be mixed up.

/// Declares a transparent integer newtype.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $int);
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(/// Log sequence number of a group: 1, 2, 3 … without gaps; 0 means "before the first op".
    Lsn, u64);
id!(/// Row of a group's `(epoch, first LSN)` history: which owner wrote it.
    Row, u32);
id!(/// A protection group, numbered within its pool.
    GroupId, u32);
id!(/// A branch of a group: 0 holds what belongs to the group itself, every volume has one of its own.
    BranchId, u32);
id!(/// An inode number; below 2^48 and never reused within a branch. The root is 1.
    Ino, u64);
id!(/// An egroup, numbered within its pool; below 2^48, never reused.
    EgroupId, u64);
id!(/// A table (one sealed piece of a sorted run), numbered within its pool. It is the number of its egroup.
    TableId, u64);

/// The branch that holds records of the group itself (points, volume records).
pub const GROUP_BRANCH: BranchId = BranchId(0);
/// The root directory of every volume.
pub const ROOT_INO: Ino = Ino(1);
/// Largest inode number and egroup id plus one.
pub const ID48_END: u64 = 1 << 48;

/// What makes a version: who wrote it and when, in log order. Ordered by LSN, then by row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Stamp {
    pub lsn: Lsn,
    pub row: Row,
}

/// A random 128-bit identity (pool, drive, group).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Uuid {
    type Err = crate::DecodeError;

    /// What `Display` writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = crate::DecodeError::Invalid("uuid");
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        let mut uuid = [0; 16];
        if digits.len() != 2 * uuid.len() {
            return Err(refused);
        }
        for (byte, pair) in uuid.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or(refused);
            *byte = (nibble(pair[0])? << 4 | nibble(pair[1])?) as u8;
        }
        let uuid = Self(uuid);
        if uuid.to_string() == text { Ok(uuid) } else { Err(refused) }
    }
}

impl std::fmt::Debug for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_read_as_it_is_written() {
        let uuid = Uuid([0x0f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        assert_eq!(uuid.to_string().parse(), Ok(uuid));
        for wrong in ["", "0f010203-0405-0607-0809-0a0b0c0d0e", "0F010203-0405-0607-0809-0a0b0c0d0eff", "0f0102030405-0607-0809-0a0b0c0d0eff"] {
            assert!(wrong.parse::<Uuid>().is_err(), "{wrong}");
        }
    }
}
