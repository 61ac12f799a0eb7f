//! The thread that cleans, beside the housekeeper: drains and merges never wait for what it moves.

use super::Engine;
use super::housekeeping::started;
use crate::error::{Kind, Result};
use crate::group::Group;
use crate::metadata::io::PageName;
use crate::placement::{Birth, Forecast, Outlook};
use holdfast_device::threads::spawn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Looks at the room at least this often; whoever runs it short rings.
const LOOK: Duration = Duration::from_secs(1);

/// Each group answers for its own pages.
struct Groups(Vec<Arc<Group>>);

impl Forecast for Groups {
    fn outlook(&self, pages: &[(PageName, Birth)]) -> Result<Vec<Outlook>> {
        let mut outlooks = vec![Outlook::Present; pages.len()];
        for group in &self.0 {
            group.tell_outlooks(pages, &mut outlooks)?;
        }
        Ok(outlooks)
    }
}

pub(super) fn start_cleaner(engine: &Arc<Engine>) -> Result<()> {
    let bell = engine.cleaner.clone();
    let weak = Arc::downgrade(engine);
    let run = move || {
        loop {
            let Some(engine) = weak.upgrade() else { return };
            if engine.closed.load(Ordering::Acquire) {
                return;
            }
            let result = engine.clean_now();
            let busy = matches!(result, Ok(true));
            *engine.clean_trouble.lock() = result.err().filter(|error| error.kind != Kind::Closed);
            drop(engine);
            if !busy {
                bell.await_ring(LOOK);
            }
        }
    };
    started(spawn("holdfast-clean", run), engine)
}

impl Engine {
    /// The cleaner's step: cleans when the pool has less room than it keeps free. True when it gained some.
    pub fn clean_now(&self) -> Result<bool> {
        let short = self.pool.room().left() < 1.0;
        // From the start of a step: writers that run the room short meanwhile must already wait for it.
        self.pool.set_cleaning(short);
        let gained = if short { self.pool.clean_step_with(&Groups(self.groups())) } else { Ok(false) };
        self.pool.set_cleaning(matches!(gained, Ok(true)));
        gained
    }
}
