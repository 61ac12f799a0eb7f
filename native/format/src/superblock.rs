//! The superblock of a drive: who it is, where it belongs, and what it knows of the others (STORE.md 11, 21).
//!
//! ```text
//! slot = magic u64 | version u32 | slot length u32 | compat u64 | ro_compat u64 | incompat u64
//!      | writes u64 | pool uuid 16 B | drive uuid 16 B | index u16 | drives u16 | slot_bytes u32
//!      | bytes u64 | area_bytes u64 | slab_bytes u64 | mark of itself (34 B, its index first)
//!      | instance u64 | beat u64 | written i64 | open u8 | manifest drives u8, each u16 | name | domain
//!      | marks u8, marks × mark | holder | zeroes | checksum u64 in the last 8 of the 4096 bytes
//! holder = boot id 16 B | device u64 | inode u64
//! mark = index u16 | membership u64 | generation u64 | sequence u64 | log tip u64
//! name, domain = length u16, bytes
//! ```
//! Two slots, written one after the other with the same content but for `writes`, so that rot or a torn write
//! in
//! one leaves the other. A mark of another drive holds only what was durable *there* before it was written
//! *here*.

use crate::checksum::checksum;
use crate::ids::Uuid;
use crate::limits::{
    BLOCK_BYTES, DOMAIN_BYTES_MAX, DRIVES_PER_POOL_MAX, GROUP_NAME_BYTES_MAX, MANIFEST_AREA_BYTES_MAX,
    MANIFEST_COPIES_MAX, MARKS_MAX, SLAB_BYTES_MAX, SLOT_BYTES_MAX, SLOT_BYTES_MIN,
};
use crate::wire::{DecodeError, Put, Take};

pub const SUPERBLOCK_BYTES: usize = BLOCK_BYTES;
const MAGIC: u64 = u64::from_le_bytes(*b"HoldfstP");
pub const VERSION: u32 = 2;
/// Bits that this program knows.
pub const COMPAT_KNOWN: u64 = 0;
pub const RO_COMPAT_KNOWN: u64 = 0;
/// Some group's epoch history begins with a later row than the first: a program that counts rows from the first one that it
/// finds would take every frame for void.
pub const INCOMPAT_LATER_ROWS: u64 = 1;
/// Some group is a clone: without its base it would read as if nothing had been in it, and without the pin the base would forget.
pub const INCOMPAT_CLONES: u64 = 2;
/// Some group is, or was, a replica: its log holds what another site did, and nobody may write to it meanwhile.
pub const INCOMPAT_REPLICAS: u64 = 4;
/// Records of the past: inodes say who changed them, indexes of tables when, points that they are held, volumes who may look, groups
/// what they keep. A program from before would take the first four for damage, and forget what a group was told to keep.
pub const INCOMPAT_PAST: u64 = 8;
pub const INCOMPAT_KNOWN: u64 = INCOMPAT_LATER_ROWS | INCOMPAT_CLONES | INCOMPAT_REPLICAS | INCOMPAT_PAST;

/// How far a drive is known to be. Never goes back on an honest drive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Mark {
    pub membership: u64,
    /// Manifest generation and sequence that were current when it was written.
    pub generation: u64,
    pub sequence: u64,
    /// Durable log writes that the drive took part in.
    pub log_tip: u64,
}

/// The lock file that the writer of a superblock held on the drive, as the kernel of that boot numbered it. Zeroes: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Holder {
    pub boot_id: [u8; 16],
    pub device: u64,
    pub inode: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    pub compat: u64,
    pub ro_compat: u64,
    pub incompat: u64,
    /// Grows with every write of a slot.
    pub writes: u64,
    pub pool: Uuid,
    pub drive: Uuid,
    pub index: u16,
    /// Drives of the pool.
    pub drives: u16,
    pub slot_bytes: u32,
    /// Bytes that the pool may use of this drive.
    pub bytes: u64,
    pub area_bytes: u64,
    pub slab_bytes: u64,
    pub own: Mark,
    /// Random number of the program run that wrote it, and its heartbeats.
    pub instance: u64,
    pub beat: u64,
    /// Wall time of the write, seconds since 1970; for people only.
    pub written_s: i64,
    /// Not closed.
    pub open: bool,
    pub manifest_drives: Vec<u16>,
    pub name: String,
    pub domain: String,
    /// Marks of other drives: the next [`MARKS_MAX`] by index, in a circle.
    pub marks: Vec<(u16, Mark)>,
    pub holder: Holder,
}

fn put_mark(out: &mut Vec<u8>, index: u16, mark: &Mark) {
    out.put_u16(index);
    out.put_u64(mark.membership);
    out.put_u64(mark.generation);
    out.put_u64(mark.sequence);
    out.put_u64(mark.log_tip);
}

fn take_mark(take: &mut Take<'_>) -> Result<(u16, Mark), DecodeError> {
    let index = take.u16()?;
    let membership = take.u64()?;
    let generation = take.u64()?;
    let sequence = take.u64()?;
    Ok((index, Mark { membership, generation, sequence, log_tip: take.u64()? }))
}

fn take_text(take: &mut Take<'_>, max: usize) -> Result<String, DecodeError> {
    let len = take.u16()? as usize;
    if len > max {
        return Err(DecodeError::Invalid("superblock text"));
    }
    let bytes = take.bytes(len)?;
    Ok(std::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid("superblock text"))?.to_owned())
}

impl Superblock {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SUPERBLOCK_BYTES);
        out.put_u64(MAGIC);
        out.put_u32(VERSION);
        out.put_u32(SUPERBLOCK_BYTES as u32);
        out.put_u64(self.compat);
        out.put_u64(self.ro_compat);
        out.put_u64(self.incompat);
        out.put_u64(self.writes);
        out.put_bytes(&self.pool.0);
        out.put_bytes(&self.drive.0);
        out.put_u16(self.index);
        out.put_u16(self.drives);
        out.put_u32(self.slot_bytes);
        out.put_u64(self.bytes);
        out.put_u64(self.area_bytes);
        out.put_u64(self.slab_bytes);
        put_mark(&mut out, self.index, &self.own);
        out.put_u64(self.instance);
        out.put_u64(self.beat);
        out.put_i64(self.written_s);
        out.put_u8(self.open as u8);
        out.put_u8(self.manifest_drives.len() as u8);
        self.manifest_drives.iter().for_each(|drive| out.put_u16(*drive));
        for text in [&self.name, &self.domain] {
            out.put_u16(text.len() as u16);
            out.put_bytes(text.as_bytes());
        }
        out.put_u8(self.marks.len() as u8);
        self.marks.iter().for_each(|(index, mark)| put_mark(&mut out, *index, mark));
        out.put_bytes(&self.holder.boot_id);
        out.put_u64(self.holder.device);
        out.put_u64(self.holder.inode);
        assert!(out.len() <= SUPERBLOCK_BYTES - 8, "superblock fields fit their slot");
        out.resize(SUPERBLOCK_BYTES - 8, 0);
        let sum = checksum(&out);
        out.put_u64(sum);
        out
    }

    /// Decodes a slot. [`DecodeError::Unsupported`] when a newer program wrote it: then nothing may be
    /// changed.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() != SUPERBLOCK_BYTES {
            return Err(DecodeError::Truncated);
        }
        let mut take = Take::new(bytes);
        if take.u64()? != MAGIC {
            return Err(DecodeError::Invalid("superblock magic"));
        }
        let (content, sum) = bytes.split_at(SUPERBLOCK_BYTES - 8);
        if checksum(content).to_le_bytes() != sum {
            return Err(DecodeError::Checksum);
        }
        let version = take.u32()?;
        if version == 0 {
            // Nothing older was ever written.
            return Err(DecodeError::Invalid("superblock version"));
        }
        if version != VERSION || take.u32()? as usize != SUPERBLOCK_BYTES {
            return Err(DecodeError::Unsupported(version as u64));
        }
        let compat = take.u64()?;
        let ro_compat = take.u64()?;
        let incompat = take.u64()?;
        if incompat & !INCOMPAT_KNOWN != 0 {
            return Err(DecodeError::Unsupported(incompat & !INCOMPAT_KNOWN));
        }
        Self::take_known(take, compat, ro_compat, incompat)
    }

    fn take_known(
        mut take: Take<'_>,
        compat: u64,
        ro_compat: u64,
        incompat: u64,
    ) -> Result<Self, DecodeError> {
        let writes = take.u64()?;
        let pool = take.uuid()?;
        let drive = take.uuid()?;
        let index = take.u16()?;
        let drives = take.u16()?;
        let slot_bytes = take.u32()?;
        let bytes = take.u64()?;
        let area_bytes = take.u64()?;
        let slab_bytes = take.u64()?;
        let slots_fit =
            slot_bytes.is_power_of_two() && (SLOT_BYTES_MIN..=SLOT_BYTES_MAX).contains(&slot_bytes);
        let slabs_fit = slots_fit && slab_bytes <= SLAB_BYTES_MAX && slab_bytes % slot_bytes as u64 == 0;
        let area_fits = area_bytes <= MANIFEST_AREA_BYTES_MAX && area_bytes.is_multiple_of(BLOCK_BYTES as u64);
        if !slabs_fit || !area_fits || slab_bytes == 0 || area_bytes == 0 {
            return Err(DecodeError::Invalid("superblock sizes"));
        }
        if index >= drives || drives as usize > DRIVES_PER_POOL_MAX {
            return Err(DecodeError::Invalid("superblock drive index"));
        }
        let (_, own) = take_mark(&mut take)?;
        let instance = take.u64()?;
        let beat = take.u64()?;
        let written_s = take.i64()?;
        let open = take.u8()? != 0;
        let manifest_len = take.u8()? as usize;
        if manifest_len > MANIFEST_COPIES_MAX {
            return Err(DecodeError::Invalid("manifest drives"));
        }
        let manifest_drives = (0..manifest_len).map(|_| take.u16()).collect::<Result<_, _>>()?;
        let name = take_text(&mut take, GROUP_NAME_BYTES_MAX)?;
        let domain = take_text(&mut take, DOMAIN_BYTES_MAX)?;
        let marks_len = take.u8()? as usize;
        if marks_len > MARKS_MAX {
            return Err(DecodeError::Invalid("marks"));
        }
        let marks = (0..marks_len).map(|_| take_mark(&mut take)).collect::<Result<_, _>>()?;
        let holder = Holder { boot_id: take.uuid()?.0, device: take.u64()?, inode: take.u64()? };
        Ok(Self {
            compat,
            ro_compat,
            incompat,
            writes,
            pool,
            drive,
            index,
            drives,
            slot_bytes,
            bytes,
            area_bytes,
            slab_bytes,
            own,
            instance,
            beat,
            written_s,
            open,
            manifest_drives,
            name,
            domain,
            marks,
            holder,
        })
    }
}
