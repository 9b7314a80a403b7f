//! What callers say: failures of steps, as workers report them.
//!
//! A caller keeps a few steps going and reports their attempts in turn. A step
//! whose retries have ended starts again under a new name, so that most answers
//! are RETRY however long the load lasts.

use std::{fmt::Write as _, sync::Arc, time::Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;
use tonic::Code;

use super::{
    client::{Call, CallError, Connection, PREFIX_BYTES},
    echo::Replies,
    tally::{Judged, Ledger},
};
use crate::proto::{
    BatchReportAttemptsRequest, BeginAttemptRequest, Concurrency, Failure, FailureClass,
    GetStepRequest, NamedTarget, Policy, Rate, ReportAttemptRequest, ReportStatus, RetryBudget,
    Target, UpdateTargetRequest, Verdict, begin_attempt_request, failure, report_attempt_request,
};

/// Steps that one caller keeps going.
const STEPS: usize = 10;
/// Reports in one batch: of either kind of batch.
const BATCH_SIZES: [usize; 2] = [16, 64];
/// After this many attempts a step starts again, whatever the server says: the
/// baseline never says STOP, and its messages should not differ for that.
const ATTEMPTS_MAX: u32 = 8;
/// Room for this many requests is reserved at once.
const REQUESTS_A_BUFFER: usize = 64;

/// Which calls a load is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scenario {
    /// ReportAttempt by attempt number: workers that make no other call.
    Report,
    /// BeginAttempt, then ReportAttempt by fence. The steps' policy has no
    /// backoff, so that the next attempt may begin at once.
    BeginReport,
    /// BatchReportAttempts of 16 steps.
    Batch16,
    /// The same of 64.
    Batch64,
    /// Of ten steps six as in `Report`, three as in `BeginReport`, and one that
    /// is read after each report.
    Mixed,
}

/// What limits the target of every step. None is ever reached: what it costs to
/// ask them is measured. Permits and the budget are asked when an attempt begins, so
/// that loads which only report ask the rate alone, and count in the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Limits {
    /// Steps name no target.
    None,
    /// A rate.
    Rate,
    /// A rate, permits and a retry budget.
    Three,
}

impl Limits {
    /// What steps name as their target: where a store serves several loads each
    /// finds its own.
    fn targets(self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::Rate => vec!["warehouse-db".to_owned()],
            Self::Three => vec!["warehouse-db-pool".to_owned()],
        }
    }

    /// The target under that name.
    fn target(self, name: String) -> NamedTarget {
        let most = || Some(Concurrency { max: 1_000_000 });
        let budget = || Some(RetryBudget { ratio: Some(10.0), ..RetryBudget::default() });
        let is_three = self == Self::Three;
        let target = Target {
            rate: Some(Rate { limit: 100_000, ..Rate::default() }),
            concurrency: is_three.then(most).flatten(),
            budget: is_three.then(budget).flatten(),
            ..Target::default()
        };
        NamedTarget { name, target: Some(target), ..NamedTarget::default() }
    }
}

/// Sees that the target is there which steps name, if they name one.
pub(super) async fn limit(connection: &mut Connection, limits: Limits) -> Result<(), CallError> {
    for name in limits.targets() {
        let update = UpdateTargetRequest {
            target: Some(limits.target(name)),
            allow_missing: true,
            ..UpdateTargetRequest::default()
        };
        connection.call(Call::UpdateTarget, framed(&update, &mut BytesMut::new())).await?;
    }
    Ok(())
}

/// A small generator for arrivals and for what makes messages differ
/// (SplitMix64): equal seeds give equal loads.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in (0, 1].
    pub(super) fn share(&mut self) -> f64 {
        const STEPS: f64 = (1_u64 << 53) as f64;
        ((self.next() >> 11) + 1) as f64 / STEPS
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Someone who makes one call at a time.
pub(super) struct Caller {
    wire: Wire,
    acts: Vec<Act>,
    next: usize,
}

/// What a caller does in turn.
enum Act {
    Report(Track),
    BeginReport(Track, Box<BeginAttemptRequest>),
    ReportGet(Track, GetStepRequest),
    Batch(Vec<Track>, BatchReportAttemptsRequest),
}

impl Caller {
    pub(super) fn new(
        connection: Connection,
        ledger: Arc<Ledger>,
        scenario: Scenario,
        limits: Limits,
        caller: u64,
        mut chance: Chance,
    ) -> Self {
        // Two loads never meet in one store, not even with equal seeds.
        let load = getrandom::u32().unwrap_or_default();
        let mut track = |slot: usize| Track::new(load, caller, slot, limits, &mut chance);
        let acts = match scenario {
            Scenario::Report => (0..STEPS).map(|slot| Act::Report(track(slot))).collect(),
            Scenario::BeginReport => {
                (0..STEPS).map(|slot| Act::begin_report(track(slot))).collect()
            }
            Scenario::Batch16 => vec![Act::batch(BATCH_SIZES[0], track)],
            Scenario::Batch64 => vec![Act::batch(BATCH_SIZES[1], track)],
            Scenario::Mixed => (0..STEPS)
                .map(|slot| match slot {
                    0 | 3 | 6 => Act::begin_report(track(slot)),
                    9 => Act::ReportGet(track(slot), GetStepRequest::default()),
                    _ => Act::Report(track(slot)),
                })
                .collect(),
        };
        Self {
            wire: Wire { connection, ledger, buffer: BytesMut::new(), broken: false },
            acts,
            next: 0,
        }
    }

    /// Makes the next calls, the first of which should have been sent at `due`.
    pub(super) async fn turn(&mut self, due: Instant) {
        let wire = &mut self.wire;
        match &mut self.acts[self.next] {
            Act::Report(track) => {
                report(wire, track, due).await;
            }
            Act::BeginReport(track, begin) => begin_report(wire, track, begin, due).await,
            Act::ReportGet(track, get) => report_get(wire, track, get, due).await,
            Act::Batch(tracks, batch) => report_batch(wire, tracks, batch, due).await,
        }
        self.next = (self.next + 1) % self.acts.len();
    }

    /// True once no further call can succeed.
    pub(super) fn is_broken(&self) -> bool {
        self.wire.broken
    }
}

impl Act {
    fn begin_report(mut track: Track) -> Self {
        track.by_fence = true;
        let begin = BeginAttemptRequest {
            step: track.report.step.clone(),
            host: HOST.to_owned(),
            worker: WORKER.to_owned(),
            kind: KIND.to_owned(),
            targets: track.report.targets.clone(),
            ..BeginAttemptRequest::default()
        };
        Self::BeginReport(track, Box::new(begin))
    }

    fn batch(size: usize, track: impl FnMut(usize) -> Track) -> Self {
        Self::Batch((0..size).map(track).collect(), BatchReportAttemptsRequest::default())
    }
}

/// False when there was no answer.
async fn report(wire: &mut Wire, track: &mut Track, due: Instant) -> bool {
    let answer: Option<ReportAnswer> = wire.exchange(Call::Report, &track.report, due).await;
    if let Some(answer) = &answer {
        track.follow(answer.verdict());
    }
    answer.is_some()
}

async fn begin_report(
    wire: &mut Wire,
    track: &mut Track,
    begin: &mut BeginAttemptRequest,
    due: Instant,
) {
    if track.attempt == 1 {
        begin.run.clone_from(&track.report.run);
        begin.policy = Some(begin_attempt_request::Policy::InlinePolicy(without_backoff()));
    } else {
        begin.policy = None;
    }
    begin.request_id = track.request_id();
    let Some(answer) = wire.exchange::<_, BeginAnswer>(Call::Begin, begin, due).await else {
        return;
    };
    match answer.grant {
        Some(grant) => {
            track.report.fence = grant.fence;
            report(wire, track, Instant::now()).await;
        }
        None => track.restart(),
    }
}

fn without_backoff() -> Policy {
    Policy { max_retries: Some(ATTEMPTS_MAX), ..Policy::default() }
}

async fn report_get(wire: &mut Wire, track: &mut Track, get: &mut GetStepRequest, due: Instant) {
    get.run.clone_from(&track.report.run);
    get.step.clone_from(&track.report.step);
    if report(wire, track, due).await {
        let _: Option<StepAnswer> = wire.exchange(Call::Get, get, Instant::now()).await;
    }
}

async fn report_batch(
    wire: &mut Wire,
    tracks: &mut [Track],
    batch: &mut BatchReportAttemptsRequest,
    due: Instant,
) {
    // The requests are lent to the message and taken back.
    batch.reports.extend(tracks.iter_mut().map(|track| std::mem::take(&mut track.report)));
    let answer: Option<BatchAnswer> = wire.exchange(Call::Batch, batch, due).await;
    for (track, report) in tracks.iter_mut().zip(batch.reports.drain(..)) {
        track.report = report;
    }
    for (track, item) in tracks.iter_mut().zip(answer.unwrap_or_default().results) {
        track.follow(item.response.unwrap_or_default().verdict());
    }
}

/// Lets a server show that it can answer, and how: one reply for each kind of
/// call.
pub(super) async fn greet(connection: &mut Connection) -> Result<Replies, CallError> {
    let mut track =
        Track::new(getrandom::u32().unwrap_or_default(), 0, 0, Limits::None, &mut Chance::new(0));
    let buffer = &mut BytesMut::new();
    let decided = connection.call(Call::Report, framed(&track.report, buffer)).await?;
    let get = GetStepRequest {
        run: track.report.run.clone(),
        step: track.report.step.clone(),
        ..GetStepRequest::default()
    };
    let step = connection.call(Call::Get, framed(&get, buffer)).await?;
    track.restart();
    let begin = BeginAttemptRequest {
        run: track.report.run.clone(),
        step: track.report.step.clone(),
        request_id: track.request_id(),
        ..BeginAttemptRequest::default()
    };
    let granted = connection.call(Call::Begin, framed(&begin, buffer)).await?;
    Ok(Replies {
        granted: understood(granted)?,
        decided: understood(decided)?,
        step: understood(step)?,
    })
}

fn understood<M: Message + Default>(reply: Bytes) -> Result<M, CallError> {
    M::decode(reply).map_err(|_| CallError::Malformed("the message cannot be decoded"))
}

/// A connection with what belongs to one caller.
struct Wire {
    connection: Connection,
    ledger: Arc<Ledger>,
    buffer: BytesMut,
    broken: bool,
}

impl Wire {
    /// Makes one call and enters it into the ledger. `None` when it brought no
    /// answer.
    async fn exchange<M: Message, A: Answer>(
        &mut self,
        call: Call,
        message: &M,
        due: Instant,
    ) -> Option<A> {
        let request = framed(message, &mut self.buffer);
        let request_bytes = request.len() - PREFIX_BYTES;
        let sent = Instant::now();
        let outcome = self.connection.call(call, request).await;
        self.broken |= matches!(outcome, Err(CallError::Broken(_)));
        match outcome.map_err(Lack::from).and_then(understand) {
            Ok((answer, judged, reply_bytes)) => {
                self.ledger.answered(due, sent, &judged, request_bytes, reply_bytes);
                Some(answer)
            }
            Err(Lack::Rejected) => {
                self.ledger.rejected();
                None
            }
            Err(Lack::Failed(what)) => {
                self.ledger.failed(what);
                None
            }
        }
    }
}

/// Why a call brought nothing to go on with.
enum Lack {
    /// Too busy.
    Rejected,
    /// Something is wrong.
    Failed(String),
}

impl From<CallError> for Lack {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused { code: Code::ResourceExhausted, .. } => Self::Rejected,
            error => Self::Failed(error.to_string()),
        }
    }
}

/// An answer, what it holds and how long it was.
fn understand<A: Answer>(reply: Bytes) -> Result<(A, Judged, usize), Lack> {
    let bytes = reply.len();
    let answer = A::decode(reply).map_err(|error| Lack::Failed(error.to_string()))?;
    let judged = answer.judge().map_err(Lack::Failed)?;
    Ok((answer, judged, bytes))
}

/// A message with its gRPC prefix.
fn framed<M: Message>(message: &M, buffer: &mut BytesMut) -> Bytes {
    let length = message.encoded_len();
    let needed = PREFIX_BYTES + length;
    if buffer.capacity() < needed {
        buffer.reserve(needed * REQUESTS_A_BUFFER);
    }
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(length).expect("requests are a few kilobytes"));
    message.encode_raw(buffer);
    buffer.split().freeze()
}

/// One step on its way through its attempts.
struct Track {
    report: ReportAttemptRequest,
    attempt: u32,
    /// Whether reports name the attempt by its fence instead of its number.
    by_fence: bool,
    load: u32,
    caller: u64,
    slot: usize,
    runs: u32,
    chance: Chance,
}

/// Names and texts as long as real ones.
const HOST: &str = "node-17.eu-west.internal";
const WORKER: &str = "worker-3f2c";
const KIND: &str = "load-table";
const MESSAGES: [&str; 4] = [
    "upstream connect error before headers: connection refused",
    "the server closed the connection while a reply was awaited",
    "could not serialize access due to a concurrent update here",
    "deadline exceeded after 4.9s while waiting for a connection",
];

impl Track {
    fn new(load: u32, caller: u64, slot: usize, limits: Limits, chance: &mut Chance) -> Self {
        let chance = Chance::new(chance.next());
        let report = ReportAttemptRequest {
            step: format!("load-orders/partition-{slot:04}"),
            kind: KIND.to_owned(),
            targets: limits.targets(),
            ..ReportAttemptRequest::default()
        };
        let mut track =
            Self { report, attempt: 0, by_fence: false, load, caller, slot, runs: 0, chance };
        track.restart();
        track
    }

    /// Goes on as the server said.
    fn follow(&mut self, verdict: Verdict) {
        if verdict == Verdict::Retry && self.attempt < ATTEMPTS_MAX {
            self.attempt += 1;
            self.name_attempt();
        } else {
            self.restart();
        }
    }

    /// Begins again as a new step, with another failure.
    fn restart(&mut self) {
        self.runs += 1;
        self.attempt = 1;
        self.report.run.clear();
        write!(
            self.report.run,
            "run-{:08x}-{:04x}-{:02x}{:06}",
            self.load, self.caller, self.slot, self.runs
        )
        .expect("writing to a string cannot fail");
        self.report.outcome =
            Some(report_attempt_request::Outcome::Failure(some_failure(&mut self.chance)));
        self.name_attempt();
    }

    fn name_attempt(&mut self) {
        self.report.fence = 0;
        self.report.attempt = if self.by_fence { 0 } else { self.attempt };
    }

    fn request_id(&mut self) -> Bytes {
        let halves = [self.chance.next().to_le_bytes(), self.chance.next().to_le_bytes()];
        Bytes::copy_from_slice(halves.as_flattened())
    }
}

fn some_failure(chance: &mut Chance) -> Failure {
    let message = MESSAGES[chance.below(MESSAGES.len() as u64) as usize];
    Failure {
        class: FailureClass::Transient.into(),
        error_type: "ConnectionResetError".to_owned(),
        code: Some(failure::Code::GrpcCode(14)),
        message: message.to_owned(),
        host: HOST.to_owned(),
        worker: WORKER.to_owned(),
        duration: Some(prost_types::Duration {
            seconds: 4,
            nanos: 900_000_000 + chance.below(99_000_000) as i32,
        }),
        ..Failure::default()
    }
}

/// What of a reply is looked at; the rest is skipped, which costs less than
/// building it.
trait Answer: Message + Default {
    /// What the reply holds, or what is wrong with it.
    fn judge(&self) -> Result<Judged, String>;
}

#[derive(Clone, PartialEq, prost::Message)]
struct DecisionAnswer {
    #[prost(enumeration = "Verdict", tag = "1")]
    verdict: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReportAnswer {
    #[prost(message, optional, tag = "1")]
    decision: Option<DecisionAnswer>,
    #[prost(enumeration = "ReportStatus", tag = "3")]
    status: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GrantAnswer {
    #[prost(uint64, tag = "2")]
    fence: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BeginAnswer {
    #[prost(message, optional, tag = "1")]
    grant: Option<GrantAnswer>,
    #[prost(message, optional, tag = "2")]
    refusal: Option<DecisionAnswer>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BatchAnswer {
    #[prost(message, repeated, tag = "1")]
    results: Vec<BatchItem>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BatchItem {
    #[prost(message, optional, tag = "3")]
    response: Option<ReportAnswer>,
    #[prost(message, optional, tag = "4")]
    error: Option<tonic_types::Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StepAnswer {}

impl ReportAnswer {
    fn verdict(&self) -> Verdict {
        self.decision.as_ref().map_or(Verdict::Unspecified, DecisionAnswer::verdict)
    }
}

impl Answer for ReportAnswer {
    fn judge(&self) -> Result<Judged, String> {
        if self.status() != ReportStatus::Recorded {
            return Err(format!("a report was {}", self.status().as_str_name()));
        }
        match self.verdict() {
            Verdict::Unspecified => Err("a report was answered without a verdict".to_owned()),
            verdict => Ok(Judged { decisions: 1, granted: u64::from(verdict == Verdict::Retry) }),
        }
    }
}

impl Answer for BeginAnswer {
    fn judge(&self) -> Result<Judged, String> {
        if self.grant.is_none() && self.refusal.is_none() {
            return Err("a begin was answered with neither grant nor refusal".to_owned());
        }
        Ok(Judged { decisions: 1, granted: u64::from(self.grant.is_some()) })
    }
}

impl Answer for BatchAnswer {
    fn judge(&self) -> Result<Judged, String> {
        if !BATCH_SIZES.contains(&self.results.len()) {
            return Err(format!("a batch got {} results", self.results.len()));
        }
        let mut whole = Judged::default();
        for item in &self.results {
            match (&item.response, &item.error) {
                (Some(response), None) => whole.add(&response.judge()?),
                (_, Some(error)) => {
                    return Err(format!(
                        "in a batch: {:?}: {}",
                        Code::from(error.code),
                        error.message
                    ));
                }
                (None, None) => return Err("in a batch: no result".to_owned()),
            }
        }
        Ok(whole)
    }
}

impl Answer for StepAnswer {
    fn judge(&self) -> Result<Judged, String> {
        Ok(Judged { decisions: 1, granted: 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track() -> Track {
        Track::new(0xfeed_f00d, 3, 1, Limits::None, &mut Chance::new(7))
    }

    #[test]
    fn a_report_is_as_long_as_a_real_one() {
        let bytes = track().report.encoded_len();
        assert!((190..=230).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_step_goes_on_while_it_may_and_then_starts_again() {
        let mut track = track();
        let first = track.report.run.clone();
        for attempt in 2..=ATTEMPTS_MAX {
            track.follow(Verdict::Retry);
            assert_eq!((track.report.attempt, &track.report.run), (attempt, &first));
        }
        track.follow(Verdict::Retry);
        assert_eq!(track.report.attempt, 1);
        assert_ne!(track.report.run, first);

        let second = track.report.run.clone();
        track.follow(Verdict::Stop);
        assert_eq!(track.report.attempt, 1);
        assert_ne!(track.report.run, second);
    }

    #[test]
    fn a_framed_message_carries_its_length() {
        let mut buffer = BytesMut::new();
        let framed = framed(&DecisionAnswer { verdict: 1 }, &mut buffer);
        assert_eq!(&framed[..], &[0, 0, 0, 0, 2, 8, 1]);
    }

    #[test]
    fn answers_are_judged() {
        let report =
            |verdict, status| ReportAnswer { decision: Some(DecisionAnswer { verdict }), status };
        let recorded = ReportStatus::Recorded.into();
        let granted = report(Verdict::Retry.into(), recorded);
        assert_eq!(granted.judge(), Ok(Judged { decisions: 1, granted: 1 }));
        assert_eq!(
            report(Verdict::Stop.into(), recorded).judge(),
            Ok(Judged { decisions: 1, granted: 0 })
        );
        assert!(report(0, recorded).judge().is_err());
        assert!(report(1, ReportStatus::Stale.into()).judge().is_err());

        let item = BatchItem { response: Some(granted), error: None };
        let batch = BatchAnswer { results: vec![item.clone(); BATCH_SIZES[0]] };
        assert_eq!(batch.judge(), Ok(Judged { decisions: 16, granted: 16 }));
        assert!(BatchAnswer { results: vec![item; 3] }.judge().is_err());
        assert!(BeginAnswer::default().judge().is_err());
    }

    #[test]
    fn equal_seeds_give_equal_loads() {
        let drawn = |seed| {
            (0..4).map(move |_| 0).scan(Chance::new(seed), |chance, _: u8| Some(chance.next()))
        };
        assert!(drawn(1).eq(drawn(1)));
        assert!(!drawn(1).eq(drawn(2)));
        assert!(
            (0..1000)
                .scan(Chance::new(3), |c, _: u16| Some(c.share()))
                .all(|share| 0.0 < share && share <= 1.0)
        );
    }
}
