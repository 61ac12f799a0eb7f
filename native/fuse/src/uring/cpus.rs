//! Which queues the kernel has, which thread serves which, and on which processor.
//!
//! The kernel makes one queue for each *possible* processor, numbered from 0, and puts a request into the
//! queue of the processor that its caller runs on. It waits for all queues, those of absent processors
//! included.

use std::io;

/// Queues of one connection at most; more processors are served over `/dev/fuse`.
const QUEUES_MAX: usize = 1024;
/// What a processor that is offline gets: it has no callers, and one entry is right if it ever has.
const DEPTH_OFFLINE: usize = 1;

/// Requests that one queue holds at once, parked flushes included. Fewer where there are more queues: each
/// entry has address space for the longest payload.
fn depth(queues: usize) -> usize {
    match queues {
        0..=4 => 32,
        5..=8 => 16,
        _ => 8,
    }
}

/// A thread and what it serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lane {
    pub cpu: usize,
    /// (number, depth). The first is the processor's own.
    pub queues: Vec<(u16, usize)>,
}

/// `0-3,8,10-11`, as sysfs writes processors; ascending.
fn parse(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last.checked_sub(first)? > QUEUES_MAX * 64 || cpus.last().is_some_and(|before| *before >= first) {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// One lane for each queue whose processor is online; the queues of all others join the first.
fn plan(possible: &str, online: &str) -> Result<Vec<Lane>, String> {
    let unclear =
        || format!("cannot make sense of the processors ({possible:?} possible, {online:?} online)");
    let queues = parse(possible).ok_or_else(unclear)?.len();
    if queues > QUEUES_MAX {
        return Err(format!("{queues} possible processors, more than {QUEUES_MAX}"));
    }
    let online = parse(online).ok_or_else(unclear)?;
    let number = |cpu: usize| u16::try_from(cpu).map_err(|_| unclear());
    let mut lanes = Vec::new();
    let mut offline = Vec::new();
    for cpu in 0..queues {
        if online.contains(&cpu) {
            lanes.push(Lane { cpu, queues: vec![(number(cpu)?, depth(queues))] });
        } else {
            offline.push((number(cpu)?, DEPTH_OFFLINE));
        }
    }
    lanes.first_mut().ok_or_else(unclear)?.queues.extend(offline);
    Ok(lanes)
}

/// The lanes of this machine.
pub fn lanes() -> Result<Vec<Lane>, String> {
    let read = |name: &str| {
        let path = format!("/sys/devices/system/cpu/{name}");
        std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))
    };
    plan(read("possible")?.trim(), read("online")?.trim())
}

/// Keeps the calling thread on one processor. A container may forbid it.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is plain data for which zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= size_of::<libc::cpu_set_t>() * 8 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the set has room for `cpu`, which was just checked.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the kernel reads one whole cpu_set_t; 0 is the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// True when this process may run on every processor that is online, so that each lane can be pinned.
pub fn all_allowed() -> bool {
    let Ok(lanes) = lanes() else { return false };
    // SAFETY: cpu_set_t is plain data for which zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills at most one cpu_set_t; 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } != 0 {
        return false;
    }
    let room = size_of::<libc::cpu_set_t>() * 8;
    // SAFETY: CPU_ISSET reads within the set, for `cpu` is below its size.
    lanes.iter().all(|lane| lane.cpu < room && unsafe { libc::CPU_ISSET(lane.cpu, &set) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_possible_processor_has_its_queue_once() {
        let two = plan("0-1", "0-1").expect("plain");
        assert_eq!(two, [Lane { cpu: 0, queues: vec![(0, 32)] }, Lane { cpu: 1, queues: vec![(1, 32)] }]);
        assert_eq!(plan("0", "0").expect("plain"), [Lane { cpu: 0, queues: vec![(0, 32)] }]);
        // More queues than processors: a machine that may get more.
        let hot_plug = plan("0-7", "0,2-3").expect("plain");
        assert_eq!(hot_plug.iter().map(|lane| lane.cpu).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(hot_plug[0].queues, [(0, 16), (1, 1), (4, 1), (5, 1), (6, 1), (7, 1)]);
        // Gaps: the kernel counts, it does not name.
        let gaps = plan("0,2,4-5", "0,2,4-5").expect("plain");
        assert_eq!(gaps[0].queues, [(0, 32), (1, 1), (3, 1)]);
        assert_eq!(gaps[1].queues, [(2, 32)]);
        let mut all: Vec<u16> = plan("0-199", "0-15")
            .expect("plain")
            .into_iter()
            .flat_map(|lane| lane.queues)
            .map(|q| q.0)
            .collect();
        all.sort();
        assert_eq!(all, (0..200).collect::<Vec<u16>>());
    }

    #[test]
    fn nonsense_is_refused() {
        for (possible, online) in
            [("", ""), ("0-1", ""), ("1-0", "0"), ("0,0", "0"), ("a", "0"), ("0-1", "9")]
        {
            assert!(plan(possible, online).is_err(), "{possible:?} {online:?}");
        }
        assert!(plan("0-4095", "0-3").is_err());
    }
}
