//! Any bytes over the first segment of a log: it opens or refuses to, and what
//! opened opens again with the same entries.

#![no_main]

use std::{convert::Infallible, fs, path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use reprise::store::embedded::log::{Fsync, Growth, Log, LogOptions, OpenError};
use tempfile::TempDir;

const SEGMENT: &str = "0000000000000001.log";

fn options() -> LogOptions {
    let fsync = Fsync::Interval(std::time::Duration::from_secs(3600));
    LogOptions { fsync, segment_bytes: 16 << 10, reserve_bytes: 16 << 10, ..LogOptions::default() }
}

fn entries(dir: &Path) -> Result<Vec<Vec<u8>>, OpenError> {
    let mut entries = Vec::new();
    Log::open(dir, options(), |entry| {
        entries.push(entry.to_vec());
        Ok::<_, Infallible>(())
    })?;
    Ok(entries)
}

/// A segment with a few appends, to be damaged.
static SEGMENT_BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = TempDir::new().expect("a folder");
    let (log, _) = Log::open(dir.path(), options(), |_| Ok::<_, Infallible>(())).expect("a log");
    for at in 0..12_u64 {
        let entry = vec![at as u8; 40 * at as usize];
        let appended = log.append(at, Growth::Granting, |out| out.push(&[&entry]));
        appended.expect("there is room");
    }
    drop(log);
    fs::read(dir.path().join(SEGMENT)).expect("its segment")
});

fuzz_target!(|damage: &[u8]| {
    // Two bytes of place, one of length, then what is written there.
    let Some((&[high, low, length], mut rest)) = damage.split_first_chunk::<3>() else { return };
    let mut bytes = SEGMENT_BYTES.clone();
    let mut at = usize::from(u16::from_be_bytes([high, low])) % bytes.len();
    let step = usize::from(length).max(1);
    while !rest.is_empty() && at < bytes.len() {
        let (now, later) = rest.split_at(rest.len().min(step));
        let end = bytes.len().min(at + now.len());
        bytes[at..end].copy_from_slice(&now[..end - at]);
        (at, rest) = (at + 512, later);
    }
    let dir = TempDir::new().expect("a folder");
    fs::write(dir.path().join(SEGMENT), bytes).expect("a segment");
    if let Ok(first) = entries(dir.path()) {
        assert_eq!(entries(dir.path()).expect("what opened opens again"), first);
    }
});
