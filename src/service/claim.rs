//! Workers that run whatever step of a queue is due.
//!
//! A claim is a begin like any other: what may start, and what a limit says of it,
//! is decided when it is committed, so that two who reach for one step cannot both
//! have it. What is said here is only which steps are worth reaching for. Of those
//! in this process who wait at one queue one looks at a time, for all of them; and
//! what it reaches for the next one leaves alone.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::Mutex as Turn,
    time::{Instant, sleep_until, timeout_at},
};

use super::{PolicyInForce, Service, ServiceError};
use crate::{
    domain::{
        decision::{Decision, Reason},
        draw,
        event::{Begin, Comes, Event, StepTerms},
        id::{Id, StepKey, StepName},
        plan::{Answer, Grant, Refusal},
        record::{Identity, Record},
        time::Timestamp,
    },
    store::{Expect, Queued, Store, StoreError},
};

/// Queues of which it is remembered who was served last, beside those at which
/// somebody waits.
const QUEUES_KEPT: usize = 1024;
/// Steps of a queue that are looked at together, beside those that others here
/// reach for.
const LOOKED_AT: usize = 256;
/// Steps that are left alone, paused ones say, and looked past at most.
const PASSED_OVER_MAX: usize = 4096;
/// How often a queue is looked at in which nothing is due.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a step is left alone that is due and may not start, such as at a paused
/// target.
const PUT_OFF: Duration = Duration::from_secs(1);

/// A worker that asks for steps of a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The namespace.
    pub namespace: String,
    /// The queue.
    pub queue: Id,
    /// The call's own id.
    pub request_id: Vec<u8>,
    /// Steps at most.
    pub most: usize,
    /// How long leases shall last; None means the namespace's default.
    pub lease: Option<Duration>,
    /// Host of the worker.
    pub host: Option<Arc<str>>,
    /// The worker; empty when unknown.
    pub worker: String,
}

/// A step that was claimed, and the right to run it.
#[derive(Debug)]
pub struct Claimed {
    /// Its name.
    pub name: StepName,
    /// What is known of it.
    pub record: Record,
    /// The right to run it.
    pub grant: Grant,
    /// The policy that decides when it fails.
    pub policy: PolicyInForce,
    /// The store's time.
    pub at: Timestamp,
}

/// What became of reaching for a step.
enum Reached {
    Claimed(Box<Claimed>),
    /// This worker may not run it.
    Unfit(String),
    /// Nobody may for now.
    PutOff(String),
    /// It is no longer there.
    Gone,
}

/// Queues at which somebody here waits.
#[derive(Debug, Default)]
pub(super) struct Queues(Mutex<HashMap<(String, Id), Arc<Queue>>>);

/// A queue at which somebody waits.
#[derive(Debug, Default)]
struct Queue {
    /// Held by the one who looks.
    turn: Turn<()>,
    hand: Mutex<Hand>,
}

/// What those who wait at a queue know together.
#[derive(Debug, Default)]
struct Hand {
    /// Steps that one of them reaches for.
    reached_for: HashSet<String>,
    /// Steps that are left alone until an instant.
    put_off: HashMap<String, Instant>,
    /// The run that was served last: the next one comes first.
    served: String,
}

impl Hand {
    /// Steps that nobody is served with for now: those behind them come first.
    fn passed_over(&self) -> usize {
        self.reached_for.len() + self.put_off.len().min(PASSED_OVER_MAX)
    }
}

/// Steps that somebody reaches for, until it is dropped.
struct Reaching<'a> {
    queue: &'a Queue,
    steps: Vec<String>,
}

impl Queues {
    fn at(&self, claim: &Claim) -> Arc<Queue> {
        let mut queues = lock(&self.0);
        if queues.len() >= QUEUES_KEPT {
            queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        }
        Arc::clone(queues.entry((claim.namespace.clone(), claim.queue.clone())).or_default())
    }
}

impl Queue {
    fn hand(&self) -> MutexGuard<'_, Hand> {
        lock(&self.hand)
    }

    /// Reaches for some of the steps that are due, from one run after the other.
    fn reach(&self, due: Vec<Queued>, unfit: &HashSet<String>, most: usize) -> Reaching<'_> {
        let (mut hand, now) = (self.hand(), Instant::now());
        hand.put_off.retain(|_, until| *until > now);
        let is_free = |step: &Queued| {
            let Queued { joined, .. } = step;
            let is_taken = hand.reached_for.contains(joined) || hand.put_off.contains_key(joined);
            !is_taken && !unfit.contains(joined)
        };
        let free = due.into_iter().filter(is_free).collect();
        let steps = by_turns(free, &hand.served, most);
        if let Some(last) = steps.last() {
            run_of(last).clone_into(&mut hand.served);
        }
        hand.reached_for.extend(steps.iter().cloned());
        drop(hand);
        Reaching { queue: self, steps }
    }
}

impl Drop for Reaching<'_> {
    fn drop(&mut self) {
        let mut hand = self.queue.hand();
        for step in &self.steps {
            hand.reached_for.remove(step);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run_of(joined: &str) -> &str {
    joined.split_once(' ').map_or(joined, |(run, _)| run)
}

/// At most so many steps, one of each run in turn, from the run after `served` on:
/// a run of many steps holds up no other.
fn by_turns(due: Vec<Queued>, served: &str, most: usize) -> Vec<String> {
    let mut runs: BTreeMap<String, VecDeque<String>> = BTreeMap::new();
    for Queued { joined, .. } in due {
        runs.entry(run_of(&joined).to_owned()).or_default().push_back(joined);
    }
    let (mut steps, mut served) = (Vec::new(), served.to_owned());
    while steps.len() < most {
        let after = (Bound::Excluded(served.as_str()), Bound::Unbounded);
        let next = runs.range::<str, _>(after).next().or_else(|| runs.iter().next());
        let Some(run) = next.map(|(run, _)| run.clone()) else { break };
        let left = runs.get_mut(&run).and_then(|steps| steps.pop_front().map(|step| (step, steps)));
        if let Some((step, rest)) = left {
            steps.push(step);
            if rest.is_empty() {
                runs.remove(&run);
            }
        }
        served = run;
    }
    steps
}

impl<S: Store> Service<S> {
    /// Claims steps of a queue that are due; waits for one until `until`. None in
    /// the end where nothing was due.
    ///
    /// # Errors
    /// There is no such namespace, or the store is away.
    pub async fn claim(&self, claim: &Claim, until: Instant) -> Result<Vec<Claimed>, ServiceError> {
        let queue = self.queues.at(claim);
        let mut unfit = HashSet::new();
        loop {
            let reaching = self.reach(claim, &queue, &unfit, until).await?;
            if reaching.steps.is_empty() {
                return Ok(Vec::new());
            }
            let tries = reaching.steps.iter().map(|joined| self.reach_for(claim, joined));
            let (mut claimed, mut failed) = (Vec::new(), None);
            for reached in join_all(tries).await {
                match reached {
                    Ok(Reached::Claimed(step)) => claimed.push(*step),
                    Ok(Reached::Unfit(step)) => {
                        unfit.insert(step);
                    }
                    Ok(Reached::PutOff(step)) => {
                        queue.hand().put_off.insert(step, Instant::now() + PUT_OFF);
                    }
                    Ok(Reached::Gone) => {}
                    Err(error) => failed = Some(error),
                }
            }
            match failed {
                // What was claimed is the worker's, whatever became of the rest.
                Some(error) if claimed.is_empty() => return Err(error),
                _ if claimed.is_empty() => {}
                _ => return Ok(claimed),
            }
        }
    }

    /// Waits for its turn at the queue, and then until something is due; nothing
    /// when the time is up.
    async fn reach<'a>(
        &self,
        claim: &Claim,
        queue: &'a Queue,
        unfit: &HashSet<String>,
        until: Instant,
    ) -> Result<Reaching<'a>, StoreError> {
        let nothing = Reaching { queue, steps: Vec::new() };
        // Who does not want to wait looks at least once, if nobody else does.
        let Ok(_turn) = timeout_at(until, queue.turn.lock()).await else { return Ok(nothing) };
        loop {
            let limit = LOOKED_AT + queue.hand().passed_over();
            let queued = self.store.queued(&claim.namespace, &claim.queue, limit).await?;
            let now = self.store.now().at;
            let next = queued.iter().map(|step| step.due).find(|due| *due > now);
            let due = queued.into_iter().filter(|step| step.due <= now).collect();
            let reaching = queue.reach(due, unfit, claim.most);
            if !reaching.steps.is_empty() {
                return Ok(reaching);
            }
            if until <= Instant::now() || self.waiters.closing.is_cancelled() {
                return Ok(nothing);
            }
            let pause = next.map_or(LOOK_EVERY, |next| LOOK_EVERY.min(next - now));
            tokio::select! {
                () = sleep_until(until.min(Instant::now() + pause)) => {}
                () = self.waiters.closing.cancelled() => {}
            }
        }
    }

    /// Begins an attempt of a step that is thought to be due.
    async fn reach_for(&self, claim: &Claim, joined: &str) -> Result<Reached, ServiceError> {
        let Some(key) = StepKey::split(&claim.namespace, joined) else { return Ok(Reached::Gone) };
        // Never closed; and without a turn the call is only not in turn.
        let _turn = self.waiters.looks.acquire().await;
        let begin = Begin {
            identity: claim.identity(joined),
            lease: claim.lease,
            host: claim.host.clone(),
            worker: claim.worker.clone(),
            comes: Comes::Claiming,
            step: StepTerms::default(),
        };
        let handled = match self.apply(&key, None, &Event::Begin(begin)).await {
            Ok(handled) => handled,
            Err(ServiceError::Refused(Refusal::UnknownStep)) => return Ok(Reached::Gone),
            Err(ServiceError::Contended) => return Ok(Reached::PutOff(joined.to_owned())),
            Err(error) => return Err(error),
        };
        let grant = match handled.answer {
            Answer::Granted(grant) => *grant,
            Answer::Refused(decision) => return Ok(refused(&decision, joined)),
            _ => return Ok(Reached::Gone),
        };
        let Some(record) = self.store.load(&key, Expect::Anything).await?.record else {
            return Ok(Reached::Gone);
        };
        let name = StepName {
            namespace: key.namespace.to_owned(),
            run: key.run.to_owned(),
            step: key.step.to_owned(),
        };
        let (policy, at) = (handled.policy, handled.at);
        Ok(Reached::Claimed(Box::new(Claimed { name, record, grant, policy, at })))
    }
}

/// What follows for the claim of a step that may not start.
fn refused(decision: &Decision, joined: &str) -> Reached {
    match decision.settled.reason {
        Reason::ExcludedHost => Reached::Unfit(joined.to_owned()),
        // It waits for an instant that it did not have before, or not at all.
        Reason::Limited | Reason::InLine | Reason::InProgress => Reached::Gone,
        _ => Reached::PutOff(joined.to_owned()),
    }
}

impl Claim {
    /// Who begins the attempt of a step.
    fn identity(&self, joined: &str) -> Identity {
        let id = [&self.request_id, joined.as_bytes()].concat();
        Identity { id: draw::digest(&id).max(1), payload: draw::digest(self.queue.as_bytes()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(steps: &[&str]) -> Vec<Queued> {
        let queued = |joined: &&str| Queued { joined: (*joined).to_owned(), due: Timestamp::EPOCH };
        steps.iter().map(queued).collect()
    }

    #[test]
    fn runs_take_turns_and_none_is_passed_over() {
        let due = ["a 1", "a 2", "a 3", "b 1", "c 1", "c 2"];
        assert_eq!(by_turns(queued(&due), "", 5), ["a 1", "b 1", "c 1", "a 2", "c 2"]);
        assert_eq!(by_turns(queued(&due), "a", 2), ["b 1", "c 1"]);
        assert_eq!(by_turns(queued(&due), "c", 1), ["a 1"]);
        assert_eq!(by_turns(queued(&due), "zz", 100).len(), due.len());
        assert!(by_turns(Vec::new(), "a", 3).is_empty());
    }

    #[test]
    fn what_one_reaches_for_the_next_one_leaves_alone() {
        let queue = Queue::default();
        let one = queue.reach(queued(&["a 1", "a 2"]), &HashSet::new(), 1);
        let other = queue.reach(queued(&["a 1", "a 2"]), &HashSet::new(), 5);
        assert_eq!((&*one.steps[0], &*other.steps[0], other.steps.len()), ("a 1", "a 2", 1));
        drop((one, other));
        assert_eq!(queue.reach(queued(&["a 1", "a 2"]), &HashSet::new(), 5).steps.len(), 2);
    }
}
