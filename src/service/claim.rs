//! Workers that run whatever step of a queue is due.
//!
//! A claim is a begin like any other: what may start, and what a limit says of it,
//! is decided when it is committed, so that two who reach for one step cannot both
//! have it. What is said here is only which steps are worth reaching for. Of those
//! in this process who wait at one queue one looks, and deals what is due to them
//! all: thousands who wait cost no more looks than one. What is dealt to one, nobody
//! else here reaches for; what is left over is there for whoever comes next.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{Mutex as Turn, oneshot},
    time::{Instant, sleep_until, timeout_at},
};

use super::{PolicyInForce, Service, ServiceError};
use crate::{
    domain::{
        decision::{Decision, Reason},
        draw,
        event::{Begin, Comes, Event, StepTerms},
        id::{Id, StepKey, StepName},
        labels::Labels,
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
/// reach for. Labels choose among them: what lies behind so many steps that are left
/// to others is not seen.
const LOOKED_AT: usize = 256;
/// Steps that are left alone, paused ones say, and looked past at most.
const PASSED_OVER_MAX: usize = 4096;
/// How often a queue is looked at in which nothing is due, and how long what was
/// seen there is good for.
const LOOK_EVERY: Duration = Duration::from_millis(30);
/// How long a step is left alone that is due and may not start, such as at a paused
/// target.
const PUT_OFF: Duration = Duration::from_secs(1);
/// How long a host leaves a step alone that may not run there.
const UNFIT: Duration = Duration::from_secs(10);

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
    /// What a step must have for this worker.
    pub labels: Labels,
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
    /// The worker's host may not run it.
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
pub(super) struct Queue {
    /// Held by the one who looks.
    turn: Turn<()>,
    hand: Mutex<Hand>,
}

/// What those who wait at a queue know together.
#[derive(Debug, Default)]
struct Hand {
    /// Who waits, in the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    /// How many have come so far.
    came: u64,
    /// Due steps that nobody has reached for when it was last looked.
    left: Due,
    /// Until when they are worth reaching for.
    left_until: Option<Instant>,
    /// Steps that one of them reaches for.
    reached_for: HashSet<String>,
    /// Steps that are left alone until an instant.
    put_off: HashMap<String, Timestamp>,
    /// Steps that a host leaves alone until an instant, by the host.
    unfit: HashMap<Arc<str>, HashMap<String, Timestamp>>,
    /// The run that was served last: the next one comes first.
    served: String,
}

/// One who waits.
#[derive(Debug)]
struct Waiting {
    demand: Demand,
    /// Steps at most.
    most: usize,
    given: oneshot::Sender<Reaching>,
}

/// Which steps a worker may run. Many workers have the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Demand {
    labels: Labels,
    host: Option<Arc<str>>,
}

/// Steps that are due, by run.
#[derive(Debug, Default)]
struct Due(BTreeMap<String, VecDeque<Queued>>);

/// A place among those who wait at a queue, until it is dropped.
struct Place {
    queue: Arc<Queue>,
    number: u64,
    given: oneshot::Receiver<Reaching>,
}

/// Steps that somebody reaches for, until it is dropped. Never none.
#[derive(Debug)]
pub(super) struct Reaching {
    queue: Arc<Queue>,
    steps: Vec<String>,
}

impl Queues {
    pub fn at(&self, claim: &Claim) -> Arc<Queue> {
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

    /// Begins to wait, for what is left over in the first place.
    fn enter(self: &Arc<Self>, claim: &Claim) -> Place {
        let (sender, given) = oneshot::channel();
        let demand = Demand { labels: claim.labels.clone(), host: claim.host.clone() };
        let waiting = Waiting { demand, most: claim.most, given: sender };
        let mut hand = self.hand();
        hand.came += 1;
        let number = hand.came;
        hand.waiting.insert(number, waiting);
        if hand.left_until.is_some_and(|until| Instant::now() < until) {
            let dealt = hand.serve(number);
            drop(hand);
            self.hand_out(dealt);
        }
        Place { queue: Arc::clone(self), number, given }
    }

    /// Deals steps that are due to those who wait, the first come first. Returns
    /// whether anybody got any.
    fn deal(self: &Arc<Self>, due: Vec<Queued>, now: Timestamp) -> bool {
        let dealt = self.hand().deal(due, now);
        let has_dealt = !dealt.is_empty();
        self.hand_out(dealt);
        has_dealt
    }

    /// Not while the hand is held: what nobody takes any more goes back into it.
    fn hand_out(self: &Arc<Self>, dealt: impl IntoIterator<Item = (Waiting, Vec<String>)>) {
        for (waiting, steps) in dealt {
            // Who is gone does not take them, and they are dropped.
            let _ = waiting.given.send(Reaching { queue: Arc::clone(self), steps });
        }
    }
}

impl Hand {
    /// Steps that nobody is served with for now: those behind them come first.
    fn passed_over(&self) -> usize {
        self.reached_for.len() + self.put_off.len().min(PASSED_OVER_MAX)
    }

    fn deal(&mut self, due: Vec<Queued>, now: Timestamp) -> Vec<(Waiting, Vec<String>)> {
        self.put_off.retain(|_, until| now < *until);
        for steps in self.unfit.values_mut() {
            steps.retain(|_, until| now < *until);
        }
        self.unfit.retain(|_, steps| !steps.is_empty());
        let is_free = |step: &Queued| {
            let is_reached_for =
                self.reached_for.contains(&step.joined) && !planted!("dealt-twice");
            !is_reached_for && !self.put_off.contains_key(&step.joined)
        };
        self.left = due.into_iter().filter(is_free).take(LOOKED_AT).collect();
        self.left_until = Some(Instant::now() + LOOK_EVERY);
        let (mut dealt, mut in_vain) = (Vec::new(), HashSet::new());
        let in_turn: Vec<u64> = self.waiting.keys().copied().collect();
        for number in in_turn {
            if self.left.0.is_empty() {
                break;
            }
            let Some(Waiting { demand, .. }) = self.waiting.get(&number) else { continue };
            // What there was nothing for before there is nothing for now; a host matters
            // where steps are not for it.
            let host = demand.host.clone().filter(|host| self.unfit.contains_key(host));
            let demand = Demand { labels: demand.labels.clone(), host };
            if in_vain.contains(&demand) {
                continue;
            }
            match self.serve(number) {
                Some(served) => dealt.push(served),
                None => {
                    in_vain.insert(demand);
                }
            }
        }
        dealt
    }

    /// Takes steps for one who waits out of what is left; None, and waits on, where
    /// there is nothing for it.
    fn serve(&mut self, number: u64) -> Option<(Waiting, Vec<String>)> {
        let Waiting { demand, most, .. } = self.waiting.get(&number)?;
        let unfit = demand.host.as_ref().and_then(|host| self.unfit.get(host));
        let suits = |step: &Queued| {
            (step.labels.has_all(&demand.labels) || planted!("labels-not-compared"))
                && !unfit.is_some_and(|unfit| unfit.contains_key(&step.joined))
        };
        let mut steps = Vec::new();
        while steps.len() < *most {
            let Some((run, step)) = self.left.next(&self.served, suits) else { break };
            if !planted!("runs-take-no-turns") {
                self.served = run;
            }
            steps.push(step);
        }
        if steps.is_empty() {
            return None;
        }
        self.reached_for.extend(steps.iter().cloned());
        self.waiting.remove(&number).map(|waiting| (waiting, steps))
    }
}

impl Due {
    /// Takes the first step that suits of the first run after `served` that has one:
    /// runs take turns, and one of many steps holds up no other.
    fn next(&mut self, served: &str, suits: impl Fn(&Queued) -> bool) -> Option<(String, String)> {
        let after = (Bound::Excluded(served), Bound::Unbounded);
        let others = (Bound::Unbounded, Bound::Included(served));
        let in_turn = self.0.range::<str, _>(after).chain(self.0.range::<str, _>(others));
        let place = |steps: &VecDeque<Queued>| steps.iter().position(&suits);
        let (run, at) =
            in_turn.map(|(run, steps)| (run, place(steps))).find(|(_, at)| at.is_some())?;
        let run = run.clone();
        let steps = self.0.get_mut(&run)?;
        let step = steps.remove(at?)?;
        if steps.is_empty() {
            self.0.remove(&run);
        }
        Some((run, step.joined))
    }
}

impl FromIterator<Queued> for Due {
    fn from_iter<T: IntoIterator<Item = Queued>>(steps: T) -> Self {
        let mut runs: BTreeMap<String, VecDeque<Queued>> = BTreeMap::new();
        for step in steps {
            let run = step.joined.split_once(' ').map_or(&*step.joined, |(run, _)| run);
            runs.entry(run.to_owned()).or_default().push_back(step);
        }
        Self(runs)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.hand().waiting.remove(&self.number);
    }
}

impl Drop for Reaching {
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

impl<S: Store> Service<S> {
    /// Claims steps of a queue that are due; waits for one until `until`. None in
    /// the end where nothing was due.
    ///
    /// # Errors
    /// There is no such namespace, or the store is away.
    pub async fn claim(&self, claim: &Claim, until: Instant) -> Result<Vec<Claimed>, ServiceError> {
        let queue = self.queues.at(claim);
        while let Some(reaching) = self.reach(claim, &queue, until).await? {
            let claimed = self.reach_for_all(claim, &reaching).await?;
            if !claimed.is_empty() {
                return Ok(claimed);
            }
        }
        Ok(Vec::new())
    }

    /// Waits until something is due for this claim; None when the time is up. What it
    /// is worth reaching for nobody else here reaches for as long as it is kept.
    pub(super) async fn reach(
        &self,
        claim: &Claim,
        queue: &Arc<Queue>,
        until: Instant,
    ) -> Result<Option<Reaching>, StoreError> {
        let mut place = queue.enter(claim);
        tokio::select! {
            biased;
            given = &mut place.given => return Ok(given.ok()),
            looked = self.look_for_all(claim, queue, until) => looked?,
        }
        Ok(place.given.try_recv().ok())
    }

    /// Waits for its turn to look at the queue, and then looks for all who wait there,
    /// until the time is up.
    async fn look_for_all(
        &self,
        claim: &Claim,
        queue: &Arc<Queue>,
        until: Instant,
    ) -> Result<(), StoreError> {
        // Who does not want to wait looks at least once, if nobody else does.
        let Ok(_turn) = timeout_at(until, queue.turn.lock()).await else { return Ok(()) };
        loop {
            let limit = LOOKED_AT + queue.hand().passed_over();
            let queued = self.store.queued(&claim.namespace, &claim.queue, limit).await?;
            let now = self.store.now().at;
            let next = queued.iter().map(|step| step.due).find(|due| *due > now);
            let due = queued.into_iter().filter(|step| step.due <= now).collect();
            let has_dealt = queue.deal(due, now);
            if until <= Instant::now() || self.waiters.closing.is_cancelled() {
                return Ok(());
            }
            let pause = next.map_or(LOOK_EVERY, |next| LOOK_EVERY.min(next - now));
            // There may be more where that came from.
            let pause = if has_dealt { Duration::ZERO } else { pause };
            tokio::select! {
                () = sleep_until(until.min(Instant::now() + pause)) => {}
                () = self.waiters.closing.cancelled() => {}
            }
        }
    }

    /// Claims what may start of the steps that are reached for.
    ///
    /// # Errors
    /// As [`Service::claim`], and nothing was claimed.
    pub(super) async fn reach_for_all(
        &self,
        claim: &Claim,
        reaching: &Reaching,
    ) -> Result<Vec<Claimed>, ServiceError> {
        let tries = reaching.steps.iter().map(|joined| self.reach_for(claim, joined));
        let (mut claimed, mut failed) = (Vec::new(), None);
        let reached = join_all(tries).await;
        let now = self.store.now().at;
        for reached in reached {
            match reached {
                Ok(Reached::Claimed(step)) => claimed.push(*step),
                Ok(Reached::Unfit(step)) => {
                    let mut hand = reaching.queue.hand();
                    let host = claim.host.clone().unwrap_or_default();
                    hand.unfit.entry(host).or_default().insert(step, now.plus(UNFIT));
                }
                Ok(Reached::PutOff(step)) => {
                    reaching.queue.hand().put_off.insert(step, now.plus(PUT_OFF));
                }
                Ok(Reached::Gone) => {}
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            // What was claimed is the worker's, whatever became of the rest.
            Some(error) if claimed.is_empty() => Err(error),
            _ => Ok(claimed),
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
            // An earlier attempt that was begun under this id is over: the step is for others.
            Answer::Granted(grant) if grant.lease_until <= handled.at => {
                return Ok(Reached::PutOff(joined.to_owned()));
            }
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
        // It waits for an instant that it did not have when it was seen, or not at all.
        Reason::NotDue | Reason::Limited | Reason::InLine | Reason::InProgress => Reached::Gone,
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

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);

    fn queued(steps: &[&str]) -> Vec<Queued> {
        let queued = |step: &&str| {
            let (joined, labels) = step.split_once(" / ").unwrap_or((step, ""));
            let labels = Labels::parse(labels).unwrap();
            Queued { joined: joined.to_owned(), due: Timestamp::EPOCH, labels }
        };
        steps.iter().map(queued).collect()
    }

    fn claim(most: usize, labels: &str, host: &str) -> Claim {
        Claim {
            namespace: "n".to_owned(),
            queue: "q".parse().unwrap(),
            request_id: Vec::new(),
            most,
            lease: None,
            host: Some(host.into()),
            worker: String::new(),
            labels: Labels::parse(labels).unwrap(),
        }
    }

    /// What one who waits was given, and is reaching for from now on.
    fn given(place: &mut Place) -> Option<Reaching> {
        place.given.try_recv().ok()
    }

    fn steps(place: &mut Place) -> Vec<String> {
        given(place).map(|reaching| reaching.steps.clone()).unwrap_or_default()
    }

    #[test]
    fn runs_take_turns_and_none_is_passed_over() {
        let turns = |served: &str, most: usize| {
            let mut due: Due =
                queued(&["a 1", "a 2", "a 3", "b 1", "c 1", "c 2"]).into_iter().collect();
            let (mut steps, mut served) = (Vec::new(), served.to_owned());
            while steps.len() < most {
                let Some((run, step)) = due.next(&served, |_| true) else { break };
                (served, steps) = (run, [steps, vec![step]].concat());
            }
            steps
        };
        assert_eq!(turns("", 5), ["a 1", "b 1", "c 1", "a 2", "c 2"]);
        assert_eq!(turns("a", 2), ["b 1", "c 1"]);
        assert_eq!(turns("c", 1), ["a 1"]);
        assert_eq!(turns("zz", 100).len(), 6);
    }

    #[test]
    fn who_came_first_is_served_first_and_nobody_reaches_for_the_same() {
        let queue = Arc::<Queue>::default();
        let mut places = [1, 5].map(|most| queue.enter(&claim(most, "", "h")));
        assert!(queue.deal(queued(&["a 1", "a 2"]), NOW));
        let reaching = places.each_mut().map(|place| given(place).unwrap());
        assert_eq!(reaching.each_ref().map(|it| it.steps.join(",")), ["a 1", "a 2"]);
        let mut later = queue.enter(&claim(5, "", "h"));
        assert!(!queue.deal(queued(&["a 1", "a 2"]), NOW), "others reach for them");
        drop(reaching);
        assert!(queue.deal(queued(&["a 1", "a 2"]), NOW));
        assert_eq!(steps(&mut later), ["a 1", "a 2"]);
    }

    #[test]
    fn labels_choose_and_leave_the_rest_to_others() {
        let queue = Arc::<Queue>::default();
        let due = ["a 1", "a 2 / gpu=a100", "a 3 / gpu=a100,zone=eu", "a 4 / zone=eu"];
        let mut gpu = queue.enter(&claim(5, "gpu=a100", "h"));
        let mut tape = queue.enter(&claim(5, "tape=yes", "h"));
        assert!(queue.deal(queued(&due), NOW));
        assert_eq!(steps(&mut gpu), ["a 2", "a 3"]);
        // Who comes now need not look anew.
        let mut any = queue.enter(&claim(5, "", "h"));
        assert_eq!(steps(&mut any), ["a 1", "a 4"]);
        assert!(given(&mut tape).is_none());
    }

    #[test]
    fn what_lies_behind_256_steps_of_others_is_not_seen() {
        let queue = Arc::<Queue>::default();
        let mut gpu = queue.enter(&claim(5, "gpu=a100", "h"));
        let mut due: Vec<String> = (0..LOOKED_AT).map(|at| format!("a {at}")).collect();
        due.push("b 1 / gpu=a100".to_owned());
        let due: Vec<&str> = due.iter().map(String::as_str).collect();
        assert!(!queue.deal(queued(&due), NOW));
        assert!(queue.deal(queued(&due[1..]), NOW));
        assert_eq!(steps(&mut gpu), ["b 1"]);
    }

    #[test]
    fn a_host_that_may_not_run_a_step_leaves_it_to_others() {
        let queue = Arc::<Queue>::default();
        let until = NOW.plus(UNFIT);
        let unfit = HashMap::from([("a 1".to_owned(), until)]);
        queue.hand().unfit.insert("h".into(), unfit);
        let mut places = ["h", "other"].map(|host| queue.enter(&claim(1, "", host)));
        assert!(queue.deal(queued(&["a 1"]), NOW));
        assert_eq!(places.each_mut().map(steps), [vec![], vec!["a 1".to_owned()]]);
        // Until it may try again.
        let dealt = queue.hand().deal(queued(&["a 1"]), until);
        assert_eq!(dealt.len(), 1);
    }

    #[test]
    fn who_leaves_takes_nothing_along() {
        let queue = Arc::<Queue>::default();
        let place = queue.enter(&claim(1, "", "h"));
        assert!(queue.deal(queued(&["a 1"]), NOW));
        assert_eq!(queue.hand().reached_for.len(), 1);
        drop(place);
        let hand = queue.hand();
        assert!(hand.reached_for.is_empty() && hand.waiting.is_empty());
    }
}
