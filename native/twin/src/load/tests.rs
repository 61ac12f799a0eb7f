use super::*;

fn options(directory: &Path) -> Options {
    Options {
        directory: directory.to_path_buf(),
        jobs: 2,
        seconds: 0.05,
        mib: 2,
        block_bytes: None,
        files: 20,
        seed: 1,
        drop_caches: false,
        reuse: false,
        ballast_mib: 1,
        rate: None,
    }
}

fn with_directory(name: &str, check: impl FnOnce(&Path)) {
    let directory = std::env::temp_dir().join(format!("holdfast-load-{name}-{}", std::process::id()));
    fs::create_dir(&directory).expect("a fresh directory");
    check(&directory);
    fs::remove_dir_all(&directory).expect("still there");
}

#[test]
fn every_work_counts_what_it_did_and_leaves_nothing_behind() {
    with_directory("works", |directory| {
        for work in WORKS {
            let name = work.name;
            let measures = run(work, &options(directory)).expect(name);
            for measure in &measures {
                assert!(measure.operations > 0, "{name}");
                let timed = if measure.work == "readdir" { 2 } else { measure.operations };
                assert_eq!(measure.latencies_ns.len() as u64, timed, "{name}");
                assert!(measure.latencies_ns.is_sorted(), "{name}");
                // Two jobs at once cannot do more than two seconds' work in a second.
                let busy: u64 = measure.latencies_ns.iter().sum();
                let seconds = measure.seconds;
                assert!(busy as f64 / 1e9 <= 2.0 * seconds, "{name}: {busy} ns in {seconds} s");
            }
            if work.act == Act::Files {
                let phases: Vec<&str> = measures.iter().map(|measure| measure.work.as_str()).collect();
                assert_eq!(phases, ["create", "readdir", "stat", "open-read", "rename", "unlink"]);
                assert!(measures.iter().all(|measure| measure.operations == 40));
            }
        }
        assert_eq!(fs::read_dir(directory).expect("still there").count(), 0);
    });
}

#[test]
fn a_read_work_reads_each_block_once_and_the_size_of_blocks_can_be_chosen() {
    with_directory("blocks", |directory| {
        let long =
            |block_bytes| Options { seconds: 60.0, block_bytes: Some(block_bytes), ..options(directory) };
        let reads = ["random-read", "cached-read", "sequential-read"];
        for (name, block_bytes) in reads.into_iter().flat_map(|name| [(name, 4096), (name, STREAM_BYTES)]) {
            let measures = run(Work::named(name).expect(name), &long(block_bytes)).expect(name);
            assert_eq!(measures[0].operations as usize, 2 * (2 << 20) / block_bytes, "{name}");
            assert_eq!(measures[0].bytes, 4 << 20, "{name}");
        }
        let too_large = run(Work::named("write").expect("there"), &long(4 << 20));
        assert!(too_large.is_err_and(|error| error.to_string().contains("do not fit")));
    });
}

#[test]
fn kept_files_serve_the_next_run() {
    with_directory("kept", |directory| {
        let reuse = Options { reuse: true, ..options(directory) };
        let mut inodes = Vec::new();
        for _ in 0..2 {
            run(Work::named("cached-read").expect("there"), &reuse).expect("a run");
            use std::os::unix::fs::MetadataExt;
            inodes.push(fs::metadata(directory.join(KEPT).join("read-1-2")).expect("kept").ino());
        }
        assert_eq!(inodes[0], inodes[1]);
    });
}

#[test]
fn a_rate_is_kept_and_a_stall_counts_for_what_it_held_up() {
    with_directory("rate", |directory| {
        let paced = Options { jobs: 1, seconds: 0.2, rate: Some(100), ..options(directory) };
        let measure = &run(Work::named("write").expect("there"), &paced).expect("a run")[0];
        assert_eq!(measure.operations, 20, "20 ops are due in 0.2 s");
        let mut job =
            make_job(Work::named("create-fsync").expect("there"), &paced, directory, BLOCK_BYTES, 7)
                .expect("a job");
        // The first op lasts as long as five: the four after it are late, and their times say so.
        job.repeat(|job, turn| {
            job.time(0, |_| {
                let end = Instant::now() + Duration::from_millis(if turn == 0 { 50 } else { 0 });
                while Instant::now() < end {}
                Ok(())
            })
        })
        .expect("a run");
        let late = job.latencies_ns.iter().filter(|ns| **ns > 5_000_000).count();
        assert!((4..=6).contains(&late), "{late} of {:?}", job.latencies_ns);
    });
}
