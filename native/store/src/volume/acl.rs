//! POSIX ACLs in the kernel's form.
//!
//! ```text
//! acl   = version u32 (2) | entry …
//! entry = tag u16 | permissions u16 | id u32        ids only in USER and GROUP, else 0xffffffff
//! ```
//! Entries come in the order owner, users, group, groups, mask, others; a mask is there when users or groups are. An ACL
//! of just owner, group and others says no more than the mode and is stored as that.

use super::mode;
use crate::api::{FsError, FsResult};
use holdfast_format::inode::InodeRecord;

pub const ACCESS: &[u8] = b"system.posix_acl_access";
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NO_ID: u32 = u32::MAX;
const ENTRY_BYTES: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A valid ACL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acl {
    entries: Vec<Entry>,
}

/// Place of a tag in the order that an ACL must have.
fn rank(tag: u16) -> Option<u8> {
    match tag {
        USER_OBJ => Some(0),
        USER => Some(1),
        GROUP_OBJ => Some(2),
        GROUP => Some(3),
        MASK => Some(4),
        OTHER => Some(5),
        _ => None,
    }
}

fn shift(tag: u16) -> u32 {
    match tag {
        USER_OBJ => 6,
        OTHER => 0,
        _ => 3,
    }
}

impl Acl {
    /// # Errors
    /// `NotSupported` for another version, `Invalid` for what is no ACL.
    pub fn parse(value: &[u8]) -> FsResult<Self> {
        let (version, body) = value.split_first_chunk::<4>().ok_or(FsError::Invalid)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(FsError::NotSupported);
        }
        if body.len() % ENTRY_BYTES != 0 {
            return Err(FsError::Invalid);
        }
        let entries: Vec<Entry> = body
            .chunks_exact(ENTRY_BYTES)
            .map(|entry| Entry {
                tag: u16::from_le_bytes([entry[0], entry[1]]),
                permissions: u16::from_le_bytes([entry[2], entry[3]]),
                id: u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]),
            })
            .collect();
        let acl = Self { entries };
        if acl.is_valid() { Ok(acl) } else { Err(FsError::Invalid) }
    }

    fn is_valid(&self) -> bool {
        let mut last = None;
        for entry in &self.entries {
            let Some(rank) = rank(entry.tag) else { return false };
            let may_repeat = matches!(entry.tag, USER | GROUP);
            if last.is_some_and(|last| rank < last || (rank == last && !may_repeat)) {
                return false;
            }
            if entry.permissions > 7 || (may_repeat && entry.id == NO_ID) {
                return false;
            }
            last = Some(rank);
        }
        let has = |tag| self.entries.iter().any(|entry| entry.tag == tag);
        has(USER_OBJ) && has(GROUP_OBJ) && has(OTHER) && (has(MASK) || !(has(USER) || has(GROUP)))
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.entries.len() * ENTRY_BYTES);
        out.extend_from_slice(&VERSION.to_le_bytes());
        for entry in &self.entries {
            let id = if matches!(entry.tag, USER | GROUP) { entry.id } else { NO_ID };
            out.extend_from_slice(&entry.tag.to_le_bytes());
            out.extend_from_slice(&entry.permissions.to_le_bytes());
            out.extend_from_slice(&id.to_le_bytes());
        }
        out
    }

    /// True when a mode says the same.
    pub fn is_minimal(&self) -> bool {
        self.entries.iter().all(|entry| matches!(entry.tag, USER_OBJ | GROUP_OBJ | OTHER))
    }

    /// Entries that the mode's bits stand for: with a mask, the group's bits are the mask's.
    fn mode_entries(&mut self) -> impl Iterator<Item = &mut Entry> {
        let has_mask = self.entries.iter().any(|entry| entry.tag == MASK);
        let group = if has_mask { MASK } else { GROUP_OBJ };
        self.entries.iter_mut().filter(move |entry| [USER_OBJ, group, OTHER].contains(&entry.tag))
    }

    /// `mode` with the permissions that this ACL gives.
    pub fn mode(&mut self, mode: u32) -> u32 {
        self.mode_entries().fold(mode & !mode::PERMISSIONS, |mode, entry| {
            mode | u32::from(entry.permissions) << shift(entry.tag)
        })
    }

    /// Takes over the permissions of `mode`.
    pub fn chmod(&mut self, mode: u32) {
        for entry in self.mode_entries() {
            entry.permissions = (mode >> shift(entry.tag) & 7) as u16;
        }
    }

    /// Makes a default ACL the access ACL of a node created with `mode`: both give only what the other gives too. Returns
    /// the node's mode.
    pub fn create(&mut self, mode: u32) -> u32 {
        for entry in self.mode_entries() {
            entry.permissions &= (mode >> shift(entry.tag) & 7) as u16;
        }
        self.mode(mode)
    }
}

/// Sets the access ACL: the mode follows. Returns what is to be stored, `None` when the mode says it all.
pub fn apply_access(record: &mut InodeRecord, value: &[u8], kill_sgid: bool) -> FsResult<Option<Vec<u8>>> {
    if mode::is_symlink(record.mode) {
        return Err(FsError::NotSupported);
    }
    let mut acl = Acl::parse(value)?;
    record.mode = acl.mode(record.mode);
    if kill_sgid {
        record.mode &= !mode::SET_GID;
    }
    Ok((!acl.is_minimal()).then(|| acl.encode()))
}

/// A default ACL, for directories only. Without entries it is none.
pub fn check_default(record: &InodeRecord, value: &[u8]) -> FsResult<Option<Vec<u8>>> {
    if !mode::is_directory(record.mode) {
        return Err(FsError::Access);
    }
    if value == VERSION.to_le_bytes() {
        return Ok(None);
    }
    Ok(Some(Acl::parse(value)?.encode()))
}
