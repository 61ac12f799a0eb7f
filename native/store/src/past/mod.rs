//! The past as a user sees it: `.holdfast/at/TIME/…` and `.holdfast/snapshots/NAME/…` in the root of a mount, and the words
//! that name a moment.

mod difference;
mod door;
mod notes;
mod time;

pub use difference::{ChangeKind, DifferencePage, FileChange, check_span, difference};
pub use door::Timeline;
pub use time::{Zone, parse_when, point_name};
