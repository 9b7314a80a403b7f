//! What the log promises, tried against damage, crashes and full disks.

mod crash;
mod damage;
mod life;
mod room;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::disk::{Disk, Probe, Step};
use super::*;

/// Small segments, so that a few entries fill one.
fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 4096,
        reserve_bytes: 4096,
        full_retry: Duration::from_millis(1),
        ..LogOptions::default()
    }
}

/// A directory in memory where there is one: thousands of logs are opened.
fn temp_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Opens a log and collects what it hands over.
fn open(dir: &Path) -> Result<(Log, Recovered, Vec<Vec<u8>>), OpenError> {
    open_with(dir, options(), None)
}

fn open_with(
    dir: &Path,
    options: LogOptions,
    probe: Option<Arc<dyn Probe>>,
) -> Result<(Log, Recovered, Vec<Vec<u8>>), OpenError> {
    let mut disk = Disk::open(dir).unwrap();
    disk.probe = probe;
    let mut entries = Vec::new();
    let (log, recovered) = Log::open_on(disk, options, &mut |entry| {
        entries.push(entry.to_vec());
        Ok(())
    })?;
    Ok((log, recovered, entries))
}

/// Reads a directory as opening does, without starting a log on it.
fn recover(dir: &Path) -> Result<Vec<Vec<u8>>, OpenError> {
    let disk = Disk::open(dir).unwrap();
    let mut entries = Vec::new();
    let mut replay = Replay {
        visit: &mut |entry| {
            entries.push(entry.to_vec());
            Ok(())
        },
        recovered: Recovered::default(),
    };
    recovery::recover(&disk, &options(), &mut replay)?;
    Ok(entries)
}

/// Appends as the store does: waits for room when it is being prepared.
async fn append(log: &Log, growth: Growth, entries: &[&[u8]]) -> Result<Position, AppendError> {
    loop {
        let appended = log.append(1, growth, |batch| {
            for entry in entries {
                batch.push(&[entry]);
            }
        });
        match appended {
            Err(AppendError::NotYet) => log.room(growth).await?,
            appended => return appended,
        }
    }
}

/// Appends one entry and waits until it is durable.
async fn put(log: &Log, entry: &[u8]) {
    let position = append(log, Growth::Settling, &[entry]).await.unwrap();
    log.durable(position).await.unwrap();
}

/// All files of a closed log, but the lock.
type Image = BTreeMap<String, Vec<u8>>;

fn image(dir: &Path) -> Image {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .filter(|(name, _)| name != "LOCK")
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .collect()
}

/// Makes the directory hold exactly these files.
fn restore(dir: &Path, image: &Image) {
    for entry in fs::read_dir(dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, bytes) in image {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

/// Answers each step by a function.
struct Answer<F>(F);

impl<F: Fn(Step<'_>) -> io::Result<()> + Send + Sync> Probe for Answer<F> {
    fn before(&self, step: Step<'_>) -> io::Result<()> {
        self.0(step)
    }
}

fn probe(
    answer: impl Fn(Step<'_>) -> io::Result<()> + Send + Sync + 'static,
) -> Option<Arc<dyn Probe>> {
    Some(Arc::new(Answer(answer)))
}
