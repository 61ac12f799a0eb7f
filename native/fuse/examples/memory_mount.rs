//! Serves a file system in memory at a directory until it is unmounted: `cargo run --example memory_mount DIR
//! [allow_other]`. Prints `ready` once it works. For trying things by hand.

#[path = "../tests/memory/mod.rs"]
mod memory;

use holdfast_fuse::{Mount, MountOptions, ServeOptions};
use std::io::Write;
use std::sync::{Arc, mpsc};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(dir) = arguments.next() else {
        return Err(std::io::Error::other("usage: memory_mount DIR [allow_other]"));
    };
    let allow_other = arguments.next().is_some_and(|word| word == "allow_other");
    let (ended, wait) = mpsc::channel::<()>();
    let on_end = Box::new(move || drop(ended));
    let options =
        MountOptions { dir: dir.into(), source: "memory".into(), allow_other, ..MountOptions::default() };
    let serve = ServeOptions { on_end: Some(on_end), ..ServeOptions::default() };
    let mount = Mount::start_with(Arc::new(memory::MemoryFs::new(0o755)), options, serve)?;
    println!("ready");
    std::io::stdout().flush()?;
    // The sender is dropped when the mount ends.
    let _ended = wait.recv();
    mount.stop(false)
}
