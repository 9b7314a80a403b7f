//! Any text as a policy in a file: it is parsed or refused, and the waits of
//! one that is accepted stay within its bound.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use reprise::domain::policy::{Policy, spec::PolicySpec};

fuzz_target!(|text: &str| {
    let Ok(spec) = serde_saphyr::from_str::<PolicySpec>(text) else { return };
    let Ok(policy) = Policy::parse(&spec) else { return };
    let mut before = Duration::ZERO;
    for k in [1, 2, 3, 10, 1000, u32::MAX] {
        let Some(window) = policy.backoff.window(k, before) else { break };
        assert!(window.min <= window.max, "{spec:?}: {window:?}");
        assert!(window.max <= policy.backoff.delay_max, "{spec:?}: {window:?}");
        before = window.max;
    }
});
