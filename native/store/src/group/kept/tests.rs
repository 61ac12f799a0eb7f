//! The table of kept points against something too simple to be wrong.

use super::*;
use crate::group::retention::Retention;
use holdfast_device::Rng;
use holdfast_format::retention::{HistoryLimit, ThinStep};

const SECOND_NS: u64 = 1_000_000_000;

fn record(name: &str, moment: &Moment) -> PointRecord {
    PointRecord {
        kind: if name.is_empty() { PointKind::Tick } else { PointKind::Named },
        held: false,
        wall: moment.wall,
        boottime_ns: moment.boottime_ns,
        boot_id: moment.boot_id,
        name: name.to_owned(),
        origin: None,
    }
}

fn moment(boot: u8, boottime_s: u64, wall_s: i64) -> Moment {
    Moment { wall: Time { sec: wall_s, nsec: 0 }, boottime_ns: boottime_s * SECOND_NS, boot_id: [boot; 16] }
}

fn day_week_month() -> Retention {
    let step = |every_s, for_s| ThinStep { every_s, for_s };
    let thin = vec![step(60, 86_400), step(3600, 7 * 86_400), step(86_400, 30 * 86_400)];
    Retention { window_s: 3600, thin, limit: HistoryLimit::None }
}

/// Weeks of ticks in their turn, each asked about as time goes on.
fn weeks(table: &mut PointTable, retention: &Retention, every_s: u64, until_s: u64) -> u64 {
    let zones = retention.zones();
    let mut at_s = 0;
    let mut lsn = 0;
    while at_s < until_s {
        lsn += 1;
        let now = moment(1, at_s, 1_000_000 + at_s as i64);
        table.insert(Lsn(lsn), &record("", &now));
        let going = table.superfluous(&zones, table.place_of(&now), 1000);
        table.remove(&going.lsns, Lsn(0));
        table.done(going);
        at_s += every_s;
    }
    lsn
}

#[test]
fn a_grid_keeps_as_many_as_it_says_however_long_it_goes_on() {
    let retention = day_week_month();
    retention.validate().expect("the grid of the daemon");
    let mut table = PointTable::default();
    weeks(&mut table, &retention, 10, 20 * 86_400);
    // One in ten seconds for an hour, one a minute for 23 more, one an hour for 6 days, one a day for 13.
    let expected = 360 + 23 * 60 + 6 * 24 + 13;
    let found = table.ticks_len();
    assert!(found.abs_diff(expected) <= 8, "{found} ticks, {expected} were expected");
    let places: Vec<u64> = table.ticks.values().map(|kept| kept.at_ns / SECOND_NS).collect();
    let newest = places[places.len() - 1];
    for pair in places.windows(2) {
        let age_s = newest - pair[1];
        let allowed_s = if age_s < 3600 { 10 } else if age_s < 86_400 { 60 } else if age_s < 7 * 86_400 { 3600 } else { 86_400 };
        assert!(pair[1] - pair[0] <= allowed_s, "{} s apart, {age_s} s ago", pair[1] - pair[0]);
    }
}

#[test]
fn what_was_there_in_the_window_stays_however_long_ago_it_was_made() {
    let retention = Retention { window_s: 60, ..Retention::default() };
    let zones = retention.zones();
    let mut table = PointTable::default();
    let going_at = |table: &PointTable, at_s: u64| table.superfluous(&zones, table.place_of(&moment(1, at_s, 0)), 10).lsns;
    table.insert(Lsn(1), &record("", &moment(1, 0, 0)));
    assert_eq!(going_at(&table, 1_000_000), [], "nothing has changed since");
    table.insert(Lsn(2), &record("", &moment(1, 1_000_000, 0)));
    assert_eq!(going_at(&table, 1_000_059), [], "the state of a minute ago was that of the first one");
    assert_eq!(going_at(&table, 1_000_060), [Lsn(1)]);
}

#[test]
fn a_clock_that_is_set_makes_nothing_older() {
    let retention = Retention { window_s: 3600, ..Retention::default() };
    let zones = retention.zones();
    let mut table = PointTable::default();
    table.insert(Lsn(1), &record("", &moment(1, 100, 5000)));
    table.insert(Lsn(2), &record("", &moment(1, 101, 4_000_000_000)));
    table.insert(Lsn(3), &record("", &moment(1, 102, 5002)));
    // Another start of the machine, whose clock is wrong first, by 60 years, and then right.
    table.insert(Lsn(4), &record("", &moment(2, 5, 2_000_000_000)));
    table.insert(Lsn(5), &record("", &moment(2, 6, 5010)));
    let ages: Vec<u64> = table.ticks.values().map(|kept| kept.at_ns / SECOND_NS).collect();
    assert_eq!(ages, [0, 1, 2, 2 + 86_400, 2 + 86_400 + 1], "at most a day passes between two starts");
    let going = table.superfluous(&zones, table.place_of(&moment(2, 7, 5011)), 10).lsns;
    assert_eq!(going, [Lsn(1), Lsn(2)], "what lies before the first start went as after a day, not more");
    assert_eq!(table.newest_by(&When::Time(Time { sec: 5005, nsec: 0 })).map(|point| point.lsn), Some(Lsn(3)));
    assert_eq!(table.newest_by(&When::Time(Time { sec: 6000, nsec: 0 })).map(|point| point.lsn), Some(Lsn(5)));
}

#[test]
fn the_newest_by_a_time_is_what_a_walk_finds() {
    for seed in 0..200 {
        let mut rng = Rng::from_seed(seed);
        let mut table = PointTable::default();
        let mut all: Vec<(Lsn, Time)> = Vec::new();
        let (mut lsn, mut wall_s) = (0, 1000);
        let jumps = seed % 3 == 0;
        for _ in 0..rng.below(60) {
            lsn += 1 + rng.below(50);
            wall_s += rng.below(4) as i64;
            if jumps && rng.chance(1, 10) {
                wall_s += rng.below(60) as i64 - 30;
            }
            let name = if rng.chance(1, 4) { format!("s{lsn}") } else { String::new() };
            let now = moment(1, lsn, wall_s);
            table.insert(Lsn(lsn), &record(&name, &now));
            all.push((Lsn(lsn), now.wall));
        }
        if rng.chance(1, 2) {
            let gone: Vec<Lsn> = all.iter().filter(|_| rng.chance(1, 3)).map(|(lsn, _)| *lsn).collect();
            table.remove(&gone, Lsn(0));
            all.retain(|(lsn, _)| !gone.contains(lsn));
        }
        for time_s in 960..1300 {
            let time = Time { sec: time_s, nsec: 0 };
            let expected = all.iter().rev().find(|(_, wall)| *wall <= time).map(|(lsn, _)| *lsn);
            let found = table.newest_by(&When::Time(time)).map(|point| point.lsn);
            assert_eq!(found, expected, "seed {seed}, {time_s}");
        }
        let listed: Vec<Lsn> = table.all(Lsn(0), 1000).into_iter().map(|point| point.lsn).collect();
        assert_eq!(listed, all.iter().map(|(lsn, _)| *lsn).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn more_than_a_group_can_keep_is_refused_with_what_would_do() {
    let window = |window_s| Retention { window_s, ..Retention::default() };
    assert!(window(36 * 3600).validate().is_ok());
    let year = window(365 * 86_400).validate().expect_err("31 million points");
    assert!(year.message.contains("at most 36 hours") && year.message.contains("1m:30d,1h:2y"), "{}", year.message);
    let years = ThinStep { every_s: 86_400, for_s: 20 * 366 * 86_400 };
    assert!(Retention { thin: vec![years], ..window(3600) }.validate().is_ok());
    for wrong in [ThinStep { every_s: 60, for_s: 3600 }, ThinStep { every_s: 7200, for_s: 7000 }] {
        assert!(Retention { thin: vec![wrong], ..window(3600) }.validate().is_err(), "{wrong:?}");
    }
    assert!(Retention { limit: HistoryLimit::Percent(91), ..window(1) }.validate().is_err());
}
