//! Egroups: what the pool knows of each (records of the POOL tree), and the footer that lets a data egroup be
//! understood without any metadata (STORE.md 4, 8–10).
//!
//! ```text
//! key    = 0x01 | egroup u48 BE                        -> EgroupRecord
//!        | 0x02 | egroup u48 BE | page u16 BE          -> share count u32: references beyond the liveness
//!        bit
//! record = state u8 | rf u8 | flags u8 | copies u8 | incarnation u64 | pages u16
//!        | live: length u8, bytes | copies × (drive u16, slot u32)
//!        | sources u16, sources × egroup u48 | parts u8, parts × (target u48, base u16, moved: length u8,
//!        bytes)
//! footer = births × 40 B, zeroes up to 64 B before the slot's end | trailer (64 B, the last of the slot)
//! birth  = group u32 | branch u32 | inode u64 | block u32 | row u32 | lsn u64 | checksum u64
//! trailer = magic u64 | pool uuid 16 B | egroup u64 | incarnation u64 | pages u32 | reserved u32
//!         | births checksum u64 | trailer checksum u64 (over the 56 bytes before)
//! ```
//! A bitmap's trailing zero bytes are not stored. `moved` maps its n-th set bit to page `base + n` of
//! `target`.
//! `flags`: bit 0, some page may have a share count; bits 1 and 2, the domain level: 0 drive, 1 node, 2 block, 3 rack.
//! `live` names the pages that are referenced *under this egroup's name*, also when it has moved.

use crate::checksum::checksum;
use crate::domain::{DomainLevel, Protection};
use crate::ids::{BranchId, EgroupId, GroupId, Ino, Lsn, Row, Stamp, Uuid};
use crate::limits::{BLOCK_BYTES, COPIES_MAX, EGROUP_PAGES_MAX, MOVED_PARTS_MAX, MOVED_SOURCES_MAX};
use crate::table::SlotAddress;
use crate::wire::{DecodeError, Put, Take};

const KEY_EGROUP: u8 = 0x01;
const KEY_SHARE: u8 = 0x02;

/// Some page may have a share count: look before clearing its bit.
const FLAG_SHARED: u8 = 1;
/// Bits 1 and 2 of `flags`: the domain level.
const FLAGS_DOMAIN_SHIFT: u8 = 1;
const FLAGS_DOMAIN: u8 = 3 << FLAGS_DOMAIN_SHIFT;
/// Cleaning filled it with pages that mostly history named: it empties by itself as ticks go.
const FLAG_PAST: u8 = 8;

/// Bit set over the pages of one egroup.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PageSet {
    /// Without trailing zero bytes.
    bytes: Vec<u8>,
}

impl std::fmt::Debug for PageSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl PageSet {
    pub fn contains(&self, page: u16) -> bool {
        self.bytes.get(page as usize / 8).is_some_and(|byte| byte >> (page % 8) & 1 == 1)
    }
    pub fn insert(&mut self, page: u16) {
        debug_assert!((page as usize) < EGROUP_PAGES_MAX);
        let at = page as usize / 8;
        if self.bytes.len() <= at {
            self.bytes.resize(at + 1, 0);
        }
        self.bytes[at] |= 1 << (page % 8);
    }
    pub fn remove(&mut self, page: u16) {
        if let Some(byte) = self.bytes.get_mut(page as usize / 8) {
            *byte &= !(1 << (page % 8));
        }
        while self.bytes.last() == Some(&0) {
            self.bytes.pop();
        }
    }
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    pub fn len(&self) -> usize {
        self.bytes.iter().map(|byte| byte.count_ones() as usize).sum()
    }
    /// Number of members below `page`.
    pub fn rank(&self, page: u16) -> u16 {
        let whole = (page as usize / 8).min(self.bytes.len());
        let mut rank: u32 = self.bytes[..whole].iter().map(|byte| byte.count_ones()).sum();
        if let Some(byte) = self.bytes.get(page as usize / 8) {
            rank += (byte & ((1u16 << (page % 8)) - 1) as u8).count_ones();
        }
        rank as u16
    }
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.bytes.len() as u16 * 8).filter(|page| self.contains(*page))
    }
    /// Whether every member is one of `other`, too.
    pub fn is_within(&self, other: &Self) -> bool {
        self.iter().all(|page| other.contains(page))
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.bytes.len() as u8);
        out.put_bytes(&self.bytes);
    }
    fn take(take: &mut Take<'_>) -> Result<Self, DecodeError> {
        let len = take.u8()? as usize;
        if len > EGROUP_PAGES_MAX / 8 {
            return Err(DecodeError::Invalid("page set length"));
        }
        let bytes = take.bytes(len)?.to_vec();
        if bytes.last() == Some(&0) {
            return Err(DecodeError::Invalid("page set with trailing zeroes"));
        }
        Ok(Self { bytes })
    }
}

impl FromIterator<u16> for PageSet {
    fn from_iter<I: IntoIterator<Item = u16>>(pages: I) -> Self {
        let mut set = Self::default();
        pages.into_iter().for_each(|page| set.insert(page));
        set
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EgroupState {
    /// A segment of some group's log; frees nothing.
    Log = 1,
    /// Sealed; lies at `copies`.
    Data = 2,
    /// Has no slot any more: its pages lie where `parts` says.
    Moved = 3,
}

/// The `n`-th page of `moved` lies at page `base + n` of `target`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MovedPart {
    pub target: EgroupId,
    pub base: u16,
    pub moved: PageSet,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EgroupRecord {
    pub state: EgroupState,
    /// Copies that were asked for; `copies` may be fewer after a loss.
    pub rf: u8,
    /// How far apart they were to be.
    pub domain: DomainLevel,
    pub shared: bool,
    /// Cleaning put pages here that mostly only history named: worth waiting for. A hint.
    pub past: bool,
    /// Distinguishes the uses of a slot.
    pub incarnation: u64,
    /// Payload pages of a data egroup; all pages of the slot for a log segment.
    pub pages: u16,
    pub live: PageSet,
    pub copies: Vec<SlotAddress>,
    /// Not empty: made by cleaning, its pages are named only through these moved egroups.
    pub sources: Vec<EgroupId>,
    pub parts: Vec<MovedPart>,
}

pub fn egroup_key(egroup: EgroupId) -> Vec<u8> {
    let mut key = vec![KEY_EGROUP];
    key.extend_from_slice(&egroup.0.to_be_bytes()[2..]);
    key
}

/// `[from, until)` of all egroup records from `egroup` on.
pub fn egroup_range(from: EgroupId) -> (Vec<u8>, Vec<u8>) {
    (egroup_key(from), vec![KEY_SHARE])
}

/// The egroup of an egroup record's key; `None` for any other key.
pub fn egroup_of_key(key: &[u8]) -> Option<EgroupId> {
    let (kind, rest) = key.split_first()?;
    let id: [u8; 6] = rest.try_into().ok()?;
    let mut full = [0u8; 8];
    full[2..].copy_from_slice(&id);
    (*kind == KEY_EGROUP).then(|| EgroupId(u64::from_be_bytes(full)))
}

pub fn share_key(egroup: EgroupId, page: u16) -> Vec<u8> {
    let mut key = vec![KEY_SHARE];
    key.extend_from_slice(&egroup.0.to_be_bytes()[2..]);
    key.extend_from_slice(&page.to_be_bytes());
    key
}

pub fn share_encode(count: u32) -> Vec<u8> {
    count.to_le_bytes().to_vec()
}

pub fn share_decode(value: &[u8]) -> Result<u32, DecodeError> {
    let mut take = Take::new(value);
    let count = take.u32()?;
    take.end()?;
    Ok(count)
}

pub(crate) fn put_copies(out: &mut Vec<u8>, copies: &[SlotAddress]) {
    for copy in copies {
        out.put_u16(copy.drive);
        out.put_u32(copy.slot);
    }
}

pub(crate) fn take_copies(take: &mut Take<'_>, count: usize) -> Result<Vec<SlotAddress>, DecodeError> {
    if count > COPIES_MAX {
        return Err(DecodeError::Invalid("number of copies"));
    }
    (0..count).map(|_| Ok(SlotAddress { drive: take.u16()?, slot: take.u32()? })).collect()
}

impl EgroupRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.pages as usize / 8);
        out.put_u8(self.state as u8);
        out.put_u8(self.rf);
        let flags = (self.shared as u8 * FLAG_SHARED) | (self.past as u8 * FLAG_PAST);
        out.put_u8(flags | ((self.domain as u8) << FLAGS_DOMAIN_SHIFT));
        out.put_u8(self.copies.len() as u8);
        out.put_u64(self.incarnation);
        out.put_u16(self.pages);
        self.live.encode(&mut out);
        put_copies(&mut out, &self.copies);
        out.put_u16(self.sources.len() as u16);
        self.sources.iter().for_each(|source| out.put_u48(source.0));
        out.put_u8(self.parts.len() as u8);
        for part in &self.parts {
            out.put_u48(part.target.0);
            out.put_u16(part.base);
            part.moved.encode(&mut out);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        let state = match take.u8()? {
            1 => EgroupState::Log,
            2 => EgroupState::Data,
            3 => EgroupState::Moved,
            _ => return Err(DecodeError::Invalid("egroup state")),
        };
        let rf = take.u8()?;
        let flags = take.u8()?;
        if flags & !(FLAG_SHARED | FLAGS_DOMAIN | FLAG_PAST) != 0 || rf == 0 || rf as usize > COPIES_MAX {
            return Err(DecodeError::Invalid("egroup flags or rf"));
        }
        let copies_len = take.u8()? as usize;
        let incarnation = take.u64()?;
        let pages = take.u16()?;
        if pages as usize > EGROUP_PAGES_MAX {
            return Err(DecodeError::Invalid("egroup pages"));
        }
        let live = PageSet::take(&mut take)?;
        let copies = take_copies(&mut take, copies_len)?;
        if copies.is_empty() != (state == EgroupState::Moved) {
            return Err(DecodeError::Invalid("egroup copies"));
        }
        let sources_len = take.u16()? as usize;
        if sources_len > MOVED_SOURCES_MAX {
            return Err(DecodeError::Invalid("number of sources"));
        }
        let sources =
            (0..sources_len).map(|_| Ok(EgroupId(take.u48()?))).collect::<Result<_, DecodeError>>()?;
        let parts_len = take.u8()? as usize;
        if parts_len > MOVED_PARTS_MAX || (parts_len > 0) != (state == EgroupState::Moved) {
            return Err(DecodeError::Invalid("moved parts"));
        }
        let parts = (0..parts_len)
            .map(|_| {
                let part = MovedPart {
                    target: EgroupId(take.u48()?),
                    base: take.u16()?,
                    moved: PageSet::take(&mut take)?,
                };
                if part.base as usize + part.moved.len() > EGROUP_PAGES_MAX {
                    return Err(DecodeError::Invalid("moved pages"));
                }
                Ok(part)
            })
            .collect::<Result<_, DecodeError>>()?;
        take.end()?;
        let (shared, past) = (flags & FLAG_SHARED != 0, flags & FLAG_PAST != 0);
        let domain = DomainLevel::from_bits(flags >> FLAGS_DOMAIN_SHIFT);
        Ok(Self { state, rf, domain, shared, past, incarnation, pages, live, copies, sources, parts })
    }

    pub fn protection(&self) -> Protection {
        Protection { rf: self.rf, domain: self.domain }
    }

    /// Where a page of a moved egroup lies now.
    pub fn moved_to(&self, page: u16) -> Option<(EgroupId, u16)> {
        let part = self.parts.iter().find(|part| part.moved.contains(page))?;
        Some((part.target, part.base + part.moved.rank(page)))
    }
}

/// What a page is: the name that it keeps through moves and shares (I-5). Group 0: not known (moved out of a
/// log segment,
/// whose frames held the names).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Birth {
    pub group: GroupId,
    pub branch: BranchId,
    pub ino: Ino,
    pub block: u32,
    pub stamp: Stamp,
}

pub const BIRTH_BYTES: usize = 40;
pub const TRAILER_BYTES: usize = 64;
const TRAILER_MAGIC: u64 = u64::from_le_bytes(*b"HFegroup");

/// Footer of a sealed data egroup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Footer {
    pub pool: Uuid,
    pub egroup: EgroupId,
    pub incarnation: u64,
    /// One per payload page: its birth name and the checksum of its content.
    pub births: Vec<(Birth, u64)>,
}

/// Bytes at the end of the slot that describe `pages` payload pages: whole blocks.
pub const fn footer_bytes(pages: usize) -> usize {
    (pages * BIRTH_BYTES + TRAILER_BYTES).div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

/// Most payload pages that fit a slot together with their footer.
pub const fn data_pages_max(slot_bytes: usize) -> usize {
    let mut pages = slot_bytes / BLOCK_BYTES;
    while pages * BLOCK_BYTES + footer_bytes(pages) > slot_bytes {
        pages -= 1;
    }
    pages
}

impl Footer {
    /// `footer_bytes(births.len())` bytes, for the very end of the slot.
    pub fn encode(&self) -> Vec<u8> {
        let total = footer_bytes(self.births.len());
        let mut out = Vec::with_capacity(total);
        for (birth, sum) in &self.births {
            out.put_u32(birth.group.0);
            out.put_u32(birth.branch.0);
            out.put_u64(birth.ino.0);
            out.put_u32(birth.block);
            out.put_u32(birth.stamp.row.0);
            out.put_u64(birth.stamp.lsn.0);
            out.put_u64(*sum);
        }
        let births_sum = checksum(&out);
        out.resize(total - TRAILER_BYTES, 0);
        out.put_u64(TRAILER_MAGIC);
        out.put_bytes(&self.pool.0);
        out.put_u64(self.egroup.0);
        out.put_u64(self.incarnation);
        out.put_u32(self.births.len() as u32);
        out.put_u32(0);
        out.put_u64(births_sum);
        let sum = checksum(&out[total - TRAILER_BYTES..]);
        out.put_u64(sum);
        out
    }

    /// Decodes the end of a slot; `bytes` holds at least the whole footer.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let trailer_at = bytes.len().checked_sub(TRAILER_BYTES).ok_or(DecodeError::Truncated)?;
        let mut take = Take::new(&bytes[trailer_at..]);
        if take.u64()? != TRAILER_MAGIC {
            return Err(DecodeError::Invalid("egroup trailer magic"));
        }
        let pool = take.uuid()?;
        let egroup = EgroupId(take.u64()?);
        let incarnation = take.u64()?;
        let pages = take.u32()? as usize;
        let reserved = take.u32()?;
        let births_sum = take.u64()?;
        if take.u64()? != checksum(&bytes[trailer_at..bytes.len() - 8]) {
            return Err(DecodeError::Checksum);
        }
        if pages > EGROUP_PAGES_MAX || reserved != 0 {
            return Err(DecodeError::Invalid("egroup trailer"));
        }
        let start = bytes.len().checked_sub(footer_bytes(pages)).ok_or(DecodeError::Truncated)?;
        let births = &bytes[start..start + pages * BIRTH_BYTES];
        if checksum(births) != births_sum {
            return Err(DecodeError::Checksum);
        }
        let births = births.chunks_exact(BIRTH_BYTES).map(take_birth).collect::<Result<_, _>>()?;
        Ok(Self { pool, egroup, incarnation, births })
    }
}

fn take_birth(bytes: &[u8]) -> Result<(Birth, u64), DecodeError> {
    let mut take = Take::new(bytes);
    let group = GroupId(take.u32()?);
    let branch = BranchId(take.u32()?);
    let ino = Ino(take.u64()?);
    let block = take.u32()?;
    let row = Row(take.u32()?);
    let lsn = Lsn(take.u64()?);
    let sum = take.u64()?;
    Ok((Birth { group, branch, ino, block, stamp: Stamp { lsn, row } }, sum))
}
