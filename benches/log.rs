//! What one durable append costs, by how many callers share the syncs.
//!
//! ```text
//! cargo bench --bench log [-- DIRECTORY]
//! ```
//!
//! The directory should be on the disk that is to be measured; the default is
//! the system's temporary one.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::panic,
    reason = "measures real time and prints its figures"
)]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use reprise::store::embedded::log::{AppendError, Fsync, Growth, Log, LogOptions};
use tokio::task::LocalSet;

/// An entry of the size of a step's record.
const ENTRY: [u8; 200] = [7; 200];

const SPAN: Duration = Duration::from_secs(2);

fn main() {
    let root = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let root = root.map_or_else(std::env::temp_dir, PathBuf::from);
    println!("{:<34} {:>12} {:>10} {:>10}", "", "appends/s", "p50 µs", "CPU µs");
    report("one sync an append, no log", || one_by_one(&root));
    for callers in [1, 16, 64, 256, 1024] {
        report(&format!("always, {callers} callers"), || grouped(&root, callers, Fsync::Always));
    }
    for callers in [1, 256] {
        report(&format!("interval, {callers} callers"), || {
            grouped(&root, callers, Fsync::Interval(Duration::from_millis(100)))
        });
    }
    open(&root);
}

/// What one measurement found.
struct Found {
    appends: u64,
    p50: Duration,
}

fn report(what: &str, measure: impl FnOnce() -> Found) {
    let (began, cpu) = (Instant::now(), cpu_time());
    let found = measure();
    let (span, cpu) = (began.elapsed(), cpu_time() - cpu);
    println!(
        "{what:<34} {:>12.0} {:>10} {:>10.2}",
        found.appends as f64 / span.as_secs_f64(),
        found.p50.as_micros(),
        cpu.as_secs_f64() * 1e6 / found.appends as f64,
    );
}

/// Time this process has spent on a processor, all threads together.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The floor: each entry written into written zeros and synced by itself.
fn one_by_one(root: &Path) -> Found {
    let dir = tempfile::tempdir_in(root).expect("a directory");
    let mut file = OpenOptions::new();
    let file = file.write(true).create_new(true).open(dir.path().join("file"));
    let file = file.expect("a file");
    file.write_all_at(&vec![0; 16 << 20], 0).expect("zeros");
    file.sync_all().expect("a sync");
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < SPAN {
        let at = Instant::now();
        let offset = times.len() * ENTRY.len() % (15 << 20);
        file.write_all_at(&ENTRY, offset as u64).expect("a write");
        file.sync_data().expect("a sync");
        times.push(at.elapsed());
    }
    found(times)
}

/// Callers on one thread, each waiting for its append before the next.
fn grouped(root: &Path, callers: usize, fsync: Fsync) -> Found {
    let dir = tempfile::tempdir_in(root).expect("a directory");
    let options = LogOptions { fsync, ..LogOptions::default() };
    let (log, _) = Log::open(dir.path(), options, |_| Ok::<_, std::io::Error>(())).expect("a log");
    let log = Rc::new(log);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    let tasks = LocalSet::new();
    let began = Instant::now();
    let callers: Vec<_> =
        (0..callers).map(|_| tasks.spawn_local(call(Rc::clone(&log), began))).collect();
    let times = tasks.block_on(&runtime, async {
        let mut times = Vec::new();
        for caller in callers {
            times.extend(caller.await.expect("a caller"));
        }
        times
    });
    found(times)
}

async fn call(log: Rc<Log>, began: Instant) -> Vec<Duration> {
    let mut times = Vec::new();
    while began.elapsed() < SPAN {
        let at = Instant::now();
        match log.append(0, Growth::Granting, |entries| entries.push(&[&ENTRY])) {
            Ok(position) => log.durable(position).await.expect("durable"),
            Err(AppendError::NotYet) => {
                log.room(Growth::Granting).await.expect("room");
                continue;
            }
            Err(error) => panic!("{error}"),
        }
        times.push(at.elapsed());
    }
    times
}

fn found(mut times: Vec<Duration>) -> Found {
    times.sort_unstable();
    Found { appends: times.len() as u64, p50: times[times.len() / 2] }
}

/// How long opening takes: a new log, and one with a million entries.
fn open(root: &Path) {
    let dir = tempfile::tempdir_in(root).expect("a directory");
    let open = |what: &str| {
        let began = Instant::now();
        let visit = |_: &[u8]| Ok::<_, std::io::Error>(());
        let (log, recovered) = Log::open(dir.path(), LogOptions::default(), visit).expect("a log");
        let took = began.elapsed();
        println!("opening {what}: {took:?}, {} entries", recovered.entries);
        log
    };
    let log = open("a new log");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        for i in 0..10_000 {
            let write = |entries: &mut reprise::store::embedded::log::Entries<'_>| {
                (0..100).for_each(|_| entries.push(&[&ENTRY]));
            };
            while let Err(AppendError::NotYet) = log.append(i, Growth::Granting, write) {
                log.room(Growth::Granting).await.expect("room");
            }
        }
    });
    drop(log);
    drop(open("it again"));
}
