//! S-disk (FAULTS.md §1): the whole store on simulated drives, with seeded faults, crashes and upkeep, against a reference
//! model. `npm run sim -- --seed S` plays one seed and tells its story; long runs are `npm run sim -- --seeds N`.

mod batch;
mod coverage;
mod faults;
mod files;
mod lift;
mod model;
mod mutants;
mod past;
mod protect;
mod recover;
mod recycle;
#[path = "../rig/mod.rs"]
mod rig;
mod run;
mod seeds;
mod shape;
mod step;
mod upkeep;
mod violation;
