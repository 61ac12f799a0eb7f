//! `holdfast-fsx --file FILE`: one file against a model in memory.
//! Exit codes: 0 equal, 1 different, 2 wrong usage.

// A test tool outside the daemon: see the crate's root.
#![allow(clippy::disallowed_methods)]

use std::time::Instant;

use holdfast_twin::arguments::Arguments;
use holdfast_twin::fsx::{CONFIGS, Config, Exerciser};
use holdfast_twin::op::Path;

const USAGE: &str = "\
holdfast-fsx --file FILE [--config NAME] [--operations N (100000)] [--seed S (1)]
FILE is made anew and removed. Without --config all eight run:
plain, mapped, holes, all, direct, reopen-sync, evict, large.";

fn main() {
    let code = match start() {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(message) => {
            eprintln!("holdfast-fsx: {message}\n{USAGE}");
            2
        }
    };
    std::process::exit(code);
}

fn start() -> Result<bool, String> {
    let mut arguments = Arguments::from_process(1)?;
    let path = Path(arguments.require("file")?.into_bytes());
    let operations = arguments.number("operations", 100_000)?;
    let seed = arguments.number("seed", 1)?;
    let chosen = arguments.take("config");
    arguments.finish()?;
    let configs: Vec<Config> =
        CONFIGS.into_iter().filter(|config| chosen.as_ref().is_none_or(|name| name == config.name)).collect();
    if configs.is_empty() {
        return Err(format!("--config {}: no such configuration", chosen.unwrap_or_default()));
    }
    let mut failed = 0;
    for config in configs {
        let started = Instant::now();
        match Exerciser::new(config, &path, seed).and_then(|exerciser| exerciser.run(operations)) {
            Ok(()) => println!(
                "ok   {}: {operations} operations, {:.1} s",
                config.name,
                started.elapsed().as_secs_f64()
            ),
            Err(failure) => {
                failed += 1;
                let (name, action) = (config.name, failure.action);
                println!("FAIL {name}: operation {action} of seed {seed}: {}", failure.text);
                println!("run again: --config {name} --seed {seed} --operations {action}");
            }
        }
    }
    Ok(failed == 0)
}
