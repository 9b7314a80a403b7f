//! Passes a command's stderr on, byte by byte, and keeps its end as evidence.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use crate::domain::record::{MESSAGE_KEPT, kept_end};

/// What the service keeps of a failure's message. It keeps a message's
/// beginning; of an output, the end tells what went wrong.
const TAIL_BYTES: usize = MESSAGE_KEPT;

/// How long the rest of stderr is waited for when the command has ended.
/// Something that it left behind may hold the pipe open for ever.
const PATIENCE: Duration = Duration::from_millis(250);

/// The end of what a command has written to stderr.
pub struct Tail {
    kept: Arc<Mutex<Kept>>,
    closed: oneshot::Receiver<()>,
}

impl Tail {
    /// Copies `from` to our own stderr until it closes. On a thread of its
    /// own: a reader of stderr who is slow must not hold up heartbeats.
    pub fn follow(from: impl Read + Send + 'static) -> io::Result<Self> {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let (close, closed) = oneshot::channel();
        let keeper = Arc::clone(&kept);
        thread::Builder::new().name("stderr".to_owned()).spawn(move || {
            pass_on(from, &keeper);
            let _ = close.send(());
        })?;
        Ok(Self { kept, closed })
    }

    /// The end of it all as text, once the command has ended.
    pub async fn text(self) -> String {
        let _ = timeout(PATIENCE, self.closed).await;
        lock(&self.kept).text()
    }
}

fn pass_on(mut from: impl Read, kept: &Mutex<Kept>) {
    let mut buffer = [0; 8192];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => &buffer[..read],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        lock(kept).push(read);
        // Nobody reads our stderr any more; the tail is still worth keeping.
        let _ = io::stderr().lock().write_all(read);
    }
}

/// A thread that panicked left at worst a shorter tail behind.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At most the last [`TAIL_BYTES`] bytes.
#[derive(Default)]
struct Kept(VecDeque<u8>);

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        let fresh = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let surplus = (self.0.len() + fresh.len()).saturating_sub(TAIL_BYTES);
        self.0.drain(..surplus);
        self.0.extend(fresh);
    }

    /// As text that the service keeps whole, without a half character at its
    /// start. Line ends, and bytes that are no text, take more than their own
    /// length there.
    fn text(&self) -> String {
        let (a, b) = self.0.as_slices();
        let bytes = [a, b].concat();
        let cut = bytes.len() == TAIL_BYTES;
        let halves = bytes.iter().take_while(|&&byte| cut && byte & 0xc0 == 0x80).count();
        let text = String::from_utf8_lossy(&bytes[halves.min(3)..]);
        kept_end(text.trim_end(), TAIL_BYTES).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(pieces: &[&[u8]]) -> String {
        let mut kept = Kept::default();
        pieces.iter().for_each(|piece| kept.push(piece));
        kept.text()
    }

    #[test]
    fn the_end_is_kept() {
        assert_eq!(text_of(&[b"one\n", b"two\n\n"]), "one\ntwo");
        let long = text_of(&[&[b'a'; 9000], b"end"]);
        assert_eq!(long.len(), TAIL_BYTES);
        assert!(long.ends_with("aaaend"));
    }

    #[test]
    fn what_is_sent_is_kept_to_its_last_character() {
        let lines = (0..200).map(|line| format!("\tat line {line}\n")).collect::<String>();
        let text = text_of(&[lines.as_bytes(), b"caused by: disk full\n"]);
        let kept = crate::domain::record::kept(&text, MESSAGE_KEPT);
        assert!(kept.ends_with("\\n\\tat line 199\\ncaused by: disk full"), "{kept}");
        assert!(MESSAGE_KEPT - 4 < kept.len(), "{} bytes", kept.len());
    }

    #[test]
    fn no_character_is_cut_in_half() {
        let text = text_of(&["é".repeat(4000).as_bytes(), b"x"]);
        assert!(text.chars().all(|c| c == 'é' || c == 'x'), "{text}");
    }

    #[test]
    fn what_is_no_text_stays_within_the_bound() {
        let text = text_of(&[&[0xff; 5000]]);
        assert!(text.len() <= TAIL_BYTES && text.ends_with('\u{fffd}'));
    }
}
