//! Which drives are late, slow or failing: measured where they are used, judged once a second against each other.
//!
//! - *Late*: a read has just waited for it longer than the pool usually takes. For a second, other copies are asked first.
//! - *Slow*: for seconds on end it has taken many times the median of the others. Nothing new comes to it while other
//!   drives can take it, logs leave it, and it is read last. Its copies count. It is used again when it has been as fast
//!   as the others for longer than it took to find out (hysteresis).
//! - *Failing*: it returned read errors again and again. As slow, and what it holds is copied to other drives; it is still
//!   read when nothing else has the bytes.
//!
//! Nothing of this survives a restart: what is wrong shows again within seconds. A drive that fails a write or flush, or
//! is gone, is *out* instead (`membership.rs`).

use super::Pool;
use super::disk::Disk;
use super::report::count;
use holdfast_device::Durability;
use holdfast_format::limits::BLOCK_BYTES;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

const MS_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000 * MS_NS;

/// A read is late when it takes this many times what the pool's reads took lately, within these bounds.
const LATE_FACTOR: u64 = 8;
const PATIENCE_NS_MIN: u64 = 5 * MS_NS;
const PATIENCE_NS_MAX: u64 = 500 * MS_NS;
/// Before anything was measured.
const PATIENCE_NS_FIRST: u64 = 50 * MS_NS;
const LATE_FOR_NS: u64 = SECOND_NS;
/// A drive is slow in a second in which its reads or writes took this many times the median of the others', and at least
/// this long: disks that turn are no fault beside ones that do not.
const SLOW_FACTOR: u64 = 8;
const SLOW_NS_MIN: u64 = 40 * MS_NS;
/// Slow seconds count up, others count down at half the speed. Slow from `SLOW_FOR_NS` on, until nothing is left.
const SLOW_FOR_NS: u64 = 4 * SECOND_NS;
const SLOW_FOR_NS_MAX: u64 = 20 * SECOND_NS;
/// Drives that are spared are measured this often.
const PROBE_NS: u64 = 3 * SECOND_NS;
/// A drive that was slow before within this time is held for slow twice as long as the last time, up to `<< RELAPSES_MAX`.
const RELAPSE_NS: u64 = 1800 * SECOND_NS;
const RELAPSES_MAX: u32 = 5;
/// One judgement weighs at most this much, however long ago the last one was.
const JUDGED_NS_MAX: u64 = 4 * SECOND_NS;
/// Read errors that make a drive failing. One is forgotten every `ERROR_FORGOTTEN_NS`; failing until all are.
const ERRORS_FAILING: u64 = 12;
const ERRORS_MAX: u64 = 24;
const ERROR_FORGOTTEN_NS: u64 = 60 * SECOND_NS;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum Health {
    #[default]
    Good = 0,
    Slow = 1,
    Failing = 2,
}

impl Health {
    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Slow,
            2 => Self::Failing,
            _ => Self::Good,
        }
    }
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Slow => "slow",
            Self::Failing => "failing",
        }
    }
}

/// Calls and their time since the last judgement.
#[derive(Default)]
struct Sum {
    calls: AtomicU64,
    ns: AtomicU64,
}

impl Sum {
    fn add(&self, ns: u64) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.ns.fetch_add(ns, Ordering::Relaxed);
    }
    /// Mean of a call; `None`: there was none. Starts anew.
    fn take(&self) -> Option<u64> {
        let (calls, ns) = (self.calls.swap(0, Ordering::Relaxed), self.ns.swap(0, Ordering::Relaxed));
        ns.checked_div(calls)
    }
}

/// What is measured of one drive, and what it is held for.
#[derive(Default)]
pub(super) struct Pulse {
    health: AtomicU8,
    late_until_ns: AtomicU64,
    probed_ns: AtomicU64,
    /// A probe is under way.
    probing: AtomicBool,
    reads: Sum,
    writes: Sum,
    errors: AtomicU64,
    judged: Mutex<Judged>,
}

#[derive(Default)]
struct Judged {
    at_ns: u64,
    measured_ns: u64,
    slow_for_ns: u64,
    /// How often it was slow lately, and when that ended last.
    relapses: u32,
    recovered_ns: u64,
    errors: u64,
    forgotten_ns: u64,
    reason: String,
    /// Means of the last seconds that had any.
    read_ns: Option<u64>,
    write_ns: Option<u64>,
}

/// Mean times of a drive, as of the newest second in which it was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    pub read_ns: Option<u64>,
    pub write_ns: Option<u64>,
}

impl Pulse {
    pub fn health(&self) -> Health {
        Health::from_code(self.health.load(Ordering::Acquire))
    }
    pub fn reason(&self) -> String {
        self.judged.lock().reason.clone()
    }
    pub fn latency(&self) -> Latency {
        let judged = self.judged.lock();
        Latency { read_ns: judged.read_ns, write_ns: judged.write_ns }
    }
    pub fn wrote(&self, ns: u64) {
        self.writes.add(ns);
    }
    pub fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
    fn is_late(&self, now_ns: u64) -> bool {
        self.late_until_ns.load(Ordering::Relaxed) > now_ns
    }
}

/// The middle one, of any number of values.
fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

fn is_slow(own: Option<u64>, others: Option<u64>) -> bool {
    matches!((own, others), (Some(own), Some(others)) if own >= SLOW_NS_MIN && own > SLOW_FACTOR * others)
}

fn ms(ns: Option<u64>) -> String {
    ns.map_or("-".to_owned(), |ns| format!("{:.1}", ns as f64 / MS_NS as f64))
}

impl Pool {
    /// How long a read may take before another copy is asked, too.
    pub(super) fn patience_ns(&self) -> u64 {
        match self.read_ns.load(Ordering::Relaxed) {
            0 => PATIENCE_NS_FIRST,
            mean => (mean * LATE_FACTOR).clamp(PATIENCE_NS_MIN, PATIENCE_NS_MAX),
        }
    }

    /// A drive answered a read.
    pub(super) fn note_read(&self, disk: &Disk, ns: u64) {
        disk.pulse.reads.add(ns);
        // A moving mean of the reads that were not late: slow drives do not make the others patient.
        let counted = ns.min(self.patience_ns());
        let mean = self.read_ns.load(Ordering::Relaxed);
        let next = if mean == 0 { counted } else { mean - mean / 16 + counted / 16 };
        self.read_ns.store(next.max(1), Ordering::Relaxed);
    }

    /// A read has waited for the drive long enough: others are asked first for a while.
    pub(super) fn note_late(&self, disk: &Disk) {
        disk.pulse.late_until_ns.store(self.clock.boottime_ns() + LATE_FOR_NS, Ordering::Relaxed);
        self.late_seen.store(true, Ordering::Relaxed);
    }

    /// Whether reads should rather go elsewhere: the higher, the rather.
    pub(super) fn reluctance(&self, disk: &Disk, now_ns: u64) -> u8 {
        (disk.pulse.health() as u8) * 2 + disk.pulse.is_late(now_ns) as u8
    }

    /// Judges every drive by what was measured since the last time; once a second.
    pub(super) fn judge_health(&self) {
        let now_ns = self.clock.boottime_ns();
        let active: Vec<&Disk> = self.disks.iter().filter(|disk| disk.is_active()).collect();
        let reads: Vec<Option<u64>> = active.iter().map(|disk| disk.pulse.reads.take()).collect();
        let writes: Vec<Option<u64>> = active.iter().map(|disk| disk.pulse.writes.take()).collect();
        let mut any_late = false;
        for (at, disk) in active.iter().enumerate() {
            let others = |means: &[Option<u64>]| {
                median(means.iter().enumerate().filter(|(other, _)| *other != at).filter_map(|(_, mean)| *mean).collect())
            };
            let (read, write) = (reads[at], writes[at]);
            let (reads, writes) = (others(&reads), others(&writes));
            let slow = is_slow(read, reads) || is_slow(write, writes);
            let measured = read.is_some() || write.is_some();
            let late = disk.pulse.is_late(now_ns);
            any_late |= late;
            let mut judged = disk.pulse.judged.lock();
            let spent_ns = match judged.at_ns {
                0 => SECOND_NS,
                before => now_ns.saturating_sub(before).min(JUDGED_NS_MAX),
            };
            judged.at_ns = now_ns;
            judged.read_ns = read.or(judged.read_ns);
            judged.write_ns = write.or(judged.write_ns);
            if slow || late && !measured {
                let most_ns = SLOW_FOR_NS_MAX << judged.relapses.saturating_sub(1).min(RELAPSES_MAX);
                judged.slow_for_ns = (judged.slow_for_ns + spent_ns).min(most_ns);
            } else if measured {
                let fine_ns = now_ns.saturating_sub(judged.measured_ns).min(JUDGED_NS_MAX);
                judged.slow_for_ns = judged.slow_for_ns.saturating_sub(fine_ns / 2);
            }
            if measured {
                judged.measured_ns = now_ns;
            }
            self.count_errors(disk, &mut judged, now_ns);
            let before = disk.pulse.health();
            let health = judged.verdict(before);
            if health == before {
                continue;
            }
            judged.reason = match health {
                Health::Good => String::new(),
                Health::Slow => format!(
                    "reads take {} ms, writes {} ms; the others' median is {} and {} ms",
                    ms(read), ms(write), ms(reads), ms(writes)
                ),
                Health::Failing => format!("{} read errors in a short time", judged.errors),
            };
            judged.turned(before, health, now_ns);
            let reason = judged.reason.clone();
            drop(judged);
            self.turn_health(disk, health, &reason);
        }
        self.late_seen.store(any_late, Ordering::Relaxed);
    }

    /// Measures drives that are spared: one durable block into a free slot of each, beside all locks, now and then. Nobody
    /// waits for a drive that takes its time.
    pub(super) fn probe_slow(&self) {
        let now_ns = self.clock.boottime_ns();
        for disk in self.disks.iter().filter(|disk| disk.is_active() && disk.pulse.health() != Health::Good) {
            let last_ns = disk.pulse.probed_ns.load(Ordering::Relaxed);
            if now_ns.saturating_sub(last_ns) < PROBE_NS || disk.pulse.probing.swap(true, Ordering::AcqRel) {
                continue;
            }
            disk.pulse.probed_ns.store(now_ns, Ordering::Relaxed);
            match disk.take(0) {
                Some(slot) => self.measure(disk, slot),
                None => disk.pulse.probing.store(false, Ordering::Release),
            }
        }
    }

    fn measure(&self, disk: &Disk, slot: u32) {
        let place = disk.place(slot, 0).map(|(_, file, at)| (file, at)).zip(disk.drive.clone());
        let Some(((file, at), drive)) = place else { return self.measured(disk.index, slot, None) };
        let (me, clock, index) = (self.me.clone(), self.clock.clone(), disk.index);
        let simulated = drive.as_sim().is_some();
        let run = move || {
            let block = holdfast_device::AlignedBuffer::zeroed(BLOCK_BYTES);
            let begun_ns = clock.boottime_ns();
            let result = drive.write(file, at, &[&block], Durability::Durable);
            let took_ns = clock.boottime_ns().saturating_sub(begun_ns);
            // The pool may have been closed meanwhile: it does not wait for this either.
            if let Some(pool) = me.upgrade() {
                pool.measured(index, slot, Some((took_ns, result)));
            }
        };
        if simulated {
            run();
        } else if holdfast_device::threads::spawn("holdfast-probe", run).is_err() {
            self.measured(index, slot, None);
        }
    }

    fn measured(&self, index: u16, slot: u32, outcome: Option<(u64, std::io::Result<()>)>) {
        let disk = &self.disks[index as usize];
        if let Some((took_ns, result)) = outcome {
            disk.pulse.wrote(took_ns);
            if let Err(error) = result {
                self.suspect(index, format!("writing: {error}"));
            }
        }
        disk.give_back(slot);
        disk.pulse.probing.store(false, Ordering::Release);
    }

    fn count_errors(&self, disk: &Disk, judged: &mut Judged, now_ns: u64) {
        let errors = disk.pulse.errors.swap(0, Ordering::Relaxed);
        judged.errors = (judged.errors + errors).min(ERRORS_MAX);
        if errors > 0 || judged.errors == 0 {
            judged.forgotten_ns = now_ns;
        } else if now_ns.saturating_sub(judged.forgotten_ns) >= ERROR_FORGOTTEN_NS {
            judged.forgotten_ns = now_ns;
            judged.errors -= 1;
        }
    }

    fn turn_health(&self, disk: &Disk, health: Health, reason: &str) {
        disk.pulse.health.store(health as u8, Ordering::Release);
        disk.changed_s.store(self.clock.wall().0, Ordering::Relaxed);
        let name = disk.name();
        match health {
            Health::Good => self.say(format!("drive {name} is as fast and sound as the others again")),
            _ => {
                count(&self.counters.drives_demoted, 1);
                self.say(format!("drive {name} is {}: {reason}", health.name()));
            }
        }
    }
}

impl Judged {
    fn turned(&mut self, before: Health, after: Health, now_ns: u64) {
        if after == Health::Slow {
            let lately = now_ns.saturating_sub(self.recovered_ns) < RELAPSE_NS && self.recovered_ns > 0;
            self.relapses = if lately { self.relapses + 1 } else { 1 };
            self.slow_for_ns = SLOW_FOR_NS_MAX << (self.relapses - 1).min(RELAPSES_MAX);
        } else if before == Health::Slow {
            self.recovered_ns = now_ns;
        }
    }

    fn verdict(&self, before: Health) -> Health {
        let failing = self.errors >= ERRORS_FAILING || before == Health::Failing && self.errors > 0;
        let slow = self.slow_for_ns >= SLOW_FOR_NS || before == Health::Slow && self.slow_for_ns > 0;
        match (failing, slow) {
            (true, _) => Health::Failing,
            (false, true) => Health::Slow,
            (false, false) => Health::Good,
        }
    }
}
