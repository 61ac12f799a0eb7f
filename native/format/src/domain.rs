//! Failure domains: how far apart the copies of something have to be. A drive's label is `rack/block/node/drive`; two drives
//! share a domain of a level when their labels are equal up to and with that level's part. At level `drive` every drive is
//! a domain of its own, whatever its label.

/// What must not hold two copies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Hash)]
#[repr(u8)]
pub enum DomainLevel {
    #[default]
    Drive = 0,
    Node = 1,
    Block = 2,
    Rack = 3,
}

impl DomainLevel {
    pub const ALL: [Self; 4] = [Self::Drive, Self::Node, Self::Block, Self::Rack];

    /// From its code, of which only the lowest two bits count.
    pub fn from_bits(bits: u8) -> Self {
        Self::ALL[(bits & 3) as usize]
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Drive => "drive",
            Self::Node => "node",
            Self::Block => "block",
            Self::Rack => "rack",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Parts of a label that tell its domains apart.
    pub fn parts(self) -> usize {
        4 - self as usize
    }
}

/// How many copies, and how far apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Protection {
    pub rf: u8,
    pub domain: DomainLevel,
}

impl From<u8> for Protection {
    /// On any drives.
    fn from(rf: u8) -> Self {
        Self { rf, domain: DomainLevel::Drive }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_names_and_codes() {
        for level in DomainLevel::ALL {
            assert_eq!(DomainLevel::from_name(level.name()), Some(level));
            assert_eq!(DomainLevel::from_bits(level as u8), level);
        }
        assert_eq!(DomainLevel::from_name("room"), None);
        assert_eq!((DomainLevel::Rack.parts(), DomainLevel::Drive.parts()), (1, 4));
    }
}
