//! The discipline of the scripts: read off their text, and shown by letting
//! every call that they make fail once.

use std::collections::BTreeMap;

use redis::{RedisResult, Value, aio::MultiplexedConnection, cmd};
use reprise::{
    domain::record::PolicyChoice,
    store::{
        ConfigurationChange,
        redis::{
            Redis,
            scripts::{self, Script},
        },
    },
};

use crate::{
    redis_servers::{Kind, Options, Standalone},
    store_contract::subject::{self, START, Subject, key},
};

/// Commands of scripts that change nothing.
const READS: [&str; 16] = [
    "EXISTS",
    "GET",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HLEN",
    "TIME",
    "XLEN",
    "XRANGE",
    "ZCARD",
    "ZRANGE",
    "ZCOUNT",
    "ZRANK",
    "ZSCORE",
    "SCARD",
    "SRANDMEMBER",
];
/// Commands of scripts that cannot fail on a key of the right type, with memory
/// granted at the start: what is written is a string, a member, a field or an
/// element. `XADD` wants an id that grows, and comes first. `HINCRBY` wants a
/// number, and nothing else ever wrote the field. What goes by `pcall` may fail.
const WRITES: [&str; 12] = [
    "HDEL", "HINCRBY", "HSET", "MSET", "PEXPIRE", "SADD", "SET", "SREM", "UNLINK", "XADD", "ZADD",
    "ZREM",
];
/// Texts of failures, which are no state: a list of another's making is left alone.
const LET_FAIL: [&str; 2] = ["LTRIM", "RPUSH"];

/// Where a key may come from: declared ones alone. The names are those of
/// variables that hold some of `KEYS`.
const KEYS: [&str; 13] = [
    "step",
    "kept.key",
    "kept",
    "unpack(gone)",
    "unpack(pairs_set)",
    "unpack(sets)",
    "key",
    "cal.key",
    "state.key",
    "state.permits_key",
    "state.line_key",
    "state.parked_key",
    "parked_key",
];
/// What writes when it is called, and stands before what reads.
const WRITER: &str = "function limits_write()";

/// The lines of a script without comments, and the script's own first one.
fn code(script: &Script) -> (&str, Vec<&str>) {
    let mut lines = script.source().lines();
    let first = lines.next().unwrap();
    (first, lines.map(|line| line.split("--").next().unwrap_or_default()).collect())
}

/// What comes after each occurrence of `word` as a word of its own.
fn after<'a>(line: &'a str, word: &str) -> Vec<&'a str> {
    let is_part = |char: char| char.is_alphanumeric() || char == '_' || char == '.';
    line.match_indices(word)
        .filter(|(at, _)| !line[..*at].ends_with(is_part))
        .map(|(at, _)| &line[at + word.len()..])
        .filter(|rest| !rest.starts_with(|char: char| char.is_alphanumeric() || char == '_'))
        .collect()
}

/// The calls of a line: command, and the rest of the line behind its name.
fn calls(line: &str) -> Vec<(&str, &str)> {
    let call = |rest| {
        let rest: &str = rest;
        let rest = rest.strip_prefix(".call('").or_else(|| rest.strip_prefix(".pcall('"));
        let rest = rest.expect("redis is used to call a command that is written out");
        rest.split_once('\'').unwrap()
    };
    after(line, "redis").into_iter().map(call).collect()
}

#[test]
fn every_script_says_what_it_does_and_does_no_more() {
    for script in scripts::all() {
        let (first, lines) = code(script);
        let flags = first.strip_prefix("#!lua").expect("a script begins with #!lua");
        let is_read_only = flags == " flags=no-writes";
        assert!(is_read_only || ["", " flags=allow-oom"].contains(&flags), "{}", script.name);
        let (mut has_written, mut is_writer) = (false, false);
        for line in lines {
            is_writer = (is_writer && line != "end") || line == WRITER;
            has_written |= line.trim() == "limits_write()";
            for (command, rest) in calls(line) {
                let at = format!("{}: {line}", script.name);
                let writes = WRITES.contains(&command) || LET_FAIL.contains(&command);
                assert!(writes || READS.contains(&command), "{at}");
                assert!(!(writes && is_read_only), "{at}");
                assert!(writes || !(has_written || is_writer), "read after the first write: {at}");
                has_written |= writes && !is_writer;
                let is_declared = |key: &str| {
                    key.starts_with("KEYS[") || key == "unpack(KEYS)" || KEYS.contains(&key)
                };
                let key = rest.strip_prefix(", ").map(|rest| {
                    let end = if rest.starts_with("unpack(") {
                        rest.find(')').map(|at| at + 1)
                    } else {
                        rest.find([',', ')'])
                    };
                    &rest[..end.unwrap_or(rest.len())]
                });
                assert!(key.map_or(command == "TIME", is_declared), "{at}");
            }
        }
    }
}

#[test]
fn every_loop_is_bounded() {
    for script in scripts::all() {
        for line in code(script).1 {
            let at = format!("{}: {line}", script.name);
            for word in ["while", "repeat", "goto", "tostring"] {
                assert!(after(line, word).is_empty(), "{at}");
            }
            for rest in after(line, "for") {
                let head = rest.split(" do").next().unwrap();
                let is_over_a_list = head.contains(" in ipairs(") || head.contains(" in pairs(");
                // What was sent, a value that was read, or a constant's value.
                let bound = head.split_once(", ").map_or("", |(_, bound)| bound);
                let is_counted =
                    ["#KEYS", "#ARGV", "#raw"].iter().any(|count| bound.contains(count))
                        || bound
                            .split(',')
                            .next()
                            .is_some_and(|bound| bound.trim().parse::<u32>().is_ok());
                assert!(is_over_a_list || is_counted, "{at}");
            }
            // Numbers become text in one place, with all their digits.
            for rest in after(line, "string.format") {
                assert_eq!(rest, "('%.0f', number)", "{at}");
            }
        }
    }
}

/// Names that are calls, with the one that fails: a script that counts what it
/// calls in its place.
fn wrapped(script: &Script, fails: usize) -> String {
    let (first, rest) = script.source().split_once('\n').unwrap();
    let last = if fails == 0 { "return names" } else { "return answer" };
    format!(
        "{first}\n\
         local server, names = redis, {{}}\n\
         local function passes(kind, command)\n\
           names[#names + 1] = kind .. ' ' .. command\n\
           return #names ~= {fails}\n\
         end\n\
         local redis = {{\n\
           call = function(command, ...)\n\
             if passes('call', command) then return server.call(command, ...) end\n\
             error('injected')\n\
           end,\n\
           pcall = function(command, ...)\n\
             if passes('pcall', command) then return server.pcall(command, ...) end\n\
             return {{ err = 'ERR injected' }}\n\
           end,\n\
         }}\n\
         local function body()\n{rest}\nend\n\
         local answer = body()\n{last}"
    )
}

type Dump = BTreeMap<String, Vec<u8>>;

/// A server, and the keys that each call begins with.
struct Stage {
    server: Standalone,
    connection: MultiplexedConnection,
    before: Dump,
}

impl Stage {
    async fn dump(connection: &mut MultiplexedConnection) -> Dump {
        let keys: Vec<String> = cmd("KEYS").arg("*").query_async(connection).await.unwrap();
        let mut dump = Dump::new();
        for key in keys {
            let value = cmd("DUMP").arg(&key).query_async(connection).await.unwrap();
            dump.insert(key, value);
        }
        dump
    }

    async fn restore(&mut self) {
        cmd("FLUSHALL").exec_async(&mut self.connection).await.unwrap();
        for (key, value) in &self.before {
            let mut restore = cmd("RESTORE");
            restore.arg(key).arg(0).arg(value).exec_async(&mut self.connection).await.unwrap();
        }
    }

    async fn run(&mut self, source: &str, keys: &[String], args: &[Vec<u8>]) -> RedisResult<Value> {
        self.restore().await;
        let mut eval = cmd("EVAL");
        eval.arg(source).arg(keys.len()).arg(keys).arg(args);
        eval.query_async(&mut self.connection).await
    }

    /// Lets each call of a script fail once, and returns the commands that it
    /// made from its first write on.
    async fn each_call_fails_once(
        &mut self,
        script: &Script,
        keys: &[String],
        args: &[Vec<u8>],
    ) -> Vec<String> {
        let all = self.run(&wrapped(script, 0), keys, args).await.unwrap();
        let names: Vec<String> = redis::from_redis_value(all).unwrap();
        let is_write = |name: &String| {
            let command = name.split(' ').nth(1).unwrap();
            WRITES.contains(&command) || LET_FAIL.contains(&command)
        };
        let first_write = names.iter().position(is_write).expect("it writes");
        assert!(names[first_write..].iter().all(is_write), "{names:?}");
        self.restore().await;
        let before = Self::dump(&mut self.connection).await;
        assert_eq!(before.len(), self.before.len());
        for (at, name) in names.iter().enumerate() {
            let ran = self.run(&wrapped(script, at + 1), keys, args).await;
            if name.starts_with("pcall") {
                assert!(ran.is_ok(), "{name}: {ran:?}");
                continue;
            }
            let error = ran.expect_err(name).to_string();
            assert!(error.contains("injected"), "{name}: {error}");
            if at <= first_write {
                let after = Self::dump(&mut self.connection).await;
                assert!(before == after, "{name}, call {at}, failed and left a trace");
            }
        }
        names[first_write..].to_vec()
    }

    async fn get(&mut self, key: &str) -> Vec<u8> {
        cmd("GET").arg(key).query_async(&mut self.connection).await.unwrap()
    }
}

/// A namespace `n` with every kind of thing in it, on a server of its own.
///
/// Steps of the run `r`: `over` is over, `many` has all the texts it may, under
/// the policy `p`; `moved` is filed too early. The policy `q` is used by nobody.
async fn stage() -> Stage {
    let server = Standalone::start(Kind::Redis70, Options::default()).await;
    let clock = subject::clock();
    let store = Redis::open(subject::redis_options(&server.url(), &clock)).await.unwrap();
    let subject = Subject { store, clock, dir: None, server: None };
    subject.create("n").await;
    for name in ["p", "q"] {
        let policy = subject::policy("{max_retries: 100, backoff: {fixed: {delay: 1s}}}");
        let change = ConfigurationChange::Policy(subject::id(name), policy);
        subject.reconfigure("n", change).await.unwrap();
    }
    let inline = std::sync::Arc::new(subject::revision("max_retries: 7", 0));
    subject.reconfigure("n", ConfigurationChange::Inline(inline)).await.unwrap();
    let choice = PolicyChoice::Named(subject::id("p"));
    for number in 1..=5 {
        let failed = subject::failed(number, "no luck");
        subject.try_apply(key("n", "r", "many"), &choice, &failed).await.unwrap();
    }
    subject.apply(key("n", "r", "over"), &subject::failed(1, "no luck")).await;
    let moved = key("n", "r", "moved");
    let fence = subject.apply(moved, &subject::begin(1)).await.record().fence;
    subject.clock.advance(subject::SECOND);
    subject.apply(moved, &subject::heartbeat(fence)).await;
    let mut connection = server.endpoint().connect().await.unwrap();
    let before = Stage::dump(&mut connection).await;
    Stage { server, connection, before }
}

/// The instant that scripts are told, µs; everything in [`stage`] was before.
const AT: u64 = START.as_micros() + 1_000_000;

fn name(kind: &str) -> String {
    format!("reprise:{{n}}:{kind}")
}

/// Words of the namespace's state: created, revision.
fn identity(state: &[u8]) -> [f64; 2] {
    [1, 9].map(|at| f64::from_le_bytes(state[at..at + 8].try_into().unwrap()))
}

struct Planned {
    kind: u8,
    version: u64,
    event: u64,
}

/// An item as `settle.lua` unpacks it: header, value, text. The value begins
/// with its operation, its score in the event index and the policy that it uses.
#[allow(clippy::cast_precision_loss, reason = "below 2⁵³")]
fn item(identity: [f64; 2], planned: &Planned, [record, policy, text]: &[Vec<u8>; 3]) -> Vec<u8> {
    let [born, revision] = identity;
    let Planned { kind, version, event } = *planned;
    let mut bytes = vec![kind];
    for word in [version as f64, born, revision, AT as f64, AT as f64, event as f64, 1000.0] {
        bytes.extend(word.to_le_bytes());
    }
    let mut value = Vec::new();
    if !record.is_empty() {
        value.extend(*b"anything");
        value.extend((event as f64).to_le_bytes());
        value.push(u8::try_from(policy.len()).unwrap());
        value.extend(policy);
        value.extend(record);
    }
    bytes.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
    bytes.extend(value);
    bytes.extend(text);
    bytes
}

#[tokio::test]
async fn a_call_of_settle_that_fails_changes_nothing() {
    let mut stage = stage().await;
    let identity = identity(&stage.get(&name("state")).await);
    let many = stage.get(&name("step:r many")).await;
    // Behind operation, filed event, and the policy `policy:p`.
    let record = many[17 + "policy:p".len()..].to_vec();
    let version = |value: &[u8], from: usize| {
        u64::from_le_bytes(value[from + 8..from + 16].try_into().unwrap())
    };
    let over = stage.get(&name("step:r over")).await;
    let (many_version, over_version) = (version(&record, 0), version(&over, 17));
    let inline: Vec<String> =
        cmd("HKEYS").arg(name("inline")).query_async(&mut stage.connection).await.unwrap();
    let inline = format!("inline:{}", inline[0]).into_bytes();
    let event = AT - 500_000;
    let items: [(&str, Planned, [Vec<u8>; 3]); 5] = [
        (
            "many",
            Planned { kind: 1, version: many_version, event },
            [record.clone(), vec![], b"text".to_vec()],
        ),
        ("over", Planned { kind: 2, version: over_version, event: 0 }, Default::default()),
        ("moved", Planned { kind: 3, version: 0, event: 0 }, Default::default()),
        ("nobody", Planned { kind: 3, version: 0, event: 0 }, Default::default()),
        ("new", Planned { kind: 1, version: 0, event }, [record, inline, b"text".to_vec()]),
    ];
    let mut keys = ["state", "events", "changes", "inline", "uses", "lists"].map(name).to_vec();
    let mut args = vec![b"9007199254740991".to_vec(), AT.to_string().into_bytes()];
    for (step, planned, rest) in items {
        keys.extend([name(&format!("step:r {step}")), name(&format!("text:r {step}"))]);
        args.push(item(identity, &planned, &rest));
    }
    let written = stage.each_call_fails_once(&scripts::SETTLE, &keys, &args).await;
    let mut kinds: Vec<&str> = written.iter().map(String::as_str).collect();
    assert_eq!(kinds[0], "call XADD", "what may fail comes first");
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "call HDEL",
            "call HINCRBY",
            "call LTRIM",
            "call MSET",
            "call UNLINK",
            "call XADD",
            "call ZADD",
            "call ZREM",
            "pcall RPUSH",
        ]
    );
    drop(stage.server);
}

#[tokio::test]
async fn a_call_of_configure_that_fails_changes_nothing() {
    let mut stage = stage().await;
    let [born, revision] = identity(&stage.get(&name("state")).await);
    let kinds = ["state", "events", "changes", "configuration", "inline", "uses"];
    let configured = |namespace: &str, born: f64, revision: f64, change: [&str; 4]| {
        let keys = kinds.map(|kind| format!("reprise:{{{namespace}}}:{kind}")).to_vec();
        let mut args = vec!["9007199254740991".to_owned(), AT.to_string()];
        args.extend([format!("{born:.0}"), format!("{revision:.0}")]);
        args.extend(change.iter().filter(|part| **part != "-").map(|part| (*part).to_owned()));
        (keys, args.into_iter().map(String::into_bytes).collect::<Vec<_>>())
    };
    for ((keys, args), expected) in [
        (
            configured("new", 0.0, 0.0, ["namespace", "settings", "{}", "-"]),
            &["call HSET", "call SET"][..],
        ),
        (
            configured("n", born, revision, ["policy", "policy:new", "{}", "policy:q"]),
            &["call HDEL", "call HSET", "call SET"],
        ),
        (
            configured("n", born, revision, ["target", "target:db", "", "-"]),
            &["call HDEL", "call SET"],
        ),
        (
            configured("n", born, revision, ["inline", "00", "{}", "inline:01"]),
            &["call HDEL", "call HSET", "call SET"],
        ),
    ] {
        let written = stage.each_call_fails_once(&scripts::CONFIGURE, &keys, &args).await;
        assert_eq!(written, expected);
    }
    // A namespace without steps, which is deleted.
    let state = stage.before[&name("state")].clone();
    stage.before = Dump::from([(name("state"), state)]);
    let (keys, args) = configured("n", born, revision, ["delete", "", "", "-"]);
    let written = stage.each_call_fails_once(&scripts::CONFIGURE, &keys, &args).await;
    assert_eq!(written, ["call UNLINK"]);
}

/// Keys of a call of a copy, and its arguments behind the instants.
fn sent(namespace: &str, kinds: &[&str], rest: &[&[u8]]) -> (Vec<String>, Vec<Vec<u8>>) {
    let keys = kinds.iter().map(|kind| format!("reprise:{{{namespace}}}:{kind}")).collect();
    let mut args = vec![b"9007199254740991".to_vec(), AT.to_string().into_bytes()];
    args.extend(rest.iter().map(|part| part.to_vec()));
    (keys, args)
}

/// What `found` is sent about the namespace `copied`, for the holder 7.
fn founding() -> (Vec<String>, Vec<Vec<u8>>) {
    let end = b"9007199254740991";
    let fields: [&[u8]; 9] =
        [b"7", end, b"3", b"9", b"1000", b"settings", b"{}", b"inline:00", b"{}"];
    sent("copied", &["state", "configuration", "inline"], &fields)
}

/// What `import` is sent there: two steps, one of them with texts.
#[allow(clippy::cast_precision_loss, reason = "below 2⁵³")]
fn importing(holder: &[u8], value: &[u8]) -> (Vec<String>, Vec<Vec<u8>>) {
    let header = [&[1][..], &((AT + 1) as f64).to_le_bytes()].concat();
    let kinds = ["state", "events", "uses", "step:r a", "text:r a", "step:r b", "text:r b"];
    let a: [&[u8]; 7] = [&header, value, b"policy:p", b"first", b"second", b"", b""];
    let b: [&[u8]; 7] = [&header, value, b"", b"", b"", b"", b""];
    sent("copied", &kinds, &[&[holder], &a[..], &b[..]].concat())
}

#[tokio::test]
async fn a_call_of_a_copy_that_fails_changes_nothing() {
    let mut stage = stage().await;
    let value = stage.get(&name("step:r many")).await;
    for kind in ["pause", "take", "end"] {
        let (keys, args) = sent("n", &["state"], &[kind.as_bytes(), b"0", b"9007199254740991"]);
        let written = stage.each_call_fails_once(&scripts::PAUSE, &keys, &args).await;
        assert_eq!(written, ["call SET"], "{kind}");
    }
    let (keys, args) = founding();
    let written = stage.each_call_fails_once(&scripts::FOUND, &keys, &args).await;
    assert_eq!(written, ["call HSET", "call HSET", "call SET"]);

    stage.run(scripts::FOUND.source(), &keys, &args).await.unwrap();
    stage.before = Stage::dump(&mut stage.connection).await;
    let (keys, args) = importing(b"7", &value);
    let written = stage.each_call_fails_once(&scripts::IMPORT, &keys, &args).await;
    assert_eq!(written, ["call MSET", "call ZADD", "call HINCRBY", "pcall RPUSH", "pcall RPUSH"]);
}

#[tokio::test]
async fn what_a_copy_sends_twice_is_done_once_and_nobody_else_writes_there() {
    let mut stage = stage().await;
    let value = stage.get(&name("step:r many")).await;
    let (founding, importing) = (founding(), importing(b"7", &value));
    let mut after = Dump::new();
    for (script, (keys, args)) in [(&scripts::FOUND, &founding), (&scripts::IMPORT, &importing)] {
        stage.run(script.source(), keys, args).await.unwrap();
        stage.before = Stage::dump(&mut stage.connection).await;
        // What is restored is equal to what was dumped, but in another order.
        stage.restore().await;
        let once = Stage::dump(&mut stage.connection).await;
        stage.run(script.source(), keys, args).await.unwrap();
        after = Stage::dump(&mut stage.connection).await;
        assert!(after == once, "{}", script.name);
    }
    let word = |said: Value| redis::from_redis_value::<Vec<String>>(said).unwrap().swap_remove(0);
    let (keys, args) = self::importing(b"8", &value);
    let said = stage.run(scripts::IMPORT.source(), &keys, &args).await.unwrap();
    assert_eq!(word(said), "changed");
    let (keys, args) = sent("n", &["state", "configuration", "inline"], &[&b"7"[..]; 5]);
    let said = stage.run(scripts::FOUND.source(), &keys, &args).await.unwrap();
    assert_eq!(word(said), "changed", "a namespace that nobody copies");
    assert!(after == Stage::dump(&mut stage.connection).await);
}

#[tokio::test]
async fn a_log_that_is_ahead_of_its_state_stops_a_commit_and_changes_nothing() {
    let mut stage = stage().await;
    let entry = format!("XADD {} 1000-0 at 1 r s", name("changes"));
    stage.server.endpoint().tell(&entry).await;
    let before = Stage::dump(&mut stage.connection).await;
    let clock = reprise::clock::Clock::manual(reprise::domain::time::Timestamp::from_micros(AT));
    let url = stage.server.url();
    let store = Redis::open(subject::redis_options(&url, &clock)).await.unwrap();
    let subject = Subject { store, clock, dir: None, server: None };
    let (new, begin) = (key("n", "r", "new"), subject::begin(7));
    assert!(subject.try_apply(new, &PolicyChoice::Default, &begin).await.is_err());
    assert!(before == Stage::dump(&mut stage.connection).await);
}
