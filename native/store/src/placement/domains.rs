//! Which drives get the copies, as a function of labels and counted slots.
//!
//! In this order: a domain of the asked level that has no copy yet; a drive that is neither slow nor failing; as far away
//! as that costs no balance; then chance, weighted by size, among which the least filled one wins. So drives fill evenly
//! whatever their sizes are, and neighbours in time still lie on different drives; a drive that was just added gets a few
//! times its share, not everything.

use holdfast_device::Rng;
use holdfast_format::DomainLevel;

/// Drives that chance picks; the least filled of them is first.
const PICKS: usize = 6;
/// A drive with less than this part of the candidates' free share is no longer preferred for being far away.
const FAR_FREE_DIVISOR: u64 = 2;

/// One drive, as placement sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub index: u16,
    pub label: &'a str,
    pub total: u32,
    pub free: u32,
    /// Neither slow nor failing.
    pub fit: bool,
}

/// What of a label tells the domains of a level apart: its first parts, with a slash at the end.
pub fn domain_of(label: &str, level: DomainLevel) -> &str {
    let end = label.match_indices('/').nth(level.parts() - 1).map_or(label.len(), |(at, _)| at);
    &label[..end]
}

/// Whether two drives share a domain of the level. A drive shares one with itself only, at level `drive`.
pub fn share(left: (u16, &str), right: (u16, &str), level: DomainLevel) -> bool {
    left.0 == right.0 || level != DomainLevel::Drive && domain_of(left.1, level) == domain_of(right.1, level)
}

/// How far apart two labels are: the widest level that differs, counted from the narrowest; 0: the same.
fn distance(left: &str, right: &str) -> usize {
    let apart = |level: &DomainLevel| domain_of(left, *level) != domain_of(right, *level);
    DomainLevel::ALL.iter().rev().find(|level| apart(level)).map_or(0, |level| 1 + *level as usize)
}

/// Fuller drives have the larger number.
fn fill(candidate: &Candidate<'_>) -> u64 {
    let used = candidate.total.saturating_sub(candidate.free) as u64;
    (used << 32) / candidate.total.max(1) as u64
}

/// The candidates in the order in which the next copy should go to them, beside copies that lie on `chosen`.
pub fn order(
    candidates: &[Candidate<'_>],
    chosen: &[(u16, &str)],
    level: DomainLevel,
    rng: &mut Rng,
) -> Vec<u16> {
    let (free, total) = candidates
        .iter()
        .fold((0u64, 0u64), |(free, total), one| (free + one.free as u64, total + one.total as u64));
    let class = |one: &Candidate<'_>| {
        let kept = chosen.iter().all(|other| !share((one.index, one.label), *other, level));
        // Of its own share less is free than half of what is free of all.
        let roomy = one.free as u64 * total.max(1) * FAR_FREE_DIVISOR >= free * one.total as u64;
        let far = chosen.iter().map(|other| distance(one.label, other.1)).min().unwrap_or(0);
        (kept, one.fit, roomy, if roomy { far } else { 0 })
    };
    let mut ranked: Vec<_> = candidates.iter().map(|one| (class(one), fill(one), one)).collect();
    ranked.sort_by_key(|(class, fill, one)| (std::cmp::Reverse(*class), *fill, one.index));
    let best = ranked.first().map_or(0, |first| ranked.iter().take_while(|one| one.0 == first.0).count());
    pick(&mut ranked[..best], |(_, fill, one)| (one.free as u64, *fill), rng);
    ranked.into_iter().map(|(_, _, one)| one.index).collect()
}

/// Brings a few members, drawn by their weight, to the front: of those, the one with the smallest value first.
fn pick<T>(members: &mut [T], of: impl Fn(&T) -> (u64, u64), rng: &mut Rng) {
    let mut left: u64 = members.iter().map(|one| of(one).0).sum();
    let picks = PICKS.min(members.len());
    for front in 0..picks {
        let mut at = front;
        if left > 0 {
            let mut ticket = rng.below(left);
            while at + 1 < members.len() && ticket >= of(&members[at]).0 {
                ticket -= of(&members[at]).0;
                at += 1;
            }
        }
        left -= of(&members[at]).0;
        members.swap(front, at);
    }
    members[..picks].sort_by_key(|one| of(one).1);
}

/// Domains of a level among drives.
pub fn count<'a>(drives: impl Iterator<Item = (u16, &'a str)>, level: DomainLevel) -> usize {
    let mut seen: Vec<(u16, &str)> = Vec::new();
    for drive in drives {
        if seen.iter().all(|other| !share(drive, *other, level)) {
            seen.push(drive);
        }
    }
    seen.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Model {
        labels: Vec<String>,
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
                labels: (0..drives).map(|at| format!("r{}/b/n{at}/d{at}", at % racks)).collect(),
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
            let chosen: Vec<(u16, &str)> = kept.iter().map(|at| (*at, self.labels[*at as usize].as_str())).collect();
            order(&candidates, &chosen, level, &mut self.rng).first().copied()
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
            let of = |at: u16| (at, self.labels[at as usize].as_str());
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
        let labels = ["a/b/n1/d1", "a/b/n1/d2", "a/b/n2/d3", "c/b/n3/d4"];
        let of = |free: [u32; 4]| -> Vec<u16> {
            let candidates: Vec<Candidate<'_>> = (1..4)
                .map(|at| Candidate { index: at as u16, label: labels[at], total: 100, free: free[at], fit: true })
                .collect();
            order(&candidates, &[(0, labels[0])], DomainLevel::Drive, &mut Rng::from_seed(4))
        };
        assert_eq!(of([50; 4]), [3, 2, 1], "another rack, another node, the same node");
        assert_eq!(of([50, 90, 90, 5])[2], 3, "the far one is nearly full");
    }

    #[test]
    fn labels_and_their_domains() {
        let level = |level| domain_of("r/b/n/d", level);
        assert_eq!(level(DomainLevel::Rack), "r");
        assert_eq!(level(DomainLevel::Block), "r/b");
        assert_eq!(level(DomainLevel::Node), "r/b/n");
        assert_eq!(level(DomainLevel::Drive), "r/b/n/d");
        assert_eq!(domain_of("r", DomainLevel::Node), "r");
        assert!(share((1, "///x"), (2, "///y"), DomainLevel::Node));
        assert!(!share((1, "r/b/n/d"), (2, "r/b/n/d"), DomainLevel::Drive), "a drive is a domain of its own");
        let drives = [(0, "a///0"), (1, "a///1"), (2, "b///2")];
        let of = |level| count(drives.iter().copied(), level);
        assert_eq!((of(DomainLevel::Rack), of(DomainLevel::Drive)), (2, 3));
    }
}
