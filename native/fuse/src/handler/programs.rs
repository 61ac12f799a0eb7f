//! Who asks: the process behind the thread that the kernel names, and the name of its program.
//!
//! - Asking the kernel costs several microseconds, so what was seen is kept, and asked for again when it may have changed: a
//!   shell makes a file and then becomes the program that writes it. A thread that was first seen t ago is asked about again
//!   after at most t more, and after a second at the latest: twice at its first two changes, some 16 times in its first second.
//! - Each queue thread has its own memory of it, with a bound; nothing is locked.

use holdfast_device::{Clock, RealClock, process};
use holdfast_format::inode::{Command, Writer};
use std::cell::RefCell;

/// Threads that are remembered, each at the place that its number gives.
const SEEN_MAX: usize = 64;
/// What was seen is good for so long at most; a number that was not seen for so long may be another thread's.
const GOOD_NS: u64 = 1_000_000_000;

#[derive(Clone, Copy, Default)]
struct Seen {
    /// 0: nobody.
    thread: u32,
    process: u32,
    command: Command,
    first_ns: u64,
    asked_ns: u64,
    used_ns: u64,
}

impl Seen {
    fn is_good(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.asked_ns) < GOOD_NS.min(self.asked_ns - self.first_ns)
    }
}

/// What the kernel can be asked.
trait Ask {
    fn process_of(&self, thread: u32) -> Option<u32>;
    fn command_of(&self, process: u32) -> Option<Command>;
}

struct Kernel;

impl Ask for Kernel {
    fn process_of(&self, thread: u32) -> Option<u32> {
        process::process_of(thread)
    }
    fn command_of(&self, process: u32) -> Option<Command> {
        process::command_of(process, &mut [0; 16]).map(Command::new)
    }
}

struct Programs([Seen; SEEN_MAX]);

impl Programs {
    /// The process of a thread, and its program. What cannot be told is the thread's own number, and no name.
    fn of(&mut self, thread: u32, now_ns: u64, ask: &dyn Ask) -> (u32, Command) {
        let seen = &mut self.0[thread as usize % SEEN_MAX];
        if thread == 0 || seen.thread == thread && seen.is_good(now_ns) {
            seen.used_ns = now_ns;
            return if thread == 0 { (0, Command::UNKNOWN) } else { (seen.process, seen.command) };
        }
        let is_same = seen.thread == thread && now_ns.saturating_sub(seen.used_ns) < GOOD_NS;
        let again = if is_same { ask.command_of(seen.process) } else { None };
        *seen = match again {
            Some(command) => Seen { command, asked_ns: now_ns, used_ns: now_ns, ..*seen },
            None => {
                let process = ask.process_of(thread).unwrap_or(thread);
                let command = ask.command_of(process).unwrap_or(Command::UNKNOWN);
                Seen { thread, process, command, first_ns: now_ns, asked_ns: now_ns, used_ns: now_ns }
            }
        };
        (seen.process, seen.command)
    }
}

thread_local! {
    static PROGRAMS: RefCell<Programs> = RefCell::new(Programs([Seen::default(); SEEN_MAX]));
}

/// Who makes a change, as far as it can be known.
pub fn writer(uid: u32, thread: u32) -> Writer {
    let now_ns = RealClock.boottime_ns();
    let (pid, command) = PROGRAMS.with_borrow_mut(|programs| programs.of(thread, now_ns, &Kernel));
    Writer { uid, pid, command }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    const MS: u64 = 1_000_000;

    #[derive(Default)]
    struct Told {
        processes: BTreeMap<u32, u32>,
        commands: BTreeMap<u32, &'static str>,
        questions: Cell<u32>,
    }

    impl Ask for Told {
        fn process_of(&self, thread: u32) -> Option<u32> {
            self.questions.set(self.questions.get() + 1);
            self.processes.get(&thread).copied()
        }
        fn command_of(&self, process: u32) -> Option<Command> {
            self.questions.set(self.questions.get() + 1);
            self.commands.get(&process).map(|name| Command::new(name.as_bytes()))
        }
    }

    fn told(name: &'static str) -> Told {
        Told { processes: BTreeMap::from([(71, 70)]), commands: BTreeMap::from([(70, name)]), ..Told::default() }
    }

    fn programs() -> Programs {
        Programs([Seen::default(); SEEN_MAX])
    }

    #[test]
    fn a_program_that_becomes_another_is_seen() {
        let mut programs = programs();
        // A redirection: made by the shell, written by what it becomes a few milliseconds later.
        assert_eq!(programs.of(71, 5 * MS, &told("bash")), (70, Command::new(b"bash")));
        assert_eq!(programs.of(71, 7 * MS, &told("sort")), (70, Command::new(b"sort")));
        // From then on at the latest after as long as it has been seen.
        assert_eq!(programs.of(71, 8 * MS, &told("later")), (70, Command::new(b"sort")));
        assert_eq!(programs.of(71, 9 * MS, &told("later")), (70, Command::new(b"later")));
    }

    #[test]
    fn a_busy_thread_is_asked_about_once_a_second() {
        let (mut programs, told) = (programs(), told("dd"));
        for change in 0..100_000 {
            programs.of(71, 50 * MS + change * 20_000, &told);
        }
        let first_two_seconds = told.questions.get();
        assert!((18..=22).contains(&first_two_seconds), "{first_two_seconds}");
        for change in 100_000..600_000 {
            programs.of(71, 50 * MS + change * 20_000, &told);
        }
        assert!(told.questions.get() - first_two_seconds <= 11, "{}", told.questions.get());
    }

    #[test]
    fn a_number_that_comes_back_is_asked_about_anew() {
        let mut programs = programs();
        assert_eq!(programs.of(71, MS, &told("old")).0, 70);
        let other = Told {
            processes: BTreeMap::from([(71, 71)]),
            commands: BTreeMap::from([(70, "old"), (71, "new")]),
            ..Told::default()
        };
        assert_eq!(programs.of(71, 2_000 * MS, &other), (71, Command::new(b"new")));
        // The same place, another thread.
        let neighbour = 71 + SEEN_MAX as u32;
        assert_eq!(programs.of(neighbour, 2_001 * MS, &Told::default()), (neighbour, Command::UNKNOWN));
        assert_eq!(programs.of(0, 2_001 * MS, &other), (0, Command::UNKNOWN));
    }
}
