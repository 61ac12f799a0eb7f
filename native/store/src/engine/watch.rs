//! Says well before the past gets shorter than it was promised to be, and again when it does.

use super::Engine;
use crate::group::Group;
use holdfast_format::GroupId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Between two looks.
const LOOK_NS: u64 = 10_000_000_000;

/// How the promise of a group's window fares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
enum State {
    #[default]
    Kept,
    /// At the rate of the last minutes it cannot be kept.
    InDanger,
    /// Seconds of it have gone.
    Short,
}

#[derive(Default)]
pub(super) struct Watch {
    looked_ns: u64,
    states: BTreeMap<GroupId, State>,
}

fn bytes_in_words(bytes: u64) -> String {
    match bytes {
        0..0x100_000 => format!("{} KiB", bytes >> 10),
        0x100_000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

fn time_in_words(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

impl Engine {
    /// What every group's past has room for on this pool, in bytes on drives.
    pub(super) fn history_limit(&self) -> u64 {
        self.pool.room().total_bytes / 100 * self.options.history_limit_percent as u64
    }

    /// Groups whose promise is in danger or broken, each with a sentence that says what to do.
    fn history_trouble(&self) -> Vec<(GroupId, State, String)> {
        let groups = self.groups();
        let needs: Vec<(Arc<Group>, u64, u64)> = groups
            .into_iter()
            .map(|group| {
                let rate = group.history_rate().unwrap_or(0);
                let needed = rate.saturating_mul(group.retention().window_s);
                (group, rate, needed)
            })
            .collect();
        let needed_by_all: u64 = needs.iter().map(|(_, _, needed)| needed).sum();
        let pool_limit = self.history_limit();
        needs.iter().filter_map(|(group, rate, needed)| self.trouble_of_history(group, (*rate, *needed), (pool_limit, needed_by_all))).collect()
    }

    fn trouble_of_history(
        &self,
        group: &Group,
        (rate, needed): (u64, u64),
        (pool_limit, needed_by_all): (u64, u64),
    ) -> Option<(GroupId, State, String)> {
        let (retention, held, name) = (group.retention(), group.held(), self.group_name(group.id));
        let promised = time_in_words(retention.window_s);
        let own_limit = retention.limit_bytes(self.pool.room().total_bytes).unwrap_or(u64::MAX);
        // Of the pool's limit a group gets what its rate is of all rates.
        let share = (u128::from(pool_limit) * u128::from(needed) / u128::from(needed_by_all.max(1))) as u64;
        let (limit, way_out) = if own_limit < share || needed_by_all <= pool_limit {
            (own_limit, format!("holdfast volume set {name} --history-limit SIZE"))
        } else {
            (share, format!("holdfast pool add-drive {} --drive NEW, or a higher history.limit", self.pool.name()))
        };
        let less = |seconds: u64| format!("holdfast volume set {name} --retention {}", time_in_words(seconds.max(1)));
        if held.is_short {
            let left = time_in_words(held.window_s);
            let what = format!(
                "history of group {name}: seconds of the {promised} that are promised went for want of space, {left} are held; \
                 give it more room ({way_out}), or promise less ({})",
                less(held.window_s)
            );
            return Some((group.id, State::Short, what));
        }
        if needed <= limit || rate == 0 {
            return None;
        }
        let holdable_s = limit / rate;
        let what = format!(
            "history of group {name}: it grows by {} a second, so that of the {promised} that are promised about {} can be held \
             within {}; give it more room ({way_out}), or promise less ({})",
            bytes_in_words(rate),
            time_in_words(holdable_s),
            bytes_in_words(limit),
            less(holdable_s)
        );
        Some((group.id, State::InDanger, what))
    }

    /// Sentences for the status.
    pub(super) fn history_warnings(&self) -> Vec<String> {
        self.history_trouble().into_iter().map(|(_, _, what)| what).collect()
    }

    /// Tells the log, once each time it gets worse.
    pub(super) fn watch_history(&self) {
        let now_ns = self.clock.boottime_ns();
        let mut watch = self.watch.lock();
        if now_ns.saturating_sub(watch.looked_ns) < LOOK_NS {
            return;
        }
        watch.looked_ns = now_ns;
        let before = std::mem::take(&mut watch.states);
        for (group, state, what) in self.history_trouble() {
            if before.get(&group).copied().unwrap_or_default() < state {
                self.pool.say(what);
            }
            watch.states.insert(group, state);
        }
    }
}
