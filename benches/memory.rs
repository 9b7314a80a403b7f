//! What a live step takes in memory beside its names.
//!
//! Each case runs in a process of its own, so that it begins with a heap of its
//! own, and is measured from outside: what the process holds afterwards over
//! what it held before, names subtracted. `cargo bench --bench memory`.

#![allow(clippy::panic, clippy::print_stdout, reason = "a measurement prints its figures")]

use std::{env, fs, process::Command, time::Duration};

use reprise::{
    clock::Clock,
    domain::{
        event::{AttemptName, Begin, Comes, Event, Report, StepTerms},
        failure::{Failure, FailureClass},
        id::StepKey,
        namespace::Settings,
        plan::{self, Plan, Terms},
        record::{Identity, PolicyChoice},
        time::Timestamp,
    },
    store::{
        Change, Commit, Committed, ConfigurationChange, Expect, Store,
        configuration::NamespaceEntry, embedded::Embedded,
    },
};

/// As in the service's own process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STEPS: u64 = 200_000;
const ATTEMPTS: [u64; 3] = [1, 2, 5];
const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn main() {
    match env::var("ATTEMPTS").ok().and_then(|attempts| attempts.parse().ok()) {
        Some(attempts) => println!("{}", bytes_a_step(attempts)),
        None => table(),
    }
}

fn table() {
    println!("{STEPS} live steps, bytes each beside their names\n\nattempts  bytes");
    for attempts in ATTEMPTS {
        let this = env::current_exe().expect("the program has a path");
        let child =
            Command::new(this).env("ATTEMPTS", attempts.to_string()).output().expect("it can run");
        println!("{attempts:>8}  {:>5}", String::from_utf8_lossy(&child.stdout).trim());
    }
}

fn bytes_a_step(attempts: u64) -> u64 {
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime is built");
    runtime.block_on(async {
        let clock = Clock::manual(START);
        let store = Embedded::memory(clock.clone());
        let settings = Settings { max_live_steps: STEPS, ..Settings::default() };
        let entry = NamespaceEntry::new(settings, START);
        store
            .configure(&"n".parse().expect("an id"), 0, ConfigurationChange::Namespace(entry))
            .await
            .expect("it is created");
        let (before, mut names) = (resident(), 0);
        for number in 0..STEPS {
            let (run, step) = (
                format!("2024-06-01/{:06}", number / 50),
                format!("load-orders-{:02}", number % 50),
            );
            let key = StepKey { namespace: "n", run: &run, step: &step };
            names += key.joined().len() as u64;
            for attempt in 1..=attempts {
                clock.advance(Duration::from_micros(1));
                apply(&store, &key, &begin(number * 8 + attempt)).await;
                if attempt < attempts {
                    let fence = store
                        .load(&key, Expect::Anything)
                        .await
                        .expect("it is loaded")
                        .record
                        .expect("it was begun")
                        .fence;
                    apply(&store, &key, &failed(fence)).await;
                    // Its retry is due.
                    clock.advance(Duration::ZERO);
                }
            }
        }
        (resident() - before - names) / STEPS
    })
}

async fn apply(store: &Embedded, key: &StepKey<'_>, event: &Event) {
    let loaded = store.load(key, Expect::Anything).await.expect("it is loaded");
    let choice = PolicyChoice::Default;
    let (_, revision) = loaded.configuration.policy(&choice).expect("it is built in");
    let spared = reprise::domain::policy::Policy {
        backoff: reprise::domain::backoff::Backoff::NONE,
        max_retries: None,
        ..revision.policy.clone()
    };
    let terms = Terms {
        policy: &spared,
        revision: 1,
        choice: &choice,
        settings: &loaded.configuration.namespace.settings,
        salt: loaded.salt,
        bounds: &[],
        run: None,
    };
    let version = loaded.record.as_ref().map_or(0, |record| record.version);
    let Ok(Plan::Write(draft)) = plan::plan(&terms, key, loaded.record, event, loaded.now) else {
        panic!("{event:?} is not granted");
    };
    let commit = Commit {
        configuration: loaded.configuration.revision,
        version,
        now: loaded.now,
        change: Change::Write(draft),
    };
    assert!(matches!(store.commit(key, commit).await, Ok(Committed::Written(_))));
}

fn begin(request: u64) -> Event {
    Event::Begin(Begin {
        identity: Identity {
            id: request.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            payload: request.wrapping_mul(0xbf58_476d_1ce4_e5b9),
        },
        lease: None,
        host: Some("node-17.eu-west".into()),
        worker: "worker-3".to_owned(),
        comes: Comes::ByItself,
        step: StepTerms::default(),
    })
}

fn failed(fence: u64) -> Event {
    let failure = Failure { exit_code: Some(137), ..Failure::of(FailureClass::Transient) };
    let payload = fence.wrapping_mul(0x94d0_49bb_1331_11eb);
    Event::Report(Report {
        attempt: AttemptName::Fence(fence),
        payload,
        failure: Some(failure),
        step: StepTerms::default(),
    })
}

/// Bytes of memory that the process holds.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it says how much");
    let kibibytes = line.trim_end_matches("kB").trim().parse::<u64>().expect("a number of KiB");
    kibibytes * 1024
}
