//! Volumes that are given more copies, or fewer, while everything else goes on.

use super::run::Run;
use super::violation::{Check, Verdict, Violation};
use holdfast_store::engine::VolumeChange;
use holdfast_store::error::Kind;

impl Run {
    /// Two copies become three, or three two: never fewer than the drives that a round may strike leave.
    pub fn set_rf_step(&mut self) -> Verdict<bool> {
        let least = self.shape.limit() as u8 + 1;
        if self.shape.beyond || self.shape.is_single() || least > 2 {
            return Ok(false);
        }
        let at = self.rng.below(self.volumes.len() as u64) as usize;
        let Some((name, mounted)) = self.volumes.iter().nth(at) else { return Ok(false) };
        let (name, group, before) = (name.clone(), mounted.group.clone(), mounted.rf);
        let after = 5 - before;
        self.say(format!("{name}: RF {after}"));
        self.setting_rf = Some((name.clone(), after));
        let change = VolumeChange { rf: Some(after), ..VolumeChange::default() };
        let result = self.engine().volume_set(&name, &change);
        if self.world.ended().is_some() {
            return Ok(true);
        }
        self.pass_all();
        self.learn_rf()?;
        let now = self.volumes[&name].rf;
        match result {
            Ok(()) if now == after => {
                self.coverage.road(if after > before { "a volume got more copies" } else { "a volume got fewer copies" });
                Ok(true)
            }
            Ok(()) => Err(Violation::new(Check::RefusedCall, format!("{name}: RF {after} was set and is {now}"))),
            // What would make it possible is in the message.
            Err(error) if error.kind == Kind::Invalid && error.message.contains("add drives") && now == before => Ok(false),
            // What it had holds for the write that changes it, also where that turns out to be done.
            Err(error) => {
                let rf = if error.kind == Kind::NoSpace { 0 } else { before.max(self.rf_of(&group)) };
                self.excuse(&format!("RF {after} of {name}"), &error, rf).map(|()| false)
            }
        }
    }

    /// What a change of RF came to that was under way.
    pub fn learn_rf(&mut self) -> Verdict {
        let Some((name, after)) = self.setting_rf.take() else { return Ok(()) };
        let there = self.engine().volumes().unwrap_or_default().into_iter().find(|volume| volume.name == name);
        let (Some(there), Some(mounted)) = (there, self.volumes.get_mut(&name)) else { return Ok(()) };
        if there.rf != after && there.rf != mounted.rf {
            let what = format!("{name} has RF {}, it had {} and was given {after}", there.rf, mounted.rf);
            return Err(Violation::new(Check::HalfDone, what));
        }
        mounted.rf = there.rf;
        Ok(())
    }
}
