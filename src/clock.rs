//! The one place that reads the time.

#![expect(clippy::disallowed_methods, reason = "this is the place")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::domain::time::Timestamp;

/// The clock of a store. Never goes back, not over a restart either.
///
/// It starts from the wall clock and runs on the time since boot, so that an
/// operator who sets the wall clock neither expires every lease nor stops time,
/// and a suspended machine does not lose the hours it slept. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    Boot { base: Timestamp, started: Duration },
    Manual(AtomicU64),
}

impl Clock {
    /// The system's clock, not before `floor`.
    #[must_use]
    pub fn system(floor: Timestamp) -> Self {
        Self(Arc::new(Source::Boot { base: wall().max(floor), started: since_boot() }))
    }

    /// A clock that stands still until it is [advanced](Clock::advance).
    #[must_use]
    pub fn manual(at: Timestamp) -> Self {
        Self(Arc::new(Source::Manual(AtomicU64::new(at.as_micros()))))
    }

    /// The same clock, not before `floor`.
    #[must_use]
    pub fn not_before(self, floor: Timestamp) -> Self {
        match &*self.0 {
            Source::Boot { base, .. } if *base < floor => Self::system(floor),
            Source::Manual(at) => {
                at.fetch_max(floor.as_micros(), Ordering::Relaxed);
                self
            }
            Source::Boot { .. } => self,
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Source::Boot { base, started } => base.plus(since_boot().saturating_sub(*started)),
            Source::Manual(at) => Timestamp::from_micros(at.load(Ordering::Relaxed)),
        }
    }

    /// Moves a manual clock on. The system's clock moves by itself.
    pub fn advance(&self, span: Duration) {
        if let Source::Manual(at) = &*self.0 {
            at.fetch_add(crate::domain::time::micros(span), Ordering::Relaxed);
        }
    }
}

/// The wall clock: what people and other machines call the time.
#[must_use]
pub fn wall() -> Timestamp {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Timestamp::EPOCH.plus(Duration::try_from(now).unwrap_or_default())
}

fn since_boot() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))
        .unwrap_or_default()
}
