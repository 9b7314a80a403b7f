//! The policies that histories are run under, each written twice: for the
//! subject as YAML, and for the model in its own plain types.

/// A policy, twice.
pub struct Case {
    /// As people write it.
    pub yaml: &'static str,
    /// As the model reads it.
    pub plain: fn() -> Plain,
}

/// A policy as the model reads it. Spans are microseconds.
#[derive(Clone)]
pub struct Plain {
    pub max_retries: Option<u32>,
    pub max_elapsed: Option<u64>,
    /// The bounds of the wait before retry `k`, the wait before being `before`;
    /// None when the schedule has ended.
    pub backoff: Waits,
    pub rules: Vec<Rule>,
    pub max_crash_retries: u32,
    pub reset_after: Option<u64>,
    pub reset_on_progress: bool,
    pub pushback: (u64, u64),
    pub exhausted: Exhausted,
    pub kinds: Vec<&'static str>,
    /// None, or whether strictly, and for how long when not.
    pub hosts: Option<(bool, u64)>,
}

/// The bounds of the wait before retry `k` after a wait of `before`.
pub type Waits = fn(k: u32, before: u64) -> Option<(u64, u64)>;

#[derive(Clone)]
pub struct Rule {
    pub name: &'static str,
    pub fits: fn(&Facts<'_>) -> bool,
    pub action: Action,
}

/// What a rule may look at.
pub struct Facts<'a> {
    pub class: &'a str,
    pub http: Option<u16>,
    pub exit: Option<i32>,
    /// Classes of the latest sixteen attempts, the newest first.
    pub classes: Vec<&'a str>,
    pub retries: u32,
}

#[derive(Clone)]
pub enum Action {
    Retry(Option<u32>, Option<Waits>),
    Uncounted(u32, Option<Waits>),
    StopNow,
    StopLater,
    Hold(Terms),
    Skip,
}

#[derive(Clone)]
pub enum Exhausted {
    StopNow,
    StopLater,
    Hold(Terms),
}

/// What a person may answer.
#[derive(Clone)]
pub struct Terms {
    pub allowed: Vec<&'static str>,
    pub timeout: Option<u64>,
    pub default: &'static str,
    pub manual_max: u32,
}

pub const S: u64 = 1_000_000;
const HOUR: u64 = 3600 * S;

fn plain() -> Plain {
    Plain::default()
}

impl Default for Plain {
    fn default() -> Self {
        Self {
            max_retries: None,
            max_elapsed: None,
            backoff: |_, _| Some((0, 0)),
            rules: Vec::new(),
            max_crash_retries: 3,
            reset_after: None,
            reset_on_progress: false,
            pushback: (0, HOUR),
            exhausted: Exhausted::StopNow,
            kinds: Vec::new(),
            hosts: None,
        }
    }
}

pub const CASES: [Case; 8] = [
    Case {
        yaml: "{max_retries: 3, reset_on_progress: true, backoff: {fixed: {delay: 10s}}}",
        plain: || Plain {
            max_retries: Some(3),
            reset_on_progress: true,
            backoff: |_, _| Some((10 * S, 10 * S)),
            ..plain()
        },
    },
    Case {
        yaml: "
max_retries: 4
max_elapsed: 10m
max_crash_retries: 1
backoff: {exponential: {delay: 1s, factor: 3}, max_delay: 20s, jitter: full}
rules:
  - {name: throttled, match: {codes: ['429']}, retry_uncounted: {max_retries: 2, backoff: {fixed: {delay: 5s}}}}
  - {name: oom, match: {exit_codes: [137]}, retry: {max_retries: 1}}
  - {name: server, match: {codes: [5xx]}, retry: {}}
  - {name: bad-request, match: {codes: [4xx]}, stop: at_once}
pushback: {min: 2s, max: 30s}
",
        plain: || Plain {
            max_retries: Some(4),
            max_elapsed: Some(600 * S),
            max_crash_retries: 1,
            backoff: |k, _| Some((0, [S, 3 * S, 9 * S].get(k as usize - 1).copied().unwrap_or(20 * S))),
            rules: vec![
                Rule {
                    name: "throttled",
                    fits: |f| f.http == Some(429),
                    action: Action::Uncounted(2, Some(|_, _| Some((5 * S, 5 * S)))),
                },
                Rule { name: "oom", fits: |f| f.exit == Some(137), action: Action::Retry(Some(1), None) },
                Rule {
                    name: "server",
                    fits: |f| f.http.is_some_and(|http| (500..600).contains(&http)),
                    action: Action::Retry(None, None),
                },
                Rule {
                    name: "bad-request",
                    fits: |f| f.http.is_some_and(|http| (400..500).contains(&http)),
                    action: Action::StopNow,
                },
            ],
            pushback: (2 * S, 30 * S),
            ..plain()
        },
    },
    Case {
        yaml: "
max_retries: 2
backoff: {linear: {delay: 2s}, jitter: base}
on_exhaustion: {hold: {allowed: [RETRY, FAIL], timeout: 1m, default_answer: RETRY, max_manual_retries: 2}}
host_anti_affinity: {mode: soft, decay: 30s}
",
        plain: || Plain {
            max_retries: Some(2),
            backoff: |k, _| Some((u64::from(k - 1) * 2 * S, u64::from(k + 1) * 2 * S)),
            exhausted: Exhausted::Hold(Terms { allowed: vec!["RETRY", "FAIL"], timeout: Some(60 * S), default: "RETRY", manual_max: 2 }),
            hosts: Some((false, 30 * S)),
            ..plain()
        },
    },
    Case {
        yaml: "
max_crash_retries: 0
backoff: {schedule: {delays: [0s, 15s, 15s], end: stop}}
on_exhaustion: {stop: after_backoff}
host_anti_affinity: {mode: hard}
never_retry_kinds: [send-email]
rules:
  - {name: later, match: {classes: [ERROR]}, stop: after_backoff}
  - {name: nobody-minds, match: {classes: [TIMEOUT]}, skip: {}}
",
        plain: || Plain {
            max_crash_retries: 0,
            backoff: |k, _| [0, 15 * S, 15 * S].get(k as usize - 1).map(|wait| (*wait, *wait)),
            exhausted: Exhausted::StopLater,
            hosts: Some((true, 0)),
            kinds: vec!["send-email"],
            rules: vec![
                Rule { name: "later", fits: |f| f.class == "ERROR", action: Action::StopLater },
                Rule { name: "nobody-minds", fits: |f| f.class == "TIMEOUT", action: Action::Skip },
            ],
            ..plain()
        },
    },
    Case {
        yaml: "
max_retries: 2
reset_after: 1m
backoff: {exponential: {delay: 5s}, max_delay: 1m, first_delay: 1s, jitter: {ratio: 0.5}}
rules:
  - {name: flaky, match: {condition: 'count(\"TRANSIENT\") >= 3'}, hold: {}}
",
        plain: || Plain {
            max_retries: Some(2),
            reset_after: Some(60 * S),
            backoff: |k, _| {
                if k <= 1 {
                    return Some((S, S));
                }
                let height = [5, 10, 20, 40].get(k as usize - 2).map_or(60 * S, |seconds| seconds * S);
                let most = (height + height / 2).min(60 * S);
                Some((most - height, most))
            },
            rules: vec![Rule {
                name: "flaky",
                fits: |f| f.classes.iter().filter(|class| **class == "TRANSIENT").count() >= 3,
                action: Action::Hold(Terms {
                    allowed: vec!["RETRY", "SKIP", "FAIL", "EXCLUDE_HOST"],
                    timeout: None,
                    default: "FAIL",
                    manual_max: 10,
                }),
            }],
            ..plain()
        },
    },
    Case {
        yaml: "
backoff: {fixed: {delay: 4s}, max_delay: 40s, jitter: decorrelated}
on_exhaustion: {hold: {timeout: 30s, default_answer: SKIP}}
rules:
  - {name: crash, match: {classes: [CRASH]}, retry: {max_retries: 2, backoff: {fibonacci: {delay: 1s}, jitter: equal}}}
  - {name: three-in-all, match: {condition: 'step.retries >= 3'}, stop: at_once}
",
        plain: || Plain {
            backoff: |_, before| Some((4 * S, (before.max(4 * S) * 3).min(40 * S))),
            exhausted: Exhausted::Hold(Terms {
                allowed: vec!["RETRY", "SKIP", "FAIL", "EXCLUDE_HOST"],
                timeout: Some(30 * S),
                default: "SKIP",
                manual_max: 10,
            }),
            rules: vec![
                Rule {
                    name: "crash",
                    fits: |f| f.class == "CRASH",
                    action: Action::Retry(
                        Some(2),
                        Some(|k, _| {
                            let height = [S, S, 2 * S, 3 * S][k as usize - 1];
                            Some((height / 2, height))
                        }),
                    ),
                },
                Rule { name: "three-in-all", fits: |f| f.retries >= 3, action: Action::StopNow },
            ],
            ..plain()
        },
    },
    // Nothing but the namespace's ceilings.
    Case { yaml: "{}", plain },
    Case {
        yaml: "
max_retries: 1
on_exhaustion: {hold: {allowed: [RETRY], timeout: 20s, default_answer: RETRY, max_manual_retries: 1}}
backoff: {doubling_sum: {delay: 3s}}
",
        plain: || Plain {
            max_retries: Some(1),
            backoff: |k, _| Some((((1 << k) - 1) * 3 * S, ((1 << k) - 1) * 3 * S)),
            exhausted: Exhausted::Hold(Terms { allowed: vec!["RETRY"], timeout: Some(20 * S), default: "RETRY", manual_max: 1 }),
            ..plain()
        },
    },
];
