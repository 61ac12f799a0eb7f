//! How far a clone that is to stand alone is: one record of the POOL tree for each, from the wish to its fulfilment, so that
//! a start goes on with it.
//!
//! ```text
//! key   = 0x04 | group u32 BE
//! value = version u8 (1) | reserved 3 B | key (to the end)
//! ```
//! The group's own tables have everything that its ancestors show it of keys before `key`. Nothing depends on the record:
//! without it the group stays a clone.

use crate::ids::GroupId;
use crate::limits::KEY_BYTES_MAX;
use crate::wire::{DecodeError, Put, Take};

const KEY_PROMOTION: u8 = 0x04;
const VERSION: u8 = 1;

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Promotion {
    pub next: Vec<u8>,
}

pub fn promotion_key(group: GroupId) -> Vec<u8> {
    let mut key = vec![KEY_PROMOTION];
    key.extend_from_slice(&group.0.to_be_bytes());
    key
}

impl Promotion {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.next.len());
        out.put_u8(VERSION);
        out.put_bytes(&[0; 3]);
        out.put_bytes(&self.next);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        if take.u8()? != VERSION {
            return Err(DecodeError::Invalid("promotion version"));
        }
        if take.u8()? != 0 || take.u16()? != 0 {
            return Err(DecodeError::Invalid("promotion reserved field"));
        }
        let next = take.rest().to_vec();
        if next.len() > KEY_BYTES_MAX + 1 {
            return Err(DecodeError::Invalid("key length"));
        }
        Ok(Self { next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promotion_is_golden() {
        let promotion = Promotion { next: b"ab".to_vec() };
        let mut golden = vec![1, 0, 0, 0, b'a', b'b'];
        assert_eq!(promotion.encode(), golden);
        assert_eq!(Promotion::decode(&golden), Ok(promotion));
        assert_eq!(Promotion::decode(&golden[..3]), Err(DecodeError::Truncated));
        golden[2] = 1;
        assert!(Promotion::decode(&golden).is_err());
        assert_eq!(promotion_key(GroupId(7)), [4, 0, 0, 0, 7]);
    }
}
