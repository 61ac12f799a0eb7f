//! A protection group: one log, one order, its memtables and trees; the [`Ledger`] that volumes are built on.
//!
//! Invariants
//! - LSNs are given under the commit lock, and an op is in the ring and in the memtable before the lock is let go: what a
//!   reader sees has every lower LSN (I-1).
//! - The active memtable takes ops up to any LSN; a frozen one is complete up to its last and waits for the drain.
//! - `View` is replaced, never changed: a reader keeps what it started with.

mod account;
mod commit;
mod difference;
mod drain;
mod kept;
mod loosen;
mod mends;
mod flatten;
mod handover;
mod headers;
mod outlook;
mod pace;
mod past;
mod points;
mod reclaim;
mod recover;
mod replication;
mod retention;
mod room;
mod snapshots;
pub mod view;

use crate::error::{Error, Kind, Result};
use crate::extent;
use crate::extent::cache::DataCache;
use crate::gate::Gate;
use crate::ledger::{BlockRef, Durable, Ledger, Mapped, OpDraft, Space};
use crate::metadata::tree::Tree;
use crate::mutants::mutant;
use crate::oplog::log::{Log, Turns};
use crate::oplog::place::Place;
use crate::placement::Pool;
use holdfast_device::Clock;
use holdfast_format::inode::Time;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::{BranchId, GroupId, Ino, Lsn, Row};
use parking_lot::{Condvar, Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use view::{Base, Generation, View};

pub(crate) use drain::PACK_BYTES_MAX;
pub use crate::metadata::tree::Span;
pub use flatten::PROMOTED;
pub use headers::HeaderRequest;
pub use past::PastLedger;
pub use kept::{PointInfo, PointTable, When};
pub use account::{PointSpace, WouldFree};
pub use points::Held;
pub use room::Usage;
pub use replication::FollowerInfo;
pub use retention::Retention;
pub use snapshots::Pin;

/// Budgets and clocks of a group.
#[derive(Clone)]
pub struct GroupOptions {
    pub memtable_bytes: usize,
    /// What is kept where the group was told nothing else.
    pub retention: Retention,
    pub clock: Arc<dyn Clock>,
    pub boot_id: [u8; 16],
    /// A flusher and a drainer run beside: commits wait for them. Off: commits do their work themselves.
    pub background: bool,
    /// Wakes the thread that drains.
    pub housekeeper: Arc<Bell>,
    /// The pool's: egroup pages that were read.
    pub data_cache: Arc<DataCache>,
    /// Wakes the thread that cleans.
    pub cleaner: Arc<Bell>,
    /// What the group is a clone of when it is opened: afterwards its view knows.
    pub base: Option<Arc<Base>>,
    /// It was made a moment ago by this engine, and never opened.
    pub fresh: bool,
}

/// Wakes a thread, at once or at its next look; never lost.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<bool>,
    signal: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *self.rung.lock() = true;
        self.signal.notify_one();
    }

    /// Wakes all who wait.
    pub fn ring_all(&self) {
        *self.rung.lock() = true;
        self.signal.notify_all();
    }

    /// Returns when rung, or after `wait`.
    pub fn await_ring(&self, wait: std::time::Duration) {
        let mut rung = self.rung.lock();
        if !*rung {
            self.signal.wait_for(&mut rung, wait);
        }
        *rung = false;
    }
}

/// Guarded by the commit lock.
struct Commit {
    next: Lsn,
    op: Vec<u8>,
}

pub struct Group {
    pub id: GroupId,
    pool: Arc<Pool>,
    options: GroupOptions,
    tree: Tree,
    log: Log,
    row: Row,
    /// A memtable is frozen after this much log at the latest, however little it holds: overwrites must not keep their
    /// segments from becoming egroups, nor make a replay long.
    log_bytes_due: u64,
    /// Bytes logged since the newest freeze.
    logged_bytes: AtomicU64,
    commit: Mutex<Commit>,
    newest: AtomicU64,
    /// Bytes that the present stores, once; see `room`. Ops add to it under the commit lock.
    present: AtomicI64,
    /// Newest op of a volume: the group's own (points) do not count as use.
    changed: AtomicU64,
    /// Newest kept LSN: versions at or below it are not replaced in the memtable.
    last_point: AtomicU64,
    /// Replaced whole under its write lock, which is taken only inside the commit lock or by the drain.
    view: RwLock<View>,
    /// One drain or compaction at a time.
    maintenance: Mutex<()>,
    points: Mutex<PointTable>,
    retention: RwLock<Retention>,
    /// Up to where on the points' timeline seconds went for want of space; 0: none did.
    short_until_ns: AtomicU64,
    /// One change of the points' records at a time, but for new ones. Taken before the commit lock.
    naming: Mutex<()>,
    loosened: Mutex<loosen::Loosened>,
    thinned: loosen::Thinned,
    replication: replication::Replication,
    gate: Arc<Gate>,
    /// Another site was given the group. Set under the commit lock.
    given: AtomicBool,
    headers: headers::Headers,
    account: Mutex<account::Account>,
    drained: AtomicU64,
    /// Wakes whoever waits for the drain to take a memtable.
    drained_signal: (Mutex<Drains>, Condvar),
    /// Wakes whoever waits for a point to be kept durably.
    point_signal: (Mutex<()>, Condvar),
    flusher: Bell,
    /// Newest LSN that somebody wants durable.
    wanted: AtomicU64,
    idle: Mutex<points::Idle>,
    /// Held during a search for space.
    reclaim: Mutex<reclaim::Reclaim>,
    /// An op gave space back since the newest search: another one may find it.
    freed: AtomicBool,
    pace: pace::Pace,
    closed: AtomicBool,
    pub counters: GroupCounters,
}

/// What the drain tells commits that wait for it.
#[derive(Default)]
struct Drains {
    count: u64,
    /// The newest drain failed: commits that need it fail too, instead of waiting for ever.
    error: Option<Error>,
}

#[derive(Default)]
pub struct GroupCounters {
    pub ops: AtomicU64,
    /// Payload of users, once, and as many times as it has copies.
    pub bytes_written: AtomicU64,
    pub copy_bytes_written: AtomicU64,
    /// Tables by what wrote them, all copies.
    pub drain_table_bytes: AtomicU64,
    pub merge_table_bytes: AtomicU64,
    pub expire_table_bytes: AtomicU64,
    /// Searches for space, which a writer may have waited for.
    pub reclaims: AtomicU64,
    pub drains: AtomicU64,
    pub compactions: AtomicU64,
    pub replayed: AtomicU64,
    pub drained_partials: AtomicU64,
}

impl Group {
    pub(crate) fn view(&self) -> View {
        self.view.read().clone()
    }

    /// What a kept point sees.
    pub(crate) fn view_at(&self, at: Lsn) -> View {
        self.view().looking_at(at)
    }

    /// What a kept point saw of a record.
    pub fn get_at(&self, key: &[u8], at: Lsn) -> Result<Option<Vec<u8>>> {
        let _hold = self.pool.hold();
        self.view_at(at).get(key)
    }

    /// What a kept point saw of a record, with its LSN; 0: it is of what the group is a clone of.
    pub fn stamped_at(&self, key: &[u8], at: Lsn) -> Result<Option<(Lsn, Vec<u8>)>> {
        let _hold = self.pool.hold();
        let view = self.view_at(at);
        match view.get_own(key)? {
            Some((stamp, value)) => Ok(value.map(|value| (stamp.lsn, value))),
            None => Ok(view.get(key)?.map(|value| (Lsn(0), value))),
        }
    }

    /// What a kept point saw of a range, in order, until `visit` returns false.
    pub fn scan_at(&self, from: &[u8], until: &[u8], at: Lsn, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let _hold = self.pool.hold();
        self.view_at(at).scan_values(from, until, visit)
    }

    /// [`Ledger::scan`] without what the group is a clone of.
    pub fn scan_own(&self, from: &[u8], until: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let _hold = self.pool.hold();
        self.view().own().scan_values(from, until, visit)
    }

    /// What the group is a clone of, as of now.
    pub fn base(&self) -> Option<Arc<Base>> {
        self.view.read().base.clone()
    }

    pub fn newest(&self) -> Lsn {
        Lsn(self.newest.load(Ordering::Acquire))
    }

    pub fn durable(&self) -> Lsn {
        self.log.durable()
    }

    pub fn drained(&self) -> Lsn {
        Lsn(self.drained.load(Ordering::Acquire))
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// No drain, compaction or expiry runs while the guard lives: the tables and what they name stay as they are.
    pub fn hold_still(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.maintenance.lock()
    }

    pub fn failure(&self) -> Option<Error> {
        self.log.failure()
    }

    /// Reads whole blocks as a view of this group shows them. The caller holds the pool's pages.
    fn read_in(
        &self,
        view: &View,
        inode: (BranchId, Ino),
        levels: u16,
        first_block: u32,
        into: &mut [u8],
    ) -> Result<()> {
        let count = into.len() / BLOCK_BYTES;
        let resolved = extent::resolve::resolve(view, inode, levels, first_block as u64, count)?;
        extent::read::read_resolved(self.sources(), &resolved, into)
    }

    /// Where bytes of files are read from.
    fn sources(&self) -> extent::read::Sources<'_> {
        extent::read::Sources { pool: &self.pool, ring: &self.log.ring, cache: &self.options.data_cache }
    }

    /// The most copies that a volume of the group asks for: its headers get at least as many from now on.
    pub fn raise_rf(&self, rf: u8) {
        self.log.raise_header_rf(rf);
    }

    /// Copies that a write of this group needs to count, and what it does with fewer: fail, or wait.
    pub fn set_copies_min(&self, copies_min: u8, fail_below: bool) {
        self.log.set_copies_min(copies_min, fail_below);
        self.kick_flusher();
        self.drained_signal.1.notify_all();
    }

    /// Why nothing can be written durably now, when too few drives are left for what the volumes ask for.
    pub fn blocked(&self) -> Option<Error> {
        self.log.blocked()
    }

    /// Writes everything acknowledged so far to the drives, durably, and answers who waits for it.
    pub fn flush_now(&self) -> Result<()> {
        // An op is in the ring before it is in the memtable. Taken in between, its place would be told to nobody, and the
        // memtable would name the ring for ever: under the commit lock there is no such op.
        let end = {
            let _whole_ops = self.commit.lock();
            self.log.ring.window().1
        };
        self.log.flush_until(end, &|moved| self.moved(moved))
    }

    /// The same as several flushers do it, without threads (`oplog/log/schedule.rs`).
    pub fn flush_in_turns(&self, ops: usize, turns: &mut dyn Turns) -> Result<()> {
        self.log.flush_in_turns(ops, &|moved| self.moved(moved), turns)
    }

    /// Ops lie elsewhere now. A memtable leaves the view only when all of its ops are durable, so the view of now has all
    /// that can be meant.
    fn moved(&self, moved: &[(Lsn, Place)]) {
        for generation in &self.view.read().generations {
            generation.places.set(moved);
        }
    }

    /// The flusher's step after an idle second: the floor follows the last flush.
    pub fn flush_floor_now(&self) -> Result<()> {
        self.log.flush_floor(&|moved| self.moved(moved))
    }

    pub(crate) fn kick_flusher(&self) {
        self.flusher.ring();
    }

    /// Whether a flusher has something to do now: what was wanted may be in somebody else's frame already, and what has
    /// come since can wait for its own reason.
    pub(crate) fn wants_flush(&self) -> bool {
        let wanted = Lsn(self.wanted.load(Ordering::Acquire)) > self.log.placed();
        wanted || self.log.waiting_bytes() >= commit::FLUSH_TRIGGER_BYTES
    }

    /// Blocks until a flush is wanted or `wait` has passed; false when the group is closed.
    pub(crate) fn await_flush(&self, wait: std::time::Duration) -> bool {
        if !self.closed.load(Ordering::Acquire) {
            self.flusher.await_ring(wait);
        }
        !self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn kick_drain(&self) {
        self.options.housekeeper.ring();
    }

    /// No op is accepted any more; waiters of both signals wake.
    pub fn shut(&self) {
        self.closed.store(true, Ordering::Release);
        self.log.set_patient(false);
        self.flusher.ring_all();
        self.kick_drain();
        self.drained_signal.1.notify_all();
        self.tell_of_points();
        self.pace.wake();
    }

    /// Time that writers waited because upkeep was behind.
    pub fn paced_ns(&self) -> u64 {
        self.pace.waited_ns.load(Ordering::Relaxed)
    }

    fn ensure_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        match self.log.failure() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Ledger for Group {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let _hold = self.pool.hold();
        self.view().get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let _hold = self.pool.hold();
        self.view().scan_values(from, until, visit)
    }

    fn read_blocks(&self, branch: BranchId, ino: Ino, levels: u16, first_block: u32, into: &mut [u8]) -> Result<()> {
        let _hold = self.pool.hold();
        self.read_in(&self.view(), (branch, ino), levels, first_block, into)
    }

    fn map(
        &self,
        branch: BranchId,
        ino: Ino,
        levels: u16,
        range: (u64, u64),
        visit: &mut dyn FnMut(u64, u64, Mapped) -> bool,
    ) -> Result<()> {
        let _hold = self.pool.hold();
        extent::map::map(&self.view(), (branch, ino), levels, range, visit)
    }

    fn block_refs(&self, branch: BranchId, ino: Ino, levels: u16, first: u32, count: u32) -> Result<Vec<BlockRef>> {
        self.references_of((branch, ino), levels, first, count)
    }

    fn commit(&self, draft: OpDraft<'_>) -> Result<Lsn> {
        // An access time may be noted in the course of a look.
        holdfast_device::patience::at_leisure(|| self.commit_draft(draft))
    }

    fn newest(&self) -> Lsn {
        Group::newest(self)
    }

    fn flush(&self, lsn: Lsn, done: Durable) {
        if mutant!(SkipFlush) {
            return done(Ok(()));
        }
        self.log.when_durable(lsn, done);
        if self.log.durable() >= lsn {
            return;
        }
        if self.options.background {
            // Who wanted as much before has rung already.
            if self.wanted.fetch_max(lsn.0, Ordering::AcqRel) < lsn.0 {
                self.kick_flusher();
            }
        } else if let Err(error) = self.flush_now()
            && self.log.blocked().is_none()
        {
            self.log.fail(error);
        }
    }

    fn space(&self, copies: u8) -> Result<Space> {
        self.space_for(copies)
    }

    fn now(&self) -> Time {
        let (sec, nsec) = self.options.clock.wall();
        Time { sec, nsec }
    }

    fn write_bytes_max(&self) -> u32 {
        self.pool.write_bytes_max()
    }

    fn gate(&self) -> Option<&Arc<Gate>> {
        Some(&self.gate)
    }
}

/// The engine's own errors when something that cannot be is.
fn internal(message: &str) -> Error {
    Error::new(Kind::Internal, message)
}

impl Group {
    /// Bytes on drives of the pages that only history names.
    pub fn evictable_bytes(&self) -> u64 {
        self.tree.stats().then.payload_bytes * self.log.header_rf() as u64
    }

    /// Bytes on drives that history takes: what only it names, and what upper levels have overwritten without having
    /// met it yet, which is as much as they name at most.
    pub fn history_bytes(&self) -> u64 {
        let stats = self.tree.stats();
        let deepest = stats.levels.len() - 1;
        let upper: u64 = stats.levels[..deepest].iter().map(|level| level.payload_bytes).sum();
        let lower = stats.levels[deepest].payload_bytes;
        (stats.then.payload_bytes + upper.min(lower)) * self.log.header_rf() as u64
    }

    /// Bytes on drives of the pages that the tables name: present and past.
    pub fn live_bytes(&self) -> u64 {
        let stats = self.tree.stats();
        let now: u64 = stats.levels.iter().map(|level| level.payload_bytes).sum();
        (now + stats.then.payload_bytes) * self.log.header_rf() as u64
    }

    fn generation_budget(&self) -> usize {
        self.options.memtable_bytes
    }

    fn active(&self) -> Arc<Generation> {
        self.view.read().generations[0].clone()
    }
}
