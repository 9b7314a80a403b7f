//! How many calls may be in flight, learned from what concurrency costs.
//!
//! Latency alone does not say whether the limit is too high: a slow disk and a
//! crowded one look the same. So every now and then the limit is lowered for a
//! moment, and the latency heard there kept as that of an uncrowded service. Where
//! the concurrency above costs little more than that, it buys throughput, and the
//! limit rises while it is asked for; where it costs in proportion, it buys a queue
//! inside the service, and the limit falls.
//!
//! A limit that falls is glided down to: letting nobody in until enough have left
//! would be felt as a pause.

use std::time::Duration;

use tokio::time::Instant;

use super::AdmissionSettings;

/// A window ends after this time and this many calls, whichever is later: enough
/// for a mean that means something.
const WINDOW: Duration = Duration::from_millis(100);
const WINDOW_CALLS: u32 = 16;

/// Time between two windows of listening.
const LISTEN_EVERY: Duration = Duration::from_secs(2);

/// The share of the limit used while listening.
const LISTEN_SHARE: f64 = 0.7;

/// Mean latency accepted, as a multiple of the uncrowded one. Less than
/// 1 / `LISTEN_SHARE`, which is what a service gives that only queues.
const CROWDED: f64 = 1.2;

/// The least that one window leaves of the limit.
const FALL: f64 = 0.9;

/// One window's rise, as a part of the limit; at least 1.
const RISE: f64 = 1.0 / 16.0;

/// On the way down one slot is taken away for so many calls that finish.
const GLIDE: u32 = 3;

#[derive(Debug)]
pub(super) struct Limit {
    floor: f64,
    max: f64,
    tolerated: f64,
    current: f64,
    /// The slots in use on the way to `current`.
    slots: usize,
    /// Calls finished since a slot was last taken away, below [`GLIDE`].
    gliding: u32,
    /// Mean latency while listening, in seconds; none before the first time.
    uncrowded: Option<f64>,
    /// Whether this window runs at a lower limit.
    listening: bool,
    listen_at: Instant,
    window: Window,
}

#[derive(Debug)]
struct Window {
    began_at: Instant,
    calls: u32,
    /// Seconds of all calls together.
    latency_sum: f64,
    /// Whether anybody had to wait for a slot.
    wanting: bool,
}

impl Window {
    fn new(began_at: Instant) -> Self {
        Self { began_at, calls: 0, latency_sum: 0.0, wanting: false }
    }
}

impl Limit {
    pub fn new(settings: &AdmissionSettings, now: Instant) -> Self {
        let floor = settings.limit_floor.max(2) as f64;
        let max = floor.max(settings.limit_max as f64);
        let current = (settings.limit_start as f64).clamp(floor, max);
        Self {
            floor,
            max,
            tolerated: settings.latency_tolerated.as_secs_f64(),
            current,
            slots: current as usize,
            gliding: 0,
            uncrowded: None,
            listening: true,
            listen_at: now,
            window: Window::new(now),
        }
    }

    /// Slots there are now. Falls by one at a time, and only in [`Limit::learn`].
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Learns from a call that has just finished. `wanting` says whether others
    /// wait for its slot.
    pub fn learn(&mut self, now: Instant, took: Duration, wanting: bool) {
        self.sample(now, took, wanting);
        self.glide(now);
    }

    /// Moves the slots towards the limit: up at once, down gently.
    fn glide(&mut self, now: Instant) {
        let goal = self.goal();
        if self.slots <= goal {
            self.slots = goal;
            return;
        }
        self.gliding = (self.gliding + 1) % GLIDE;
        if self.gliding == 0 {
            self.slots -= 1;
            if self.listening && self.slots == goal {
                // Quiet enough now.
                self.window = Window::new(now);
            }
        }
    }

    /// The slots there should be.
    fn goal(&self) -> usize {
        let share = if self.listening { LISTEN_SHARE } else { 1.0 };
        (self.current * share).max(self.floor) as usize
    }

    fn sample(&mut self, now: Instant, took: Duration, wanting: bool) {
        // Calls of the way down, and from before it, have seen the crowd.
        let of_the_crowd = self.goal() < self.slots || now - took < self.window.began_at;
        if self.listening && of_the_crowd {
            return;
        }
        self.window.calls += 1;
        self.window.latency_sum += took.as_secs_f64();
        self.window.wanting |= wanting;
        if WINDOW_CALLS <= self.window.calls && WINDOW <= now - self.window.began_at {
            self.conclude(now);
        }
    }

    fn conclude(&mut self, now: Instant) {
        let mean = self.window.latency_sum / f64::from(self.window.calls);
        if self.listening {
            self.uncrowded = Some(mean);
            self.listen_at = now + LISTEN_EVERY;
            self.listening = false;
        } else {
            self.current = self.next(mean).clamp(self.floor, self.max);
            self.listening = self.listen_at <= now;
        }
        self.window = Window::new(now);
    }

    fn next(&self, mean: f64) -> f64 {
        let uncrowded = self.uncrowded.unwrap_or(mean);
        let accepted = self.tolerated.max(uncrowded * CROWDED);
        if accepted < mean {
            self.current * (accepted / mean).max(FALL)
        } else if self.window.wanting {
            self.current + (self.current * RISE).max(1.0)
        } else {
            self.current
        }
    }
}

/// What a call of one class takes: a smoothed mean and deviation, as TCP keeps
/// them for its timeouts (RFC 6298).
#[derive(Debug, Default)]
pub(super) struct Estimate {
    mean: f64,
    deviation: f64,
    sampled_at: Option<Instant>,
}

/// After this time without a call an estimate says nothing: refusing calls
/// because of it would keep it for ever.
const ESTIMATE_TTL: Duration = Duration::from_secs(1);

impl Estimate {
    pub fn learn(&mut self, now: Instant, took: Duration) {
        let took = took.as_secs_f64();
        if self.is_known(now) {
            let error = took - self.mean;
            self.mean += error / 8.0;
            self.deviation += (error.abs() - self.deviation) / 4.0;
        } else {
            self.mean = took;
            self.deviation = took / 2.0;
        }
        self.sampled_at = Some(now);
    }

    /// What nearly all calls stay below; zero when nothing is known.
    pub fn upper(&self, now: Instant) -> Duration {
        if self.is_known(now) {
            Duration::from_secs_f64(self.mean + 2.0 * self.deviation)
        } else {
            Duration::ZERO
        }
    }

    fn is_known(&self, now: Instant) -> bool {
        self.sampled_at.is_some_and(|at| now.saturating_duration_since(at) < ESTIMATE_TTL)
    }
}
