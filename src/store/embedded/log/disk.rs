//! Every touch of the file system by the log, in one place.
//!
//! Nothing else in the log opens, writes, syncs, renames or removes a file, so
//! that the order of these steps, on which surviving a crash rests, can be read
//! here and at the few callers, and so that tests can watch and fail each step.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

/// Ending of a file that is still being prepared. One found when the log is
/// opened was abandoned by a crash, and is removed.
pub(super) const TMP: &str = ".tmp";

/// Name of the file whose lock says that a process has the log open.
const LOCK: &str = "LOCK";

/// The directory of one log.
#[derive(Clone)]
pub(super) struct Disk {
    dir: Arc<Path>,
    #[cfg(test)]
    pub(super) probe: Option<Arc<dyn Probe>>,
}

/// What a test is told before each step, and may refuse.
#[cfg(test)]
pub(super) trait Probe: Send + Sync {
    fn before(&self, step: Step<'_>) -> io::Result<()>;
}

/// One step that changes the directory.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    Create(&'a str),
    Write(&'a str, u64, &'a [u8]),
    Sync(&'a str),
    Rename(&'a str, &'a str),
    Remove(&'a str),
    SyncDir,
}

impl Disk {
    /// Opens the directory, and creates it when it is absent.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        if !dir.is_dir() {
            fs::create_dir_all(dir)?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self {
            dir: dir.into(),
            #[cfg(test)]
            probe: None,
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Takes the lock that keeps a second opener out for as long as the file
    /// lives, and leaves this process's id in it for that opener to name.
    pub(super) fn lock(&self) -> io::Result<Lock> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path(LOCK))?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Lock::Taken(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The holder may be writing its id at this moment: unreadable
                // means unknown, the lock is what counts.
                let _ = file.take(32).read_to_string(&mut pid);
                Ok(Lock::HeldBy(pid.trim().parse().ok()))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Names of all files in the directory, in no order. Names that are not
    /// Unicode are not ours and are left out.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.dir)?
            .map(|entry| Ok(entry?.file_name().into_string().ok()))
            .filter_map(Result::transpose)
            .collect()
    }

    /// Creates an empty file, in place of one with this name.
    pub(super) fn create(&self, name: String) -> io::Result<DataFile> {
        #[cfg(test)]
        self.probe(Step::Create(&name))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path(&name))?;
        Ok(self.data_file(name, file))
    }

    /// Opens a file that exists.
    pub(super) fn existing(&self, name: String) -> io::Result<DataFile> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(&name))?;
        Ok(self.data_file(name, file))
    }

    /// Removes a file. A crash may bring it back.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        #[cfg(test)]
        self.probe(Step::Remove(name))?;
        fs::remove_file(self.path(name))
    }

    /// Makes creations, renames and removals outlast a power failure.
    pub(super) fn sync_dir(&self) -> io::Result<()> {
        #[cfg(test)]
        self.probe(Step::SyncDir)?;
        File::open(&self.dir)?.sync_all()
    }

    fn data_file(&self, name: String, file: File) -> DataFile {
        DataFile { disk: self.clone(), name, file }
    }

    #[cfg(test)]
    fn probe(&self, step: Step<'_>) -> io::Result<()> {
        self.probe.as_ref().map_or(Ok(()), |probe| probe.before(step))
    }
}

/// Outcome of taking the directory's lock.
pub(super) enum Lock {
    /// Ours until the file is closed.
    Taken(File),
    /// Another opener has it; its process id when it could be read.
    HeldBy(Option<u32>),
}

/// One open file of the log.
pub(super) struct DataFile {
    disk: Disk,
    name: String,
    file: File,
}

impl DataFile {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Length of the file, bytes.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads the whole file into `buffer`, in place of what it held.
    pub(super) fn read_into(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.read_first(usize::MAX, buffer)
    }

    /// Reads the first `bytes` of the file, or all of a shorter one, into
    /// `buffer`, in place of what it held.
    pub(super) fn read_first(&self, bytes: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        (&self.file).seek(SeekFrom::Start(0))?;
        (&self.file).take(bytes as u64).read_to_end(buffer).map(drop)
    }

    /// Reads exactly `buffer` from `offset` on.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        self.disk.probe(Step::Write(&self.name, offset, bytes))?;
        self.file.write_all_at(bytes, offset)
    }

    /// Makes what was written outlast a power failure, the length included.
    ///
    /// After an error it is unknown which writes are on the disk, and the
    /// kernel may report success to the next call all the same: an error here
    /// is final for what the file held.
    pub(super) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        self.disk.probe(Step::Sync(&self.name))?;
        self.file.sync_data()
    }

    /// Gives a finished file its lasting name, without its [`TMP`] ending. A
    /// crash leaves the file under one name or the other, whole either way:
    /// sync it first.
    pub(super) fn publish(mut self) -> io::Result<Self> {
        let name = self.name.strip_suffix(TMP).unwrap_or(&self.name).to_owned();
        #[cfg(test)]
        self.disk.probe(Step::Rename(&self.name, &name))?;
        fs::rename(self.disk.path(&self.name), self.disk.path(&name))?;
        self.name = name;
        self.disk.sync_dir()?;
        Ok(self)
    }
}

/// Whether an error says that there is no room: on the disk, in the quota, or
/// under the largest file size allowed.
pub(super) fn is_full(error: &io::Error) -> bool {
    const FULL: [Errno; 3] = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG];
    error.raw_os_error().is_some_and(|code| FULL.iter().any(|full| full.raw_os_error() == code))
}
