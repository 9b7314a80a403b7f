//! Crashes between any two steps on the disk, with the power lost: of what was
//! not synced, any part may have reached the disk, and any not.

use std::sync::Mutex;

use super::*;
use crate::store::embedded::log::frame::SECTOR;

/// The same throws each time (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// What happened, in order.
#[derive(Debug, Clone)]
enum Event {
    Create(String),
    Write(String, usize, Vec<u8>),
    Sync(String),
    Rename(String, String),
    Remove(String),
    SyncDir,
    /// So many entries had been offered.
    Offered(usize),
    /// So many had been reported durable.
    Durable(usize),
}

impl From<Step<'_>> for Event {
    fn from(step: Step<'_>) -> Self {
        match step {
            Step::Create(name) => Self::Create(name.into()),
            Step::Write(name, at, bytes) => Self::Write(name.into(), at as usize, bytes.into()),
            Step::Sync(name) => Self::Sync(name.into()),
            Step::Rename(from, to) => Self::Rename(from.into(), to.into()),
            Step::Remove(name) => Self::Remove(name.into()),
            Step::SyncDir => Self::SyncDir,
        }
    }
}

/// What is synced of a file, and later writes by offset.
type Contents = (Vec<u8>, Vec<(usize, Vec<u8>)>);

/// A disk that knows what is on the platter and what is on the way.
#[derive(Default)]
struct Model {
    /// By inode.
    files: Vec<Contents>,
    /// Names as the process sees them, and as synced, with changes after that.
    names: BTreeMap<String, usize>,
    synced: BTreeMap<String, usize>,
    changes: Vec<Event>,
    offered: usize,
    durable: usize,
}

impl Model {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Create(name) => {
                self.names.insert(name.clone(), self.files.len());
                self.files.push(Default::default());
                self.changes.push(event.clone());
            }
            Event::Write(name, at, bytes) => {
                self.files[self.names[name]].1.push((*at, bytes.clone()));
            }
            Event::Sync(name) => {
                let (bytes, writes) = &mut self.files[self.names[name]];
                for (at, written) in writes.drain(..) {
                    put_at(bytes, at, &written);
                }
            }
            Event::Rename(..) | Event::Remove(_) => {
                rename_or_remove(&mut self.names, event);
                self.changes.push(event.clone());
            }
            Event::SyncDir => {
                self.synced = self.names.clone();
                self.changes.clear();
            }
            Event::Offered(count) => self.offered = *count,
            Event::Durable(count) => self.durable = *count,
        }
    }

    /// What a crash may leave now.
    fn crash(&self, rng: &mut Chance) -> Image {
        let mut names = self.synced.clone();
        // Changes of a directory reach the disk in order.
        let kept = rng.next() as usize % (self.changes.len() + 1);
        for change in &self.changes[..kept] {
            if let Event::Create(name) = change {
                // Where it went since is in the later changes.
                let inode = self.inode_created_as(name, change);
                names.insert(name.clone(), inode);
            } else {
                rename_or_remove(&mut names, change);
            }
        }
        let mut file = |inode: usize| {
            let (synced, writes) = &self.files[inode];
            let mut bytes = synced.clone();
            for (at, written) in writes {
                put_some_sectors(&mut bytes, *at, written, rng);
            }
            bytes
        };
        names.into_iter().map(|(name, inode)| (name, file(inode))).collect()
    }

    fn inode_created_as(&self, name: &str, create: &Event) -> usize {
        let later = self.changes.iter().skip_while(|change| !std::ptr::eq(*change, create)).skip(1);
        let mut now = name.to_owned();
        for change in later {
            match change {
                Event::Rename(from, to) if *from == now => now.clone_from(to),
                Event::Remove(removed) if *removed == now => return self.any_empty_inode(),
                _ => {}
            }
        }
        self.names.get(&now).copied().unwrap_or(0)
    }

    /// For a file that was created and removed again: its contents matter to
    /// nobody, since only unfinished files are.
    const fn any_empty_inode(&self) -> usize {
        0
    }
}

fn rename_or_remove(names: &mut BTreeMap<String, usize>, event: &Event) {
    match event {
        Event::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        Event::Remove(name) => {
            names.remove(name);
        }
        _ => {}
    }
}

fn put_at(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    let end = at + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(written);
}

/// Each sector of a write reaches the disk or not: all, none or any of them.
fn put_some_sectors(bytes: &mut Vec<u8>, at: usize, written: &[u8], rng: &mut Chance) {
    let kept = match rng.next() % 4 {
        0 => 0,
        1 => u64::MAX,
        _ => rng.next(),
    };
    let end = at + written.len();
    for sector in at / SECTOR..end.div_ceil(SECTOR) {
        if kept >> (sector % 64) & 1 == 1 {
            let from = at.max(sector * SECTOR);
            let to = end.min((sector + 1) * SECTOR);
            put_at(bytes, from, &written[from - at..to - at]);
        }
    }
}

/// An entry that says what becomes of one of seven keys.
fn entry(number: usize) -> Vec<u8> {
    let mut entry = vec![(number % 7) as u8];
    entry.extend_from_slice(&(number as u64).to_le_bytes());
    entry.resize(9 + number * 97 % 900, 0);
    entry
}

/// The number that each key holds after these entries.
fn state<'a>(entries: impl IntoIterator<Item = &'a Vec<u8>>) -> BTreeMap<u8, u64> {
    let numbered = |entry: &'a Vec<u8>| (entry[0], frame::u64_at(entry, 1));
    entries.into_iter().map(numbered).collect()
}

/// Appends, snapshots and opens again, and notes everything that happens.
async fn record(fsync: Fsync) -> Vec<Event> {
    let dir = temp_dir();
    let events = Arc::new(Mutex::new(Vec::new()));
    let note = |event| events.lock().unwrap().push(event);
    let mut offered: Vec<Vec<u8>> = Vec::new();
    for _ in 0..3 {
        let events = Arc::clone(&events);
        let watch = probe(move |step| {
            events.lock().unwrap().push(step.into());
            Ok(())
        });
        let options = LogOptions { fsync, ..options() };
        let (log, _, found) = open_with(dir.path(), options, watch).unwrap();
        assert_eq!(state(&found), state(&offered));
        for round in 0..30 {
            offered.push(entry(offered.len()));
            note(Event::Offered(offered.len()));
            let appended = append(&log, Growth::Settling, &[offered.last().unwrap()]).await;
            if round % 3 == 0 {
                log.durable(appended.unwrap()).await.unwrap();
                if fsync == Fsync::Always {
                    note(Event::Durable(offered.len()));
                }
            }
            if round % 10 == 7 {
                let mut snapshot = log.snapshot_begin().unwrap();
                for (key, number) in state(&offered) {
                    snapshot.push(&[&[key], &number.to_le_bytes()]).unwrap();
                    // Goes on while the snapshot is written.
                    offered.push(entry(offered.len()));
                    note(Event::Offered(offered.len()));
                    append(&log, Growth::Settling, &[offered.last().unwrap()]).await.unwrap();
                }
                let through = offered.len();
                snapshot.finish().unwrap();
                note(Event::Durable(through));
            }
        }
        log.close().unwrap();
        note(Event::Durable(offered.len()));
    }
    drop(dir);
    Arc::try_unwrap(events).unwrap().into_inner().unwrap()
}

/// Crashes after every step, several ways, and opens what is left.
fn crash_everywhere(events: &[Event], ways: usize) {
    let entries: Vec<Vec<u8>> = (0..1000).map(entry).collect();
    let mut rng = Chance(1);
    let dir = temp_dir();
    let mut model = Model::default();
    let mut crashes = 0;
    for (step, event) in events.iter().enumerate() {
        model.apply(event);
        if matches!(event, Event::Offered(_)) {
            continue;
        }
        for _ in 0..ways {
            restore(dir.path(), &model.crash(&mut rng));
            let found = recover(dir.path())
                .unwrap_or_else(|error| panic!("after step {step}, {event:?}: {error}"));
            let found = state(&found);
            let legal = (model.durable..=model.offered).any(|end| found == state(&entries[..end]));
            assert!(legal, "after step {step}: {found:?}");
            crashes += 1;
        }
    }
    assert!(crashes > 1000, "{crashes}");
}

#[tokio::test]
async fn a_crash_after_any_step_keeps_what_was_acknowledged() {
    crash_everywhere(&record(Fsync::Always).await, 4);
}

#[tokio::test]
async fn a_crash_between_two_syncs_keeps_what_was_synced() {
    let interval = Fsync::Interval(Duration::from_millis(1));
    crash_everywhere(&record(interval).await, 4);
}
