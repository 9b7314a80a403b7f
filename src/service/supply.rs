//! A worker that is handed the steps of a queue as they come due.
//!
//! A supply claims for as much room as its worker has: each claim takes a place for
//! as long as its attempt runs, whoever hears of its end. It claims only when it is
//! asked for more, so that nothing is claimed for a worker that does not listen; and
//! it ends when a claim of its own lapses unheard, lest a worker that is stuck be
//! handed one step after the other. One that is alive asks again.

use std::{sync::Arc, time::Duration};

use futures_util::{
    future::{BoxFuture, FutureExt as _},
    stream::{FuturesUnordered, StreamExt as _},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Claim, Claimed, Service, ServiceError};
use crate::{
    domain::{
        id::StepName,
        record::{Outcome, Record, State},
        time::Timestamp,
    },
    store::{Loaded, Store},
};

/// How long one wait for steps lasts, before the next begins.
const WAIT: Duration = Duration::from_secs(3600);
/// How often a claim is looked at whose lease has ended, or that the store tells
/// nothing of.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An attempt that a worker was handed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// The step.
    pub name: StepName,
    /// Tells the attempt from others of the step.
    pub fence: u64,
}

/// Steps of a queue for one worker, as they come due.
pub struct Supply<S> {
    service: Arc<Service<S>>,
    /// What it claims; its `most` is how many attempts may run at the same time.
    claim: Claim,
    /// Cancelled when the worker is to ask again elsewhere.
    farewell: CancellationToken,
    /// Claims that run, each until its attempt has ended.
    running: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// Times that it has claimed: no two claims have the same identity.
    claims: u64,
}

/// How an attempt has ended that a worker was handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Its worker is alive.
    Heard,
    /// Its lease ended, and nothing was ever heard of it.
    Unheard,
}

impl<S: Store> Supply<S> {
    /// A supply for a worker that still runs some attempts from before.
    #[must_use]
    pub fn new(
        service: Arc<Service<S>>,
        claim: Claim,
        running: Vec<Handed>,
        farewell: CancellationToken,
    ) -> Self {
        let supply = Self { service, claim, farewell, running: FuturesUnordered::new(), claims: 0 };
        running.into_iter().for_each(|handed| supply.takes_place(handed, Known::Before));
        supply
    }

    /// The namespace of its queue.
    pub fn namespace(&self) -> &str {
        &self.claim.namespace
    }

    /// The next steps, never none; None where the worker is to ask again. What is
    /// being claimed when the call is dropped returns to the queue when its lease ends.
    ///
    /// # Errors
    /// There is no such namespace, or the store is away.
    pub async fn next(&mut self) -> Result<Option<Vec<Claimed>>, ServiceError> {
        let queue = self.service.queues.at(&self.claim);
        loop {
            let claim = self.next_claim();
            // Only the wait is ever given up: what is reached for is seen through.
            let reaching = tokio::select! {
                biased;
                () = self.farewell.cancelled() => return Ok(None),
                () = self.service.waiters.closing.cancelled() => return Ok(None),
                Some(ended) = self.running.next() => match ended {
                    Ended::Heard => continue,
                    Ended::Unheard => return Ok(None),
                },
                reaching = self.service.reach(&claim, &queue, Instant::now() + WAIT),
                    if claim.most > 0 => reaching?,
            };
            let Some(reaching) = reaching else { continue };
            let claimed = self.service.reach_for_all(&claim, &reaching).await?;
            if !claimed.is_empty() {
                for Claimed { name, grant, .. } in &claimed {
                    let handed = Handed { name: name.clone(), fence: grant.fence };
                    self.takes_place(handed, Known::NotYet);
                }
                return Ok(Some(claimed));
            }
        }
    }

    /// A claim of as many steps as there is room for.
    fn next_claim(&mut self) -> Claim {
        self.claims += 1;
        let mut claim = self.claim.clone();
        claim.most = claim.most.saturating_sub(self.running.len());
        claim.request_id.extend(self.claims.to_le_bytes());
        claim
    }

    fn takes_place(&self, handed: Handed, known: Known) {
        self.running.push(ended(Arc::clone(&self.service), handed, known).boxed());
    }
}

/// Whether the worker has shown that it knows of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    NotYet,
    Before,
}

/// Waits until an attempt has ended.
async fn ended<S: Store>(service: Arc<Service<S>>, handed: Handed, known: Known) -> Ended {
    let key = handed.name.key();
    // Where too many wait already nobody tells it anything: it looks now and then.
    let place = service.waiters.enter(&key);
    let mut is_silent = known == Known::NotYet;
    loop {
        let look = match service.seen(&handed).await {
            Ok((None, _)) => return Ended::Heard,
            Ok((Some(record), at)) => match running_until(&record, handed.fence) {
                None if is_silent
                    && crashed(&record, handed.fence)
                    && !planted!("lapse-not-heeded") =>
                {
                    return Ended::Unheard;
                }
                None => return Ended::Heard,
                Some(until) => {
                    is_silent &= record.is_silent;
                    LOOK_EVERY.max(if place.is_some() { until - at } else { LOOK_EVERY })
                }
            },
            Err(_) => LOOK_EVERY,
        };
        let news = async {
            match &place {
                Some(place) => place.news().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = news => {}
            () = sleep(look) => {}
        }
    }
}

/// When the lease of this attempt ends; None when it does not run.
fn running_until(record: &Record, fence: u64) -> Option<Timestamp> {
    match record.state {
        State::Running { lease_until } if record.fence == fence => Some(lease_until),
        _ => None,
    }
}

/// Whether this attempt ended with its lease.
fn crashed(record: &Record, fence: u64) -> bool {
    let attempt = record.attempts.iter().find(|attempt| attempt.fence == fence);
    let end = attempt.and_then(|attempt| attempt.end.as_ref());
    end.is_some_and(|end| end.outcome == Outcome::Crash)
}

impl<S: Store> Service<S> {
    /// The step of an attempt as it is, and the store's time.
    async fn seen(&self, handed: &Handed) -> Result<(Option<Record>, Timestamp), ServiceError> {
        // Never closed; and without a turn the look is only not in turn.
        let _turn = self.waiters.looks.acquire().await;
        let Loaded { record, now, .. } = self.current(&handed.name.key()).await?;
        Ok((record, now.at))
    }
}
