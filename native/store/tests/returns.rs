//! Former owners that come back: what they need is kept until then, however long that takes, and they can do it again and again.

mod rig;

use holdfast_format::inode::Time;
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{FileSystem, WriteFlags};
use holdfast_store::engine::{Engine, EngineOptions, Leader, RetentionChange};
use holdfast_store::error::Kind;
use holdfast_store::volume::{Volume, VolumeOptions};
use rig::tree::walk;
use rig::{ROOT, Rig, options, read_all, volume_create};
use std::sync::Arc;

const GROUP: &str = "v";
const PEER: &str = "peer";

fn mount(engine: &Engine, name: &str) -> Arc<Volume> {
    engine.volume(name, VolumeOptions { noatime: true }).expect("free to be mounted")
}

fn file(volume: &Volume) -> Ino {
    match volume.lookup(ROOT_INO, b"f") {
        Ok(attr) => attr.ino,
        Err(_) => volume.create(&ROOT, ROOT_INO, b"f", 0o600).expect("created").ino,
    }
}

fn write(volume: &Volume, text: &str) {
    volume.write(&ROOT, file(volume), 0, text.as_bytes(), WriteFlags::default()).expect("written");
}

fn text_at(engine: &Engine, words: &str) -> String {
    let (volume, _) = engine.volume_at(GROUP, words).expect("kept");
    String::from_utf8(read_all(&volume, file(&volume))).expect("text")
}

/// Reads a batch to its end; false: a point of it is not kept.
fn send(engine: &Engine, base: u64, target: u64) -> bool {
    match engine.delta_open(GROUP, base, target, &[]) {
        Ok(mut delta) => {
            while delta.next_part(usize::MAX).expect("read").is_some() {}
            true
        }
        Err(error) => {
            assert_eq!(error.kind, Kind::NotFound);
            false
        }
    }
}

/// Nothing is kept by itself, so what stays is kept for followers.
fn keep_nothing(engine: &Engine) {
    let change = RetentionChange { window_s: Some(0), thin: Some(Vec::new()), limit: None };
    engine.retention_set(GROUP, &change).expect("set");
}

#[test]
fn what_a_follower_may_have_is_kept_until_it_says_what_it_has() {
    let rig = Rig::create(1, 2, options());
    rig.engine.volume_create(&volume_create(GROUP, 2, None)).expect("a volume");
    keep_nothing(&rig.engine);
    let volume = mount(&rig.engine, GROUP);
    let mut points = Vec::new();
    for step in 0..6 {
        write(&volume, &format!("state {step}"));
        points.push(rig.engine.replica_cut(GROUP).expect("cut").lsn);
        if step == 0 {
            rig.engine.follower_has(GROUP, PEER, points[0]).expect("noted");
        }
    }
    drop(volume);
    // The second was sent whole, and the third behind it; the fifth on from nothing that the peer can have.
    assert!(send(&rig.engine, points[0], points[1]) && send(&rig.engine, points[1], points[2]));
    assert!(send(&rig.engine, points[3], points[4]));
    let age = |rig: &Rig| (0..90).for_each(|_| rig.second());
    age(&rig);
    let is_kept = |rig: &Rig, lsn: u64| rig.engine.volume_at(GROUP, &format!("lsn:{lsn}")).is_ok_and(|found| found.1.lsn == lsn);
    let kept = |rig: &Rig| points.iter().map(|lsn| is_kept(rig, *lsn)).collect::<Vec<_>>();
    let expected = [true, true, true, false, false, false];
    assert_eq!(kept(&rig), expected);
    // A start has forgotten what was sent, and keeps what there is.
    let rig = rig.kill(options());
    age(&rig);
    assert_eq!(kept(&rig), expected);
    assert_eq!(text_at(&rig.engine, &format!("lsn:{}", points[2])), "state 2");
    // It had the third: nothing before that is needed any more.
    rig.engine.follower_has(GROUP, PEER, points[2]).expect("kept all the time");
    age(&rig);
    assert_eq!(kept(&rig), [false, false, true, false, false, false]);
}

/// Two sites, of which either has owned the group.
struct Pair {
    sites: [Rig; 2],
    owner: usize,
}

impl Pair {
    /// What the other site has of the owner's newest point, and both call it.
    fn ship(&self) -> Time {
        let (from, to) = (&self.sites[self.owner].engine, &self.sites[1 - self.owner].engine);
        let point = from.replica_cut(GROUP).expect("cut");
        let state = to.replica_state(GROUP).expect("told").expect("a replica");
        if state.lsn == point.lsn {
            return point.wall;
        }
        if state.lsn == 0 {
            from.follower_has(GROUP, PEER, point.lsn).expect("kept");
        }
        let mut delta = from.delta_open(GROUP, state.lsn, point.lsn, &[]).expect("both ends are kept");
        while let Some(part) = delta.next_part(8000).expect("read") {
            to.replica_stage(GROUP, &part.chunk, &part.cursor).expect("taken");
        }
        to.replica_complete(GROUP, (state.lineage, point.lsn), point.wall, &point.name).expect("whole");
        from.follower_has(GROUP, PEER, point.lsn).expect("kept");
        point.wall
    }

    /// The other site takes over; this one comes back, with its fork.
    fn turn(&mut self, wall: Time, fork: &str) {
        let (former, next) = (&self.sites[self.owner].engine, &self.sites[1 - self.owner].engine);
        next.replica_promote(GROUP, PEER).expect("promoted");
        let state = next.replica_state(GROUP).expect("told").expect("it was one");
        let branch = state.branch.expect("it was promoted");
        let (source, lineage) = next.replica_identity(GROUP).expect("told");
        let leader = Leader { source, lineage, lsn: branch.lsn.0, wall };
        former.replica_rejoin(GROUP, fork, state.lsn, &leader).expect("a fork, and a follower");
        self.owner = 1 - self.owner;
    }
}

#[test]
fn two_sites_take_turns_as_often_as_they_like() {
    const TURNS: usize = 12;
    let small = EngineOptions { memtable_bytes: 96 << 10, ..options() };
    let sites = [Rig::create(5, 2, small.clone()), Rig::create(6, 2, small.clone())];
    sites[0].engine.volume_create(&volume_create(GROUP, 2, None)).expect("a volume");
    let description = sites[0].engine.replica_describe(GROUP).expect("described");
    sites[1].engine.replica_create(&description, GROUP, 2).expect("a replica");
    let mut pair = Pair { sites, owner: 0 };
    for turn in 0..TURNS {
        let volume = mount(&pair.sites[pair.owner].engine, GROUP);
        write(&volume, &format!("shipped in turn {turn:02}"));
        let name = format!("file-{turn}");
        volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o600).expect("created");
        let wall = pair.ship();
        write(&volume, &format!("only here in turn {turn:02}"));
        drop(volume);
        let fork = format!("v-fork-{turn}");
        pair.turn(wall, &fork);
        let follower = &pair.sites[1 - pair.owner];
        assert_eq!(text_of(&mount(&follower.engine, &fork)), format!("only here in turn {turn:02}"));
        if turn % 2 == 0 {
            follower.engine.volume_destroy(&fork).expect("dropped");
        }
        pair.ship();
        for at in 0..2 {
            let engine = &pair.sites[at].engine;
            engine.settle().expect("settled");
            pair.sites[at].second();
        }
        let names = (0..=turn).map(|turn| format!("file-{turn}"));
        let owner = mount(&pair.sites[pair.owner].engine, GROUP);
        for name in names {
            owner.lookup(ROOT_INO, name.as_bytes()).unwrap_or_else(|_| panic!("{name} in turn {turn}"));
        }
        let local = pair.sites[1 - pair.owner].engine.replica_state(GROUP).expect("told").expect("a replica").local_lsn;
        let (follower, _) = pair.sites[1 - pair.owner].engine.volume_at(GROUP, &format!("lsn:{local}")).expect("kept");
        assert_eq!(walk(&owner).expect("readable").text, walk(&follower).expect("readable").text, "turn {turn}");
        assert_eq!(text_of(&owner), format!("shipped in turn {turn:02}"));
        drop((owner, follower));
        if turn % 3 == 2 {
            let [one, other] = pair.sites;
            pair.sites = [one.kill(small.clone()), other.kill(small.clone())];
        }
    }
    for rig in &pair.sites {
        let found = rig.engine.volumes().expect("volumes").into_iter().find(|volume| volume.name == GROUP).expect("there");
        assert!(found.base.is_none_or(|base| base.depth <= 4), "the chain of clones is not shortened");
        let report = rig.engine.fsck().expect("checked");
        assert!(report.problems.is_empty(), "{:#?}", report.problems);
    }
}

/// The owner gives the group away, or is fenced where it stands; whoever it goes to has all of it.
fn hand_over(pair: &mut Pair, is_planned: bool) -> Leader {
    let wall = pair.ship();
    let (former, next) = (&pair.sites[pair.owner].engine, &pair.sites[1 - pair.owner].engine);
    let last = next.replica_state(GROUP).expect("told").expect("a replica").lsn;
    if is_planned {
        former.gate_close(GROUP, std::time::Duration::from_secs(60)).expect("it was open");
        former.gate_seal(GROUP).expect("it was closed");
        former.replica_relinquish(GROUP, last).expect("given");
    }
    next.replica_promote(GROUP, PEER).expect("promoted");
    let branch = next.replica_state(GROUP).expect("told").expect("it was one").branch.expect("it was promoted");
    let (source, lineage) = next.replica_identity(GROUP).expect("told");
    let leader = Leader { source, lineage, lsn: branch.lsn.0, wall };
    let find_last = |until| next.replica_find_last(GROUP, branch.lineage, until).expect("told");
    assert_eq!(find_last(last + 5), Some((last, branch.lsn.0)));
    assert!(find_last(last - 1).is_none_or(|(at, here)| at < last && here < branch.lsn.0));
    assert_eq!(next.replica_find_last(GROUP, branch.lineage ^ 1, last).expect("told"), None);
    for _ in 0..2 {
        former.replica_fence(GROUP, last, &leader).expect("fenced");
    }
    leader
}

#[test]
fn a_former_owner_without_a_tail_follows_as_it_is_and_keeps_its_past() {
    const TURNS: usize = 9;
    let small = EngineOptions { memtable_bytes: 96 << 10, ..options() };
    let sites = [Rig::create(15, 2, small.clone()), Rig::create(16, 2, small.clone())];
    sites[0].engine.volume_create(&volume_create(GROUP, 2, None)).expect("a volume");
    let description = sites[0].engine.replica_describe(GROUP).expect("described");
    sites[1].engine.replica_create(&description, GROUP, 2).expect("a replica");
    let mut pair = Pair { sites, owner: 0 };
    for turn in 0..TURNS {
        let engine = &pair.sites[pair.owner].engine;
        let volume = engine.volume(GROUP, VolumeOptions { noatime: false }).expect("free to be mounted");
        write(&volume, &format!("turn {turn}"));
        pair.ship();
        engine.snapshot_create(GROUP, &format!("named-{turn}"), None).expect("an owner's");
        let last = pair.ship();
        let leader = hand_over(&mut pair, turn % 2 == 0);
        // Who looks leaves no tail, but where time goes on an access time.
        text_of(&volume);
        let former = &pair.sites[pair.owner].engine;
        let at = former.replica_state(GROUP).expect("told").expect("fenced").branch.expect("fenced at").lsn.0;
        assert_eq!(former.replica_turn(GROUP, at, &leader).expect_err("mounted").kind, Kind::Conflict);
        volume.release().expect("let go");
        drop(volume);
        let other = Leader { lineage: leader.lineage ^ 1, ..leader };
        assert_eq!(former.replica_turn(GROUP, at, &other).expect_err("not for that one").kind, Kind::Conflict);
        if turn % 3 == 1 {
            let [one, other] = pair.sites;
            pair.sites = [one.kill(small.clone()), other.power_fails(small.clone())];
        }
        let former = &pair.sites[pair.owner].engine;
        for _ in 0..2 {
            former.replica_turn(GROUP, at, &leader).expect("it follows");
        }
        let state = former.replica_state(GROUP).expect("told").expect("a replica");
        assert!(state.is_replica && !state.is_fork && !state.is_given);
        assert_eq!((state.source, state.lineage, state.lsn, state.wall), (leader.source, leader.lineage, leader.lsn, last));
        assert_eq!(text_at(former, &format!("lsn:{}", state.local_lsn)), format!("turn {turn}"));
        assert_eq!(former.replica_cut(GROUP).expect_err("no owner any more").kind, Kind::Fenced);
        pair.owner = 1 - pair.owner;
        for rig in &pair.sites {
            rig.engine.settle().expect("settled");
            rig.second();
            for named in 0..=turn {
                let (then, snapshot) = rig.engine.volume_at(GROUP, &format!("named-{named}")).expect("its past stays");
                assert!(!snapshot.held);
                assert_eq!(text_of(&then), format!("turn {named}"));
            }
        }
        pair.ship();
    }
    for rig in pair.sites {
        let rig = rig.kill(small.clone());
        let found = rig.engine.volumes().expect("volumes");
        assert!(found.len() == 1 && found[0].base.is_none(), "{found:#?}");
        let report = rig.engine.fsck().expect("checked");
        assert!(report.problems.is_empty(), "{:#?}", report.problems);
    }
}

fn text_of(volume: &Volume) -> String {
    String::from_utf8(read_all(volume, file(volume))).expect("text")
}

#[test]
fn without_a_common_point_all_of_the_group_is_the_fork() {
    let rig = Rig::create(9, 2, options());
    rig.engine.volume_create(&volume_create(GROUP, 2, None)).expect("a volume");
    let volume = mount(&rig.engine, GROUP);
    write(&volume, "all that there is");
    drop(volume);
    let leader = Leader { source: rig.engine.replica_identity(GROUP).expect("told").0, lineage: 7, lsn: 9, wall: Time::default() };
    assert_eq!(rig.engine.replica_fence(GROUP, 77, &leader).expect_err("never was").kind, Kind::NotFound);
    let leader = Leader { lsn: 0, ..leader };
    for _ in 0..2 {
        rig.engine.replica_fence(GROUP, 0, &leader).expect("fenced");
    }
    for _ in 0..2 {
        rig.engine.replica_rejoin(GROUP, "fork", 0, &leader).expect("a fork");
    }
    let names: Vec<String> = rig.engine.volumes().expect("volumes").into_iter().map(|volume| volume.name).collect();
    assert_eq!(names, ["fork"]);
    assert_eq!(text_of(&mount(&rig.engine, "fork")), "all that there is");
    let state = rig.engine.replica_state("fork").expect("told").expect("a fork");
    assert!(state.is_fork && !state.is_replica);
    let refused = rig.engine.clone_create("fork", "again", None).and_then(|_| {
        let again = mount(&rig.engine, "again");
        again.create(&ROOT, ROOT_INO, b"g", 0o600).map(drop).map_err(|_| unreachable!("a clone takes changes"))
    });
    refused.expect("a clone of a fork goes on");
}
