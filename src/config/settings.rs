//! Settings as types.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    layers::{Layers, Sources, Value},
    problem::{Origin, Problem, Problems},
};
use crate::{
    domain::time::Span,
    grpc::{admission::AdmissionSettings, listener::Address},
    store::{embedded::log::Fsync, redis},
};

/// Longest path that a Unix socket can have, in bytes.
const SOCKET_PATH_MAX: usize = 107;
/// Name of the socket in the directory of the embedded store.
const SOCKET_NAME: &str = "reprise.sock";

/// Everything an operator can set of a server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the service listens, the socket included. Never empty when loaded.
    pub listen: Vec<Address>,
    /// Permission bits of the Unix socket's file.
    pub socket_mode: u32,
    /// Whether addresses other than loopback may be bound.
    pub insecure: bool,
    /// How long calls in flight may take when the server stops.
    pub drain: Duration,
    /// Whether tools may ask for the contract.
    pub reflection: bool,
    /// Connections at most.
    pub connections_max: usize,
    /// Where metrics and probes are served; None is nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where data is kept.
    pub store: StoreSettings,
    /// The file of policies that is applied.
    pub policy_file: Option<PathBuf>,
    /// How many calls are let in.
    pub admission: AdmissionSettings,
}

/// Where data is kept.
#[derive(Clone, Debug)]
pub enum StoreSettings {
    /// Nowhere: it ends with the process.
    Memory,
    /// In this process, durable.
    Embedded {
        /// The directory.
        dir: PathBuf,
        /// When a change is durable.
        fsync: Fsync,
        /// Bytes at most on the disk; None is no bound but the disk's.
        size_max: Option<u64>,
    },
    /// In Redis, shared with other processes.
    Redis {
        /// Where it is.
        address: Box<redis::address::Address>,
        /// How long a command may take.
        timeout: Duration,
        /// Whether a server that may forget in a restart is refused.
        strict: bool,
    },
}

/// What the process tells, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Directives of what is logged.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings in force, and all that is known of them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Of the server.
    pub settings: Settings,
    /// Of the process's log.
    pub log: LogSettings,
    /// As they were written, with where.
    pub layers: Layers,
    /// What was passed over and may surprise, a sentence each.
    pub warnings: Vec<String>,
}

/// Reads all layers.
///
/// # Errors
/// Everything that is wrong in any of them.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let layers = Layers::new(sources);
    let mut read =
        Read { problems: layers.problems().to_vec(), layers: &layers, warnings: Vec::new() };
    let settings = read.settings();
    let log = read.log();
    let Read { problems, warnings, .. } = read;
    if problems.is_empty() {
        Ok(Loaded { settings, log, layers, warnings })
    } else {
        Err(Problems(problems))
    }
}

/// A kind of store.
enum Kind {
    Memory,
    Embedded,
    Redis(Box<redis::address::Address>),
}

/// Reads settings, remembering what is wrong. One that is wrong is replaced by
/// something harmless, so that the rest can be read.
struct Read<'a> {
    layers: &'a Layers,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Read<'_> {
    fn settings(&mut self) -> Settings {
        let insecure = self.truth("server.insecure");
        let store = self.store();
        Settings {
            listen: self.listen(insecure, &store),
            socket_mode: self
                .parsed(
                    "server.socket_mode",
                    "permission bits in octal, \"0000\" to \"0777\"",
                    socket_mode,
                )
                .unwrap_or_default(),
            insecure,
            drain: self.span("server.drain", Duration::ZERO),
            reflection: self.truth("server.reflection"),
            connections_max: self
                .number("server.connections_max", 1, 1_000_000)
                .unwrap_or_default(),
            metrics: self.metrics(insecure),
            store,
            policy_file: Some(PathBuf::from(self.text("policies.file")))
                .filter(|file| !file.as_os_str().is_empty()),
            admission: self.admission(),
        }
    }

    fn listen(&mut self, insecure: bool, store: &StoreSettings) -> Vec<Address> {
        let mut addresses = Vec::new();
        for given in self.list("server.listen") {
            match given.parse() {
                Ok(Address::Tcp(address)) if !insecure && !address.ip().is_loopback() => {
                    self.refuse("server.listen", &given, EXPOSED);
                }
                Ok(address) => addresses.push(address),
                Err(_) => self.refuse(
                    "server.listen",
                    &given,
                    "accepted: IP:PORT, [IPv6]:PORT or unix:PATH",
                ),
            }
        }
        addresses.extend(self.socket(store).map(Address::Unix));
        if addresses.is_empty() && self.problems.is_empty() {
            self.refuse("server.listen", "[]", "there would be no address to listen on; accepted: an address here, or a path for server.socket");
        }
        for address in &addresses {
            if let Address::Unix(path) = address
                && path.as_os_str().len() > SOCKET_PATH_MAX
            {
                self.refuse(
                    "server.socket",
                    &path.display().to_string(),
                    format!("accepted: a path of at most {SOCKET_PATH_MAX} bytes"),
                );
            }
        }
        addresses
    }

    fn socket(&mut self, store: &StoreSettings) -> Option<PathBuf> {
        match (self.text("server.socket").as_str(), store) {
            ("", _) | ("auto", StoreSettings::Memory | StoreSettings::Redis { .. }) => None,
            ("auto", StoreSettings::Embedded { dir, .. }) => self.socket_in(dir),
            (path, _) => Some(path.into()),
        }
    }

    fn socket_in(&mut self, dir: &Path) -> Option<PathBuf> {
        let path = dir.join(SOCKET_NAME);
        if path.as_os_str().len() > SOCKET_PATH_MAX {
            let path = path.display();
            self.warnings.push(format!("no Unix socket: {path} is longer than the {SOCKET_PATH_MAX} bytes a socket may have; [server] socket can name a shorter one"));
            return None;
        }
        Some(path)
    }

    fn metrics(&mut self, insecure: bool) -> Option<SocketAddr> {
        let path = "metrics.listen";
        let address: Option<SocketAddr> =
            self.parsed(path, "IP:PORT, [IPv6]:PORT, or \"\" for nowhere", |text| match text {
                "" => Some(None),
                text => text.parse().ok().map(Some),
            })?;
        if !insecure && address.is_some_and(|address| !address.ip().is_loopback()) {
            self.refuse(path, &self.text(path), EXPOSED);
        }
        address
    }

    fn store(&mut self) -> StoreSettings {
        // All are looked at, whichever count.
        let interval = self.span("store.fsync_interval", Duration::from_millis(1));
        let fsync = self.parsed("store.fsync", "\"always\" or \"interval\"", |text| match text {
            "always" => Some(Fsync::Always),
            "interval" => Some(Fsync::Interval(interval)),
            _ => None,
        });
        let size_max = self.parsed(
            "store.size_max",
            "a size of more than zero such as \"500MiB\" or \"10GiB\", or \"\" for the disk's",
            |text| match text {
                "" => Some(None),
                text => size(text).filter(|size| *size > 0).map(Some),
            },
        );
        let dir = self.parsed("store.dir", "a path", |text| {
            Some(PathBuf::from(text)).filter(|_| !text.is_empty())
        });
        let timeout = self.span("store.timeout", Duration::from_millis(10));
        let strict = self.truth("store.strict");
        let Some(kind) = self.kind() else { return StoreSettings::Memory };
        match (kind, dir) {
            (Kind::Embedded, Some(dir)) => StoreSettings::Embedded {
                dir,
                fsync: fsync.unwrap_or(Fsync::Always),
                size_max: size_max.flatten(),
            },
            (Kind::Redis(address), _) => StoreSettings::Redis { address, timeout, strict },
            _ => StoreSettings::Memory,
        }
    }

    /// The kind of store; None after noting what is wrong with it.
    fn kind(&mut self) -> Option<Kind> {
        let path = "store.kind";
        let text = self.text(path);
        let wrong = match &*text {
            "embedded" => return Some(Kind::Embedded),
            "memory" => return Some(Kind::Memory),
            text if text.starts_with("redis") => match redis::address::Address::parse(text) {
                Ok(address) => return Some(Kind::Redis(Box::new(address))),
                Err(error) => error.to_string(),
            },
            _ => "accepted: \"embedded\", \"memory\" or an address of Redis such as \"redis://127.0.0.1\"".to_owned(),
        };
        // An address with a password in it is refused, and not repeated.
        let shown = if text.contains('@') { "an address".to_owned() } else { format!("{text:?}") };
        self.refuse(path, &shown, wrong);
        None
    }

    fn admission(&mut self) -> AdmissionSettings {
        let most = 100_000;
        let limit_max = self.number("admission.limit_max", 2, most).unwrap_or(most);
        let limit_floor = self.number("admission.limit_floor", 2, limit_max).unwrap_or(2);
        AdmissionSettings {
            limit_start: self
                .number("admission.limit_start", limit_floor, limit_max)
                .unwrap_or(limit_floor),
            limit_floor,
            limit_max,
            latency_tolerated: self.span("admission.latency_tolerated", Duration::ZERO),
            wait_target: self.span("admission.wait_target", Duration::from_micros(1)),
            wait_burst: self.span("admission.wait_burst", Duration::from_micros(1)),
            ..AdmissionSettings::default()
        }
    }

    fn log(&mut self) -> LogSettings {
        let filter = self.parsed(
            "log.filter",
            "a level, or directives such as \"info,reprise::store=debug\"",
            |text| tracing_subscriber::EnvFilter::try_new(text).ok().map(|_| text.to_owned()),
        );
        let format = self.parsed("log.format", "\"text\" or \"json\"", |text| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        LogSettings {
            filter: filter.unwrap_or_default(),
            format: format.unwrap_or(LogFormat::Text),
        }
    }

    fn value(&self, path: &str) -> &Value {
        &self
            .layers
            .entry(path)
            .expect("default.toml has every setting: a test reads them all")
            .value
    }

    fn text(&self, path: &str) -> String {
        match self.value(path) {
            Value::Text(text) => text.clone(),
            _ => String::new(),
        }
    }

    fn truth(&self, path: &str) -> bool {
        *self.value(path) == Value::Truth(true)
    }

    fn list(&self, path: &str) -> Vec<String> {
        match self.value(path) {
            Value::List(items) => items.clone(),
            _ => Vec::new(),
        }
    }

    fn number(&mut self, path: &str, min: usize, max: usize) -> Option<usize> {
        let Value::Number(given) = *self.value(path) else { return None };
        let number = usize::try_from(given).ok().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.refuse(path, &given.to_string(), format!("accepted: {min} to {max}"));
        }
        number
    }

    /// A length of time of at least `min`, and at most an hour: all of them are
    /// waits within the server.
    fn span(&mut self, path: &str, min: Duration) -> Duration {
        const MAX: Duration = Duration::from_secs(3600);
        let accepted = format!("a length of time such as \"50ms\" or \"20s\", {} to 1h", Span(min));
        let parse = |text: &str| {
            text.parse::<Span>().ok().map(|span| span.0).filter(|span| (min..=MAX).contains(span))
        };
        self.parsed(path, &accepted, parse).unwrap_or(min)
    }

    fn parsed<T>(
        &mut self,
        path: &str,
        accepted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(path);
        let parsed = parse(&text);
        if parsed.is_none() {
            self.refuse(path, &format!("{text:?}"), format!("accepted: {accepted}"));
        }
        parsed
    }

    fn refuse(&mut self, path: &str, value: &str, message: impl Into<String>) {
        let origin = self.layers.entry(path).map_or(Origin::Default, |entry| entry.origin.clone());
        self.problems.push(Problem::new(origin, path, value, message));
    }
}

const EXPOSED: &str = "other machines could reach it, and connections carry no TLS and callers no identity; accepted: a loopback address, or server.insecure = true";

fn socket_mode(text: &str) -> Option<u32> {
    let digits = text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777)
}

/// Bytes, from a number and a unit: "10GiB", "500 MB", "4096".
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1000 * 1000,
        "GB" => 1000 * 1000 * 1000,
        "TB" => 1000 * 1000 * 1000 * 1000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;
    use crate::{
        config::layers::{DEFAULTS, Flag},
        grpc::listener::ListenerSettings,
    };

    fn set(path: &str, value: &str) -> Flag {
        Flag { name: "--set", path: path.to_owned(), value: value.to_owned() }
    }

    fn with(flags: &[(&str, &str)]) -> Result<Loaded, Problems> {
        load(&Sources {
            flags: flags.iter().map(|(path, value)| set(path, value)).collect(),
            ..Sources::default()
        })
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn the_defaults_are_those_of_the_parts() {
        let Loaded { settings, log, warnings, layers } = load(&Sources::default()).unwrap();
        let listener = ListenerSettings::default();
        assert_eq!(
            settings.listen,
            ["127.0.0.1:7070", "unix:data/reprise.sock"].map(|text| text.parse().unwrap())
        );
        assert_eq!(settings.socket_mode, listener.socket_mode);
        assert_eq!(settings.drain, listener.drain_deadline);
        assert_eq!(settings.connections_max, listener.connections_max);
        assert_eq!(settings.insecure, listener.insecure);
        assert_eq!(settings.metrics, Some("127.0.0.1:7071".parse().unwrap()));
        assert_eq!(settings.policy_file, None);
        assert_eq!(
            format!("{:?}", settings.admission),
            format!("{:?}", AdmissionSettings::default())
        );
        assert!(
            matches!(settings.store, StoreSettings::Embedded { dir, fsync: Fsync::Always, size_max: None } if dir == Path::new("data"))
        );
        assert_eq!(log, LogSettings { filter: "info".into(), format: LogFormat::Text });
        assert!(warnings.is_empty());
        assert!(layers.entries().iter().all(|entry| entry.origin == Origin::Default));
    }

    #[test]
    fn every_default_is_explained() {
        let mut explained = false;
        for line in DEFAULTS.lines() {
            match line {
                "" => explained = false,
                line if line.starts_with('#') => explained = true,
                line if line.starts_with('[') => {}
                line => assert!(explained, "{line}"),
            }
        }
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file_over_the_defaults() {
        let file = file(
            "[server]\ndrain = \"1s\"\nreflection = false\n[store]\nkind = \"memory\"\n[log]\nformat = \"json\"\n",
        );
        let variables = [
            ("REPRISE__SERVER__DRAIN", "2s"),
            ("REPRISE__STORE__KIND", "embedded"),
            ("REPRISE_LOG", "x"),
            ("HOME", "/"),
        ];
        let sources = Sources {
            file: Some(file.path().to_owned()),
            variables: variables.map(|(name, value)| (name.into(), value.into())).to_vec(),
            flags: vec![
                set("store.dir", "/d"),
                set("server.drain", "3s"),
                set("server.listen", "127.0.0.1:1, [::1]:2"),
            ],
        };
        let loaded = load(&sources).unwrap();
        assert_eq!(loaded.settings.drain, Duration::from_secs(3));
        assert!(!loaded.settings.reflection);
        assert_eq!(loaded.log.format, LogFormat::Json);
        assert_eq!(
            loaded.settings.listen,
            ["127.0.0.1:1", "[::1]:2", "unix:/d/reprise.sock"].map(|text| text.parse().unwrap())
        );
        let toml = loaded.layers.to_toml();
        assert!(toml.contains("drain = \"3s\"  # --set\n"), "{toml}");
        assert!(toml.contains("kind = \"embedded\"  # REPRISE__STORE__KIND\n"), "{toml}");
        assert!(toml.contains(":3:14\n"), "{toml}");
    }

    #[test]
    fn what_is_shown_reads_the_same_again() {
        let shown = with(&[("store.size_max", "1GiB")]).unwrap().layers.to_toml();
        let kept = file(&shown);
        let again =
            load(&Sources { file: Some(kept.path().to_owned()), ..Sources::default() }).unwrap();
        let values = |layers: &Layers| {
            layers
                .entries()
                .iter()
                .map(|entry| (entry.path.clone(), entry.value.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            values(&again.layers),
            values(&with(&[("store.size_max", "1GiB")]).unwrap().layers)
        );
        assert_eq!(again.layers.to_json()["store"]["size_max"], "1GiB");
    }

    #[test]
    fn everything_wrong_is_told_at_once_with_where_it_was_written() {
        let file = file(
            "[server]\nlisten = [\"0.0.0.0:1\", 7]\ndrian = \"1s\"\nreflection = \"yes\"\n[stor]\nfsync = \"always\"\n[store]\nsocket = \"x\"\nsize_max = \"10 apples\"\n[nonsense]\n",
        );
        let sources = Sources {
            file: Some(file.path().to_owned()),
            variables: vec![
                ("REPRISE__ADMISSION__LIMIT_MAX".into(), "1".into()),
                ("REPRISE__STORE__FSNC".into(), "always".into()),
            ],
            flags: vec![
                set("log.format", "xml"),
                set("metrics.listen", "0.0.0.0:9"),
                set("server.connections_max", "many"),
            ],
        };
        let wrong = load(&sources).unwrap_err();
        let text = wrong.to_string().replace(&file.path().display().to_string(), "FILE");
        for part in [
            "FILE:2:10: server.listen: [\"0.0.0.0:1\", 7]: accepted: a list of strings",
            "FILE:3:1: server.drian: there is no such setting; did you mean server.drain?",
            "FILE:4:14: server.reflection: \"yes\": accepted: true or false",
            "FILE:6:1: stor.fsync: there is no such setting; did you mean store.fsync?",
            "FILE:8:1: store.socket: there is no such setting; did you mean server.socket?",
            "FILE:9:12: store.size_max: \"10 apples\": accepted: a size",
            "FILE:10:2: nonsense: there is no such setting; `reprise config default` shows all",
            "REPRISE__ADMISSION__LIMIT_MAX: admission.limit_max: 1: accepted: 2 to",
            "REPRISE__STORE__FSNC: store.fsnc: there is no such setting; did you mean store.fsync?",
            "--set: log.format: \"xml\": accepted: \"text\" or \"json\"",
            "--set: metrics.listen: 0.0.0.0:9: other machines could reach it",
            "--set: server.connections_max: many: accepted: a whole number",
        ] {
            assert!(text.contains(part), "{part}\n\n{text}");
        }
        assert_eq!(wrong.0.len(), 12, "{text}");
    }

    #[test]
    fn a_file_that_is_not_toml_is_told_with_all_its_places() {
        let file = file("[server]\ndrain = 5s\nx = \n");
        let wrong = load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() })
            .unwrap_err();
        assert!(
            wrong.0.len() >= 2
                && wrong.0.iter().all(|problem| problem.message.starts_with("not TOML: ")),
            "{wrong}"
        );
        let wrong = load(&Sources { file: Some("/does/not/exist".into()), ..Sources::default() })
            .unwrap_err();
        assert!(wrong.to_string().starts_with("/does/not/exist: cannot be read: "), "{wrong}");
    }

    #[test]
    fn addresses_of_others_need_insecure_and_somewhere_must_be_listened() {
        assert!(with(&[("server.listen", "0.0.0.0:1")]).is_err());
        assert!(with(&[("metrics.listen", "10.0.0.1:1")]).is_err());
        let open = [
            ("server.listen", "0.0.0.0:1"),
            ("metrics.listen", "0.0.0.0:2"),
            ("server.insecure", "true"),
        ];
        assert!(with(&open).is_ok());
        assert_eq!(with(&[("server.listen", ""), ("server.socket", "")]).unwrap_err().0.len(), 1);
        assert!(with(&[("server.listen", "")]).is_ok());
        assert!(with(&[("server.listen", ""), ("store.kind", "memory")]).is_err());
    }

    #[test]
    fn a_socket_that_would_be_too_long_is_left_out_or_refused() {
        let dir = fs::canonicalize("/").unwrap().join("d".repeat(100));
        let loaded = with(&[("store.dir", dir.to_str().unwrap())]).unwrap();
        assert_eq!(loaded.settings.listen.len(), 1);
        assert!(loaded.warnings[0].contains("longer than the 107 bytes"), "{:?}", loaded.warnings);
        assert!(with(&[("server.socket", &"s".repeat(108))]).is_err());
        assert!(with(&[("server.socket", &"s".repeat(107))]).is_ok());
    }

    #[test]
    fn sizes_and_modes_are_read_as_people_write_them() {
        assert_eq!(size("10GiB"), Some(10 << 30));
        assert_eq!(size("500 MB"), Some(500_000_000));
        assert_eq!(size("4096"), Some(4096));
        for text in ["", "GiB", "-1", "1.5GiB", "99999999999999999999", "99999999999 TiB"] {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!(socket_mode("0660"), Some(0o660));
        for text in ["", "+660", "0888", "1777", "00660"] {
            assert_eq!(socket_mode(text), None, "{text}");
        }
    }
}
