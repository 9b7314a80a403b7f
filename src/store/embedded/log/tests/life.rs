//! Opening, appending, waiting, closing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn entries_come_back_in_order_with_the_highest_time() {
    let dir = temp_dir();
    let (log, recovered, entries) = open(dir.path()).unwrap();
    assert_eq!((recovered, entries.len()), (Recovered::default(), 0));
    let last = [(30, "a"), (20, "b"), (10, "")].map(|(at_us, text)| {
        log.append(at_us, Growth::Granting, |batch| {
            batch.push(&[text.as_bytes(), b"1"]);
            batch.push(&[text.as_bytes(), b"2"]);
        })
        .unwrap()
    })[2];
    log.durable(last).await.unwrap();
    drop(log);

    let (_log, recovered, entries) = open(dir.path()).unwrap();
    assert_eq!(entries, [&b"a1"[..], b"a2", b"b1", b"b2", b"1", b"2"]);
    assert_eq!((recovered.entries, recovered.at_us), (6, 30));
    assert_eq!(recovered.torn, None);
}

#[tokio::test]
async fn an_append_without_entries_is_as_durable_as_those_before_it() {
    let dir = temp_dir();
    let (log, ..) = open(dir.path()).unwrap();
    let nothing = append(&log, Growth::Granting, &[]).await.unwrap();
    log.durable(nothing).await.unwrap();
    put(&log, b"one").await;
    let nothing = append(&log, Growth::Granting, &[]).await.unwrap();
    log.durable(nothing).await.unwrap();
}

#[test]
fn closing_keeps_what_was_accepted() {
    let dir = temp_dir();
    for fsync in [Fsync::Always, Fsync::Interval(Duration::from_secs(3600))] {
        let options = LogOptions { fsync, ..options() };
        let (log, ..) = open_with(dir.path(), options, None).unwrap();
        log.append(1, Growth::Settling, |batch| batch.push(&[b"x"])).unwrap();
        log.close().unwrap();
    }
    assert_eq!(open(dir.path()).unwrap().2.len(), 2);
}

#[test]
fn a_second_opener_is_refused_and_told_by_whom() {
    let dir = temp_dir();
    let log = open(dir.path()).unwrap();
    let Err(error) = open(dir.path()) else {
        panic!("opened twice");
    };
    let told = error.to_string();
    assert!(told.contains(&dir.path().display().to_string()), "{told}");
    assert!(told.contains(&format!("process {}", std::process::id())), "{told}");
    drop(log);
    open(dir.path()).unwrap();
}

/// Holds a log until its standard input ends. Not a test of its own: the next
/// one runs it in another process.
#[test]
#[ignore = "runs as another process's part of a test"]
fn hold_a_log() {
    if let Some(dir) = std::env::var_os("LOG_TEST_DIR") {
        let _log = open(dir.as_ref()).unwrap();
        println!("held");
        let _ = io::stdin().read_line(&mut String::new());
    }
}

#[test]
fn another_process_is_refused_and_its_end_frees_the_log() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let dir = temp_dir();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--nocapture", "--exact"])
        .arg(concat!(module_path!(), "::hold_a_log").trim_start_matches("reprise::"))
        .env("LOG_TEST_DIR", dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("held")));

    match open(dir.path()) {
        Err(OpenError::Locked { pid, .. }) => assert_eq!(pid, Some(holder.id())),
        _ => panic!("opened by two processes"),
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn callers_that_come_during_a_sync_share_the_next() {
    static SYNCS: AtomicU64 = AtomicU64::new(0);
    let dir = temp_dir();
    let (all_appended, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let first = segment::name(1);
    let watch = probe(move |step| {
        if matches!(step, Step::Sync(name) if name == first) {
            SYNCS.fetch_add(1, Ordering::SeqCst);
            // Fails at once from the second sync on: the sender is gone.
            let _ = wait.lock().unwrap().recv();
        }
        Ok(())
    });
    let options = LogOptions { segment_bytes: 1 << 20, ..options() };
    let (log, ..) = open_with(dir.path(), options, watch).unwrap();
    let log = Arc::new(log);
    let mut callers = JoinSet::new();
    for caller in 0..256_u32 {
        let position = append(&log, Growth::Settling, &[&caller.to_le_bytes()]).await;
        let durable = log.durable(position.unwrap());
        callers.spawn(durable);
    }
    drop(all_appended);
    assert!(callers.join_all().await.iter().all(Result::is_ok));
    assert!(SYNCS.load(Ordering::SeqCst) <= 2);
    drop(log);
    assert_eq!(open(dir.path()).unwrap().2.len(), 256);
}

#[tokio::test]
async fn a_waiter_that_leaves_leaves_the_others_woken() {
    let dir = temp_dir();
    let (log, ..) = open(dir.path()).unwrap();
    let log = Arc::new(log);
    for round in 0..200 {
        let mut callers = JoinSet::new();
        for caller in 0..8 {
            let log = Arc::clone(&log);
            callers.spawn(async move {
                let position = append(&log, Growth::Settling, &[b"x"]).await.unwrap();
                tokio::select! {
                    biased;
                    () = async {
                        for _ in 0..(round + caller) % 5 {
                            tokio::task::yield_now().await;
                        }
                    }, if caller % 2 == 0 => {}
                    durable = log.durable(position) => durable.unwrap(),
                }
            });
        }
        callers.join_all().await;
    }
}

#[tokio::test]
async fn nothing_is_durable_before_it_is_synced() {
    static WRITTEN: AtomicBool = AtomicBool::new(false);
    static SYNCED: AtomicBool = AtomicBool::new(false);
    let dir = temp_dir();
    let first = segment::name(1);
    let watch = probe(move |step| {
        match step {
            Step::Write(name, ..) if name == first => WRITTEN.store(true, Ordering::SeqCst),
            Step::Sync(name) if name == first => {
                assert!(WRITTEN.load(Ordering::SeqCst));
                SYNCED.store(true, Ordering::SeqCst);
            }
            _ => {}
        }
        Ok(())
    });
    let (log, ..) = open_with(dir.path(), options(), watch).unwrap();
    put(&log, b"x").await;
    assert!(SYNCED.load(Ordering::SeqCst));
}

#[tokio::test]
async fn with_an_interval_an_append_is_handed_over_and_synced_later() {
    let dir = temp_dir();
    let (syncs, mut synced) = tokio::sync::mpsc::unbounded_channel();
    let watch = probe(move |step| {
        if let Step::Sync(name) = step {
            let _ = syncs.send(name.to_owned());
        }
        Ok(())
    });
    let options = LogOptions { fsync: Fsync::Interval(Duration::from_millis(20)), ..options() };
    let (log, ..) = open_with(dir.path(), options, watch).unwrap();
    put(&log, b"x").await;
    while synced.recv().await.unwrap() != segment::name(1) {}
}

#[tokio::test]
async fn a_failed_sync_stops_the_log_for_good() {
    static FAIL: AtomicBool = AtomicBool::new(false);
    static TRIES: AtomicU64 = AtomicU64::new(0);
    let dir = temp_dir();
    let first = segment::name(1);
    let fail = probe(move |step| match step {
        Step::Sync(name) if name == first && FAIL.load(Ordering::SeqCst) => {
            TRIES.fetch_add(1, Ordering::SeqCst);
            Err(io::Error::from_raw_os_error(5))
        }
        _ => Ok(()),
    });
    let (log, ..) = open_with(dir.path(), options(), fail).unwrap();
    put(&log, b"kept").await;
    FAIL.store(true, Ordering::SeqCst);

    let lost = append(&log, Growth::Settling, &[b"lost"]).await.unwrap();
    assert!(log.durable(lost).await.is_err());
    assert!(log.poisoned().await.to_string().contains("sync failed"));
    let refused = append(&log, Growth::Settling, &[b"later"]).await;
    assert!(matches!(refused, Err(AppendError::Poisoned(_))));
    assert!(log.room(Growth::Granting).await.is_err());
    assert!(log.snapshot_begin().and_then(SnapshotWriter::finish).is_err());
    assert!(log.close().is_err());
    assert_eq!(TRIES.load(Ordering::SeqCst), 1);

    let (_log, _, entries) = open(dir.path()).unwrap();
    assert_eq!(entries[0], b"kept");
}

/// One thing that can happen to a log.
#[derive(Debug, Clone)]
enum Event {
    Append(Vec<Vec<u8>>),
    AppendAndWait(Vec<Vec<u8>>),
    Snapshot,
    Reopen,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let bytes = prop_oneof![
        4 => 0..40_usize,
        1 => 0..1500_usize,
    ]
    .prop_flat_map(|length| prop::collection::vec(prop_oneof![Just(0), any::<u8>()], length));
    let entries = prop::collection::vec(bytes, 0..3);
    let event = prop_oneof![
        4 => entries.clone().prop_map(Event::Append),
        4 => entries.prop_map(Event::AppendAndWait),
        1 => Just(Event::Snapshot),
        1 => Just(Event::Reopen),
    ];
    prop::collection::vec(event, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A log is a list: what is found is what was appended, of which a snapshot
    /// may have replaced the beginning by the whole.
    #[test]
    fn a_log_is_a_list(events in events(), interval in any::<bool>()) {
        let fsync = if interval { Fsync::Interval(Duration::ZERO) } else { Fsync::Always };
        let options = LogOptions { fsync, ..options() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = temp_dir();
        let mut model: Vec<Vec<u8>> = Vec::new();
        let mut log = open_with(dir.path(), options.clone(), None).unwrap().0;
        for event in events.into_iter().chain([Event::Reopen]) {
            match event {
                Event::Append(entries) | Event::AppendAndWait(entries) if entries.is_empty() => {}
                Event::Append(entries) => {
                    let entries_ref: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
                    runtime.block_on(append(&log, Growth::Granting, &entries_ref)).unwrap();
                    model.extend(entries);
                }
                Event::AppendAndWait(entries) => {
                    let entries_ref: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
                    let appended = append(&log, Growth::Settling, &entries_ref);
                    let position = runtime.block_on(appended).unwrap();
                    runtime.block_on(log.durable(position)).unwrap();
                    model.extend(entries);
                }
                Event::Snapshot => {
                    let mut snapshot = log.snapshot_begin().unwrap();
                    for entry in &model {
                        snapshot.push(&[entry]).unwrap();
                    }
                    snapshot.finish().unwrap();
                }
                Event::Reopen => {
                    drop(log);
                    let (reopened, recovered, entries) =
                        open_with(dir.path(), options.clone(), None).unwrap();
                    prop_assert_eq!(recovered.torn, None);
                    // Entries of the segment in use are found twice.
                    prop_assert!(entries.ends_with(&model) || repeats(&entries, &model));
                    log = reopened;
                }
            }
        }
    }
}

/// Whether `found` is the first part of `model`, as a snapshot saw it, and then
/// a last part of it that overlaps.
fn repeats(found: &[Vec<u8>], model: &[Vec<u8>]) -> bool {
    (0..=model.len().min(found.len())).any(|seen| {
        let (snapshot, log) = found.split_at(seen);
        snapshot == &model[..seen] && model.ends_with(log) && seen + log.len() >= model.len()
    })
}
