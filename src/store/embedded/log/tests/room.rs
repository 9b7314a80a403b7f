//! Full disks, of one kind and another.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Appends of this size until one is refused. How many were accepted.
async fn fill(log: &Log, growth: Growth, entry: &[u8]) -> usize {
    let mut accepted = 0;
    loop {
        match append(log, growth, &[entry]).await {
            Ok(position) => log.durable(position).await.unwrap(),
            Err(AppendError::Full) => return accepted,
            Err(error) => panic!("{error}"),
        }
        accepted += 1;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_grants_first_and_recovers_without_a_restart() {
    static FULL: AtomicBool = AtomicBool::new(false);
    let dir = temp_dir();
    let disk = probe(|step| match step {
        Step::Create(_) if FULL.load(Ordering::SeqCst) => Err(rustix::io::Errno::NOSPC.into()),
        _ => Ok(()),
    });
    let (log, ..) = open_with(dir.path(), options(), disk).unwrap();
    // One segment in use, and a reserve and a segment ahead of it.
    while log.size().disk_bytes < 3 * 4096 {
        tokio::task::yield_now().await;
    }
    FULL.store(true, Ordering::SeqCst);

    let granted = fill(&log, Growth::Granting, &[1; 100]).await;
    assert!(granted > 0);
    let settled = fill(&log, Growth::Settling, &[2; 100]).await;
    assert!(settled * frame::size(104) > 3000, "the reserve took {settled} reports");
    assert!(matches!(log.room(Growth::Settling).await, Err(AppendError::Full)));

    FULL.store(false, Ordering::SeqCst);
    while log.room(Growth::Granting).await.is_err() {
        tokio::task::yield_now().await;
    }
    put(&log, b"after").await;
    drop(log);

    let (_log, _, entries) = open(dir.path()).unwrap();
    assert_eq!(entries.len(), granted + settled + 1);
}

#[tokio::test]
async fn a_log_at_its_largest_size_gets_room_from_a_snapshot() {
    let dir = temp_dir();
    let options = LogOptions { size_max: Some(10 * 4096), ..options() };
    let (log, ..) = open_with(dir.path(), options, None).unwrap();
    for _ in 0..5 {
        assert!(fill(&log, Growth::Granting, &[1; 100]).await > 0);
        assert!(fill(&log, Growth::Settling, &[2; 100]).await > 0);
        let size = log.size();
        assert!(size.disk_bytes <= 10 * 4096, "{size:?}");

        let mut snapshot = log.snapshot_begin().unwrap();
        snapshot.push(&[b"all of it"]).unwrap();
        snapshot.finish().unwrap();
        assert!(log.size().log_bytes < size.log_bytes);
        while log.room(Growth::Granting).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_burst_on_a_healthy_disk_waits_and_is_not_refused() {
    let dir = temp_dir();
    let (log, ..) = open(dir.path()).unwrap();
    let mut last = None;
    for _ in 0..500 {
        last = Some(append(&log, Growth::Granting, &[&[7; 1000]]).await.unwrap());
    }
    log.durable(last.unwrap()).await.unwrap();
    drop(log);
    assert_eq!(open(dir.path()).unwrap().2.len(), 500);
}

#[tokio::test]
async fn the_largest_append_fits_and_a_larger_one_is_refused() {
    let dir = temp_dir();
    let (log, ..) = open(dir.path()).unwrap();
    let largest = 4096 - 512 - frame::size(0) - 4;
    put(&log, &vec![1; largest]).await;
    put(&log, &vec![2; largest]).await;
    let refused = append(&log, Growth::Settling, &[&vec![3; largest + 1]]).await;
    assert!(matches!(refused, Err(AppendError::TooLarge { .. })));
}

#[tokio::test]
async fn a_full_disk_at_opening_harms_nothing() {
    let dir = temp_dir();
    let (log, ..) = open(dir.path()).unwrap();
    put(&log, b"kept").await;
    drop(log);
    let full = || {
        probe(|step| match step {
            Step::Create(_) => Err(rustix::io::Errno::DQUOT.into()),
            _ => Ok(()),
        })
    };
    let (log, _, entries) = open_with(dir.path(), options(), full()).unwrap();
    assert_eq!(entries, [b"kept"]);
    put(&log, b"more").await;
    drop(log);
    assert_eq!(open(dir.path()).unwrap().2.len(), 2);

    let empty = temp_dir();
    assert!(matches!(open_with(empty.path(), options(), full()), Err(OpenError::Io { .. })));
    open(empty.path()).unwrap();
}

#[test]
fn a_disk_without_a_byte_left_is_told_apart() {
    for full in [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT, rustix::io::Errno::FBIG] {
        assert!(disk::is_full(&full.into()));
    }
    assert!(!disk::is_full(&rustix::io::Errno::IO.into()));
}
