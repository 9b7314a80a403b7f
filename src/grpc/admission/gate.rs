//! The rules of the gate, as values: time comes in as `now`, and nothing waits.
//!
//! One invariant holds between any two calls: nobody waits who could have a slot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::limit::{Estimate, Limit};
use super::queue::{FairQueue, Order, Orders};
use super::{AdmissionSettings, CallInfo, Class, Refusal};

/// Less time than this is not enough for any call and its way back.
const TIME_LEFT_MIN: Duration = Duration::from_millis(5);

/// One slot in so many is for reports only.
const REPORT_SHARE: usize = 5;

/// Places in the queue, as a multiple of the most slots there can be. It bounds
/// memory; what bounds the wait is time.
const QUEUE_SHARE: usize = 2;

#[derive(Debug)]
pub(super) struct Gate {
    wait_target: Duration,
    wait_burst: Duration,
    limit: Limit,
    /// By class.
    estimates: [Estimate; 3],
    in_flight: usize,
    /// Those in flight that are not reports.
    in_flight_rest: usize,
    queue: FairQueue,
    places: usize,
    /// When a call was last refused because of load. By class: reports need not be
    /// short of slots when begins are.
    shed_at: [Option<Instant>; 3],
}

/// What happens to a call that arrives.
#[derive(Debug)]
pub(super) enum Arrival {
    /// It has a slot.
    Admitted,
    /// It is told so at once.
    Refused(Refusal),
    /// It waits, at most until then.
    Queued { waiter: Arc<Waiter>, until: Instant },
}

impl Gate {
    pub fn new(settings: &AdmissionSettings, now: Instant) -> Self {
        Self {
            wait_target: settings.wait_target,
            wait_burst: settings.wait_burst,
            limit: Limit::new(settings, now),
            estimates: Default::default(),
            in_flight: 0,
            in_flight_rest: 0,
            queue: FairQueue::default(),
            places: QUEUE_SHARE * settings.limit_max,
            shed_at: Default::default(),
        }
    }

    pub fn limit(&self) -> usize {
        self.limit.slots()
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Decides on a call that asks to be let in.
    pub fn arrive(&mut self, now: Instant, call: &CallInfo<'_>) -> Arrival {
        let takes = self.takes(now, call.class);
        if call.deadline - now < takes {
            return Arrival::Refused(Refusal::DeadlineTooShort);
        }
        let wait_ends = call.arrived_at + self.wait_max(now, call.class);
        if wait_ends < now {
            return self.shed(now, call.class, Refusal::WaitedTooLong);
        }
        if self.has_slot(call.class) {
            self.occupy(call.class);
            return Arrival::Admitted;
        }
        if !self.make_room(now, call) {
            return self.shed(now, call.class, Refusal::QueueFull);
        }
        let waiter = Arc::new(Waiter::new(call));
        self.queue.push(Arc::clone(&waiter));
        Arrival::Queued { waiter, until: wait_ends.min(call.deadline - takes) }
    }

    /// A call let in has done its work.
    pub fn finished(&mut self, now: Instant, class: Class, took: Duration) {
        self.limit.learn(now, took, self.queue.len() > 0);
        self.estimates[class as usize].learn(now, took);
        self.vacate(class);
        self.fill_slots(now);
    }

    /// A call has waited as long as it may. If its turn came in the same moment,
    /// it has it.
    pub fn give_up(&mut self, now: Instant, waiter: &Arc<Waiter>) -> Outcome {
        let refusal = self.overdue(now, waiter).unwrap_or(Refusal::WaitedTooLong);
        self.queue.remove(waiter);
        if refusal == Refusal::WaitedTooLong {
            self.shed_at[waiter.class as usize] = Some(now);
        }
        waiter.settle(Outcome::Refused(refusal))
    }

    /// A call's caller left before it was let in.
    pub fn leave(&mut self, now: Instant, waiter: &Arc<Waiter>) {
        match waiter.outcome() {
            None => self.queue.remove(waiter),
            Some(Outcome::Refused(_)) => {}
            Some(Outcome::Granted) => {
                self.vacate(waiter.class());
                self.fill_slots(now);
            }
        }
    }

    /// Lets in who waits, as far as there are slots.
    fn fill_slots(&mut self, now: Instant) {
        let orders = self.orders(now);
        while self.has_slot(Class::Report) {
            let reports_only = !self.has_slot(Class::Other);
            let Some(waiter) = self.queue.pop(reports_only, orders) else {
                break;
            };
            match self.overdue(now, &waiter) {
                None => {
                    self.occupy(waiter.class());
                    waiter.settle(Outcome::Granted);
                }
                Some(refusal) => {
                    if refusal == Refusal::WaitedTooLong {
                        self.shed_at[waiter.class as usize] = Some(now);
                    }
                    waiter.settle(Outcome::Refused(refusal));
                }
            }
        }
    }

    fn has_slot(&self, class: Class) -> bool {
        let slots = self.limit.slots();
        let for_rest = slots - slots.div_ceil(REPORT_SHARE);
        self.in_flight < slots && (class == Class::Report || self.in_flight_rest < for_rest)
    }

    fn occupy(&mut self, class: Class) {
        self.in_flight += 1;
        self.in_flight_rest += usize::from(class != Class::Report);
    }

    fn vacate(&mut self, class: Class) {
        self.in_flight -= 1;
        self.in_flight_rest -= usize::from(class != Class::Report);
    }

    /// Whether the call may wait, perhaps in the place of another.
    fn make_room(&mut self, now: Instant, call: &CallInfo<'_>) -> bool {
        if self.queue.len() < self.places {
            return true;
        }
        let orders = self.orders(now);
        let Some(displaced) = self.queue.displace(call.namespace, call.class, orders) else {
            return false;
        };
        self.shed_at[displaced.class as usize] = Some(now);
        displaced.settle(Outcome::Refused(Refusal::QueueFull));
        true
    }

    /// The time without which a call need not be started.
    fn takes(&self, now: Instant, class: Class) -> Duration {
        self.estimates[class as usize].upper(now).max(TIME_LEFT_MIN)
    }

    /// Why a waiting call should not be let in any more, if so.
    fn overdue(&self, now: Instant, waiter: &Waiter) -> Option<Refusal> {
        if waiter.deadline - now < self.takes(now, waiter.class) {
            Some(Refusal::DeadlineTooShort)
        } else if waiter.arrived_at + self.wait_max(now, waiter.class) < now {
            Some(Refusal::WaitedTooLong)
        } else {
            None
        }
    }

    /// Whether not all can be served. Refusing brings calm; that must not end the
    /// refusing at once.
    fn is_overload(&self, now: Instant, class: Class) -> bool {
        self.shed_at[class as usize].is_some_and(|at| now - at < self.wait_burst)
    }

    fn wait_max(&self, now: Instant, class: Class) -> Duration {
        if self.is_overload(now, class) { self.wait_target } else { self.wait_burst }
    }

    fn orders(&self, now: Instant) -> Orders {
        Class::ALL.map(|class| {
            if self.is_overload(now, class) { Order::NewestFirst } else { Order::OldestFirst }
        })
    }

    fn shed(&mut self, now: Instant, class: Class, refusal: Refusal) -> Arrival {
        self.shed_at[class as usize] = Some(now);
        Arrival::Refused(refusal)
    }
}

/// What became of a call that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Granted,
    Refused(Refusal),
}

/// A waiting call: what the queue knows of it, and where its outcome appears.
#[derive(Debug)]
pub(super) struct Waiter {
    class: Class,
    namespace: Box<str>,
    arrived_at: Instant,
    deadline: Instant,
    settled: Mutex<Settled>,
}

#[derive(Debug, Default)]
struct Settled {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

impl Waiter {
    fn new(call: &CallInfo<'_>) -> Self {
        Self {
            class: call.class,
            namespace: call.namespace.into(),
            arrived_at: call.arrived_at,
            deadline: call.deadline,
            settled: Mutex::default(),
        }
    }

    pub fn class(&self) -> Class {
        self.class
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn poll(&self, cx: &Context<'_>) -> Poll<Outcome> {
        let mut settled = self.lock();
        match settled.outcome {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                settled.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        self.lock().outcome
    }

    /// Settles the call, unless it is settled already; says how it was.
    fn settle(&self, outcome: Outcome) -> Outcome {
        let mut settled = self.lock();
        if let Some(waker) = settled.waker.take() {
            waker.wake();
        }
        *settled.outcome.get_or_insert(outcome)
    }

    fn lock(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
