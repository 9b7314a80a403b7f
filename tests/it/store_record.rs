//! The stored form of a record: what is written is read, by every later
//! version, and nothing else is.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
};
use reprise::{
    domain::{
        decision::{Counter, Counters, Reason, Settled, Verdict},
        event::Deadline,
        failure::FailureClass,
        id::Id,
        labels::{LABELS_MAX, Labels},
        order::{
            EXCLUDED_MAX, Extension, Footing, Given, ORDERS_MAX, Orders, Stage, StepPause, What,
        },
        policy::{RuleName, spec::HoldAnswer},
        record::{
            Attempt, Claims, End, Ending, Evidence, FailureText, HISTORY_MAX, Hold, Identity,
            Outcome, PolicyChoice, Record, State, Ticket,
        },
        time::Timestamp,
    },
    store::record::{
        Header, RecordError, add_evidence, decode, decode_evidence, encode, encode_evidence,
        labels as labels_of, offered,
    },
};

const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn instant() -> impl Strategy<Value = Timestamp> {
    let usual = 1_700_000_000_000_000..1_700_001_000_000_000u64;
    prop_oneof![4 => usual, 1 => any::<u64>(), 1 => Just(0), 1 => Just(u64::MAX)]
        .prop_map(Timestamp::from_micros)
}

fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![any::<u64>(), 0..100_000_000u64].prop_map(Duration::from_micros)
}

fn id() -> impl Strategy<Value = Id> {
    "[A-Za-z0-9._~:/@+-]{1,128}".prop_map(|text| text.parse().unwrap())
}

fn rule() -> impl Strategy<Value = RuleName> {
    "[a-c-]{1,3}".prop_map(|text| RuleName::parse(&text).unwrap())
}

fn counters() -> impl Strategy<Value = Counters> {
    (any::<[u32; 5]>(), vec((rule(), any::<u32>()), 0..4)).prop_map(
        |([attempts, retries, uncounted, crashes, forgiven], by_rule)| Counters {
            attempts,
            retries,
            uncounted,
            crashes,
            // Most steps never see an outage.
            forgiven: forgiven.saturating_sub(u32::MAX / 2),
            by_rule,
        },
    )
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        instant().prop_map(Verdict::Retry),
        option::of(instant()).prop_map(Verdict::Wait),
        Just(Verdict::Stop),
        option::of(instant()).prop_map(Verdict::Hold),
        Just(Verdict::Done),
    ]
}

fn settled() -> impl Strategy<Value = Settled> {
    let reason = prop::sample::select(Reason::ALL.to_vec());
    (verdict(), reason, option::of(rule()), any::<u64>(), counters(), instant()).prop_map(
        |(verdict, reason, rule, revision, counters, decided_at)| Settled {
            verdict,
            reason,
            rule,
            revision,
            counters,
            decided_at,
        },
    )
}

fn identity() -> impl Strategy<Value = Identity> {
    (prop_oneof![Just(0), any::<u64>()], any::<u64>())
        .prop_map(|(id, payload)| Identity { id, payload })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let class = prop::sample::select(FailureClass::ALL.to_vec());
    prop_oneof![
        Just(Outcome::Success),
        Just(Outcome::Crash),
        (class, option::of(any::<i32>()))
            .prop_map(|(class, exit_code)| Outcome::Failure { class, exit_code }),
    ]
}

fn counter() -> impl Strategy<Value = Counter> {
    prop_oneof![
        Just(Counter::Retries),
        Just(Counter::Crashes),
        Just(Counter::Forgiven),
        Just(Counter::Unstarted),
        rule().prop_map(Counter::Rule),
        rule().prop_map(Counter::Uncounted),
    ]
}

fn end() -> BoxedStrategy<End> {
    let fault = prop_oneof![3 => Just(0), 1 => any::<u16>()];
    let decided = (settled(), option::of(counter()), fault);
    (instant(), outcome(), option::of(identity()), any::<bool>(), decided)
        .prop_map(|(at, outcome, reported_by, late, (settled, counted, fault))| End {
            at,
            outcome,
            reported_by,
            late,
            settled,
            counted,
            fault,
        })
        .boxed()
}

/// An attempt without its number, which its place gives.
fn attempt() -> impl Strategy<Value = Attempt> {
    let began_with = option::weighted(0.2, counters().prop_map(Box::new));
    let began = (option::of(identity()), began_with);
    (any::<u64>(), instant(), began, option::of("[a-d]{0,2}"), option::of(end())).prop_map(
        |(fence, began_at, (begun_by, began_with), host, end)| Attempt {
            number: 0,
            fence,
            began_at,
            begun_by,
            host: host.map(Arc::from),
            began_with,
            end,
        },
    )
}

fn hold() -> impl Strategy<Value = Hold> {
    let answers = prop::sample::subsequence(HoldAnswer::ALL.to_vec(), 0..=4);
    let answer = prop::sample::select(HoldAnswer::ALL.to_vec());
    (instant(), option::of(instant()), answers, answer, any::<u32>()).prop_map(
        |(since, until, allowed, default_answer, max_manual_retries)| Hold {
            since,
            until,
            allowed,
            default_answer,
            max_manual_retries,
        },
    )
}

fn state() -> impl Strategy<Value = State> {
    let ending = prop::sample::select(vec![
        Ending::Succeeded,
        Ending::Failed,
        Ending::Skipped,
        Ending::Canceled,
    ]);
    prop_oneof![
        instant().prop_map(|due| State::Waiting { due }),
        (instant(), settled()).prop_map(|(at, verdict)| State::Stopping { at, verdict }),
        instant().prop_map(|lease_until| State::Running { lease_until }),
        hold().prop_map(State::Held),
        (ending, instant()).prop_map(|(ending, purge_at)| State::Over { ending, purge_at }),
    ]
}

fn claims() -> impl Strategy<Value = Box<Claims>> {
    let states = || vec("[a-z]{1,8}(/[a-z]{1,8})?".prop_map(Box::from), 0..3);
    let tickets = states().prop_map(|states| {
        let ticket = |(revision, state)| Ticket {
            state,
            revision,
            grace: Duration::from_millis(revision),
            mark: u32::try_from(revision % 2).unwrap(),
        };
        (7..).zip(states).map(ticket).collect::<Vec<Ticket>>()
    });
    (option::of(instant()), tickets, states())
        .prop_map(|(since, tickets, held)| Box::new(Claims { since, tickets, held }))
}

fn footing() -> impl Strategy<Value = Footing> {
    (prop::sample::select(Stage::ALL.to_vec()), any::<u32>())
        .prop_map(|(stage, retries)| Footing { stage, retries })
}

fn what() -> impl Strategy<Value = What> {
    let deadline = || {
        option::of(prop_oneof![instant().prop_map(Deadline::At), span().prop_map(Deadline::After),])
    };
    prop_oneof![
        prop::sample::select(vec![
            What::Retry,
            What::Skip,
            What::Succeed,
            What::Fail,
            What::Cancel,
            What::Reset,
            What::Resume,
        ]),
        (any::<u32>(), deadline())
            .prop_map(|(retries, deadline)| What::Extend(Extension { retries, deadline })),
        deadline().prop_map(What::Pause),
        prop::sample::select(HoldAnswer::ALL.to_vec()).prop_map(What::Resolve),
    ]
}

fn given() -> impl Strategy<Value = Given> {
    (identity(), instant(), ".{0,20}", ".{0,20}", what(), footing(), footing()).prop_map(
        |(identity, at, by, reason, what, before, after)| Given {
            identity,
            at,
            by: by.into(),
            reason: reason.into(),
            what,
            before,
            after,
        },
    )
}

fn step_pause() -> impl Strategy<Value = StepPause> {
    (instant(), instant(), option::of(instant()), ".{0,20}", ".{0,20}").prop_map(
        |(since, counted_to, until, by, reason)| StepPause {
            since,
            counted_to,
            until,
            by: by.into(),
            reason: reason.into(),
        },
    )
}

fn orders() -> impl Strategy<Value = Box<Orders>> {
    let given = vec(given(), 0..=ORDERS_MAX);
    let hosts = vec("[a-d]{1,2}".prop_map(Arc::from), 0..=EXCLUDED_MAX);
    let flags = any::<(bool, bool, u32)>();
    (given, option::of(step_pause()), flags, hosts).prop_map(|(given, pause, flags, hosts)| {
        Box::new(Orders {
            given: given.into(),
            pause,
            is_cancel_requested: flags.0,
            is_retry_ordered: flags.1,
            extra_retries: flags.2,
            excluded_hosts: hosts,
        })
    })
}

fn policy() -> impl Strategy<Value = PolicyChoice> {
    prop_oneof![
        Just(PolicyChoice::Default),
        id().prop_map(PolicyChoice::Named),
        any::<u128>().prop_map(PolicyChoice::Inline),
    ]
}

fn labels() -> impl Strategy<Value = Labels> {
    let pairs = btree_map("[A-Za-z0-9._~:/@+-]{1,63}", "[A-Za-z0-9._~:/@+-]{1,63}", 0..=LABELS_MAX);
    prop_oneof![Just(Labels::default()), pairs.prop_map(|pairs| Labels::of(&pairs).unwrap())]
}

prop_compose! {
    fn record()(
        (version, fence, created_at, state) in (any::<u64>(), any::<u64>(), instant(), state()),
        counters in counters(),
        (first_began_at, deadline) in (option::of(instant()), option::of(instant())),
        (held_for, lease, last_delay) in (span(), span(), span()),
        (policy, kind, targets, queue) in (policy(), ".{0,20}", vec(id(), 0..4), option::of(id())).boxed(),
        (resume_from, worker, manual_retries) in (".{0,20}", ".{0,20}", any::<u32>()).boxed(),
        attempts in vec(attempt().boxed(), 0..=HISTORY_MAX),
        standing in option::of(settled().boxed()),
        (claims, orders) in (option::of(claims()), option::of(orders())).boxed(),
        (progress, has_moved) in prop_oneof![Just((0, false)), any::<(u64, bool)>()].boxed(),
        labels in labels().boxed(),
        (payload, is_silent, silent_claims) in (vec(any::<u8>(), 0..300), any::<bool>(), any::<u32>()).boxed(),
        is_offered in any::<bool>(),
    ) -> Record {
        // Numbers are dense and the last attempt is the latest.
        let mut counters = counters;
        let count = u32::try_from(attempts.len()).unwrap();
        counters.attempts = counters.attempts.max(count);
        let before = counters.attempts - count;
        let numbered = (1..).zip(attempts).map(|(place, mut attempt)| {
            attempt.number = before + place;
            attempt.began_with.iter_mut().for_each(|counters| counters.attempts = before + place - 1);
            attempt
        });
        Record {
            version, state, fence, created_at, first_began_at, held_for, lease, last_delay, policy,
            kind: kind.into(), targets, queue, deadline, resume_from: resume_from.into(), worker: worker.into(),
            manual_retries, attempts: numbered.collect(), standing, counters, claims, orders, progress, has_moved,
            payload: if is_offered { payload.into() } else { Box::default() },
            is_silent: is_offered && is_silent,
            silent_claims: if is_offered { silent_claims } else { 0 },
            of_run: if is_silent { silent_claims } else { 0 },
            labels,
        }
    }
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let text = (any::<u32>(), any::<bool>(), any::<[String; 4]>()).prop_map(
        |(attempt, late, [message, error_type, cause, worker])| FailureText {
            attempt,
            late,
            message,
            error_type,
            cause,
            worker,
        },
    );
    vec(text, 0..5).prop_map(|failures| Evidence { failures: failures.into() })
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(record in record(), event_at in instant()) {
        let bytes = encode(&record, event_at);
        let header = Header::read(&bytes).unwrap();
        prop_assert_eq!((header.version, header.event_at), (record.version, event_at));
        prop_assert_eq!(header.is_over, record.is_over());
        prop_assert_eq!(header.is_running, matches!(record.state, State::Running { .. }));
        prop_assert_eq!(labels_of(&bytes), Ok(record.labels.clone()));
        prop_assert_eq!(decode(&bytes), Ok(record));
    }

    /// A script writes the instant that it finds into a record that it got.
    #[test]
    fn the_start_of_a_bound_step_stands_in_the_header_alone(
        record in record(), claims in claims(), settled in settled(), waits in any::<bool>(),
        wait in 1..1_000_000_u64, sooner in 0..1_000_000_u64,
    ) {
        let waiting = |due: Timestamp| {
            let verdict = if waits { Verdict::Wait(Some(due)) } else { Verdict::Retry(due) };
            let mut record = Record { claims: Some(claims.clone()), ..record.clone() };
            record.state = State::Waiting { due };
            record.standing = None;
            if let Some(end) = record.attempts.back_mut().and_then(|attempt| attempt.end.as_mut()) {
                end.at = START;
                end.settled = Settled { verdict, ..settled.clone() };
            } else {
                record.standing = Some(Settled { verdict, ..settled.clone() });
            }
            record
        };
        let due = START.plus(Duration::from_micros(wait));
        let late = due.plus(Duration::from_micros(sooner));
        let day = Duration::from_secs(24 * 3600);
        let (mut patched, exact) =
            (encode(&waiting(due), due.plus(day)), encode(&waiting(late), late.plus(day)));
        patched[16..24].copy_from_slice(&late.plus(day).as_micros().to_le_bytes());
        patched[32..40].copy_from_slice(&late.as_micros().to_le_bytes());
        // The attempts before the latest are the same in both.
        prop_assert_eq!(decode(&patched).unwrap().state, waiting(late).state);
        prop_assert_eq!(patched, exact);
    }

    #[test]
    fn texts_are_read_as_they_were_written(evidence in evidence()) {
        prop_assert_eq!(decode_evidence(&encode_evidence(&evidence)), Ok(evidence));
    }

    #[test]
    fn a_text_is_added_to_what_is_stored(evidence in evidence(), more in evidence()) {
        let mut expected = evidence.clone();
        let mut stored = encode_evidence(&evidence).into_boxed_slice();
        // Some about an attempt that is there already.
        let again = evidence.failures.iter().cloned().map(|text| FailureText { message: "again".to_owned(), ..text });
        for text in more.failures.into_iter().chain(again) {
            stored = add_evidence(Some(&stored), &text).unwrap();
            expected.add(text);
            prop_assert_eq!(decode_evidence(&stored), Ok(expected.clone()));
        }
    }

    #[test]
    fn a_first_text_begins_what_is_stored(mut evidence in evidence()) {
        evidence.failures.truncate(1);
        if let Some(text) = evidence.failures.front() {
            prop_assert_eq!(decode_evidence(&add_evidence(None, text).unwrap()), Ok(evidence));
        }
    }

    #[test]
    fn a_cut_record_is_refused(record in record(), event_at in instant(), at: prop::sample::Index) {
        let bytes = encode(&record, event_at);
        prop_assert_eq!(decode(&bytes[..at.index(bytes.len())]), Err(RecordError::Malformed));
    }

    #[test]
    fn a_cut_text_is_refused(evidence in evidence(), at: prop::sample::Index) {
        let bytes = encode_evidence(&evidence);
        let cut = &bytes[..at.index(bytes.len())];
        prop_assert_eq!(decode_evidence(cut), Err(RecordError::Malformed));
        prop_assert_eq!(add_evidence(Some(cut), &FailureText::default()), Err(RecordError::Malformed));
    }

    #[test]
    fn damage_is_never_a_panic(
        record in record(),
        evidence in evidence(),
        hits in vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(255)]), 1..8),
    ) {
        let mut bytes = encode(&record, Timestamp::EPOCH);
        let mut texts = encode_evidence(&evidence);
        for (at, byte) in hits {
            let (in_bytes, in_texts) = (at.index(bytes.len()), at.index(texts.len()));
            bytes[in_bytes] = byte;
            texts[in_texts] = byte;
        }
        let _ = decode(&bytes);
        let _ = labels_of(&bytes);
        let _ = decode_evidence(&texts);
        let _ = add_evidence(Some(&texts), &FailureText::default());
    }
}

#[test]
fn a_count_of_attempts_that_cannot_be_is_refused() {
    let mut bytes = encode(&sample(0), Timestamp::EPOCH);
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(
        decode(&bytes).unwrap().counters.attempts,
        u32::MAX,
        "a step of many attempts, none remembered"
    );
    let mut bytes = encode(&sample(2), Timestamp::EPOCH);
    bytes[4..8].copy_from_slice(&1u32.to_le_bytes());
    assert_eq!(decode(&bytes), Err(RecordError::Malformed));
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let mut bytes = encode(&sample(1), Timestamp::EPOCH);
    bytes[0] = 5;
    assert_eq!(decode(&bytes), Err(RecordError::Format(5)));
    assert_eq!(Header::read(&bytes[..5]), Err(RecordError::Format(5)), "it may be shorter, too");
    assert_eq!(
        RecordError::Format(5).to_string(),
        "the record has format 5, newer than this version can read (4)"
    );
    assert_eq!(decode_evidence(&[9]), Err(RecordError::Format(9)));
    bytes[0] = 0;
    assert_eq!(decode(&bytes), Err(RecordError::Malformed), "no version ever wrote it");
    assert_eq!(decode(&[]), Err(RecordError::Malformed));
}

const BASE: u64 = 1_700_000_000_000_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(BASE + seconds * 1_000_003)
}

/// A step as it is in life: begun explicitly, on a host, each attempt ended by
/// a reported failure and followed by a retry.
fn sample(attempts: u32) -> Record {
    let attempt = |number: u32| {
        let began_at = at(u64::from(number) * 40);
        let ended_at = at(u64::from(number) * 40 + 31);
        let counters = Counters { attempts: number, retries: number, ..Counters::default() };
        let settled = Settled {
            verdict: Verdict::Retry(at(u64::from(number) * 40 + 39)),
            reason: Reason::Backoff,
            rule: None,
            revision: 12,
            counters,
            decided_at: ended_at,
        };
        let end = End {
            at: ended_at,
            outcome: Outcome::Failure { class: FailureClass::Transient, exit_code: Some(137) },
            reported_by: Some(Identity { id: 0, payload: 0x0123_4567_89ab_cdef }),
            late: false,
            settled,
            counted: Some(Counter::Retries),
            fault: 0,
        };
        let begun_by =
            Some(Identity { id: u64::MAX - u64::from(number), payload: 0xfedc_ba98_7654_3210 });
        let host = Some(
            if number.is_multiple_of(2) { "node-17.eu-west" } else { "node-4.eu-west" }.into(),
        );
        let (fence, began_with) = (began_at.as_micros(), None);
        Attempt { number, fence, began_at, begun_by, host, began_with, end: Some(end) }
    };
    let mut record = Record::new(at(0), PolicyChoice::Named("etl".parse().unwrap()));
    record.version = u64::from(attempts) * 2;
    record.counters = Counters { attempts, retries: attempts, ..Counters::default() };
    record.state = State::Waiting { due: at(u64::from(attempts) * 40 + 39) };
    record.attempts = (1..=attempts).map(attempt).collect::<VecDeque<_>>();
    record.first_began_at = (attempts > 0).then(|| at(40));
    record.fence = at(u64::from(attempts) * 40).as_micros();
    record.lease = Duration::from_secs(30);
    record.last_delay = Duration::from_micros(8_000_024);
    record.worker = "worker-3".into();
    record
}

#[test]
fn an_attempt_takes_64_bytes_at_most_in_the_usual_case() {
    let bytes = |attempts| encode(&sample(attempts), at(1_000_000)).len();
    // Names of hosts stand once and are there from the second attempt on.
    let fourteen_attempts = bytes(16) - bytes(2);
    assert!(fourteen_attempts <= 14 * 64, "{} bytes an attempt", fourteen_attempts as f64 / 14.0);
}

/// What format 1 looks like, for every version to come.
fn samples() -> Vec<(&'static str, Record)> {
    let settled = |verdict, reason, rule| Settled {
        verdict,
        reason,
        rule,
        revision: 3,
        counters: Counters {
            attempts: 3,
            retries: 1,
            uncounted: 1,
            crashes: 1,
            forgiven: 0,
            by_rule: vec![(name("own"), 2)],
        },
        decided_at: at(110),
    };
    let mut running = sample(2);
    running.begin(at(150), Some(Identity { id: 9, payload: 8 }), Some("node-1".into()), at(150));
    running.state = State::Running { lease_until: at(180) };
    running.deadline = Some(at(90_000));
    running.targets = vec!["warehouse-db".parse().unwrap(), "gpu-a100".parse().unwrap()];
    running.queue = Some("nightly".parse().unwrap());
    running.kind = "sql".into();
    running.resume_from = "load".into();

    let mut stopping = sample(3);
    stopping.state = State::Stopping {
        at: at(500),
        verdict: settled(Verdict::Stop, Reason::RetriesSpent, Some(name("own"))),
    };
    stopping.counters.by_rule = vec![(name("own"), 2), (name("free"), 1)];

    let mut held = sample(16);
    held.state = State::Held(Hold {
        since: at(700),
        until: Some(at(9_000)),
        allowed: vec![HoldAnswer::Retry, HoldAnswer::Skip],
        default_answer: HoldAnswer::Skip,
        max_manual_retries: 2,
    });
    held.held_for = Duration::from_secs(77);
    held.manual_retries = 1;
    held.standing = Some(settled(Verdict::Hold(Some(at(9_000))), Reason::Exhausted, None));

    let mut over = sample(1);
    over.policy = PolicyChoice::Inline(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    over.state = State::Over { ending: Ending::Skipped, purge_at: at(90_000) };
    let end = over.attempts[0].end.as_mut().unwrap();
    end.late = true;
    end.outcome = Outcome::Crash;
    end.reported_by = None;
    end.counted = Some(Counter::Uncounted(name("free")));
    vec![
        ("waiting", sample(3)),
        ("running", running),
        ("stopping", stopping),
        ("held", held),
        ("over", over),
    ]
}

fn name(rule: &str) -> RuleName {
    RuleName::parse(rule).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Each line is a name and a record in hexadecimal. A change that fails here
/// has changed the stored form: stores in use could no longer be read, and it
/// needs a format number of its own, and these lines left as they are.
#[test]
fn what_format_1_wrote_is_still_read() {
    let stored = include_str!("../samples/record-v1.hex");
    for (line, (name, record)) in stored.lines().zip(samples()) {
        let sample = bytes(line.split_once(' ').unwrap().1);
        // A step in a queue has been written in format 4 since there is one.
        if record.queue.is_none() {
            assert_eq!(hex(&encode(&record, at(1_000_000))), hex(&sample), "{name}");
        }
        assert_eq!(decode(&sample), Ok(record), "{name}");
    }
}

/// What format 4 looks like, for every version to come.
fn offered_samples() -> Vec<(&'static str, Record)> {
    let queue = Some("nightly".parse().unwrap());
    let waiting = Record { queue, payload: b"what to load".as_slice().into(), ..sample(3) };
    let mut bound = Record { silent_claims: 2, is_silent: true, ..waiting.clone() };
    bound.claims = Some(Box::new(Claims {
        since: Some(at(70)),
        tickets: Vec::new(),
        held: vec!["gpu-a100".into()],
    }));
    let mut forgiven = bound.clone();
    forgiven.counters.forgiven = 2;
    let of_run = Record { of_run: 3, ..sample(3) };
    let ordered = Record { orders: Some(Box::new(every_order())), ..waiting.clone() };
    let mut getting_on = Record { progress: 7, has_moved: true, ..sample(3) };
    let end = getting_on.attempts[2].end.as_mut().unwrap();
    end.counted = Some(Counter::Unstarted);
    end.settled.reason = Reason::Unstarted;
    let labels = Labels::parse("gpu=a100,zone=eu-1").unwrap();
    let labeled = Record { labels, ..waiting.clone() };
    vec![
        ("waiting", waiting),
        ("bound", bound),
        ("forgiven", forgiven),
        ("ordered", ordered),
        ("getting-on", getting_on),
        ("of-run", of_run),
        ("labeled", labeled),
    ]
}

fn every_order() -> Orders {
    let deadline = Some(Deadline::At(at(9_000)));
    let after = |what, number, stage| Given {
        identity: Identity { id: number, payload: !number },
        at: at(500 + number),
        by: "ana".into(),
        reason: "the node is broken".into(),
        what,
        before: Footing { stage: Stage::Held, retries: 3 },
        after: Footing { stage, retries: 0 },
    };
    let skipped = Stage::Over(Ending::Skipped);
    Orders {
        given: VecDeque::from([
            after(What::Extend(Extension { retries: 2, deadline }), 1, Stage::Held),
            after(What::Pause(Some(Deadline::After(Duration::from_secs(60)))), 2, Stage::Held),
            after(What::Resolve(HoldAnswer::ExcludeHost), 3, Stage::Waiting),
            after(What::Skip, 4, skipped),
        ]),
        pause: Some(StepPause {
            since: at(502),
            counted_to: at(504),
            until: Some(at(562)),
            by: "ana".into(),
            reason: "the node is broken".into(),
        }),
        is_cancel_requested: true,
        is_retry_ordered: true,
        extra_retries: 2,
        excluded_hosts: vec!["node-17".into()],
    }
}

#[test]
fn what_format_4_wrote_is_still_read() {
    let stored = include_str!("../samples/record-v4.hex");
    let line = |(name, record): &(&str, Record)| {
        format!("{name} {}\n", hex(&encode(record, at(1_000_000))))
    };
    assert_eq!(stored, offered_samples().iter().map(line).collect::<String>());
    for (line, (name, record)) in stored.lines().zip(offered_samples()) {
        assert_eq!(decode(&bytes(line.split_once(' ').unwrap().1)), Ok(record), "{name}");
    }
}

#[test]
fn a_step_is_offered_by_its_queue_while_it_waits() {
    let record = |queue: Option<&str>, state| Record {
        queue: queue.map(|queue| queue.parse().unwrap()),
        payload: b"x".as_slice().into(),
        state,
        ..sample(2)
    };
    let waiting = State::Waiting { due: at(500) };
    let running = State::Running { lease_until: at(500) };
    let longest = "q".repeat(128);
    for (record, expected) in [
        (record(Some("nightly"), waiting.clone()), Some(("nightly", at(500)))),
        (record(Some(&longest), waiting.clone()), Some((&*longest, at(500)))),
        (record(Some("nightly"), running), None),
        (record(None, waiting), None),
        (sample(1), None),
    ] {
        assert_eq!(offered(&encode(&record, at(1_000))), expected);
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
