//! What one seed plays on: drives, groups, volumes, and how much may break.

use holdfast_device::Rng;

/// A seed with this bit plays without snapshots and clones: the same steps as the seed without it had before there were any.
pub const PLAIN: u64 = 1 << 40;

#[derive(Clone, Debug)]
pub struct Shape {
    pub drives: usize,
    /// RF of the volumes of each group.
    pub groups: Vec<Vec<u8>>,
    /// Faults strike more drives than any promise covers: only "never wrong bytes" and precise errors are demanded.
    pub beyond: bool,
    /// Snapshots and clones are made, and RFs changed.
    pub past: bool,
    pub rounds: usize,
    pub steps: usize,
}

impl Shape {
    pub fn of(seed: u64) -> Self {
        let (past, seed) = (seed & PLAIN == 0, seed & !PLAIN);
        let mut rng = Rng::from_seed(seed ^ 0x5ad0);
        let (drives, groups): (usize, &[&[u8]]) = match seed % 10 {
            0 => (3, &[&[2]]),
            1 => (2, &[&[2]]),
            2 => (4, &[&[2], &[2]]),
            3 => (4, &[&[3]]),
            4 => (4, if rng.chance(1, 3) { &[&[1, 2, 3]] } else { &[&[2, 3]] }),
            5 => (5, &[&[2], &[3, 2]]),
            6 => (4, &[&[2, 2], &[3]]),
            7 => (3, &[&[2, 2]]),
            8 => (5, &[&[3, 3]]),
            _ => (3, if rng.chance(1, 3) { &[&[1], &[1]] } else { &[&[2], &[3]] }),
        };
        Self {
            drives,
            groups: groups.iter().map(|rfs| rfs.to_vec()).collect(),
            beyond: seed % 10 == 9,
            past,
            rounds: 2 + rng.below(2) as usize,
            steps: 40 + rng.below(60) as usize,
        }
    }

    /// Drives that may be struck at a time without breaking a promise to any volume of RF 2 or more.
    pub fn limit(&self) -> usize {
        let least = self.groups.iter().flatten().copied().filter(|rf| *rf > 1).min().unwrap_or(2);
        least as usize - 1
    }

    /// Volumes of one copy share groups with others that promise more.
    pub fn is_single(&self) -> bool {
        !self.beyond && self.groups.iter().flatten().any(|rf| *rf == 1)
    }

    pub fn volumes(&self) -> impl Iterator<Item = (String, String, u8)> + '_ {
        self.groups.iter().enumerate().flat_map(|(group, rfs)| {
            rfs.iter().enumerate().map(move |(at, rf)| (format!("g{group}"), format!("v{group}{at}"), *rf))
        })
    }
}
