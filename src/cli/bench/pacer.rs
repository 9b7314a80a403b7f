//! Tells when calls are due, more finely than the runtime's timer: that counts
//! milliseconds, and at a few thousand calls a second they would be the latency.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Hands out `since` plus each offset as it comes. What is not taken in time
/// waits, so that a reader who is late sees everything that has become due.
pub(super) fn due(
    since: Instant,
    offsets: impl Iterator<Item = Duration> + Send + 'static,
) -> io::Result<UnboundedReceiver<Instant>> {
    let (sender, receiver) = unbounded_channel();
    // A thread of its own, since sleeping on it blocks nobody else.
    thread::Builder::new().name("pacer".to_owned()).spawn(move || {
        for offset in offsets {
            let due = since + offset;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send(due).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_becomes_due_in_order_and_not_too_early() {
        let since = Instant::now();
        let mut due = due(since, (0..50).map(Duration::from_millis)).unwrap();
        for offset in (0..50).map(Duration::from_millis) {
            assert_eq!(due.recv().await, Some(since + offset));
            assert!(since + offset <= Instant::now());
        }
        assert_eq!(due.recv().await, None);
    }
}
