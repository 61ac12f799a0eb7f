//! One op in the making: after-images of inodes and other effects, then one commit.

use super::Volume;
use super::numbers::Step;
use super::ranges::stored_bytes;
use crate::api::{Caller, FsError, FsResult};
use crate::error::Error;
use crate::ledger::{OpDraft, PointDraft};
use holdfast_format::cell::{self, Cell};
use holdfast_format::inode::{InodeRecord, Time, Writer};
use holdfast_format::limits::{CELL_LEVEL_DATA_MAX, CELL_LEVEL_MAX};
use holdfast_format::op::{Actor, Effects, OpKind};
use holdfast_format::{Ino, Lsn, key};

/// An inode that the op touches.
struct Touched {
    ino: Ino,
    record: InodeRecord,
    blocks_before: u64,
    stored_before: u64,
    removed: bool,
}

/// When a change is made, and by whom.
#[derive(Clone, Copy)]
pub struct Made {
    pub time: Time,
    writer: Option<Writer>,
}

impl Made {
    /// Notes the change in an inode that is changed.
    pub fn note(self, record: &mut InodeRecord) {
        record.ctime = self.time;
        record.writer = self.writer;
    }

    /// Four times, and who makes it, of an inode that is made.
    pub fn birth(self) -> InodeRecord {
        let Self { time, writer } = self;
        InodeRecord { atime: time, mtime: time, ctime: time, btime: time, writer, ..InodeRecord::default() }
    }
}

/// Effects that become true together. Whoever builds one holds the shards of all inodes it loads.
pub struct Change<'v> {
    volume: &'v Volume,
    kind: OpKind,
    actor: Actor,
    pub made: Made,
    /// Subject of the op, for the change feed.
    pub ino: Ino,
    pub offset: u64,
    pub length: u64,
    /// The op gives space back.
    pub frees: bool,
    pub effects: Effects,
    pub(super) step: Option<Step<'v>>,
    touched: Vec<Touched>,
    orphans: Vec<Ino>,
}

/// What a commit leaves to do once the locks are released.
#[must_use = "settle it after the locks are released"]
pub struct Done {
    pub lsn: Lsn,
    /// Inodes with a fresh ORPHAN record.
    pub orphans: Vec<Ino>,
}

pub fn actor(caller: &Caller) -> Actor {
    Actor { uid: caller.uid, gid: caller.gid, pid: caller.pid }
}

pub fn decode_inode(ino: Ino, bytes: &[u8]) -> FsResult<InodeRecord> {
    Ok(InodeRecord::decode(bytes).map_err(|error| Error::decode(&format!("inode {ino}"), error))?)
}

impl Volume {
    /// The inode as it is now. `Stale` when it is gone.
    pub(super) fn load(&self, ino: Ino) -> FsResult<InodeRecord> {
        let bytes = self.ledger.get(&key::inode(self.branch, ino))?.ok_or(FsError::Stale)?;
        decode_inode(ino, &bytes)
    }

    pub(super) fn change(&self, kind: OpKind, caller: &Caller) -> Change<'_> {
        Change {
            volume: self,
            kind,
            actor: actor(caller),
            made: Made { time: self.ledger.now(), writer: caller.writer },
            ino: Ino(0),
            offset: 0,
            length: 0,
            frees: false,
            effects: Effects::new(),
            step: None,
            touched: Vec::new(),
            orphans: Vec::new(),
        }
    }

    /// Commits effects that touch no inode.
    pub(super) fn commit_effects(
        &self,
        kind: OpKind,
        actor: Actor,
        ino: Ino,
        effects: Effects,
    ) -> FsResult<Lsn> {
        let lsn = self.ledger.commit(OpDraft {
            branch: self.branch,
            kind,
            actor,
            time: self.ledger.now(),
            ino,
            offset: 0,
            length: 0,
            effects,
            payload: &[],
            rf: self.policy.rf(),
            stored: 0,
            frees: true,
            point: PointDraft::default(),
        })?;
        Ok(lsn)
    }
}

impl Change<'_> {
    /// The inode's after-image so far, loaded at first use. Every inode asked for is put by the commit.
    pub fn inode(&mut self, ino: Ino) -> FsResult<&mut InodeRecord> {
        let index = match self.touched.iter().position(|touched| touched.ino == ino) {
            Some(index) => index,
            None => {
                let record = self.volume.load(ino)?;
                let (blocks_before, stored_before) = (record.blocks, stored_bytes(&record));
                self.touched.push(Touched { ino, record, blocks_before, stored_before, removed: false });
                self.touched.len() - 1
            }
        };
        Ok(&mut self.touched[index].record)
    }

    /// The inode was only looked at: the commit leaves it alone.
    pub fn leave(&mut self, ino: Ino) {
        self.touched.retain(|touched| touched.ino != ino);
    }

    /// A new inode.
    pub fn insert(&mut self, ino: Ino, record: InodeRecord) {
        debug_assert_eq!(record.blocks, 0);
        self.touched.push(Touched { ino, record, blocks_before: 0, stored_before: 0, removed: false });
    }

    /// Deletes the inode with everything below its number; `xattrs` are the keys of its attributes.
    pub fn remove(&mut self, ino: Ino, xattrs: &[key::Key]) -> FsResult<()> {
        let branch = self.volume.branch;
        let levels = self.inode(ino)?.levels;
        if levels != 0 {
            self.put_hole_cell(ino, 0, CELL_LEVEL_MAX);
        }
        self.effects.delete(&key::inode(branch, ino));
        for xattr in xattrs {
            self.effects.delete(xattr);
        }
        if let Some(touched) = self.touched.iter_mut().find(|touched| touched.ino == ino) {
            touched.removed = true;
            touched.record.blocks = 0;
        }
        Ok(())
    }

    /// Puts the ORPHAN record; `marked` in the references already, where there are any.
    pub fn put_orphan(&mut self, ino: Ino) {
        self.effects.put(&key::orphan(self.volume.branch, ino), &[]);
        self.orphans.push(ino);
    }

    pub fn put_hole_cell(&mut self, ino: Ino, start_block: u32, level: u8) {
        let key = key::data(self.volume.branch, ino, start_block, level);
        self.effects.put(&key, &Cell::Hole.encode());
    }

    /// Bytes over part of a block. Returns the levels touched.
    pub fn put_partial(&mut self, ino: Ino, block: u32, start: u16, bytes: &[u8]) -> u16 {
        debug_assert!(!bytes.is_empty());
        let cell = Cell::Partial { start, bytes: bytes.to_vec() };
        self.effects.put(&key::data(self.volume.branch, ino, block, 0), &cell.encode());
        1
    }

    /// Payload pages `first_page …` become blocks `block …`. Returns the levels touched.
    pub fn put_pages(&mut self, ino: Ino, block: u32, first_page: u16, checksums: &[u64]) -> u16 {
        self.effects.pages(ino, block, first_page, checksums);
        let mut levels = 0;
        cell::cut_range(block as u64, checksums.len() as u64, CELL_LEVEL_DATA_MAX, |_, level| {
            levels |= 1 << level;
        });
        levels
    }

    /// Logs everything as one op. When this fails nothing has changed.
    pub fn commit(mut self, payload: &[u8]) -> FsResult<Done> {
        let volume = self.volume;
        let (mut blocks, mut stored) = (0i64, 0i64);
        for touched in &self.touched {
            blocks += touched.record.blocks as i64 - touched.blocks_before as i64;
            stored += stored_bytes(&touched.record) as i64 - touched.stored_before as i64;
            if !touched.removed {
                self.effects.put(&key::inode(volume.branch, touched.ino), &touched.record.encode());
            }
        }
        let committed = volume.policy.reserve(blocks).and_then(|()| {
            let draft = OpDraft {
                branch: volume.branch,
                kind: self.kind,
                actor: self.actor,
                time: self.made.time,
                ino: self.ino,
                offset: self.offset,
                length: self.length,
                effects: std::mem::take(&mut self.effects),
                payload,
                rf: volume.policy.rf(),
                stored,
                frees: self.frees,
                point: PointDraft::default(),
            };
            volume.ledger.commit(draft).map_err(|error| {
                volume.policy.give_back(blocks);
                FsError::from(error)
            })
        });
        match committed {
            Ok(lsn) => {
                if let Some(step) = self.step.take() {
                    step.accept();
                }
                self.touched.iter().for_each(|touched| volume.durability.changed_inode(touched.ino, lsn));
                volume.durability.changed(lsn);
                Ok(Done { lsn, orphans: self.orphans })
            }
            Err(error) => {
                self.orphans.iter().for_each(|ino| volume.references.unmark_orphan(*ino));
                Err(error)
            }
        }
    }
}
