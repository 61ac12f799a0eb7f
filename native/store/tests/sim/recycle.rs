//! The end of a run: slots that were a log before become a log again, and nothing of before counts in them.

use super::run::Run;
use super::violation::{Check, Verdict, Violation};

/// Logs that each group fills and leaves. What was a log is free two edits after nothing names it any more.
const LOGS: usize = 4;
/// Frames of a log that goes; the one after it has a frame only, before what was left behind.
const FRAMES: usize = 5;

impl Run {
    pub fn recycle(&mut self) -> Verdict {
        if self.engine.is_none() || self.shape.beyond || self.struck() {
            return Ok(());
        }
        self.say("== slots are used again");
        for _ in 0..LOGS {
            for frames in [FRAMES, 1] {
                self.log_on(frames)?;
                self.scrub_in_peace()?;
                self.leave_logs()?;
            }
        }
        self.coverage.road("logs lay where logs lay before");
        self.verify_all()
    }

    fn log_on(&mut self, frames: usize) -> Verdict {
        let engine = self.engine();
        for _ in 0..frames {
            for name in self.volumes.keys().cloned().collect::<Vec<_>>() {
                self.write_after_lift(&name)?;
            }
            self.must("flushing", engine.flush())?;
        }
        self.group_names().iter().for_each(|name| self.promised_all(name));
        Ok(())
    }

    fn leave_logs(&mut self) -> Verdict {
        for name in self.group_names() {
            let drained = self.group(&name).drain_now();
            self.must("draining", drained)?;
        }
        (0..2).try_for_each(|_| self.heartbeat())
    }

    /// Nothing has struck since the last one.
    fn scrub_in_peace(&self) -> Verdict {
        let not_clean = |what: String| Violation::new(Check::ScrubNotClean, what);
        let report = self.engine().scrub(None).map_err(|error| not_clean(error.to_string()))?;
        if report.bad_copies == 0 && report.lost == 0 {
            return Ok(());
        }
        Err(not_clean(format!("{} bad and {} lost in peace: {}", report.bad_copies, report.lost, report.findings.join("; "))))
    }
}
