//! Watches a file: its contents now, and whenever they change.
//!
//! The system's events are taken from the file's folder, since editors replace
//! files and Kubernetes swaps a symbolic link beside them. Events get lost, on
//! network file systems always, so the file is looked at every few seconds too.
//! What counts is the contents: an event without a change of them is none.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};

/// What was read of a file: its text, or why it could not be read.
pub type Contents = Result<Arc<str>, String>;

/// How often and how soon a file is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Longest time between two looks.
    pub poll: Duration,
    /// Quiet after an event before the file is read, so that one that is being
    /// written is read once, and whole.
    pub settle: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { poll: Duration::from_secs(5), settle: Duration::from_millis(50) }
    }
}

/// Events of one change are waited for no longer than this many quiet spells.
const SETTLES_MAX: usize = 20;

/// A file that is watched. Ends when it is dropped.
#[derive(Debug)]
pub struct Watch(mpsc::Receiver<Contents>);

impl Watch {
    /// Begins to watch. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(file: PathBuf, size_max: usize, pace: Pace) -> Self {
        // One at a time: who is slow gets the newest, not a backlog.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(watch(file, size_max, pace, sender));
        Self(receiver)
    }

    /// The contents: at first as they are, then when they have changed. None
    /// only when the runtime ends. Nothing is lost when it is cancelled.
    pub async fn changed(&mut self) -> Option<Contents> {
        self.0.recv().await
    }
}

async fn watch(file: PathBuf, size_max: usize, pace: Pace, sender: mpsc::Sender<Contents>) {
    let stirred = Arc::new(Notify::new());
    // Kept for as long as it is to tell.
    let watcher = watcher(&file, Arc::clone(&stirred));
    if let Err(error) = &watcher {
        tracing::warn!(file = %file.display(), %error, "changes of the file are only seen every {:?}", pace.poll);
    }
    let mut known: Option<Contents> = None;
    loop {
        let contents = read(file.clone(), size_max).await;
        if known.as_ref() != Some(&contents) {
            if sender.send(contents.clone()).await.is_err() {
                return;
            }
            known = Some(contents);
        }
        tokio::select! {
            () = sender.closed() => return,
            woken = timeout(pace.poll, stirred.notified()) => {
                if woken.is_ok() {
                    settled(&stirred, pace.settle).await;
                }
            }
        }
    }
}

/// Resolves when nothing has stirred for a while.
async fn settled(stirred: &Notify, quiet: Duration) {
    for _ in 0..SETTLES_MAX {
        if timeout(quiet, stirred.notified()).await.is_err() {
            return;
        }
    }
}

fn watcher(file: &Path, stirred: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let folder =
        file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| may_have_changed(event.kind)) {
            stirred.notify_one();
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Reading is an event as well; it is ours, and would go on for ever.
const fn may_have_changed(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if !matches!(access, AccessKind::Close(AccessMode::Write)))
}

/// Reads a file of at most `size_max` bytes.
///
/// # Errors
/// It is missing, not a file, too long or not UTF-8: in words.
pub async fn read(file: PathBuf, size_max: usize) -> Contents {
    let read = tokio::task::spawn_blocking(move || read_blocking(&file, size_max)).await;
    read.unwrap_or_else(|error| Err(format!("cannot be read: {error}")))
}

/// As [`read`], where nothing else waits for this thread.
///
/// # Errors
/// As [`read`].
pub fn read_blocking(file: &Path, size_max: usize) -> Contents {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    // Opening a pipe would wait for a writer.
    if !std::fs::metadata(file).map_err(unreadable)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    let mut bytes = Vec::new();
    opened.take(size_max as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > size_max {
        return Err(format!("is longer than {size_max} bytes"));
    }
    String::from_utf8(bytes).map(Arc::from).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        format!("is not UTF-8 in line {line}")
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    const OFTEN: Pace = Pace { poll: Duration::from_millis(20), settle: Duration::from_millis(1) };
    /// Only events can tell.
    const SELDOM: Pace = Pace { poll: Duration::from_secs(3600), settle: Duration::from_millis(1) };

    async fn becomes(watch: &mut Watch, text: &str) {
        loop {
            if watch.changed().await.unwrap().is_ok_and(|contents| &*contents == text) {
                return;
            }
        }
    }

    #[tokio::test]
    async fn events_tell_of_a_file_written_replaced_and_swapped_behind_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.yaml");
        fs::write(&file, "one").unwrap();
        let mut watch = Watch::start(file.clone(), 100, SELDOM);
        becomes(&mut watch, "one").await;
        fs::write(&file, "two").unwrap();
        becomes(&mut watch, "two").await;
        fs::write(dir.path().join("new"), "three").unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
        becomes(&mut watch, "three").await;

        // As Kubernetes mounts a ConfigMap: p.yaml → ..data/p.yaml, ..data → ..1
        for (version, text) in [("..1", "four"), ("..2", "five")] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("p.yaml"), text).unwrap();
        }
        symlink("..1", dir.path().join("..data")).unwrap();
        fs::remove_file(&file).unwrap();
        symlink("..data/p.yaml", &file).unwrap();
        becomes(&mut watch, "four").await;
        symlink("..2", dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        becomes(&mut watch, "five").await;
    }

    #[tokio::test]
    async fn looking_often_finds_what_events_do_not_tell() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("later").join("p.yaml");
        let mut watch = Watch::start(file.clone(), 100, OFTEN);
        assert!(watch.changed().await.unwrap().unwrap_err().starts_with("cannot be read: "));
        // The folder did not exist when watching began.
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(&file, "here").unwrap();
        becomes(&mut watch, "here").await;
    }

    #[tokio::test]
    async fn files_that_are_none_too_long_or_not_text_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p");
        assert_eq!(read(dir.path().to_owned(), 10).await.unwrap_err(), "is not a file");
        fs::write(&file, "12345678901").unwrap();
        assert_eq!(read(file.clone(), 10).await.unwrap_err(), "is longer than 10 bytes");
        fs::write(&file, b"a\n\xff").unwrap();
        assert_eq!(read(file, 10).await.unwrap_err(), "is not UTF-8 in line 2");
    }
}
