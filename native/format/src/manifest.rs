//! The manifest: the pool's root of trust, a snapshot followed by edits (STORE.md 11, 12).
//!
//! ```text
//! area   = header record | snapshot record | edit records …     each padded to 4096 B
//! record = magic u32 | kind u8 | reserved 3 B | pool uuid 16 B | generation u64 | sequence u64 | membership
//! u64
//!        | previous checksum u64 | body bytes u32 | reserved u32 | checksum u64 | body
//! body   = items: tag u8 | length u32 | payload
//! ```
//! A record's checksum is over the 64 bytes before it and the body. `previous checksum` chains it to the
//! record
//! before; a header starts the chain of its area with 0. `sequence` grows by one from snapshot to edit to
//! edit, and on into the next area's snapshot (the header bears its snapshot's sequence).
//! Items say what is, never what changed, so that applying one twice does no harm.

use crate::checksum::checksum_bound;
use crate::egroup::{put_copies, take_copies};
use crate::ids::{EgroupId, GroupId, Lsn, Row, TableId, Uuid};
use crate::limits::{BLOCK_BYTES, COPIES_MAX, DOMAIN_BYTES_MAX, DRIVES_PER_POOL_MAX, GROUP_NAME_BYTES_MAX};
use crate::table::{SlotAddress, TableDesc};
use crate::wire::{DecodeError, Put, Take};

pub const RECORD_HEADER_BYTES: usize = 72;
const MAGIC: u32 = u32::from_le_bytes(*b"HFmn");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RecordKind {
    Header = 1,
    Snapshot = 2,
    Edit = 3,
}

/// Head of a manifest record: taken from bytes, not yet trusted; [`RecordHead::verify`] makes it so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHead {
    pub kind: RecordKind,
    pub pool: Uuid,
    pub generation: u64,
    pub sequence: u64,
    pub membership: u64,
    pub previous: u64,
    pub body_bytes: u32,
    pub checksum: u64,
}

/// Bytes of a record on the drive.
pub const fn padded_bytes(body_bytes: usize) -> usize {
    (RECORD_HEADER_BYTES + body_bytes).div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

impl RecordHead {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u32(MAGIC);
        out.put_u8(self.kind as u8);
        out.put_bytes(&[0; 3]);
        out.put_bytes(&self.pool.0);
        out.put_u64(self.generation);
        out.put_u64(self.sequence);
        out.put_u64(self.membership);
        out.put_u64(self.previous);
        out.put_u32(self.body_bytes);
        out.put_u32(0);
    }

    /// The whole padded record and its checksum. `body_bytes` and `checksum` of `self` are filled in here.
    pub fn encode(mut self, body: &[u8]) -> (Vec<u8>, u64) {
        self.body_bytes = body.len() as u32;
        let mut out = Vec::with_capacity(padded_bytes(body.len()));
        self.put(&mut out);
        let sum = checksum_bound(checksum_bound(0, &out), body);
        out.put_u64(sum);
        out.put_bytes(body);
        out.resize(padded_bytes(body.len()), 0);
        (out, sum)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        if take.u32()? != MAGIC {
            return Err(DecodeError::Invalid("manifest record magic"));
        }
        let kind = match take.u8()? {
            1 => RecordKind::Header,
            2 => RecordKind::Snapshot,
            3 => RecordKind::Edit,
            _ => return Err(DecodeError::Invalid("manifest record kind")),
        };
        if take.bytes(3)? != [0; 3] {
            return Err(DecodeError::Invalid("manifest record reserved bytes"));
        }
        let pool = take.uuid()?;
        let generation = take.u64()?;
        let sequence = take.u64()?;
        let membership = take.u64()?;
        let previous = take.u64()?;
        let body_bytes = take.u32()?;
        if take.u32()? != 0 {
            return Err(DecodeError::Invalid("manifest record reserved bytes"));
        }
        let checksum = take.u64()?;
        Ok(Self { kind, pool, generation, sequence, membership, previous, body_bytes, checksum })
    }

    /// Whether `body` is what this head was written with.
    pub fn verify(&self, body: &[u8]) -> Result<(), DecodeError> {
        let mut head = Vec::with_capacity(RECORD_HEADER_BYTES);
        self.put(&mut head);
        let sum = checksum_bound(checksum_bound(0, &head), body);
        if sum == self.checksum && body.len() == self.body_bytes as usize {
            Ok(())
        } else {
            Err(DecodeError::Checksum)
        }
    }
}

/// A drive as the pool knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DriveEntry {
    pub index: u16,
    pub uuid: Uuid,
    /// `rack/block/node/drive`.
    pub domain: String,
    /// Bytes that the pool may use of it; 0: removed for good, its index names nothing any more.
    pub bytes: u64,
    /// It failed a write: nothing on it counts.
    pub out: bool,
    /// To be emptied and removed: still read, but nothing new comes here.
    pub draining: bool,
    /// Membership since which it has been away; 0: it is there. A drive that returns with this membership or
    /// a newer
    /// one was used apart from the others.
    pub absent_since: u64,
}

/// One owner start: `(epoch, first LSN)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EpochRow {
    pub major: u32,
    pub minor: u32,
    pub random: u64,
    pub first_lsn: Lsn,
    /// Chain hash of the headers before `first_lsn`.
    pub chain: u64,
}

/// A log segment: a slot on every one of its drives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    pub egroup: EgroupId,
    pub incarnation: u64,
    pub rf: u8,
    /// Fewer than `rf` when too few drives were left.
    pub copies: Vec<SlotAddress>,
}

/// A group as the manifest knows it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupRecord {
    pub id: GroupId,
    pub uuid: Uuid,
    pub name: String,
    /// Number of the first row that is remembered.
    pub first_row: u32,
    pub history: Vec<EpochRow>,
    pub drained_lsn: Lsn,
    /// Frame chain hash at the frame of `drained_lsn`.
    pub drained_chain: u64,
    /// In log order, of all RF classes; those that replay still needs.
    pub segments: Vec<Segment>,
    pub destroyed: bool,
    /// It is a replica of another site's group, or was one.
    pub replicated: bool,
    /// The group is a clone of what another one saw at a kept LSN.
    pub base: Option<(GroupId, Lsn)>,
}

impl GroupRecord {
    /// Number of the row of the next owner start.
    pub fn next_row(&self) -> Row {
        Row(self.first_row + self.history.len() as u32)
    }

    pub fn row(&self, row: Row) -> Option<&EpochRow> {
        self.history.get(row.0.checked_sub(self.first_row)? as usize)
    }

    /// The rows behind this one; `None`: it is not remembered.
    pub fn rows_after(&self, row: Row) -> Option<&[EpochRow]> {
        self.row(row)?;
        self.history.get((row.0 - self.first_row) as usize + 1..)
    }

    /// Row `index` is this one, and there are none behind it. The first one that is put says where the history begins.
    pub fn put_row(&mut self, index: u32, row: EpochRow) {
        if self.history.is_empty() || index < self.first_row {
            self.history.clear();
            self.first_row = index;
        }
        self.history.truncate((index - self.first_row) as usize);
        self.history.push(row);
    }

    pub fn forget_rows_before(&mut self, row: Row) {
        let count = (row.0.saturating_sub(self.first_row) as usize).min(self.history.len());
        self.history.drain(..count);
        self.first_row += count as u32;
    }
}

/// One fact of the manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// Name of the pool.
    Name(String),
    /// Numbers below these are given away.
    Counters {
        next_egroup: u64,
        next_group: u32,
    },
    Drive(DriveEntry),
    ManifestDrives(Vec<u16>),
    /// Everything of a group but its history and segments.
    Group {
        id: GroupId,
        uuid: Uuid,
        name: String,
        drained_lsn: Lsn,
        drained_chain: u64,
        destroyed: bool,
        replicated: bool,
    },
    /// What a group is a clone of; `None`: of nothing any more.
    GroupBase {
        group: GroupId,
        base: Option<(GroupId, Lsn)>,
    },
    /// Row `index` of the group's history. In a snapshot the first one is the oldest that is remembered.
    Row {
        group: GroupId,
        index: u32,
        row: EpochRow,
    },
    GroupGone(GroupId),
    Segment {
        group: GroupId,
        segment: Segment,
    },
    SegmentGone {
        group: GroupId,
        egroup: EgroupId,
    },
    Table(TableDesc),
    TableGone {
        owner: GroupId,
        id: TableId,
    },
    /// A record of the POOL tree, not yet in its tables; `None`: deleted. `sequence`: of the edit that put
    /// it.
    Record {
        sequence: u64,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    /// Records of this sequence and below are in the POOL tree's tables.
    RecordsFlushed {
        sequence: u64,
    },
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.put_u16(text.len() as u16);
    out.put_bytes(text.as_bytes());
}

fn take_string(take: &mut Take<'_>, max: usize) -> Result<String, DecodeError> {
    let len = take.u16()? as usize;
    if len > max {
        return Err(DecodeError::Invalid("string length"));
    }
    let bytes = take.bytes(len)?;
    Ok(std::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid("string"))?.to_owned())
}

fn take_bool(take: &mut Take<'_>) -> Result<bool, DecodeError> {
    match take.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Invalid("boolean")),
    }
}

impl Item {
    fn tag(&self) -> u8 {
        match self {
            Self::Name(_) => 1,
            Self::Counters { .. } => 2,
            Self::Drive(_) => 3,
            Self::ManifestDrives(_) => 4,
            Self::Group { .. } => 5,
            Self::Row { .. } => 6,
            Self::GroupGone(_) => 7,
            Self::Segment { .. } => 8,
            Self::SegmentGone { .. } => 9,
            Self::Table(_) => 10,
            Self::TableGone { .. } => 11,
            Self::Record { .. } => 12,
            Self::RecordsFlushed { .. } => 13,
            Self::GroupBase { .. } => 14,
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.tag());
        let length_at = out.len();
        out.put_u32(0);
        self.put_payload(out);
        let length = (out.len() - length_at - 4) as u32;
        out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn put_payload(&self, out: &mut Vec<u8>) {
        match self {
            Self::Name(name) => put_string(out, name),
            Self::Counters { next_egroup, next_group } => {
                out.put_u64(*next_egroup);
                out.put_u32(*next_group);
            }
            Self::Drive(drive) => {
                out.put_u16(drive.index);
                out.put_bytes(&drive.uuid.0);
                put_string(out, &drive.domain);
                out.put_u64(drive.bytes);
                out.put_u8(drive.out as u8 | (drive.draining as u8) << 1);
                out.put_u64(drive.absent_since);
            }
            Self::ManifestDrives(drives) => drives.iter().for_each(|drive| out.put_u16(*drive)),
            Self::Group { id, uuid, name, drained_lsn, drained_chain, destroyed, replicated } => {
                out.put_u32(id.0);
                out.put_bytes(&uuid.0);
                put_string(out, name);
                out.put_u64(drained_lsn.0);
                out.put_u64(*drained_chain);
                out.put_u8(*destroyed as u8 | (*replicated as u8) << 1);
            }
            Self::GroupBase { group, base } => {
                let (base, lsn) = base.unwrap_or_default();
                out.put_u32(group.0);
                out.put_u32(base.0);
                out.put_u64(lsn.0);
            }
            Self::Row { group, index, row } => {
                out.put_u32(group.0);
                out.put_u32(*index);
                out.put_u32(row.major);
                out.put_u32(row.minor);
                out.put_u64(row.random);
                out.put_u64(row.first_lsn.0);
                out.put_u64(row.chain);
            }
            Self::GroupGone(id) => out.put_u32(id.0),
            Self::Segment { group, segment } => {
                out.put_u32(group.0);
                out.put_u48(segment.egroup.0);
                out.put_u64(segment.incarnation);
                out.put_u8(segment.rf);
                out.put_u8(segment.copies.len() as u8);
                put_copies(out, &segment.copies);
            }
            Self::SegmentGone { group, egroup } => {
                out.put_u32(group.0);
                out.put_u48(egroup.0);
            }
            Self::Table(desc) => desc.encode(out),
            Self::TableGone { owner, id } => {
                out.put_u32(owner.0);
                out.put_u48(id.0);
            }
            Self::Record { sequence, key, value } => {
                out.put_u64(*sequence);
                out.put_u8(value.is_some() as u8);
                out.put_u8(key.len() as u8);
                out.put_bytes(key);
                out.put_bytes(value.as_deref().unwrap_or_default());
            }
            Self::RecordsFlushed { sequence } => out.put_u64(*sequence),
        }
    }

    /// Takes one item; `None` at the end of the body. An unknown tag is an error: new ones come with a
    /// feature bit.
    pub fn take(body: &mut Take<'_>) -> Result<Option<Self>, DecodeError> {
        if body.is_empty() {
            return Ok(None);
        }
        let tag = body.u8()?;
        let length = body.u32()? as usize;
        let mut take = Take::new(body.bytes(length)?);
        let item = match tag {
            1..=4 => Self::take_pool(tag, &mut take)?,
            5..=9 | 14 => Self::take_group(tag, &mut take)?,
            _ => Self::take_record(tag, &mut take)?,
        };
        take.end()?;
        Ok(Some(item))
    }

    fn take_pool(tag: u8, take: &mut Take<'_>) -> Result<Self, DecodeError> {
        match tag {
            1 => Ok(Self::Name(take_string(take, GROUP_NAME_BYTES_MAX)?)),
            2 => Ok(Self::Counters { next_egroup: take.u64()?, next_group: take.u32()? }),
            3 => Self::take_drive(take),
            _ => {
                let mut drives = Vec::new();
                while !take.is_empty() && drives.len() < DRIVES_PER_POOL_MAX {
                    drives.push(take.u16()?);
                }
                Ok(Self::ManifestDrives(drives))
            }
        }
    }

    fn take_drive(take: &mut Take<'_>) -> Result<Self, DecodeError> {
        let (index, uuid) = (take.u16()?, take.uuid()?);
        let domain = take_string(take, DOMAIN_BYTES_MAX)?;
        let bytes = take.u64()?;
        let flags = take.u8()?;
        if flags > 3 {
            return Err(DecodeError::Invalid("drive flags"));
        }
        let (out, draining) = (flags & 1 == 1, flags & 2 == 2);
        Ok(Self::Drive(DriveEntry { index, uuid, domain, bytes, out, draining, absent_since: take.u64()? }))
    }

    fn take_group(tag: u8, take: &mut Take<'_>) -> Result<Self, DecodeError> {
        let group = GroupId(take.u32()?);
        match tag {
            5 => {
                let uuid = take.uuid()?;
                let name = take_string(take, GROUP_NAME_BYTES_MAX)?;
                let (drained_lsn, drained_chain) = (Lsn(take.u64()?), take.u64()?);
                let flags = take.u8()?;
                if flags > 3 {
                    return Err(DecodeError::Invalid("flags of a group"));
                }
                let (destroyed, replicated) = (flags & 1 != 0, flags & 2 != 0);
                Ok(Self::Group { id: group, uuid, name, drained_lsn, drained_chain, destroyed, replicated })
            }
            14 => {
                let base = (GroupId(take.u32()?), Lsn(take.u64()?));
                if base.0 == group || (base.0 == GroupId(0)) != (base.1 == Lsn(0)) {
                    return Err(DecodeError::Invalid("base of a group"));
                }
                Ok(Self::GroupBase { group, base: (base.0 != GroupId(0)).then_some(base) })
            }
            6 => {
                let index = take.u32()?;
                let row = EpochRow {
                    major: take.u32()?,
                    minor: take.u32()?,
                    random: take.u64()?,
                    first_lsn: Lsn(take.u64()?),
                    chain: take.u64()?,
                };
                Ok(Self::Row { group, index, row })
            }
            7 => Ok(Self::GroupGone(group)),
            8 => {
                let egroup = EgroupId(take.u48()?);
                let incarnation = take.u64()?;
                let rf = take.u8()?;
                if !(1..=COPIES_MAX as u8).contains(&rf) {
                    return Err(DecodeError::Invalid("segment rf"));
                }
                let copies_len = take.u8()? as usize;
                let copies = take_copies(take, copies_len)?;
                Ok(Self::Segment { group, segment: Segment { egroup, incarnation, rf, copies } })
            }
            _ => Ok(Self::SegmentGone { group, egroup: EgroupId(take.u48()?) }),
        }
    }

    fn take_record(tag: u8, take: &mut Take<'_>) -> Result<Self, DecodeError> {
        match tag {
            10 => Ok(Self::Table(TableDesc::take(take)?)),
            11 => Ok(Self::TableGone { owner: GroupId(take.u32()?), id: TableId(take.u48()?) }),
            12 => {
                let sequence = take.u64()?;
                let present = take_bool(take)?;
                let key_len = take.u8()? as usize;
                let key = take.bytes(key_len)?.to_vec();
                let value = take.rest().to_vec();
                take.bytes(value.len())?;
                if !present && !value.is_empty() {
                    return Err(DecodeError::Invalid("value of a deleted record"));
                }
                Ok(Self::Record { sequence, key, value: present.then_some(value) })
            }
            13 => Ok(Self::RecordsFlushed { sequence: take.u64()? }),
            _ => Err(DecodeError::Invalid("manifest item tag")),
        }
    }
}
