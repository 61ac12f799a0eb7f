//! `holdfast-twin --a DIR --b DIR [--seeds FROM..TO | --seed S] [--ops N]`: the same random operations on two
//! directories must give the same. Exit codes: 0 equal, 1 different, 2 the test itself could not run.

// A test tool outside the daemon: see the crate's root.
#![allow(clippy::disallowed_methods)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use holdfast_twin::arguments::Arguments;
use holdfast_twin::compare::{Counts, Difference, Ground, Trouble, ctime_is_fine};
use holdfast_twin::op::Path;
use holdfast_twin::shrink::shrink;
use holdfast_twin::side::{Break, SKIPPED};
use holdfast_twin::sys::code_text;

const USAGE: &str = "\
holdfast-twin --a DIR --b DIR [options]
  --seeds FROM..TO      seeds to run, TO excluded (default 0..100)
  --seed S              one seed
  --ops N               operations a seed (default 2000); a shorter run is a prefix of a longer one
  --jobs N              seeds at the same time (default 1)
  --shrink N            replays to spend on shortening a failing sequence (default 300; 0 for none)
  --before-compare CMD  shell command to run before the trees are compared (a restart of the daemon, say)
  --skip KIND,KIND      kinds of operations to leave out (TemporaryFile, say), to see past a known difference
  --no-ctime            do not compare whether operations move ctime
  --break K             damage side B on purpose: 1 flips a byte of one write, 2 loses mode bits
  --counts              print how often each kind of operation gave which result
  --legal               print the differences that are tolerated, with reasons";

struct Plan {
    ground: Ground,
    seeds: std::ops::Range<u64>,
    ops: usize,
    jobs: u64,
    shrink_tries: usize,
    print_counts: bool,
}

fn main() {
    let code = match start() {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(trouble) => {
            eprintln!("holdfast-twin: {trouble}");
            2
        }
    };
    std::process::exit(code);
}

fn start() -> Result<bool, Trouble> {
    let mut arguments = Arguments::from_process(1)?;
    if arguments.flag("help") {
        println!("{USAGE}");
        return Ok(true);
    }
    if arguments.flag("legal") {
        print!("{}", holdfast_twin::legal::table());
        return Ok(true);
    }
    let plan = plan(arguments)?;
    // SAFETY: umask touches no memory. Equal on both sides whatever shell we were started from.
    unsafe { libc::umask(0o027) };
    report_bus_errors();
    run(&plan)
}

fn plan(mut arguments: Arguments) -> Result<Plan, Trouble> {
    let directory = |text: String| Path(text.into_bytes());
    let (a, b) = (directory(arguments.require("a")?), directory(arguments.require("b")?));
    let ops = arguments.number("ops", 2000)? as usize;
    let seeds = match (arguments.take("seed"), arguments.take("seeds")) {
        (Some(_), Some(_)) => return Err("--seed and --seeds exclude each other".into()),
        (Some(seed), None) => {
            let seed = seed.parse().map_err(|_| format!("--seed {seed:?} is not a number"))?;
            seed..seed + 1
        }
        (None, range) => parse_range(&range.unwrap_or_else(|| "0..100".into()))?,
    };
    let damage = match arguments.number("break", 0)? {
        0 => None,
        1 => Some(Break::FlipWrittenByte { from_op: ops / 2 }),
        2 => Some(Break::LoseModeBits),
        other => return Err(format!("--break {other}: 1 or 2")),
    };
    let compare_ctime = !arguments.flag("no-ctime");
    let plan = Plan {
        jobs: arguments.number("jobs", 1)?.max(1),
        shrink_tries: arguments.number("shrink", 300)? as usize,
        print_counts: arguments.flag("counts"),
        ground: Ground {
            fine_ctime: compare_ctime && ctime_is_fine(&a)? && ctime_is_fine(&b)?,
            a,
            b,
            damage,
            before_compare: arguments.take("before-compare"),
            skip: arguments.take("skip").unwrap_or_default().split(',').map(str::to_owned).collect(),
        },
        seeds,
        ops,
    };
    arguments.finish()?;
    Ok(plan)
}

fn parse_range(text: &str) -> Result<std::ops::Range<u64>, Trouble> {
    let wrong = || format!("--seeds {text:?}: FROM..TO is wanted");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    Ok(from.parse().map_err(|_| wrong())?..to.parse().map_err(|_| wrong())?)
}

/// Runs all seeds; a difference does not stop the others, up to three.
fn run(plan: &Plan) -> Result<bool, Trouble> {
    let started = Instant::now();
    let next = AtomicU64::new(plan.seeds.start);
    let differing = AtomicU64::new(0);
    let counts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.jobs).map(|_| scope.spawn(|| work(plan, &next, &differing))).collect();
        let mut sum = Counts::new();
        for worker in workers {
            let counts = worker.join().map_err(|_| "a worker panicked".to_owned())??;
            counts.into_iter().for_each(|(what, count)| *sum.entry(what).or_default() += count);
        }
        Ok::<_, Trouble>(sum)
    })?;
    if plan.print_counts {
        for ((kind, code), count) in counts {
            let result = if code == SKIPPED { "skipped".into() } else { code_text(code) };
            println!("{count:>8} {kind:<18} {result}");
        }
    }
    let found = differing.load(Ordering::Relaxed);
    let done = next.load(Ordering::Relaxed).min(plan.seeds.end) - plan.seeds.start;
    println!(
        "{done} seeds x {} operations, {found} differing, ctime {}, {:.1} s",
        plan.ops,
        if plan.ground.fine_ctime { "compared" } else { "not compared" },
        started.elapsed().as_secs_f64()
    );
    Ok(found == 0)
}

fn work(plan: &Plan, next: &AtomicU64, differing: &AtomicU64) -> Result<Counts, Trouble> {
    let mut counts = Counts::new();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= plan.seeds.end || differing.load(Ordering::Relaxed) >= 3 {
            return Ok(counts);
        }
        if let Some(difference) = plan.ground.run_seed(seed, plan.ops, &mut counts)? {
            differing.fetch_add(1, Ordering::Relaxed);
            report(plan, seed, &difference)?;
        }
    }
}

fn report(plan: &Plan, seed: u64, difference: &Difference) -> Result<(), Trouble> {
    let count = difference.count;
    // One print, so that reports of parallel seeds do not mix.
    println!("\nseed {seed} differs\n{}run again: --seed {seed} --ops {count}", difference.text);
    if plan.shrink_tries > 0 && plan.ground.damage.is_none() {
        let name = format!("twin-{seed}-shrink");
        let short = shrink(&plan.ground, &name, &difference.ops, plan.shrink_tries)?;
        let lines: String = short.iter().map(|op| format!("  {op:?}\n")).collect();
        println!("seed {seed}: {} of these {count} operations still differ:\n{lines}", short.len());
    }
    Ok(())
}

/// A mapped page that cannot be read kills us with SIGBUS: say so instead of dying without a word.
fn report_bus_errors() {
    extern "C" fn on_bus_error(_signal: libc::c_int) {
        let text = b"holdfast-twin: SIGBUS: a mapped page could not be read or written\n";
        // SAFETY: write and _exit are async-signal-safe; `text` is static.
        unsafe {
            libc::write(2, text.as_ptr().cast(), text.len());
            libc::_exit(1);
        }
    }
    let handler: extern "C" fn(libc::c_int) = on_bus_error;
    // SAFETY: the handler calls only async-signal-safe functions and does not return.
    unsafe { libc::signal(libc::SIGBUS, handler as libc::sighandler_t) };
}
