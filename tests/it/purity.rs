//! Who may know whom, read off the sources.
//!
//! The compiler lets any module use any other. That the rule stays free of I/O
//! and the transport free of state is kept here: every path that begins with
//! `crate::`, or with the name of a dependency, has to be in the table.

use std::{
    fmt::Write as _,
    fs, iter,
    path::{Path, PathBuf},
};

/// What one module of the crate may know.
struct Area {
    /// `src/<name>.rs` and what is in `src/<name>/`. The longest name that fits
    /// a file is the one that counts.
    name: &'static str,
    /// Other modules that it may use.
    knows: &'static [&'static str],
    /// Crates that it may use.
    crates: Crates,
}

/// Which dependencies an area may use.
enum Crates {
    /// These alone, and of the standard library nothing that [`IMPURE`] names.
    Only(&'static [&'static str]),
    /// All but these.
    AllBut(&'static [&'static str]),
}

/// Crates that speak to callers.
const WIRE: &[&str] = &[
    "axum",
    "h2",
    "http",
    "http_body",
    "http_body_util",
    "hyper",
    "hyper_util",
    "prost",
    "prost_types",
    "tonic",
    "tonic_health",
    "tonic_prost",
    "tonic_reflection",
    "tonic_types",
];

/// What of the standard library reads a clock, chance or the world.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::hash::RandomState",
];

/// The table, from the inside out. A module that is not in it fails the test:
/// say here what it may know.
const AREAS: &[Area] = &[
    Area {
        name: "domain",
        knows: &[],
        crates: Crates::Only(&[
            "bytes",
            "cel",
            "hashbrown",
            "jiff",
            "regex",
            "serde",
            "siphasher",
            "thiserror",
        ]),
    },
    Area { name: "fault", knows: &[], crates: Crates::AllBut(WIRE) },
    Area { name: "clock", knows: &["domain"], crates: Crates::AllBut(WIRE) },
    Area { name: "chance", knows: &["domain"], crates: Crates::AllBut(WIRE) },
    Area { name: "telemetry", knows: &["domain"], crates: Crates::AllBut(WIRE) },
    Area { name: "config", knows: &["domain", "grpc", "store"], crates: Crates::AllBut(WIRE) },
    // Texts in, policies out.
    Area { name: "dialect", knows: &["domain", "config"], crates: Crates::AllBut(WIRE) },
    // Virtual time and chance from a seed: it is as pure as the rule it calls.
    Area { name: "simulation", knows: &["domain"], crates: Crates::Only(&["serde"]) },
    Area {
        name: "store",
        knows: &["domain", "clock", "chance", "telemetry"],
        crates: Crates::AllBut(WIRE),
    },
    Area {
        name: "service",
        knows: &["domain", "store", "clock", "chance", "telemetry"],
        crates: Crates::AllBut(WIRE),
    },
    Area { name: "proto", knows: &[], crates: Crates::AllBut(&[]) },
    Area {
        name: "grpc",
        knows: &["domain", "service", "store", "clock", "chance", "proto", "telemetry"],
        crates: Crates::AllBut(&[]),
    },
    Area { name: "http", knows: &["domain", "service", "telemetry"], crates: Crates::AllBut(&[]) },
    Area {
        name: "policies",
        knows: &["domain", "config", "service", "store", "telemetry"],
        crates: Crates::AllBut(WIRE),
    },
    // Of `grpc` the conversion of policies and targets alone: there is one, and
    // the command line speaks the same contract.
    Area {
        name: "cli",
        knows: &["domain", "proto", "grpc", "config", "clock", "chance", "service", "dialect"],
        crates: Crates::AllBut(&[]),
    },
    Area { name: "cli/simulate", knows: &["simulation"], crates: Crates::AllBut(WIRE) },
    // The subcommands that are the server rather than call one.
    Area {
        name: "cli/serve",
        knows: &["config", "grpc", "server", "store", "domain"],
        crates: Crates::AllBut(&[]),
    },
    Area { name: "cli/store", knows: &["clock", "domain", "store"], crates: Crates::AllBut(&[]) },
    Area { name: "cli/config", knows: &["config"], crates: Crates::AllBut(&[]) },
];

/// These put the parts together, and so may know all of them.
const WHOLE: &[&str] = &["lib", "main", "server"];

#[test]
fn every_module_knows_only_what_the_table_lets_it_know() {
    let dependencies = dependencies();
    let mut faults = String::new();
    for path in sources(Path::new("src")) {
        let name = module_name(&path);
        if WHOLE.contains(&top(&name)) {
            continue;
        }
        let Some(area) = area_of(&name) else {
            writeln!(faults, "{}: not in the table of tests/it/purity.rs", path.display()).unwrap();
            continue;
        };
        for (line, code) in code_lines(&fs::read_to_string(&path).unwrap()) {
            if let Some(fault) = fault_in(area, &name, &code, &dependencies) {
                writeln!(faults, "{}:{line}: {fault}", path.display()).unwrap();
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn the_reading_of_sources_finds_what_it_should() {
    let domain = area_of("domain/backoff").unwrap();
    let dependencies = vec!["regex".to_owned(), "tokio".to_owned()];
    let fault = |code| fault_in(domain, "domain/backoff", code, &dependencies);

    assert_eq!(fault("use crate::domain::time::Timestamp;"), None);
    assert_eq!(fault("use std::time::Duration;"), None);
    assert_eq!(fault("let pattern = regex::Regex::new(text);"), None);
    assert!(fault("use crate::store::Store;").is_some());
    assert!(fault("use crate::{domain, store::Store};").is_some());
    assert!(fault("use std::{fmt, time::{Duration, Instant}};").is_some());
    assert!(fault("let at = std::time::SystemTime::now();").is_some());
    assert!(fault("use tokio::sync::Mutex;").is_some());
    assert!(fault("use tokio as runtime;").is_some());
    assert!(fault("use super::super::store::Store;").is_some());
    assert_eq!(fault("use super::super::domain::time::Timestamp;"), None);
    assert_eq!(fault("use super::time::Timestamp;"), None);
    assert_eq!(code_lines("a(); // tokio::b\n/// tokio::c\n").len(), 1);
}

/// What is wrong with a statement of a module in `area`, if anything is.
fn fault_in(area: &Area, module: &str, code: &str, dependencies: &[String]) -> Option<String> {
    paths(code).iter().find_map(|path| {
        let path = absolute(path, module);
        let mut parts = path.split("::");
        let root = parts.next().unwrap_or_default();
        if root == "crate" {
            let other = parts.next().unwrap_or_default();
            let known = other == top(module) || area.knows.contains(&other);
            return (!known).then(|| format!("{} may not know {other}", area.name));
        }
        let banned = match &area.crates {
            Crates::Only(allowed) => {
                impure(&path)
                    || (dependencies.iter().any(|name| name == root) && !allowed.contains(&root))
            }
            Crates::AllBut(denied) => denied.contains(&root),
        };
        banned.then(|| format!("{} may not use {path}", area.name))
    })
}

/// A path that begins with `super`, from the root of the crate.
fn absolute(path: &str, module: &str) -> String {
    let ups = path.split("::").take_while(|part| *part == "super").count();
    if ups == 0 {
        return path.to_owned();
    }
    let mut place: Vec<&str> = module.split('/').filter(|part| *part != "mod").collect();
    place.truncate(place.len().saturating_sub(ups));
    let parts = iter::once("crate").chain(place).chain(path.split("::").skip(ups));
    parts.collect::<Vec<_>>().join("::")
}

/// Whether a path is one of [`IMPURE`] or leads into it.
fn impure(path: &str) -> bool {
    IMPURE.iter().any(|banned| {
        path.strip_prefix(banned).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

/// Every path in a statement, groups written out: `a::{b, c::d}` is `a::b` and
/// `a::c::d`. Single words count only where a `use` names a crate by one.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut prefixes = vec![String::new()];
    let mut path = String::new();
    let import =
        ["use ", "pub use ", "pub(crate) use "].iter().any(|start| code.starts_with(start));
    let mut keep = |prefix: &str, path: &mut String| {
        if !path.is_empty() && (import || path.contains("::") || !prefix.is_empty()) {
            found.push(format!("{prefix}{path}"));
        }
        path.clear();
    };
    for c in code.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | ':' => path.push(c),
            '{' if path.ends_with("::") => {
                let open = prefixes.last().cloned().unwrap_or_default() + &path;
                prefixes.push(open);
                path.clear();
            }
            _ => {
                keep(prefixes.last().map_or("", String::as_str), &mut path);
                if c == '}' && prefixes.len() > 1 {
                    prefixes.pop();
                }
            }
        }
    }
    found
}

/// The statements of a file with the line each begins on: comments dropped, a
/// `use` of several lines joined, the tests at the end left out.
fn code_lines(text: &str) -> Vec<(usize, String)> {
    let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let mut statements: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (index, line) in own.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default().trim();
        if code.is_empty() {
            continue;
        }
        match statements.last_mut() {
            Some((_, statement)) if open => statement.push_str(code),
            _ => statements.push((index + 1, code.to_owned())),
        }
        let (_, statement) = &statements[statements.len() - 1];
        open = statement.contains("use ") && statement.contains('{') && !statement.ends_with(';');
    }
    statements
}

/// The row for a module: the one whose name says most of its place.
fn area_of(module: &str) -> Option<&'static Area> {
    let within = |name: &str| {
        module.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    AREAS.iter().filter(|area| within(area.name)).max_by_key(|area| area.name.len())
}

/// The module's place below `src/`, without its ending: `store/embedded/log`.
fn module_name(path: &Path) -> String {
    let below = path.strip_prefix("src").unwrap().with_extension("");
    below.to_str().unwrap().replace('\\', "/")
}

/// The first part of a module's place.
fn top(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

/// Every source file below a folder but those of tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs")
            && !path.ends_with("tests.rs")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The names under which the dependencies are used.
fn dependencies() -> Vec<String> {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap();
    section
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().replace('-', "_"))
        .collect()
}
