//! The past as a user sees it: `.holdfast/at/TIME/…` and `.holdfast/snapshots/NAME/…` in the root of a mount, and the words
//! that name a moment.

mod cursor;
mod difference;
mod door;
mod feed;
mod notes;
pub(crate) mod sides;
mod time;

pub use difference::{ChangeKind, DifferencePage, FileChange, check_span, difference};
pub use cursor::{Cursor, Source};
pub use door::Timeline;
pub(crate) use sides::path_of;
pub use feed::{Selections, tell};
pub use time::{Zone, parse_when, point_name};
