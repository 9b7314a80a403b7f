//! Admission: which calls are let in, and which are told to come back.
//!
//! A server that takes every call answers none in time once more come than it
//! can serve. Here a call is refused early, cheaply and with a hint when to come
//! back, as soon as its answer would be late anyway:
//!
//! * **Deadline**: a call whose remaining time is shorter than calls of its class
//!   take is refused at once.
//! * **Slots**: at most so many calls are in flight; how many follows from what
//!   concurrency costs in latency (`limit`). A fifth of the slots is for reports:
//!   refusing a report turns work that was done into work done again.
//! * **Queue**: in turn by namespace, then by class (`queue`), so that a namespace
//!   that floods waits for itself. It is bounded by time rather than by length: as
//!   long as all who wait are served within a bearable time, nobody is refused,
//!   and the oldest goes first. Callers that send their next call when the last
//!   one is answered, however many, settle there. Only when somebody had to be
//!   refused is it an overload: then the newest goes first, since not all can be
//!   served, and the rest is told so quickly.
//!
//! The layer sits on the HTTP service, before anything is decoded. It hears a
//! call's whole first message before it asks for a slot, so that a client that
//! dawdles holds none, and reads the namespace off the message itself: field 1 of
//! every request. Time is tokio's, whose clock a test can stop; the waits in the
//! queue are its timers, and two clocks would disagree.

mod call;
mod gate;
mod layer;
mod limit;
mod queue;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub use self::call::{class_of, time_left};
pub use self::layer::{AdmissionLayer, AdmissionService, Heard, Uninterrupted};

use self::gate::{Gate, Outcome, Waiter};

/// The `domain` of every `ErrorInfo` this service sends.
const ERROR_DOMAIN: &str = "reprise.v1";

/// What a call is for. The order is the order of service within a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Tells what has happened: reports and heartbeats.
    Report,
    /// Starts work.
    Begin,
    /// Looks or operates.
    Other,
}

impl Class {
    /// Every class, first the one served first.
    pub const ALL: [Self; 3] = [Self::Report, Self::Begin, Self::Other];
}

/// Bounds of admission.
#[derive(Debug, Clone)]
pub struct AdmissionSettings {
    /// Calls in flight at the start, before anything has been learned.
    pub limit_start: usize,
    /// The limit never falls below this. At least 2: one slot is for reports.
    pub limit_floor: usize,
    /// The limit never rises above this.
    pub limit_max: usize,
    /// Mean latency that nobody minds: below it the limit is never lowered. A
    /// store that groups its commits answers later the more it is given, and
    /// serves more for it.
    pub latency_tolerated: Duration,
    /// Wait in the queue allowed in an overload.
    pub wait_target: Duration,
    /// Wait allowed otherwise. Whoever waits longer is refused, and so begins an
    /// overload; it ends when nobody has been refused for as long.
    pub wait_burst: Duration,
    /// Mean of the delay after which a refused caller is asked to come back;
    /// each is told between half and one and a half of it.
    pub retry_delay: Duration,
    /// Longest first message listened to, in bytes. A longer one is passed on
    /// half heard, for the service to refuse.
    pub message_max: usize,
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        Self {
            limit_start: 64,
            limit_floor: 8,
            limit_max: 512,
            latency_tolerated: Duration::from_millis(10),
            wait_target: Duration::from_millis(5),
            wait_burst: Duration::from_millis(500),
            retry_delay: Duration::from_secs(1),
            message_max: 1024 * 1024,
        }
    }
}

/// What admission has to know of a call.
#[derive(Debug, Clone, Copy)]
pub struct CallInfo<'a> {
    /// What it is for.
    pub class: Class,
    /// On whose behalf; empty when the message does not say.
    pub namespace: &'a str,
    /// When it reached us. What it waited before it asked counts as waiting.
    pub arrived_at: Instant,
    /// When its caller stops caring.
    pub deadline: Instant,
}

/// Why a call was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The queue was full, and it was not the call's turn in it.
    #[error("overloaded: too many calls are waiting")]
    QueueFull,
    /// It waited as long as a call may.
    #[error("overloaded: the call waited too long for its turn")]
    WaitedTooLong,
    /// The time left is shorter than the call would take.
    #[error("the deadline is sooner than an answer can be")]
    DeadlineTooShort,
    /// The request had not arrived by its deadline.
    #[error("the request did not arrive before its deadline")]
    RequestTooLate,
}

impl Refusal {
    /// The answer for the caller; `retry_after` goes with an overload only.
    fn status(self, retry_after: Duration) -> Status {
        let (code, reason) = match self {
            Self::QueueFull | Self::WaitedTooLong => (Code::ResourceExhausted, "OVERLOADED"),
            Self::DeadlineTooShort => (Code::DeadlineExceeded, "DEADLINE_TOO_SHORT"),
            Self::RequestTooLate => (Code::DeadlineExceeded, "REQUEST_TOO_LATE"),
        };
        let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, []);
        if code == Code::ResourceExhausted {
            details.set_retry_info(Some(retry_after));
        }
        Status::with_error_details(code, self.to_string(), details)
    }
}

/// What admission has done and stands at.
#[derive(Debug, Default)]
pub struct AdmissionStats {
    /// Calls let in, by [`Class`].
    pub admitted: [AtomicU64; 3],
    /// Calls refused because the queue was full.
    pub refused_queue_full: AtomicU64,
    /// Calls refused after waiting too long.
    pub refused_waited: AtomicU64,
    /// Calls refused because their deadline was too short.
    pub refused_deadline: AtomicU64,
    /// Calls whose request did not arrive in time.
    pub refused_late: AtomicU64,
    /// Admitted calls whose caller left and whose work was finished without it.
    pub detached: AtomicU64,
    /// Calls in flight now.
    pub in_flight: AtomicUsize,
    /// Calls waiting now.
    pub queued: AtomicUsize,
    /// Slots there are now.
    pub limit: AtomicUsize,
}

impl AdmissionStats {
    /// Calls refused for this reason.
    pub fn refused(&self, refusal: Refusal) -> &AtomicU64 {
        match refusal {
            Refusal::QueueFull => &self.refused_queue_full,
            Refusal::WaitedTooLong => &self.refused_waited,
            Refusal::DeadlineTooShort => &self.refused_deadline,
            Refusal::RequestTooLate => &self.refused_late,
        }
    }
}

/// The one gate that all calls of the process pass; clones share it.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: AdmissionSettings,
    gate: Mutex<Gate>,
    stats: AdmissionStats,
    /// Told when the last call in flight has ended.
    emptied: Notify,
    /// Chance in [0, 1), for spreading the return of refused callers.
    draw: fn() -> f64,
}

/// The first word on a call.
enum Entry {
    Admitted(Permit),
    Refused(Refusal),
    Queued(Ticket),
}

impl Admission {
    /// A gate with nobody in it. `draw` returns chance in [0, 1).
    pub fn new(settings: AdmissionSettings, draw: fn() -> f64) -> Self {
        let gate = Gate::new(&settings, Instant::now());
        let stats = AdmissionStats::default();
        stats.limit.store(gate.limit(), Ordering::Relaxed);
        let gate = Mutex::new(gate);
        Self(Arc::new(Shared { settings, gate, stats, emptied: Notify::new(), draw }))
    }

    /// The counters.
    pub fn stats(&self) -> &AdmissionStats {
        &self.0.stats
    }

    /// Waits until no call is in flight: those too whose callers have left. A
    /// process that stops waits for it after its listener has drained.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.0.emptied.notified();
            if self.stats().in_flight.load(Ordering::Relaxed) == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Waits for the call's turn. The permit is a slot: keep it until the call's
    /// work is done. Dropping the future gives the place up.
    pub async fn admit(&self, call: CallInfo<'_>) -> Result<Permit, Refusal> {
        match self.enter(call) {
            Entry::Admitted(permit) => Ok(permit),
            Entry::Refused(refusal) => Err(refusal),
            Entry::Queued(ticket) => ticket.await,
        }
    }

    /// The answer to a refused caller, each with a delay of its own.
    pub fn refusal_status(&self, refusal: Refusal) -> Status {
        let share = 0.5 + (self.0.draw)().clamp(0.0, 1.0);
        refusal.status(self.0.settings.retry_delay.mul_f64(share))
    }

    fn enter(&self, call: CallInfo<'_>) -> Entry {
        let now = Instant::now();
        let outcome = self.0.with_gate(|gate| gate.arrive(now, &call));
        match outcome {
            gate::Arrival::Admitted => Entry::Admitted(self.permit(call.class, now)),
            gate::Arrival::Refused(refusal) => {
                self.0.count_refusal(refusal);
                Entry::Refused(refusal)
            }
            gate::Arrival::Queued { waiter, until } => Entry::Queued(Ticket {
                admission: self.clone(),
                waiter: Some(waiter),
                patience: Box::pin(sleep_until(until)),
            }),
        }
    }

    fn permit(&self, class: Class, started_at: Instant) -> Permit {
        self.0.stats.admitted[class as usize].fetch_add(1, Ordering::Relaxed);
        Permit { admission: self.clone(), class, started_at }
    }
}

impl Shared {
    /// Does something at the gate, and shows where it stands afterwards.
    fn with_gate<T>(&self, act: impl FnOnce(&mut Gate) -> T) -> T {
        let mut gate = self.lock();
        let done = act(&mut gate);
        let in_flight = gate.in_flight();
        let show = |figure: &AtomicUsize, now| figure.store(now, Ordering::Relaxed);
        show(&self.stats.in_flight, in_flight);
        show(&self.stats.queued, gate.queued());
        show(&self.stats.limit, gate.limit());
        drop(gate);
        if in_flight == 0 {
            self.emptied.notify_waiters();
        }
        done
    }

    /// Nothing at the gate panics halfway; if something did, its counts are still
    /// worth more than a process that answers nobody.
    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_refusal(&self, refusal: Refusal) {
        self.stats.refused(refusal).fetch_add(1, Ordering::Relaxed);
    }
}

/// A slot. Dropping it says that the work is done, and lets the next call in.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    admission: Admission,
    class: Class,
    started_at: Instant,
}

impl Permit {
    fn count_detached(&self) {
        self.admission.0.stats.detached.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = Instant::now();
        let (class, took) = (self.class, now - self.started_at);
        let shared = &self.admission.0;
        shared.with_gate(|gate| gate.finished(now, class, took));
    }
}

/// A place in the queue. Dropping it gives the place up.
#[derive(Debug)]
struct Ticket {
    admission: Admission,
    /// None once the outcome has been taken.
    waiter: Option<Arc<Waiter>>,
    patience: Pin<Box<Sleep>>,
}

impl Future for Ticket {
    type Output = Result<Permit, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waiter = self.waiter.clone();
        let waiter = waiter.expect("not polled again after its outcome");
        let mut outcome = waiter.poll(cx);
        if outcome.is_pending() && self.patience.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            outcome = Poll::Ready(self.admission.0.with_gate(|gate| gate.give_up(now, &waiter)));
        }
        let outcome = ready!(outcome);
        let class = waiter.class();
        self.waiter = None;
        Poll::Ready(match outcome {
            Outcome::Granted => Ok(self.admission.permit(class, Instant::now())),
            Outcome::Refused(refusal) => {
                self.admission.0.count_refusal(refusal);
                Err(refusal)
            }
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            let now = Instant::now();
            self.admission.0.with_gate(|gate| gate.leave(now, &waiter));
        }
    }
}
