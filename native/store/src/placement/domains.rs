//! Which drives get the copies, as a function of labels and counted slots.
//!
//! In this order: a domain of the asked level that has no copy yet; a drive that is neither slow nor failing; as far away
//! as that costs no balance; then chance, weighted by size, among which the least filled one wins. So drives fill evenly
//! whatever their sizes are, and neighbours in time still lie on different drives; a drive that was just added gets a few
//! times its share, not everything.

use holdfast_device::Rng;
use holdfast_format::DomainLevel;
use std::collections::BTreeSet;

/// Drives that chance picks; the least filled of them is first.
const PICKS: usize = 6;
/// Tickets drawn for them: one that hits a drive that was picked already is void.
const TICKETS: usize = 4 * PICKS;
/// A drive with less than this part of the candidates' free share is no longer preferred for being far away.
const FAR_FREE_DIVISOR: u64 = 2;

/// A drive's label `rack/block/node/drive`, with the ends of its domains: placing one copy compares a thousand of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    text: Box<str>,
    /// Where the domain of each level ends, by level.
    ends: [u16; DomainLevel::ALL.len()],
}

impl Label {
    /// `text` has at most `DOMAIN_BYTES_MAX` bytes. Parts that are missing are taken for empty.
    pub fn new(text: &str) -> Self {
        let end = |level: DomainLevel| {
            let slash = text.match_indices('/').nth(level.parts() - 1);
            slash.map_or(text.len(), |(at, _)| at) as u16
        };
        Self { text: text.into(), ends: DomainLevel::ALL.map(end) }
    }

    /// What of the label tells the domains of a level apart: its first parts.
    pub fn domain(&self, level: DomainLevel) -> &str {
        &self.text[..self.ends[level as usize] as usize]
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// One drive, as placement sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub index: u16,
    pub label: &'a Label,
    pub total: u32,
    pub free: u32,
    /// Neither slow nor failing.
    pub fit: bool,
}

/// Whether two drives share a domain of the level. A drive shares one with itself only, at level `drive`.
pub fn share(left: (u16, &Label), right: (u16, &Label), level: DomainLevel) -> bool {
    left.0 == right.0 || level != DomainLevel::Drive && left.1.domain(level) == right.1.domain(level)
}

/// How far apart two labels are: the widest level that differs, counted from the narrowest; 0: the same.
fn distance(left: &Label, right: &Label) -> u8 {
    let apart = |level: &DomainLevel| left.domain(*level) != right.domain(*level);
    DomainLevel::ALL.iter().rev().find(|level| apart(level)).map_or(0, |level| 1 + *level as u8)
}

/// Fuller drives have the larger number.
fn fill(candidate: &Candidate<'_>) -> u64 {
    let used = candidate.total.saturating_sub(candidate.free) as u64;
    (used << 32) / candidate.total.max(1) as u64
}

/// Which of the candidates the next copy should go to, beside copies that lie on `chosen`. `None`: there are none.
///
/// Takes one pass over the candidates, and a few draws: it is asked for every copy of everything.
pub fn best(
    candidates: &[Candidate<'_>],
    chosen: &[(u16, &Label)],
    level: DomainLevel,
    rng: &mut Rng,
) -> Option<usize> {
    let (free, total) = candidates
        .iter()
        .fold((0u64, 0u64), |(free, total), one| (free + one.free as u64, total + one.total as u64));
    // Ordered by what counts most.
    let class = |one: &Candidate<'_>| {
        let kept = chosen.iter().all(|other| !share((one.index, one.label), *other, level));
        // Of its own share less is free than half of what is free of all.
        let roomy = one.free as u64 * total.max(1) * FAR_FREE_DIVISOR >= free * one.total as u64;
        let far = if roomy { chosen.iter().map(|other| distance(one.label, other.1)).min().unwrap_or(0) } else { 0 };
        (kept, one.fit, roomy, far)
    };
    let mut of_best = (false, false, false, 0);
    // Members of the best class, each with the free slots of all up to it.
    let mut members: Vec<(u64, usize)> = Vec::with_capacity(candidates.len());
    for (at, one) in candidates.iter().enumerate() {
        let class = class(one);
        if class > of_best {
            members.clear();
            of_best = class;
        }
        if class == of_best {
            let before = members.last().map_or(0, |(sum, _)| *sum);
            members.push((before + one.free as u64, at));
        }
    }
    pick(&members, rng).into_iter().min_by_key(|at| fill(&candidates[*at]))
}

/// A few different members in the order in which they were drawn by their weight, all of them when they are few;
/// `members`: the weights summed up, and what each stands for.
fn pick(members: &[(u64, usize)], rng: &mut Rng) -> Vec<usize> {
    let weight = members.last().map_or(0, |(sum, _)| *sum);
    let wanted = PICKS.min(members.len());
    let mut picked = Vec::with_capacity(PICKS);
    for _ in 0..if weight > 0 { TICKETS } else { 0 } {
        let ticket = rng.below(weight);
        let (_, at) = members[members.partition_point(|(sum, _)| *sum <= ticket)];
        if !picked.contains(&at) {
            picked.push(at);
        }
        if picked.len() == wanted {
            return picked;
        }
    }
    if members.len() <= PICKS || weight == 0 {
        let rest: Vec<usize> = members.iter().map(|(_, at)| *at).filter(|at| !picked.contains(at)).collect();
        picked.extend(rest);
    }
    picked
}

/// Domains of a level among drives.
pub fn count<'a>(drives: impl Iterator<Item = (u16, &'a Label)>, level: DomainLevel) -> usize {
    match level {
        DomainLevel::Drive => drives.map(|(index, _)| index).collect::<BTreeSet<u16>>().len(),
        _ => drives.map(|(_, label)| label.domain(level)).collect::<BTreeSet<&str>>().len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Model {
        labels: Vec<Label>,
        totals: Vec<u32>,
        used: Vec<u32>,
        gone: Vec<bool>,
        /// Copies of each thing.
        things: Vec<Vec<u16>>,
        rng: Rng,
    }

    impl Model {
        /// Drives of sizes 1 : 8 in racks.
        fn new(drives: usize, racks: usize, unit: u32, seed: u64) -> Self {
            let mut rng = Rng::from_seed(seed);
            let totals: Vec<u32> = (0..drives).map(|_| unit * (1 + rng.below(8) as u32)).collect();
            Self {
                labels: (0..drives).map(|at| Label::new(&format!("r{}/b/n{at}/d{at}", at % racks))).collect(),
                used: vec![0; drives],
                gone: vec![false; drives],
                things: Vec::new(),
                totals,
                rng,
            }
        }

        fn next(&mut self, kept: &[u16], level: DomainLevel) -> Option<u16> {
            let open = |at: &usize| !self.gone[*at] && self.used[*at] < self.totals[*at] && !kept.contains(&(*at as u16));
            let candidates: Vec<Candidate<'_>> = (0..self.totals.len())
                .filter(open)
                .map(|at| Candidate {
                    index: at as u16,
                    label: &self.labels[at],
                    total: self.totals[at],
                    free: self.totals[at] - self.used[at],
                    fit: true,
                })
                .collect();
            let chosen: Vec<(u16, &Label)> = kept.iter().map(|at| (*at, &self.labels[*at as usize])).collect();
            best(&candidates, &chosen, level, &mut self.rng).map(|at| candidates[at].index)
        }

        fn place(&mut self, rf: usize, level: DomainLevel) {
            let mut copies = Vec::new();
            for _ in 0..rf {
                let drive = self.next(&copies, level).expect("room");
                self.used[drive as usize] += 1;
                copies.push(drive);
            }
            self.things.push(copies);
        }

        fn violations(&self, level: DomainLevel) -> usize {
            let of = |at: u16| (at, &self.labels[at as usize]);
            let shared = |copies: &&Vec<u16>| {
                (1..copies.len()).any(|at| copies[..at].iter().any(|other| share(of(copies[at]), of(*other), level)))
            };
            self.things.iter().filter(shared).count()
        }

        /// Least and most filled drive, in parts of a thousand.
        fn fills(&self) -> (u32, u32) {
            let fill = |at: usize| self.used[at] * 1000 / self.totals[at];
            let fills = (0..self.totals.len()).filter(|at| !self.gone[*at]).map(fill);
            fills.fold((u32::MAX, 0), |(low, high), fill| (low.min(fill), high.max(fill)))
        }
    }

    #[test]
    fn a_thousand_drives_of_unequal_size_fill_evenly_and_a_removed_one_moves_only_what_it_held() {
        let mut model = Model::new(1000, 50, 64, 1);
        let slots: u32 = model.totals.iter().sum();
        for _ in 0..slots / 3 * 7 / 10 {
            model.place(3, DomainLevel::Rack);
        }
        let (low, high) = model.fills();
        assert!(high - low <= 100 && high * 10 <= low * 11, "filled {low} to {high} of 1000");
        assert_eq!(model.violations(DomainLevel::Rack), 0);
        let removed = (0..1000).max_by_key(|at| model.totals[*at]).expect("a drive");
        let held = model.used[removed];
        model.gone[removed] = true;
        let mut moved = 0;
        for at in 0..model.things.len() {
            let Some(copy) = model.things[at].iter().position(|drive| *drive as usize == removed) else { continue };
            model.things[at].swap_remove(copy);
            let kept = model.things[at].clone();
            let drive = model.next(&kept, DomainLevel::Rack).expect("room");
            model.used[drive as usize] += 1;
            model.things[at].push(drive);
            moved += 1;
        }
        assert!(moved * 10 <= held * 11, "{moved} moved for {held}");
        assert_eq!(model.violations(DomainLevel::Rack), 0);
        let (low, high) = model.fills();
        assert!(high - low <= 100, "filled {low} to {high} of 1000");
    }

    #[test]
    fn copies_share_a_domain_only_when_there_is_no_other() {
        let mut model = Model::new(6, 2, 20, 2);
        for _ in 0..40 {
            model.place(2, DomainLevel::Rack);
        }
        assert_eq!(model.violations(DomainLevel::Rack), 0);
        // Three copies in two racks: two of them share one, on different drives.
        for _ in 0..10 {
            model.place(3, DomainLevel::Rack);
        }
        assert_eq!((model.violations(DomainLevel::Rack), model.violations(DomainLevel::Node)), (10, 0));
    }

    #[test]
    fn a_new_drive_gets_more_than_its_share_but_not_everything() {
        let mut model = Model::new(20, 20, 64, 3);
        let slots: u32 = model.totals.iter().sum();
        for _ in 0..slots / 4 {
            model.place(2, DomainLevel::Drive);
        }
        model.used[7] = 0;
        let share = model.totals[7] as f64 / slots as f64;
        let before = model.things.len();
        for _ in 0..200 {
            model.place(1, DomainLevel::Drive);
        }
        let got = model.things[before..].iter().filter(|copies| copies.contains(&7)).count() as f64 / 200.0;
        assert!(got > share && got < 2.0 * PICKS as f64 * share && got < 0.9, "{got} of all, its share is {share}");
    }

    #[test]
    fn far_away_is_preferred_while_it_costs_no_balance() {
        let labels = ["a/b/n1/d1", "a/b/n1/d2", "a/b/n2/d3", "c/b/n3/d4"].map(Label::new);
        let of = |free: [u32; 4]| -> Vec<u16> {
            let mut candidates: Vec<Candidate<'_>> = (1..4)
                .map(|at| Candidate { index: at as u16, label: &labels[at], total: 100, free: free[at], fit: true })
                .collect();
            let mut order = Vec::new();
            let mut rng = Rng::from_seed(4);
            while let Some(at) = best(&candidates, &[(0, &labels[0])], DomainLevel::Drive, &mut rng) {
                order.push(candidates.remove(at).index);
            }
            order
        };
        assert_eq!(of([50; 4]), [3, 2, 1], "another rack, another node, the same node");
        assert_eq!(of([50, 90, 90, 5])[2], 3, "the far one is nearly full");
    }

    #[test]
    fn labels_and_their_domains() {
        let label = Label::new("r/b/n/d");
        assert_eq!(label.domain(DomainLevel::Rack), "r");
        assert_eq!(label.domain(DomainLevel::Block), "r/b");
        assert_eq!(label.domain(DomainLevel::Node), "r/b/n");
        assert_eq!(label.domain(DomainLevel::Drive), "r/b/n/d");
        assert_eq!(Label::new("r").domain(DomainLevel::Node), "r");
        let [x, y] = ["///x", "///y"].map(Label::new);
        assert!(share((1, &x), (2, &y), DomainLevel::Node));
        assert!(!share((1, &label), (2, &label), DomainLevel::Drive), "a drive is a domain of its own");
        let labels = ["a///0", "a///1", "b///2"].map(Label::new);
        let of = |level| count((0..).zip(&labels), level);
        assert_eq!((of(DomainLevel::Rack), of(DomainLevel::Drive)), (2, 3));
    }
}
