//! Two sites that prove to each other that they hold the same, without a network in between.

use holdfast_store::engine::{Engine, Mismatch};
use std::sync::Arc;

/// A recovery point of an owner's, and the two groups that have it.
#[derive(Clone, Copy)]
pub struct Compared<'a> {
    pub owner: (&'a Arc<Engine>, &'a str),
    pub replica: (&'a Arc<Engine>, &'a str),
    pub lineage: u64,
    pub lsn: u64,
}

#[derive(Default, Debug)]
pub struct Proved {
    pub mismatches: Vec<Mismatch>,
    pub mends: Vec<u8>,
    pub ranges: u64,
    pub entries: u64,
    /// Questions that the replica answered.
    pub questions: u64,
}

/// `part_bytes`: how fine the ranges are.
pub fn prove(compared: &Compared<'_>, part_bytes: usize) -> Proved {
    let Compared { owner, replica, lineage, lsn } = compared;
    let ours = owner.0.proof_open(owner.1, *lineage, *lsn).expect("kept at the owner");
    let theirs = replica.0.proof_open(replica.1, *lineage, *lsn).expect("kept at the replica");
    let mut proved = Proved::default();
    let mut next = Vec::new();
    loop {
        let lead = ours.lead(&next, part_bytes).expect("readable");
        let answer = theirs.answer(&lead.question).expect("readable");
        let verdict = ours.compare(&lead.question, &lead.answer, &answer).expect("an answer");
        proved.ranges += u64::from(verdict.ranges);
        proved.entries += verdict.entries;
        proved.questions += 1;
        let mut reached = verdict.next.clone();
        for suspect in verdict.suspects {
            let mut question = Some(suspect);
            while let Some(asked) = question {
                let answer = theirs.answer(&asked).expect("readable");
                let found = ours.mismatches(&asked, &answer).expect("an answer");
                proved.questions += 1;
                proved.mismatches.extend(found.mismatches);
                proved.mends.extend(found.mends);
                if !reached.is_empty() && found.reached > reached {
                    reached = found.reached;
                }
                question = found.rest;
            }
        }
        assert!(reached.is_empty() || reached > next, "no way forward");
        if reached.is_empty() {
            return proved;
        }
        next = reached;
    }
}

/// Says a mismatch in one line.
pub fn say(mismatch: &Mismatch) -> String {
    let Mismatch { volume, path, kind, what, range, .. } = mismatch;
    let path = path.as_ref().map_or("?".to_owned(), |path| format!("/{}", String::from_utf8_lossy(path)));
    let range = range.map_or(String::new(), |(offset, length)| format!(" {offset}+{length}"));
    format!("{volume}:{path} {what}{range} {}", kind.name())
}
