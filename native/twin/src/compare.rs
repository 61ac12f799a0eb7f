//! Runs ops on both sides and finds the first difference.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use crate::generate::Generator;
use crate::op::{Op, Path};
use crate::side::{Break, Outcome, Side};
use crate::{sys, tree};

/// What differed, ready to print.
#[derive(Debug)]
pub struct Difference {
    /// Ops that were run, up to and with the one that differed; all of them when only the trees differ.
    pub ops: Vec<Op>,
    /// How many ops of the seed show the difference.
    pub count: usize,
    pub text: String,
}

/// How to run: where, and what to do between the last op and the look at the trees.
#[derive(Clone, Debug)]
pub struct Ground {
    pub a: Path,
    pub b: Path,
    /// Compare whether ops move ctime; only where both clocks are fine enough (see `ctime_is_fine`).
    pub fine_ctime: bool,
    /// Damage done to side B, for the twin's own test.
    pub damage: Option<Break>,
    /// A shell command to run when all handles are closed, before the trees are read: for a restart of the
    /// daemon.
    pub before_compare: Option<String>,
    /// Kinds of ops (the names in reports) that are drawn but not run: to see past a difference that is
    /// known.
    pub skip: Vec<String>,
}

/// A failure of the test itself, not a difference: a directory cannot be made, a command fails.
pub type Trouble = String;

/// How often each kind of op gave each result (0 stands for every success): shows that a run tests something.
pub type Counts = BTreeMap<(String, sys::Code), u64>;

impl Ground {
    fn sides(&self, name: &str) -> Result<[Side; 2], Trouble> {
        let make = |base: &Path, damage| {
            let fail = |code| format!("{base:?}: {}", sys::code_text(code));
            let base_fd =
                sys::open(libc::AT_FDCWD, base, libc::O_RDONLY | libc::O_DIRECTORY, 0).map_err(fail)?;
            let name = Path(name.as_bytes().to_vec());
            remove(base_fd.as_raw_fd(), &name)?;
            let code = sys::make_directory(base_fd.as_raw_fd(), &name, 0o755);
            if code < 0 {
                return Err(fail(code));
            }
            let root =
                sys::open(base_fd.as_raw_fd(), &name, libc::O_RDONLY | libc::O_DIRECTORY, 0).map_err(fail)?;
            Ok(Side::new(root, self.fine_ctime, damage))
        };
        Ok([make(&self.a, None)?, make(&self.b, self.damage)?])
    }

    fn clean(&self, name: &str) -> Result<(), Trouble> {
        for base in [&self.a, &self.b] {
            let fd = sys::open(libc::AT_FDCWD, base, libc::O_RDONLY | libc::O_DIRECTORY, 0)
                .map_err(|code| format!("{base:?}: {}", sys::code_text(code)))?;
            remove(fd.as_raw_fd(), &Path(name.as_bytes().to_vec()))?;
        }
        Ok(())
    }

    /// Draws and runs `count` ops of `seed`. The first difference ends the run; its trees are left for
    /// inspection.
    pub fn run_seed(
        &self,
        seed: u64,
        count: usize,
        counts: &mut Counts,
    ) -> Result<Option<Difference>, Trouble> {
        let name = format!("twin-{seed}");
        let mut sides = self.sides(&name)?;
        let mut generator = Generator::new(seed);
        let mut ops = Vec::with_capacity(count);
        let mut tail = Vec::new();
        for number in 0..count {
            let op = generator.next_op();
            if self.skip.contains(&op.kind()) {
                continue;
            }
            let [a, b] = run_both(&mut sides, &op);
            ops.push(op);
            let op = &ops[ops.len() - 1];
            if a != b {
                let text = format!("{}op {number}: {op:?}\n{}", tail_text(&tail), outcomes_text(&a, &b));
                return Ok(Some(Difference { ops, count: number + 1, text }));
            }
            tail.push(format!("  op {number}: {op:?} = {}", result_text(&a)));
            generator.learn(op, &a);
            let code = if a.code == crate::side::SKIPPED { a.code } else { a.code.min(0) };
            *counts.entry((op.kind(), code)).or_default() += 1;
        }
        let found = self.compare_trees(&name, &mut sides)?;
        if found.is_none() {
            drop(sides);
            self.clean(&name)?;
        }
        Ok(found.map(|text| Difference { ops, count, text: format!("{}{text}", tail_text(&tail)) }))
    }

    /// Runs given ops in a directory of their own; true if they still show a difference.
    pub fn replay_differs(&self, name: &str, ops: &[Op]) -> Result<bool, Trouble> {
        let mut sides = self.sides(name)?;
        let mut differs = false;
        for op in ops {
            let [a, b] = run_both(&mut sides, op);
            if a != b {
                differs = true;
                break;
            }
        }
        let differs = differs || self.compare_trees(name, &mut sides)?.is_some();
        drop(sides);
        self.clean(name)?;
        Ok(differs)
    }

    fn compare_trees(&self, name: &str, sides: &mut [Side; 2]) -> Result<Option<String>, Trouble> {
        sides.iter_mut().for_each(Side::close_all);
        if let Some(command) = &self.before_compare {
            let status = std::process::Command::new("sh").arg("-c").arg(command).status();
            if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
                return Err(format!("--before-compare {command:?}: {status:?}"));
            }
            // What was mounted there may be another mount now.
            for (side, base) in sides.iter_mut().zip([&self.a, &self.b]) {
                side.reopen_root(&Path([&base.0[..], b"/", name.as_bytes()].concat()))
                    .map_err(|code| format!("{base:?}/{name}: {}", sys::code_text(code)))?;
            }
        }
        let [a, b] = [&sides[0], &sides[1]].map(|side| match tree::lines(side.root()) {
            Ok(lines) => lines,
            Err((path, code)) => vec![format!("{path:?}: {}", sys::code_text(code))],
        });
        if a == b {
            return Ok(None);
        }
        let mut text = String::from("the trees differ:\n");
        for line in a.iter().filter(|line| !b.contains(line)) {
            text.push_str(&format!("  A: {line}\n"));
        }
        for line in b.iter().filter(|line| !a.contains(line)) {
            text.push_str(&format!("  B: {line}\n"));
        }
        Ok(Some(text))
    }
}

fn run_both(sides: &mut [Side; 2], op: &Op) -> [Outcome; 2] {
    let [a, b] = sides;
    [a.run(op), b.run(op)]
}

fn remove(base: i32, name: &Path) -> Result<(), Trouble> {
    if sys::stat(base, name, false).is_err() {
        return Ok(());
    }
    let fail = |(path, code): (Path, sys::Code)| format!("cannot remove {path:?}: {}", sys::code_text(code));
    tree::clear(base, name).map_err(fail)?;
    let code = sys::unlink(base, name, libc::AT_REMOVEDIR);
    if code < 0 { Err(fail((name.clone(), code))) } else { Ok(()) }
}

fn result_text(outcome: &Outcome) -> String {
    let code = if outcome.code == crate::side::SKIPPED {
        "skipped".to_owned()
    } else {
        sys::code_text(outcome.code)
    };
    format!("{code} [{}]", outcome.view.trim_end_matches("; "))
}

fn tail_text(tail: &[String]) -> String {
    tail[tail.len().saturating_sub(20)..].iter().map(|line| format!("{line}\n")).collect()
}

fn outcomes_text(a: &Outcome, b: &Outcome) -> String {
    let mut text = format!("  A: {}\n  B: {}\n", result_text(a), result_text(b));
    if a.data != b.data {
        let at = a.data.iter().zip(&b.data).take_while(|(a, b)| a == b).count();
        let show = |data: &[u8]| data[at..data.len().min(at + 48)].escape_ascii().to_string();
        text.push_str(&format!("  data differ at byte {at} of {} and {}:\n", a.data.len(), b.data.len()));
        text.push_str(&format!("    A: {}\n    B: {}\n", show(&a.data), show(&b.data)));
    }
    text
}

/// Whether every change of an inode in this directory moves its ctime, however quickly changes follow each
/// other: true with nanosecond clocks and with the kernel's multigrain times, false where ctime counts in
/// clock ticks.
pub fn ctime_is_fine(directory: &Path) -> Result<bool, Trouble> {
    let fail = |code| format!("{directory:?}: {}", sys::code_text(code));
    let base = sys::open(libc::AT_FDCWD, directory, libc::O_RDONLY | libc::O_DIRECTORY, 0).map_err(fail)?;
    let name = Path(format!("twin-clock-{}", std::process::id()).into_bytes());
    let file = sys::open(base.as_raw_fd(), &name, libc::O_CREAT | libc::O_RDWR, 0o600).map_err(fail)?;
    let mut last = (0, 0);
    let mut fine = true;
    for round in 0..200 {
        let code = sys::change_mode_handle(file.as_raw_fd(), 0o600 | (round % 2));
        if code < 0 {
            return Err(fail(code));
        }
        let stat = sys::stat_handle(file.as_raw_fd()).map_err(fail)?;
        let now = (stat.st_ctime, stat.st_ctime_nsec);
        fine &= now != last;
        last = now;
    }
    sys::unlink(base.as_raw_fd(), &name, 0);
    Ok(fine)
}
