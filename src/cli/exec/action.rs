//! Where a command says which of its actions is under way: when it fails, the next
//! attempt is told where to resume.

use std::{
    env, fs,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::chance;

/// The file's name, in the environment of a command.
pub const ACTION_FILE: &str = "REPRISE_ACTION_FILE";

/// Bytes of an action's name that the service takes.
const NAME_MAX: usize = 128;

/// A file that a command may write the name of an action to. It is gone with this.
#[derive(Debug)]
pub struct ActionFile(PathBuf);

impl ActionFile {
    /// An empty file that nobody else can read.
    ///
    /// # Errors
    /// Where no file can be made among the temporary ones.
    pub fn create() -> io::Result<Self> {
        let unique = u128::from_le_bytes(chance::bytes());
        let path = env::temp_dir().join(format!("reprise-action-{unique:032x}"));
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The last line that was written, as far as it is a name; empty when nothing
    /// was.
    pub fn action(&self) -> String {
        let mut text = Vec::new();
        // Who writes more than names into it gets no more than this read.
        let read =
            fs::File::open(&self.0).and_then(|file| file.take(1 << 16).read_to_end(&mut text));
        if read.is_err() {
            return String::new();
        }
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        line.filter(|line| line.len() <= NAME_MAX).unwrap_or_default().to_owned()
    }
}

impl Drop for ActionFile {
    fn drop(&mut self) {
        // What is left behind is empty, or a name.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_names_the_action() {
        let file = ActionFile::create().unwrap();
        let path = file.path().to_owned();
        for (written, action) in [
            ("", ""),
            ("extract\n", "extract"),
            ("extract\nload data \n\n", "load data"),
            (&*"x".repeat(NAME_MAX + 1), ""),
        ] {
            fs::write(&path, written).unwrap();
            assert_eq!(file.action(), action, "{written:?}");
        }
        drop(file);
        assert!(!path.exists());
    }
}
