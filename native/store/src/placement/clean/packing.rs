//! Which page goes into which target: pages that will be forgotten together lie together, and targets are full.

use super::pages::LivePage;
use super::{Outlook, PageName};
use crate::error::Result;
use holdfast_format::EgroupId;
use holdfast_format::limits::MOVED_PARTS_MAX;
use std::collections::{BTreeMap, VecDeque};

/// Pages of one source, in its order, that will lie in one row: one part of its record.
pub(super) struct Row {
    pub source: EgroupId,
    pub outlook: Outlook,
    /// Indices into the list of live pages.
    pub pages: Vec<usize>,
}

/// Rows in the order in which they should lie, and how often the rows of a source may be cut in two: its record has room
/// for so many parts more.
pub(super) struct Plan {
    rows: Vec<Row>,
    cuts: BTreeMap<EgroupId, usize>,
}

/// Rows in the order in which they should lie: by outlook, then by the age of the source. `kept_parts`: parts of a source
/// that stay as they are.
pub(super) fn rows_of(
    pages: &[LivePage],
    outlooks: &[Outlook],
    kept_parts: &dyn Fn(EgroupId) -> Result<usize>,
) -> Result<Plan> {
    let names: Vec<PageName> = pages.iter().map(|page| page.name).collect();
    rows_of_names(&names, outlooks, kept_parts)
}

fn rows_of_names(
    names: &[PageName],
    outlooks: &[Outlook],
    kept_parts: &dyn Fn(EgroupId) -> Result<usize>,
) -> Result<Plan> {
    let mut sources: BTreeMap<EgroupId, BTreeMap<Outlook, Vec<usize>>> = BTreeMap::new();
    for (at, (name, outlook)) in names.iter().zip(outlooks).enumerate() {
        sources.entry(name.0).or_default().entry(*outlook).or_default().push(at);
    }
    let mut rows = Vec::new();
    let mut cuts = BTreeMap::new();
    for (source, mut classes) in sources {
        let room = MOVED_PARTS_MAX.saturating_sub(kept_parts(source)?);
        if classes.len() > room {
            merge_classes(&mut classes, room);
        }
        cuts.insert(source, room.saturating_sub(classes.len()));
        for (outlook, mut pages) in classes {
            pages.sort_unstable_by_key(|at| names[*at].1);
            rows.push(Row { source, outlook, pages });
        }
    }
    rows.sort_by_key(|row| (row.outlook, row.source));
    Ok(Plan { rows, cuts })
}

/// The record has room for fewer parts than there are classes: the past in one, or everything as what most of it is.
fn merge_classes(classes: &mut BTreeMap<Outlook, Vec<usize>>, room: usize) {
    let present = classes.remove(&Outlook::Present).unwrap_or_default();
    let past: Vec<usize> = std::mem::take(classes).into_values().flatten().collect();
    if room > 1 {
        classes.extend([(Outlook::Past(0), past), (Outlook::Present, present)]);
        classes.retain(|_, pages| !pages.is_empty());
        return;
    }
    let most = if past.len() > present.len() { Outlook::Past(0) } else { Outlook::Present };
    classes.insert(most, past.into_iter().chain(present).collect());
}

/// Fills targets of `capacity` pages with the rows, in their order. Where one does not fit, it is cut, or another one of its
/// outlook is, or one that fits comes first; only when there is none a hole stays. Every row fits an empty target.
pub(super) fn pack(plan: Plan, capacity: usize) -> Vec<Vec<Row>> {
    let Plan { rows, mut cuts } = plan;
    let mut rest: VecDeque<Row> = rows.into();
    let mut targets: Vec<Vec<Row>> = Vec::new();
    let mut left = 0;
    while let Some(front) = rest.front() {
        if targets.is_empty() || left == 0 {
            targets.push(Vec::new());
            left = capacity;
        }
        let at = if front.pages.len() <= left { Some(0) } else { filler(&rest, &cuts, left) };
        let Some(mut row) = at.and_then(|at| rest.remove(at)) else {
            left = 0;
            continue;
        };
        if row.pages.len() > left {
            let (source, outlook) = (row.source, row.outlook);
            rest.push_front(Row { source, outlook, pages: row.pages.split_off(left) });
            cuts.entry(source).and_modify(|cuts| *cuts -= 1);
        }
        left -= row.pages.len();
        if let Some(target) = targets.last_mut() {
            target.push(row);
        }
    }
    targets
}

/// The row that should fill `left` pages, in front of which one that does not fit waits.
fn filler(rest: &VecDeque<Row>, cuts: &BTreeMap<EgroupId, usize>, left: usize) -> Option<usize> {
    let outlook = rest.front()?.outlook;
    let may_cut = |row: &Row| row.pages.len() > left && cuts.get(&row.source).is_some_and(|cuts| *cuts > 0);
    let beside = |row: &&Row| row.outlook == outlook;
    let same = rest.iter().take_while(beside).count();
    let largest = |rows: usize| {
        let fitting = (0..rows).filter(|at| rest[*at].pages.len() <= left);
        fitting.max_by_key(|at| (rest[*at].pages.len(), std::cmp::Reverse(*at)))
    };
    let cuttable = |rows: usize| (0..rows).find(|at| may_cut(&rest[*at]));
    cuttable(same).or_else(|| largest(same)).or_else(|| cuttable(rest.len())).or_else(|| largest(rest.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outlook::{Past, Present};

    const CAPACITY: usize = 100;

    fn rows(names: &[PageName], outlooks: &[Outlook], kept: usize) -> Plan {
        rows_of_names(names, outlooks, &|_| Ok(kept)).expect("no lookup fails")
    }

    fn lengths(targets: &[Vec<Row>]) -> Vec<usize> {
        targets.iter().map(|rows| rows.iter().map(|row| row.pages.len()).sum()).collect()
    }

    #[test]
    fn what_dies_together_lies_together_and_targets_are_full() {
        // Four sources of 75 pages: every third is remembered by history only.
        let names: Vec<PageName> = (0..300u16).map(|at| (EgroupId(1 + at as u64 / 75), at % 75)).collect();
        let outlooks: Vec<Outlook> = (0..300).map(|at| if at % 3 == 0 { Past(0) } else { Present }).collect();
        let targets = pack(rows(&names, &outlooks, 0), CAPACITY);
        assert_eq!(lengths(&targets), [100, 100, 100]);
        assert!(targets[0].iter().all(|row| row.outlook == Past(0)));
        assert!(targets[1..].iter().flatten().all(|row| row.outlook == Present));
        let mut seen = [false; 300];
        for row in targets.iter().flatten() {
            assert!(row.pages.windows(2).all(|pair| names[pair[0]].1 < names[pair[1]].1), "order is kept");
            assert!(row.pages.iter().all(|at| names[*at].0 == row.source && !std::mem::replace(&mut seen[*at], true)));
        }
        assert!(seen.iter().all(|seen| *seen));
    }

    #[test]
    fn no_source_ever_has_more_parts_than_its_record_holds() {
        for kept in 0..MOVED_PARTS_MAX {
            let names: Vec<PageName> = (0..360u16).map(|at| (EgroupId(1 + at as u64 / 90), at % 90)).collect();
            let outlooks: Vec<Outlook> =
                (0..360).map(|at| if at % 4 == 3 { Present } else { Past(at as u8 % 4) }).collect();
            let targets = pack(rows(&names, &outlooks, kept), CAPACITY);
            for source in 1..=4 {
                let parts = targets.iter().flatten().filter(|row| row.source == EgroupId(source)).count();
                assert!(kept + parts <= MOVED_PARTS_MAX, "{kept} kept and {parts} new");
            }
            assert_eq!(lengths(&targets).iter().sum::<usize>(), 360);
            assert!(lengths(&targets).iter().all(|length| *length <= CAPACITY));
        }
    }

    #[test]
    fn a_row_that_may_not_be_cut_leaves_a_hole_that_a_later_one_takes() {
        let names: Vec<PageName> = [(1, 60u16), (2, 60), (3, 35)]
            .into_iter()
            .flat_map(|(source, count)| (0..count).map(move |page| (EgroupId(source), page)))
            .collect();
        let outlooks = vec![Present; names.len()];
        let targets = pack(rows(&names, &outlooks, MOVED_PARTS_MAX - 1), CAPACITY);
        assert_eq!(lengths(&targets), [95, 60]);
    }
}
