//! The thread that prepares segments ahead of the writer.
//!
//! It is not the writer's work: filling megabytes with zeros in between would
//! hold up commits. A failure here harms nothing that was accepted. It means
//! that there is no room ahead, is told once, and tried again.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};

use super::desk::Order;
use super::segment::Segment;
use super::{Shared, disk};

/// Runs until the log closes.
pub(super) fn run(shared: Arc<Shared>) {
    while let Some(order) = next(&shared) {
        let made = order.and_then(|number| {
            let capacity = shared.options.segment_bytes;
            Segment::create(&shared.disk, shared.salt, number, capacity)
        });
        match made {
            Ok(segment) => stocked(&shared, segment),
            Err(error) => not_stocked(&shared, &error),
        }
        shared.room.send_replace(());
    }
}

/// Waits until a segment is needed. Its number, or why it cannot be had.
fn next(shared: &Shared) -> Option<io::Result<u64>> {
    let mut desk = shared.desk();
    loop {
        if desk.closing || desk.poisoned.is_some() {
            return None;
        }
        let until = match desk.order(Instant::now()) {
            Order::Prepare(number) => return Some(Ok(number)),
            Order::OverSize => return Some(Err(io::Error::other("size_max is reached"))),
            Order::Later(retry) => Some(retry),
            Order::Stocked => None,
        };
        desk = shared.wait(&shared.taken, desk, until);
    }
}

fn stocked(shared: &Shared, segment: Segment) {
    if shared.desk().stocked(segment) {
        info!(dir = %shared.disk.dir().display(), "the log has room again");
    }
}

fn not_stocked(shared: &Shared, error: &io::Error) {
    if shared.desk().not_stocked(Instant::now()) {
        warn!(
            dir = %shared.disk.dir().display(),
            %error,
            full = disk::is_full(error),
            "no room ahead in the log: new attempts are refused when the reserve is reached"
        );
    }
}
