//! A mount that another process serves: this test program, started again.

#![allow(dead_code, reason = "each test program uses its own part")]

use crate::support::start_at;
use holdfast_fuse::TransportWish;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server as a process of its own, killed at the latest when the test ends.
pub struct Server(Child);

impl Server {
    pub fn kill(mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }
    /// Returns when every thread of it stands still.
    pub fn pause(&self) {
        let pid = libc::pid_t::try_from(self.0.id()).expect("a pid");
        let mut status = 0;
        // SAFETY: a signal to our own child, which was not waited for, and a status to fill.
        unsafe {
            assert_eq!(libc::kill(pid, libc::SIGSTOP), 0);
            assert_eq!(libc::waitpid(pid, &mut status, libc::WUNTRACED), pid);
        }
        assert!(libc::WIFSTOPPED(status));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _killed_before = self.0.kill();
        let _waited_before = self.0.wait();
    }
}

/// Not a test: the program that [`serve_elsewhere`] starts. Its first line of input is the transport and the
/// directory; without one it ends.
#[test]
#[ignore = "serves a mount for other tests"]
fn serve_until_killed() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("reads");
    if line.is_empty() {
        return;
    }
    let (door, dir) = line.trim_end().split_once(' ').expect("two words");
    let door = if door == "Uring" { TransportWish::Uring } else { TransportWish::Dev };
    let mount = start_at(door, Path::new(dir)).expect("mounts");
    println!("\nready");
    while std::io::stdin().read_line(&mut line).is_ok_and(|count| count > 0) {}
    mount.stop(true).expect("unmounts");
}

pub fn serve_elsewhere(door: TransportWish, dir: &Path) -> Server {
    let own = std::env::current_exe().expect("own path");
    let mut command = Command::new(own);
    command.args(["--ignored", "--exact", "--nocapture", "server::serve_until_killed"]);
    let mut server = Server(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts"));
    let input = server.0.stdin.as_mut().expect("piped");
    writeln!(input, "{door:?} {}", dir.display()).expect("writes");
    let output = BufReader::new(server.0.stdout.take().expect("piped"));
    assert!(output.lines().map_while(Result::ok).any(|line| line == "ready"), "it ended before it was ready");
    server
}
