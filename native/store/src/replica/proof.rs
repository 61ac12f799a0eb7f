//! Proof that a recovery point is the same at two sites: hashes over ranges of what it holds, and what lies under one that differs.
//!
//! Invariants
//! - A hash is over what a point *means*, as it travels: records without what a site decides by itself (cell levels of files; name,
//!   copies and policy of volumes), and what files read as, block by block. A block of zeroes is a hole; what lies
//!   behind the end of a file counts for nothing.
//! - Content comes from the drives, past the cache, verified as every read is. What no copy can tell is an entry of its own, and never
//!   equal to anything.
//! - One call does a bounded amount of work (`SLICE_BYTES`), and the next one goes on where it ended: nothing of a volume's size
//!   is ever held.
//!
//! One side leads: it cuts what comes next into ranges of about `PART_BYTES`, and asks the other for their hashes. Of ranges that
//! differ it asks for the entries. So each side reads everything once, and what differs twice.

mod entries;
mod naming;
mod walk;

use crate::error::{Error, Kind, Result};
use crate::extent::cache::DataCache;
use crate::group::{Group, PastLedger};
use holdfast_format::key::{self, Key};
use holdfast_format::proof::{Entries, Hasher, Hashes, PartHash, Place, Question};
use holdfast_format::limits::PROOF_PARTS_MAX;
use holdfast_format::replica::Origin;
use holdfast_format::{BranchId, GROUP_BRANCH, Ino, Lsn};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use naming::{Mismatch, MismatchKind, Found, decode_mends};
use walk::{Entry, Sink, Walk};

/// What one range holds, about.
const PART_BYTES: usize = 128 << 10;
/// Work of one call: the side that is asked may do twice as much, so that it ends early only where it holds more.
const SLICE_BYTES: usize = PROOF_PARTS_MAX * PART_BYTES;

/// A recovery point that is compared; it stays kept as long as this lives.
pub struct Proof {
    group: Arc<Group>,
    then: PastLedger,
    at: Lsn,
    /// Holds nothing.
    no_cache: Arc<DataCache>,
    /// Names that only the other side has, by what they lead to: its inodes have no path here.
    foreign: Mutex<BTreeMap<(BranchId, Ino), Vec<u8>>>,
}

/// What to ask the other side, and the answer that would be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lead {
    pub question: Vec<u8>,
    pub answer: Vec<u8>,
    /// Bytes of content and records that were read for it, about.
    pub bytes: u64,
}

/// What an answer says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Where the next question begins; empty: everything was compared.
    pub next: Vec<u8>,
    /// Ranges that were compared.
    pub ranges: u32,
    /// Entries on this side.
    pub entries: u64,
    /// Questions for the entries of those that differ.
    pub suspects: Vec<Vec<u8>>,
}

impl Proof {
    /// The recovery point that is `lsn` of a lineage: the group's own, or the one that it received as such.
    ///
    /// # Errors
    /// `NotFound`: it is not kept here, or not any more.
    pub fn open(group: &Arc<Group>, origin: Origin) -> Result<Self> {
        let gone = || {
            let Origin { lineage, lsn } = origin;
            Error::new(Kind::NotFound, format!("recovery point {lsn} of lineage {lineage:016x} is not kept here any more"))
        };
        let at = group.point_of(origin).or_else(|| group.received_as(origin)).ok_or_else(gone)?;
        let then = PastLedger::pinned(group.pin(at).ok_or_else(gone)?);
        let (no_cache, foreign) = (Arc::new(DataCache::new(0)), Mutex::default());
        Ok(Self { group: group.clone(), then, at, no_cache, foreign })
    }

    /// The next ranges from a place on (empty: from the beginning), with their hashes here. `part_bytes`: about what each holds; more
    /// than [`PART_BYTES`] means as much as that.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`: records cannot be read; `Invalid`: no such place.
    pub fn lead(&self, from: &[u8], part_bytes: usize) -> Result<Lead> {
        let from = if from.is_empty() { first_place() } else { from.to_vec() };
        check_place(&from)?;
        let mut parts = Parts::leading(from.clone(), part_bytes.min(PART_BYTES));
        let reached = self.walk(&from, &last_place()).run(&mut parts)?;
        let bytes = parts.weight as u64;
        let (places, hashes) = parts.end(&reached);
        let answer = Hashes { reached, parts: hashes }.encode();
        Ok(Lead { question: Question::Hashes(places).encode(), answer, bytes })
    }

    /// The answer to a question of the other side.
    ///
    /// # Errors
    /// `Invalid`: it is none; `Corrupt`, `Unavailable`: records cannot be read.
    pub fn answer(&self, question: &[u8]) -> Result<Vec<u8>> {
        match decode_question(question)? {
            Question::Hashes(places) => Ok(self.hashes(places)?.encode()),
            Question::Entries { from, until } => Ok(self.entries(&from, &until)?.encode()),
        }
    }

    fn hashes(&self, places: Vec<Place>) -> Result<Hashes> {
        let (Some(from), Some(until)) = (places.first().cloned(), places.last().cloned()) else { return Err(no_question()) };
        let mut parts = Parts::asked(places);
        let reached = self.walk(&from, &until).run(&mut parts)?;
        let (_, parts) = parts.end(&reached);
        Ok(Hashes { reached, parts })
    }

    fn entries(&self, from: &[u8], until: &[u8]) -> Result<Entries> {
        entries::entries(self, from, until)
    }

    fn walk<'a>(&'a self, from: &[u8], until: &'a [u8]) -> Walk<'a> {
        Walk::new(&self.then, &self.no_cache, from, until)
    }

    /// Compares two answers to the same question of [`Self::lead`]; `ours` is this side's.
    ///
    /// # Errors
    /// `Invalid`: one of them is no answer to it.
    pub fn compare(&self, question: &[u8], ours: &[u8], theirs: &[u8]) -> Result<Verdict> {
        let Question::Hashes(places) = decode_question(question)? else { return Err(no_question()) };
        let (ours, theirs) = (decode_hashes(ours)?, decode_hashes(theirs)?);
        let end = places.last().cloned().unwrap_or_default();
        let is_whole = theirs.reached == end && theirs.parts.len() + 1 == places.len();
        let is_part = theirs.reached > places[0] && theirs.reached < end && !theirs.parts.is_empty();
        let ends_in_last = |parts: usize| places.get(parts).is_some_and(|end| theirs.reached <= *end) && theirs.reached > places[parts - 1];
        if ours.parts.len() + 1 != places.len() || !(is_whole || is_part && ends_in_last(theirs.parts.len())) {
            return Err(Error::invalid("an answer to another question"));
        }
        let mut verdict = Verdict { next: Vec::new(), ranges: theirs.parts.len() as u32, entries: 0, suspects: Vec::new() };
        let mut suspects: Vec<(Place, Place)> = Vec::new();
        for (index, their) in theirs.parts.iter().enumerate() {
            let (from, until) = (&places[index], &places[index + 1]);
            let is_cut = *until > theirs.reached;
            let until = if is_cut { &theirs.reached } else { until };
            let our = if is_cut { self.part(from, until)? } else { ours.parts[index] };
            verdict.entries += our.entries;
            if our == *their && our.unreadable == 0 {
                continue;
            }
            match suspects.last_mut() {
                Some(last) if last.1 == *from => last.1.clone_from(until),
                _ => suspects.push((from.clone(), until.clone())),
            }
        }
        verdict.suspects = suspects.into_iter().map(|(from, until)| Question::Entries { from, until }.encode()).collect();
        verdict.next = place_after(theirs.reached);
        Ok(verdict)
    }

    /// One range, however long.
    fn part(&self, from: &[u8], until: &[u8]) -> Result<PartHash> {
        let mut whole = Whole::default();
        self.walk(from, until).run(&mut whole)?;
        Ok(whole.0.finish())
    }

    /// What differs in a range of a verdict, with the other side's answer for it. This side is the owner.
    ///
    /// # Errors
    /// `Invalid`: it is no answer to that question.
    pub fn mismatches(&self, question: &[u8], theirs: &[u8]) -> Result<Found> {
        let Question::Entries { from, until } = decode_question(question)? else { return Err(no_question()) };
        let theirs = Entries::decode(theirs).map_err(|error| Error::invalid(format!("an answer: {error}")))?;
        let is_beyond = theirs.entries.iter().any(|(key, _)| *key < from || *key >= theirs.reached);
        if theirs.reached <= from || theirs.reached > until || is_beyond {
            return Err(Error::invalid("an answer to another question"));
        }
        naming::mismatches(self, (&from, &until), theirs)
    }
}

/// Everything that is replicated lies between the two.
fn first_place() -> Place {
    key::volume(BranchId(GROUP_BRANCH.0 + 1))
}

fn last_place() -> Place {
    key::volume(BranchId(u32::MAX))
}

/// Where the next question begins.
fn place_after(reached: Place) -> Place {
    if reached >= last_place() { Place::new() } else { reached }
}

/// Behind the content of a file.
fn after_content(branch: BranchId, ino: Ino) -> Key {
    key::kind_range(branch, ino, key::KIND_DATA).1
}

fn no_question() -> Error {
    Error::invalid("not a question of a proof")
}

fn decode_question(bytes: &[u8]) -> Result<Question> {
    Question::decode(bytes).map_err(|error| Error::invalid(format!("a question: {error}")))
}

fn decode_hashes(bytes: &[u8]) -> Result<Hashes> {
    Hashes::decode(bytes).map_err(|error| Error::invalid(format!("an answer: {error}")))
}

/// A place of this side, as a question may have it.
fn check_place(place: &[u8]) -> Result<()> {
    let question = Question::Entries { from: place.to_vec(), until: last_place() };
    decode_question(&question.encode()).map(drop)
}

/// Hashes of one range after the other.
struct Parts {
    /// Where they begin; of what is asked for, also where the last one ends.
    places: Vec<Place>,
    /// What each holds, about, where this side says where they end.
    part_bytes: Option<usize>,
    hashes: Vec<PartHash>,
    open: Hasher,
    /// Of the open one, and of all.
    open_weight: usize,
    weight: usize,
}

impl Parts {
    fn new(places: Vec<Place>, part_bytes: Option<usize>) -> Self {
        Self { places, part_bytes, hashes: Vec::new(), open: Hasher::default(), open_weight: 0, weight: 0 }
    }

    /// This side says where ranges end.
    fn leading(from: Place, part_bytes: usize) -> Self {
        Self::new(vec![from], Some(part_bytes))
    }

    fn asked(places: Vec<Place>) -> Self {
        Self::new(places, None)
    }

    fn close(&mut self) {
        self.hashes.push(std::mem::take(&mut self.open).finish());
        self.open_weight = 0;
    }

    /// What comes next lies under this key.
    fn pass(&mut self, key: &[u8]) {
        if let Some(part_bytes) = self.part_bytes {
            let is_later = self.places.last().is_some_and(|from| &from[..] < key);
            if is_later && self.open_weight >= part_bytes && self.hashes.len() + 1 < PROOF_PARTS_MAX {
                self.close();
                self.places.push(key.to_vec());
            }
            return;
        }
        while self.places.get(self.hashes.len() + 1).is_some_and(|end| &end[..] <= key) {
            self.close();
        }
    }

    /// Ends where the walk did: places, and hashes of the ranges between them.
    fn end(mut self, reached: &[u8]) -> (Vec<Place>, Vec<PartHash>) {
        if self.part_bytes.is_some() {
            self.close();
            self.places.push(reached.to_vec());
        } else {
            self.pass(reached);
            let is_cut = self.places.get(self.hashes.len()).is_some_and(|from| &from[..] < reached);
            if is_cut && self.hashes.len() + 1 < self.places.len() {
                self.close();
            }
        }
        (self.places, self.hashes)
    }
}

fn add(hasher: &mut Hasher, key: &[u8], entry: Entry<'_>) {
    match entry {
        Entry::Record(value) => hasher.record(key, value),
        Entry::Block(content) => hasher.block(key, content),
        Entry::Unreadable => hasher.unreadable(key),
    }
}

impl Sink for Parts {
    fn entry(&mut self, key: &[u8], entry: Entry<'_>) {
        self.pass(key);
        add(&mut self.open, key, entry);
    }

    fn weigh(&mut self, bytes: usize) {
        self.open_weight += bytes;
        self.weight += bytes;
    }

    fn is_full(&self) -> bool {
        match self.part_bytes {
            Some(part_bytes) => {
                let is_last = self.hashes.len() + 1 == PROOF_PARTS_MAX;
                self.weight >= SLICE_BYTES || is_last && self.open_weight >= part_bytes
            }
            None => self.weight >= 2 * SLICE_BYTES,
        }
    }
}

#[derive(Default)]
struct Whole(Hasher);

impl Sink for Whole {
    fn entry(&mut self, key: &[u8], entry: Entry<'_>) {
        add(&mut self.0, key, entry);
    }
    fn weigh(&mut self, _: usize) {}
    fn is_full(&self) -> bool {
        false
    }
}
