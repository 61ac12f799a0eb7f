//! Reads from several copies in virtual time: what a slow drive would answer later is in flight meanwhile.

use super::SimDrive;
use crate::clock::Clock;
use crate::drive::{Answer, First, Source};
use std::io;

/// A read that is under way: when it ends, and what it will say.
struct Flight {
    source: usize,
    asked_ns: u64,
    ends_ns: u64,
    result: io::Result<Vec<u8>>,
}

impl SimDrive {
    /// The read without its delay: how long it takes, beside its result.
    fn fly(&self, source: &Source<'_>, bytes: usize) -> (u64, io::Result<Vec<u8>>) {
        let clock = self.world.clock.fork();
        let begun_ns = clock.boottime_ns();
        let mut into = vec![0; bytes];
        let result = self.read_by(&clock, source.file, source.offset, &mut into);
        (clock.boottime_ns() - begun_ns, result.map(|()| into))
    }
}

/// See [`crate::drive::read_first`]. The clock moves to the moment of the answer that is accepted.
pub fn read_first(
    sources: &[Source<'_>],
    into: &mut [u8],
    patience_ns: u64,
    accept: &mut dyn FnMut(&Answer<'_>) -> bool,
) -> First {
    let mut first = First::default();
    let Some(drive) = sources.first().and_then(|source| source.drive.as_sim()) else { return first };
    let clock = drive.world.clock();
    let begun_ns = clock.boottime_ns();
    let (mut now_ns, mut asked) = (begun_ns, 0);
    let mut flying: Vec<Flight> = Vec::new();
    let mut ask = true;
    loop {
        if ask && let Some((source, drive)) =
            sources.get(asked).and_then(|source| Some((source, source.drive.as_sim()?)))
        {
            let (delay_ns, result) = drive.fly(source, into.len());
            flying.push(Flight { source: asked, asked_ns: now_ns, ends_ns: now_ns + delay_ns, result });
            asked += 1;
        }
        let newest_ns = flying.iter().map(|flight| flight.asked_ns).max().unwrap_or(now_ns);
        let Some(next) = (0..flying.len()).min_by_key(|at| (flying[*at].ends_ns, flying[*at].source)) else {
            break;
        };
        let impatient_ns = newest_ns + patience_ns;
        if flying[next].ends_ns > impatient_ns && asked < sources.len() {
            now_ns = impatient_ns;
            first.late |= flying.iter().map(|flight| 1 << flight.source).sum::<u8>();
            ask = true;
            continue;
        }
        let flight = flying.swap_remove(next);
        now_ns = now_ns.max(flight.ends_ns);
        let bytes = flight.result.as_deref();
        let answer = Answer { source: flight.source, bytes, took_ns: Some(flight.ends_ns - flight.asked_ns) };
        if accept(&answer) {
            if let Ok(bytes) = &flight.result {
                into.copy_from_slice(bytes);
            }
            first.winner = Some(flight.source);
            break;
        }
        ask = true;
    }
    clock.advance(now_ns - begun_ns);
    first
}

/// See [`crate::drive::read_each`]. The clock moves by the longest wait.
pub fn read_each(sources: &[Source<'_>], bytes: usize, patience_ns: u64) -> Vec<Option<io::Result<Vec<u8>>>> {
    let Some(first) = sources.first().and_then(|source| source.drive.as_sim()) else { return Vec::new() };
    let mut waited_ns = 0;
    let answers = sources.iter().map(|source| {
        let (delay_ns, result) = source.drive.as_sim()?.fly(source, bytes);
        waited_ns = waited_ns.max(delay_ns.min(patience_ns));
        (delay_ns <= patience_ns).then_some(result)
    });
    let answers = answers.collect();
    first.world.clock().advance(waited_ns);
    answers
}
