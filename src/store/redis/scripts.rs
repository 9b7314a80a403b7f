//! The scripts, as the server gets them.
//!
//! Each is one file under `lua`, put behind the same prelude. A script that
//! grants is refused by a server that is out of memory; one that settles is not,
//! since what ends or reports has to get in.

use std::{collections::HashMap, sync::LazyLock};

use redis::Cmd;

use super::commands::{EVAL, EVALSHA};

/// A script and its digest.
#[derive(Debug)]
pub struct Script {
    /// Its file.
    pub name: &'static str,
    source: String,
    digest: String,
}

const COMMON: &str = include_str!("lua/common.lua");
/// What targets answer, for scripts with steps that are bound.
const LIMITS: &str = concat!(
    include_str!("lua/calendar.lua"),
    include_str!("lua/breaker.lua"),
    include_str!("lua/limits.lua")
);
/// What `called` needs of it.
const HEALTH: &str = concat!(include_str!("lua/calendar.lua"), include_str!("lua/breaker.lua"));
/// In its place where no step is.
const NO_LIMITS: &str = "local limits_asked, limits_admit, limits_read, limits_write, limits_now";

macro_rules! script {
    ($(#[$doc:meta])* $name:ident, $file:literal, $flags:literal $(, $limits:expr)?) => {
        $(#[$doc])*
        pub static $name: LazyLock<Script> = LazyLock::new(|| {
            let parts = [COMMON, $($limits,)? include_str!(concat!("lua/", $file, ".lua"))];
            Script::new($file, $flags, &parts)
        });
    };
}

script!(
    /// Decides items of which one or another grants.
    GRANT, "settle", "", NO_LIMITS
);
script!(
    /// Decides items that grant nothing.
    SETTLE, "settle", " flags=allow-oom", NO_LIMITS
);
script!(
    /// Decides items of which one or another grants, and targets bound one or another.
    GRANT_BOUND, "settle", "", LIMITS
);
script!(
    /// Decides items that grant nothing, of which targets bound one or another.
    SETTLE_BOUND, "settle", " flags=allow-oom", LIMITS
);
script!(
    /// Finds steps whose event may have come.
    PEEK, "peek", " flags=allow-oom"
);
script!(
    /// Finds steps that are parked and may go on.
    CALLED, "called", " flags=no-writes", HEALTH
);
script!(
    /// Reads what is used of a target's limits.
    USAGE, "usage", " flags=no-writes", include_str!("lua/calendar.lua")
);
script!(
    /// Ends the cooldown of a target.
    LIFT, "lift", "", include_str!("lua/breaker.lua")
);
script!(
    /// Reads what governs a namespace.
    DESCRIBE, "describe", " flags=no-writes"
);
script!(
    /// Reads changes.
    FOLLOW, "follow", " flags=no-writes"
);
script!(
    /// Reads whose turn it is.
    HEADS, "heads", " flags=no-writes"
);
script!(
    /// Changes what governs a namespace.
    CONFIGURE, "configure", ""
);
script!(
    /// Pauses a namespace.
    PAUSE, "pause", " flags=allow-oom"
);
script!(
    /// Founds a namespace that a copy fills.
    FOUND, "found", ""
);
script!(
    /// Puts steps into it.
    IMPORT, "import", ""
);

/// Every script.
pub fn all() -> [&'static Script; 15] {
    [
        &GRANT,
        &SETTLE,
        &GRANT_BOUND,
        &SETTLE_BOUND,
        &PEEK,
        &CALLED,
        &USAGE,
        &LIFT,
        &DESCRIBE,
        &FOLLOW,
        &HEADS,
        &CONFIGURE,
        &PAUSE,
        &FOUND,
        &IMPORT,
    ]
}

/// A piece of a script, and what stands in its place when a bug is planted.
type Spoil = (bool, &'static str, &'static str);

/// The bugs that can be planted in scripts.
fn spoils() -> [Spoil; 28] {
    [
        (planted!("redis-version-not-compared"), "version ~= found_version", "false"),
        (
            planted!("redis-revision-not-compared"),
            "born ~= state.born or revision ~= state.revision",
            "false",
        ),
        (
            planted!("redis-grace-not-compared"),
            "leases ~= (graced > 0 and state.before or at)",
            "false",
        ),
        (planted!("redis-plan-never-old"), " or now - at > PATIENCE", ""),
        (planted!("redis-time-goes-back"), "math.max(wall, state.clock)", "wall"),
        (planted!("redis-quota-not-compared"), "state.live >= live_max", "false"),
        (planted!("redis-live-never-less"), "new_lives - lives", "new_lives"),
        (
            planted!("redis-change-number-skipped"),
            "state.changes = state.changes + 1",
            "state.changes = state.changes + 2",
        ),
        (
            planted!("redis-event-not-filed"),
            "score = event\n    file(member, event)",
            "score = event",
        ),
        (planted!("redis-event-filed-late"), "= at, member", "= at + 60e6, member"),
        (planted!("redis-purge-leaves-step"), "gone[#gone + 1] = step\n", "\n"),
        (planted!("redis-use-not-counted"), "count(new_use, 1)", ""),
        (planted!("redis-texts-unbounded"), "length > TEXTS", "false"),
        (
            planted!("redis-pause-not-heeded"),
            "local paused = state.paused > 0",
            "local paused = false",
        ),
        (planted!("redis-pause-no-outage"), "if lasts then", "if false then"),
        (planted!("redis-holder-not-compared"), "if state.holder ~= holder then", "if false then"),
        (
            planted!("redis-line-passed"),
            "if used + before >= bound.most then",
            "if used >= bound.most then",
        ),
        (planted!("redis-ticket-without-end"), "asks.at <= asks.promised + bound.grace", "true"),
        (planted!("redis-cooldown-not-compared"), "cooldown > asks.at then", "false then"),
        (
            planted!("redis-budget-not-spent"),
            "stretch.costs = stretch.costs + cost",
            "stretch.costs = cost",
        ),
        (
            planted!("redis-permit-not-released"),
            "  put_permit(state, member, till)\n  put_place",
            "  put_permit(state, member, till or permit_of(state, member))\n  put_place",
        ),
        (
            planted!("redis-second-draw-not-taken"),
            "share > 0 and planned(asks, other) < share and other or first",
            "first",
        ),
        (
            planted!("redis-host-not-ejected"),
            "elseif is_alone(seen, host) then",
            "elseif false then",
        ),
        (planted!("redis-freed-at-once"), "if bound.freed > 0 and", "if false and"),
        (
            planted!("redis-watching-breaker-stays-open"),
            "if is_open and not (only_watches and breaker.next <= at + OPENED_BEFORE) then",
            "if is_open then",
        ),
        (planted!("redis-lift-begins-no-ramp"), "if was_lifted then", "if false then"),
        (
            planted!("redis-promise-not-given-back"),
            "set(cal, layer, bucket, max(starts(layer, byte) - 1, 0))",
            "set(cal, layer, bucket, byte)",
        ),
        (planted!("redis-place-out-of-order"), "since < other_since or", "since > other_since or"),
    ]
}

fn spoiled(source: String) -> String {
    let planted = spoils().into_iter().filter(|(is_planted, ..)| *is_planted);
    planted.fold(source, |source, (_, piece, other)| source.replace(piece, other))
}

/// The names and values of a line of constants: names in capitals, values written
/// out.
fn constants(line: &str) -> Option<Vec<(&str, &str)>> {
    let (names, values) = line.strip_prefix("local ")?.split_once(" = ")?;
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_uppercase())
            && name.chars().all(|char| char.is_ascii_uppercase() || char == '_')
    };
    let is_value = |value: &str| {
        let quoted = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
        quoted.is_some() || value.parse::<f64>().is_ok()
    };
    let (names, values): (Vec<_>, Vec<_>) =
        (names.split(", ").collect(), values.split(", ").collect());
    let is_whole = names.len() == values.len()
        && names.iter().all(|name| is_name(name))
        && values.iter().all(|value| is_value(value));
    is_whole.then(|| names.into_iter().zip(values).collect())
}

/// A script with its constants' values in their places, and without comments. A
/// local that a function uses costs time in every call: the function is made anew
/// each time, and looks for the local among all that are in use.
fn folded(source: &str) -> String {
    let mut known = HashMap::new();
    let mut out = String::with_capacity(source.len());
    for line in source.lines() {
        let code = line.split("--").next().unwrap_or_default().trim_end();
        match constants(code) {
            Some(more) => known.extend(more),
            None if code.is_empty() => {}
            None => {
                fold(code, &known, &mut out);
                out.push('\n');
            }
        }
    }
    out
}

/// One line of it: names within quotes are none.
fn fold(code: &str, known: &HashMap<&str, &str>, out: &mut String) {
    for (at, piece) in code.split('\'').enumerate() {
        if at > 0 {
            out.push('\'');
        }
        if at % 2 == 1 {
            out.push_str(piece);
            continue;
        }
        let mut rest = piece;
        while let Some(start) = rest.find(is_part) {
            let end = rest[start..].find(|char| !is_part(char)).map_or(rest.len(), |to| start + to);
            out.push_str(&rest[..start]);
            let name = &rest[start..end];
            out.push_str(known.get(name).copied().unwrap_or(name));
            rest = &rest[end..];
        }
        out.push_str(rest);
    }
}

/// Whether it may stand in a name.
const fn is_part(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

impl Script {
    fn new(name: &'static str, flags: &str, parts: &[&str]) -> Self {
        let source = format!("#!lua{flags}\n{}", folded(&spoiled(parts.join("\n"))));
        let digest = redis::Script::new(&source).get_hash().to_owned();
        Self { name, source, digest }
    }

    /// As the server gets it.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The commands that it calls, as often as it does.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        // `redis.call('GET', …` and `redis.pcall('GET', …`: a test holds all
        // calls to this form.
        self.source.split("call('").skip(1).filter_map(|rest| rest.split('\'').next())
    }

    /// A call by digest, or with the source for a server that does not know it.
    #[must_use]
    pub fn call(&self, keys: &[impl AsRef<str>], args: &[impl AsRef<[u8]>], known: bool) -> Cmd {
        let (command, script) =
            if known { (&EVALSHA, &self.digest) } else { (&EVAL, &self.source) };
        // What is long is not moved while the call grows.
        let bytes = keys.iter().map(|key| key.as_ref().len()).sum::<usize>()
            + args.iter().map(|arg| arg.as_ref().len()).sum::<usize>();
        let mut call = command.with_room(2 + keys.len() + args.len(), 32 + script.len() + bytes);
        call.arg(script).arg(keys.len());
        for key in keys {
            call.arg(key.as_ref());
        }
        for arg in args {
            call.arg(arg.as_ref());
        }
        call
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE_FILE: &str = include_str!("lua/settle.lua");

    #[test]
    fn what_planted_bugs_spoil_is_there() {
        let more = [include_str!("lua/pause.lua"), include_str!("lua/lift.lua")];
        let files = [COMMON, LIMITS, SETTLE_FILE].into_iter().chain(more);
        let files: Vec<&str> = files.collect();
        for (_, piece, _) in spoils() {
            assert!(files.iter().any(|file| file.contains(piece)), "{piece}");
        }
    }

    #[test]
    fn constants_give_way_to_their_values() {
        let lines = [
            "local ONE, FORM = 1, '<BI4'",
            "local sum = ONE + ONES -- of ONE",
            "local TABLE = { ONE, 'ONE' }",
            "f(FORM, x.ONE2)",
        ];
        let expected = "local sum = 1 + ONES\nlocal TABLE = { 1, 'ONE' }\nf('<BI4', x.ONE2)\n";
        assert_eq!(folded(&lines.join("\n")), expected);
        for script in all() {
            assert!(script.source().lines().all(|line| constants(line).is_none()));
        }
    }
}
