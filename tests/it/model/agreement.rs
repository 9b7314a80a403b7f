//! Random histories, done to a subject and told to the model: both must see
//! the same, call by call, and no law may be broken on the way.

use proptest::{prelude::*, sample::select, test_runner::TestCaseError};
use reprise::domain::namespace::Settings;

use super::{
    Model, NAMESPACE,
    policies::{CASES, S},
    runs::RUNS,
};
use crate::{
    history::{Begin, Call, Failed, Name, Observed, Op, Pushback, RUN, Subject, View, Wanted},
    laws,
    rule::{Rule, policy},
    transitions,
};

/// Histories in a normal test run.
const HISTORIES: u32 = 2_000;
/// Calls in a history at most.
pub const CALLS_MAX: usize = 60;
/// Steps in a history.
const STEPS: u8 = 2;
/// When histories begin.
pub const BEGINNING: u64 = 1_750_000_000 * S;

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(HISTORIES), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rule_and_the_model_agree_on_every_history(
        under in under(),
        sketches in prop::collection::vec(sketch(), 1..=CALLS_MAX),
    ) {
        let of_run = policy(RUNS[under.run.unwrap_or(0)].yaml);
        let mut rule = Rule::new(policy(CASES[under.case].yaml), of_run, settings());
        let history = agree(under, &sketches, &mut rule)?;
        laws::check(&history).map_err(TestCaseError::fail)?;
    }
}

/// How many cases a property has: `usual`, unless `PROPTEST_CASES` says otherwise.
pub fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// The model's namespace in the rule's words.
pub fn settings() -> Settings {
    use std::time::Duration;
    Settings {
        lease: Duration::from_micros(NAMESPACE.lease),
        max_retries_ceiling: NAMESPACE.retries_ceiling,
        max_elapsed_ceiling: Duration::from_micros(NAMESPACE.elapsed_ceiling),
        retention: Duration::from_micros(NAMESPACE.retention),
        abandon_after: Duration::from_micros(NAMESPACE.abandon_after),
        ..Settings::default()
    }
}

/// The policies under which a history happens, by their numbers.
#[derive(Clone, Copy, Debug)]
pub struct Under {
    /// That of its steps.
    pub case: usize,
    /// That of its run; None where there is none.
    pub run: Option<usize>,
}

/// Drawn policies.
pub fn under() -> impl Strategy<Value = Under> {
    let run = prop::option::weighted(0.6, 0..RUNS.len());
    (0..CASES.len(), run).prop_map(|(case, run)| Under { case, run })
}

/// A call as it is drawn: what depends on the history so far is relative.
#[derive(Clone, Debug)]
pub struct Sketch {
    pass: Pass,
    step: u8,
    act: Act,
}

/// How much time passes before a call.
#[derive(Clone, Copy, Debug)]
enum Pass {
    /// So many microseconds.
    For(u64),
    /// Until the step's next event,
    ToEvent,
    /// or until just before it.
    JustBeforeEvent,
}

#[derive(Clone, Debug)]
enum Act {
    Begin {
        request: u64,
        said: Begin,
        /// The attempt of the run that it tells, in relation to the latest.
        of_run: Option<i64>,
    },
    /// By the fence of the latest attempt but `back`.
    Heartbeat {
        back: u32,
        lease: Option<u64>,
        progress: Option<u64>,
    },
    Report {
        name: Relative,
        failure: Option<Failed>,
    },
    Order {
        request: u64,
        wanted: Wanted,
    },
    Tick,
    /// The latest call but `back`, once more: a duplicate, or one that was long
    /// on its way.
    Again {
        back: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Relative {
    Fence { back: u32 },
    Number { ahead: i64 },
    Request(u64),
}

/// The policy under which [`pushed_to_the_deadline`] is of interest.
pub const JITTERED: usize = 4;

/// A step whose target asks, 9.2 s before its deadline, for a wait of 7 s: jitter adds
/// up to 4.5 s to it, so that chance decides whether there is a retry.
pub fn pushed_to_the_deadline() -> Vec<Sketch> {
    let sketch = |pass, act| Sketch { pass: Pass::For(pass), step: 1, act };
    let said = Begin { time_left: Some(78_500_000), ..Begin::default() };
    let reports = |name, failure| Act::Report { name, failure: Some(failure) };
    let asks = Failed { pushback: Some(Pushback::After(7 * S)), ..Failed::of("ERROR") };
    vec![
        sketch(0, Act::Begin { request: 1, said, of_run: None }),
        sketch(3 * S, reports(Relative::Fence { back: 0 }, Failed::of("ERROR"))),
        sketch(66_300_000, reports(Relative::Number { ahead: 1 }, asks)),
    ]
}

/// A drawn call.
pub fn sketch() -> impl Strategy<Value = Sketch> {
    let pass = prop_oneof![
        3 => Just(Pass::For(0)),
        3 => (1..3 * S).prop_map(Pass::For),
        2 => (S..70 * S).prop_map(Pass::For),
        1 => select(vec![600 * S, 3600 * S, 7200 * S]).prop_map(Pass::For),
        6 => Just(Pass::ToEvent),
        1 => Just(Pass::JustBeforeEvent),
    ];
    let name = prop_oneof![
        6 => Just(Relative::Fence { back: 0 }),
        1 => (1..4_u32).prop_map(|back| Relative::Fence { back }),
        3 => Just(Relative::Number { ahead: 1 }),
        1 => (-3..=2_i64).prop_map(|ahead| Relative::Number { ahead }),
        2 => (1..40_u64).prop_map(Relative::Request),
    ];
    let act = prop_oneof![
        6 => (1..40_u64, begin(), of_run()).prop_map(|(request, said, of_run)| Act::Begin { request, said, of_run }),
        1 => (0..2_u32, prop::option::of(S..90 * S), prop::option::of(0..20_u64))
            .prop_map(|(back, lease, progress)| Act::Heartbeat { back, lease, progress }),
        8 => (name, prop::option::weighted(0.9, failure())).prop_map(|(name, failure)| Act::Report { name, failure }),
        2 => (1..40_u64, wanted()).prop_map(|(request, wanted)| Act::Order { request, wanted }),
        2 => Just(Act::Tick),
        2 => (0..6_usize).prop_map(|back| Act::Again { back }),
    ];
    let step = prop_oneof![3 => 0..STEPS, 1 => Just(RUN)];
    (pass, step, act).prop_map(|(pass, step, act)| Sketch { pass, step, act })
}

fn of_run() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        4 => Just(None),
        12 => Just(Some(0)),
        1 => Just(Some(-1)),
        1 => Just(Some(1)),
    ]
}

fn wanted() -> impl Strategy<Value = Wanted> {
    select(vec![
        Wanted::Retry,
        Wanted::Retry,
        Wanted::Retry,
        Wanted::Skip,
        Wanted::Succeed,
        Wanted::Fail,
        Wanted::Cancel,
        Wanted::Reset,
        Wanted::Reset,
        Wanted::Extend(1, None),
        Wanted::Extend(0, Some(100 * S)),
        Wanted::Pause(None),
        Wanted::Pause(Some(40 * S)),
        Wanted::Resume,
        Wanted::Resume,
        Wanted::Resolve("RETRY"),
        Wanted::Resolve("SKIP"),
        Wanted::Resolve("FAIL"),
        Wanted::Resolve("EXCLUDE_HOST"),
    ])
}

fn begin() -> impl Strategy<Value = Begin> {
    let host = select(vec!["", "", "a", "b"]);
    let kind = prop_oneof![20 => Just(""), 1 => Just("sql"), 1 => Just("send-email")];
    let time_left = prop_oneof![20 => Just(None), 1 => (S..200 * S).prop_map(Some)];
    (prop::option::weighted(0.2, S..100 * S), host, kind, time_left).prop_map(
        |(lease, host, kind, time_left)| Begin {
            lease,
            host: host.to_owned(),
            kind: kind.to_owned(),
            time_left,
            of_run: 0,
        },
    )
}

fn failure() -> impl Strategy<Value = Failed> {
    let class = select(vec![
        "FAILURE",
        "FAILURE",
        "FAILURE",
        "TRANSIENT",
        "TRANSIENT",
        "ERROR",
        "TIMEOUT",
        "THROTTLED",
        "CRASH",
        "CANCELED",
    ]);
    let http = prop_oneof![6 => Just(None), 2 => Just(Some(429)), 2 => Just(Some(503)), 1 => Just(Some(404))];
    let exit = prop_oneof![6 => Just(None), 1 => Just(Some(137)), 1 => Just(Some(1))];
    let ran =
        prop_oneof![6 => Just(None), 2 => (0..20 * S).prop_map(Some), 1 => Just(Some(75 * S))];
    let pushback = prop_oneof![
        12 => Just(None),
        4 => select(vec![0, S, 7 * S, 25 * S, 7200 * S]).prop_map(|span| Some(Pushback::After(span))),
        1 => Just(Some(Pushback::Never)),
    ];
    let wish = (prop::option::weighted(0.1, 0..5_u32), prop::option::weighted(0.1, 0..50 * S));
    let retryable = prop::bool::weighted(0.97);
    let action = select(vec!["", "", "load"]);
    let flags = (retryable, prop::bool::weighted(0.1), prop::bool::weighted(0.3));
    (class, http, exit, select(vec!["", "", "b", "c"]), ran, pushback, wish, flags, action)
        .prop_map(
            |(
                class,
                http,
                exit,
                host,
                ran,
                pushback,
                (wish_retries, wish_delay),
                (retryable, unstarted, of_step),
                action,
            )| Failed {
                http,
                exit,
                host: host.to_owned(),
                ran,
                pushback,
                wish_retries,
                wish_delay,
                retryable,
                action: action.to_owned(),
                unstarted,
                of_step,
                ..Failed::of(class)
            },
        )
}

/// Does a history to the subject and tells the model: what is seen must be
/// equal. Returns it.
pub fn agree(
    under: Under,
    sketches: &[Sketch],
    subject: &mut impl Subject,
) -> Result<Vec<(Op, Observed)>, TestCaseError> {
    let plain = (CASES[under.case].plain)();
    let of_run = (RUNS[under.run.unwrap_or(0)].plain)();
    let may_vary_lease = plain.reset_after.is_none() && of_run.policy.reset_after.is_none();
    let mut model = Model::new(plain, of_run);
    let mut history: Vec<(Op, Observed)> = Vec::new();
    let mut now = BEGINNING;
    for sketch in sketches {
        let step = if under.run.is_none() { sketch.step % STEPS } else { sketch.step };
        now = sketch.pass.from(now, model.look(step).and_then(|view| view.next_at));
        let mut call = sketch.act.call(&model, step, &history, may_vary_lease);
        if under.run.is_none() {
            call = without_run(call);
        }
        // What has ended by now is told first, so that each call has one
        // decision at most and its draw can be seen.
        while model.is_overdue(step, now) {
            compare(&mut model, subject, Op { at: now, step, call: Call::Tick }, &mut history)?;
        }
        compare(&mut model, subject, Op { at: now, step, call }, &mut history)?;
    }
    Ok(history)
}

fn without_run(call: Call) -> Call {
    match call {
        Call::Begin { request, said } => Call::Begin { request, said: Begin { of_run: 0, ..said } },
        call => call,
    }
}

fn compare(
    model: &mut Model,
    subject: &mut impl Subject,
    op: Op,
    history: &mut Vec<(Op, Observed)>,
) -> Result<(), TestCaseError> {
    let before = model.look(op.step);
    let observed = subject.apply(&op);
    let seen = subject.look(op.step);
    let granted = if let Observed::Granted(grant) = &observed { grant.fence } else { 0 };
    let expected = model.apply(&op, drawn(seen.as_ref()), granted);
    let told = || {
        format!(
            "{op:#?}\nafter {:#?}",
            history.iter().filter(|(before, _)| before.step == op.step).collect::<Vec<_>>()
        )
    };
    transitions::check(before.as_ref(), &op, &observed, seen.as_ref())
        .map_err(|wrong| TestCaseError::fail(format!("{wrong}, {}", told())))?;
    prop_assert_eq!(comparable(observed.clone()), comparable(expected), "of {}", told());
    prop_assert_eq!(seen, model.look(op.step), "after {}", told());
    history.push((op, observed));
    Ok(())
}

/// What chance decided, as far as it can be seen.
fn drawn(seen: Option<&View>) -> super::Drawn {
    let view = seen.filter(|view| view.state == "WAITING")?;
    let pushed = view.decision.as_ref().is_some_and(|decision| decision.reason == "PUSHBACK");
    view.next_at.map(|at| (at, pushed))
}

/// Without what a replay may tell anew: how things stand by then.
fn comparable(mut observed: Observed) -> Observed {
    match &mut observed {
        Observed::Granted(grant) if grant.replayed => {
            grant.excluded_hosts.clear();
            grant.ends_by = None;
        }
        Observed::Reported { replayed: true, decision, .. } => decision.hold_answers.clear(),
        _ => {}
    }
    observed
}

impl Pass {
    fn from(self, now: u64, event: Option<u64>) -> u64 {
        match self {
            Self::For(span) => now + span,
            Self::ToEvent => event.unwrap_or(now).max(now),
            Self::JustBeforeEvent => event.unwrap_or(now).saturating_sub(1).max(now),
        }
    }
}

impl Act {
    fn call(
        &self,
        model: &Model,
        step: u8,
        history: &[(Op, Observed)],
        may_vary_lease: bool,
    ) -> Call {
        let attempts = model.attempts(step);
        // A fence that nobody was given when there is none to be had.
        let fence = |back: u32| {
            attempts.checked_sub(back).and_then(|attempt| model.fence(step, attempt)).unwrap_or(7)
        };
        match self {
            // A run has no kind, and belongs to none.
            Self::Begin { request, said, .. } if step == RUN => {
                let said = Begin { kind: String::new(), ..said.clone() };
                Call::Begin { request: *request, said }
            }
            Self::Begin { request, said, of_run } => {
                let told = |ahead: i64| i64::from(model.attempts(RUN)) + ahead;
                let of_run = of_run.map_or(0, |ahead| u32::try_from(told(ahead)).unwrap_or(0));
                Call::Begin { request: *request, said: Begin { of_run, ..said.clone() } }
            }
            Self::Heartbeat { back, lease, progress } => Call::Heartbeat {
                fence: fence(*back),
                lease: lease.filter(|_| may_vary_lease),
                progress: *progress,
            },
            Self::Report { name, failure } => {
                let name = match name {
                    Relative::Fence { back } => Name::Fence(fence(*back)),
                    Relative::Number { ahead } => {
                        Name::Number(u32::try_from(i64::from(attempts) + ahead).unwrap_or(1).max(1))
                    }
                    Relative::Request(id) => Name::Request(*id),
                };
                let mut failure = failure.clone();
                failure.iter_mut().for_each(|failed| failed.of_step &= step == RUN);
                Call::Report { name, failure }
            }
            Self::Order { request, wanted } => Call::Order { request: *request, wanted: *wanted },
            Self::Tick => Call::Tick,
            Self::Again { back } => {
                let mine =
                    history.iter().rev().filter(|(op, _)| op.step == step && op.call != Call::Tick);
                mine.map(|(op, _)| op.call.clone()).nth(*back).unwrap_or(Call::Tick)
            }
        }
    }
}
