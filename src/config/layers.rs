//! Settings as they were written, layer over layer: the defaults, a file, the
//! environment, flags. Nothing here knows what a setting means; that is
//! [`super::settings`].
//!
//! The defaults say which settings there are and of which kind each is, so
//! that there is no second list to keep.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::de::{DeTable, DeValue};

use super::{
    problem::{Origin, Place, Problem, Source, nearest},
    watch::read_blocking,
};

/// The reference and the defaults at once.
pub const DEFAULTS: &str = include_str!("default.toml");
/// How variables of the environment that are settings begin.
pub const VARIABLE_PREFIX: &str = "REPRISE__";
/// Longest configuration file, in bytes.
const FILE_MAX: usize = 1 << 20;

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Number(i64),
    /// true or false.
    Truth(bool),
    /// Strings.
    List(Vec<String>),
}

/// A setting as it is in force.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its path, such as `store.fsync`.
    pub path: String,
    /// Its value, of the kind its default has.
    pub value: Value,
    /// Where the value was written.
    pub origin: Origin,
}

/// What is laid over the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// The environment; what does not begin with [`VARIABLE_PREFIX`] is passed over.
    pub variables: Vec<(OsString, OsString)>,
    /// Flags, in order.
    pub flags: Vec<Flag>,
}

/// A setting given on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The flag, such as `--fsync`.
    pub name: &'static str,
    /// The setting's path.
    pub path: String,
    /// Its value, as text.
    pub value: String,
}

/// Every setting, in the order of the defaults.
#[derive(Clone, Debug)]
pub struct Layers {
    entries: Vec<Entry>,
    problems: Vec<Problem>,
}

impl Layers {
    /// Lays the sources over the defaults. What cannot be laid is a problem,
    /// and leaves the layer below in force.
    #[must_use]
    pub fn new(sources: &Sources) -> Self {
        let mut layers = Self { entries: defaults(), problems: Vec::new() };
        if let Some(file) = &sources.file {
            layers.lay_file(file);
        }
        for (name, value) in &sources.variables {
            layers.lay_variable(name, value);
        }
        for Flag { name, path, value } in &sources.flags {
            layers.lay_text(path, value, Origin::Flag((*name).to_owned()));
        }
        layers
    }

    /// Every setting.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// One setting. None only when the defaults do not have it.
    #[must_use]
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    /// What could not be laid.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The settings in force as TOML, with where each comes from unless it is
    /// the default.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for entry in &self.entries {
            let (in_section, key) = entry.path.rsplit_once('.').unwrap_or(("", &entry.path));
            if in_section != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                text += &format!("{gap}[{in_section}]\n");
                section = in_section;
            }
            text += &format!("{key} = {}", entry.value.to_toml());
            if entry.origin != Origin::Default {
                text += &format!("  # {}", entry.origin);
            }
            text.push('\n');
        }
        text
    }

    /// The settings in force as JSON, nested by section.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut root = serde_json::Value::Object(serde_json::Map::new());
        for entry in &self.entries {
            let place = entry.path.split('.').fold(&mut root, |place, part| &mut place[part]);
            *place = entry.value.to_json();
        }
        root
    }

    fn lay_file(&mut self, file: &Path) {
        let name = file.display().to_string();
        let text = match read_blocking(file, FILE_MAX) {
            Ok(text) => text.to_string(),
            Err(why) => {
                self.problems.push(Problem::new(Origin::Unread(name), "", "", why));
                return;
            }
        };
        let source = Arc::new(Source { name, text });
        let origin = |offset| Origin::File(Arc::clone(&source), Place::of(&source.text, offset));
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        // What is left of a table that is not TOML would be misread.
        if errors.is_empty() {
            self.lay_table("", table.get_ref(), &origin);
        }
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            self.problems.push(Problem::new(
                origin(offset),
                "",
                "",
                format!("not TOML: {}", error.message()),
            ));
        }
    }

    fn lay_table(&mut self, section: &str, table: &DeTable<'_>, origin: &impl Fn(usize) -> Origin) {
        for (key, value) in table {
            let path = join(section, key.get_ref());
            match value.get_ref() {
                DeValue::Table(table) if self.entry(&path).is_none() => {
                    // An empty section says nothing, but its name may be wrong.
                    let known = self.entries.iter().any(|entry| {
                        entry.path.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.'))
                    });
                    if table.is_empty() && !known {
                        self.unknown(&path, origin(key.span().start));
                    }
                    self.lay_table(&path, table, origin);
                }
                value_given => {
                    let at = if self.entry(&path).is_some() { value.span() } else { key.span() };
                    self.lay_value(&path, value_given, origin(at.start));
                }
            }
        }
    }

    fn lay_value(&mut self, path: &str, given: &DeValue<'_>, origin: Origin) {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.path == path) else {
            self.unknown(path, origin);
            return;
        };
        match entry.value.same_kind(given) {
            Some(value) => (entry.value, entry.origin) = (value, origin),
            None => {
                let accepted = entry.value.kind_in_words();
                let problem =
                    Problem::new(origin, path, &written(given), format!("accepted: {accepted}"));
                self.problems.push(problem);
            }
        }
    }

    fn lay_variable(&mut self, name: &OsString, value: &OsString) {
        let name = name.to_string_lossy();
        let Some(path) = name.strip_prefix(VARIABLE_PREFIX) else { return };
        let path = path.to_lowercase().replace("__", ".");
        let origin = Origin::Variable(name.into_owned());
        match value.to_str() {
            Some(value) => self.lay_text(&path, value, origin),
            None => self.problems.push(Problem::new(origin, path, "", "accepted: UTF-8")),
        }
    }

    fn lay_text(&mut self, path: &str, given: &str, origin: Origin) {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.path == path) else {
            self.unknown(path, origin);
            return;
        };
        match entry.value.same_kind_from_text(given) {
            Some(value) => (entry.value, entry.origin) = (value, origin),
            None => {
                let accepted = entry.value.kind_in_words();
                self.problems.push(Problem::new(
                    origin,
                    path,
                    given,
                    format!("accepted: {accepted}"),
                ));
            }
        }
    }

    fn unknown(&mut self, path: &str, origin: Origin) {
        let key = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        let paths = || self.entries.iter().map(|entry| entry.path.as_str());
        // Most often the right key stands in the wrong section, or has a typing error.
        let meant =
            nearest(path, paths()).or_else(|| paths().find(|known| key(known) == key(path)));
        let message = match meant {
            Some(meant) => format!("there is no such setting; did you mean {meant}?"),
            None => "there is no such setting; `reprise config default` shows all".to_owned(),
        };
        self.problems.push(Problem::new(origin, path, "", message));
    }
}

impl Value {
    /// What `given` says, if it is of this value's kind.
    fn same_kind(&self, given: &DeValue<'_>) -> Option<Self> {
        match (self, given) {
            (Self::Text(_), DeValue::String(text)) => Some(Self::Text(text.to_string())),
            (Self::Number(_), DeValue::Integer(number)) => {
                i64::from_str_radix(number.as_str(), number.radix()).ok().map(Self::Number)
            }
            (Self::Truth(_), DeValue::Boolean(truth)) => Some(Self::Truth(*truth)),
            (Self::List(_), DeValue::Array(items)) => {
                let text = |item: &DeValue<'_>| item.as_str().map(str::to_owned);
                items.iter().map(|item| text(item.get_ref())).collect::<Option<_>>().map(Self::List)
            }
            _ => None,
        }
    }

    /// What `given` says, read as this value's kind.
    fn same_kind_from_text(&self, given: &str) -> Option<Self> {
        match self {
            Self::Text(_) => Some(Self::Text(given.to_owned())),
            Self::Number(_) => given.trim().parse().ok().map(Self::Number),
            Self::Truth(_) => given.trim().parse().ok().map(Self::Truth),
            Self::List(_) => {
                let items = given.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(Self::List(items.map(str::to_owned).collect()))
            }
        }
    }

    const fn kind_in_words(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Number(_) => "a whole number",
            Self::Truth(_) => "true or false",
            Self::List(_) => "a list of strings",
        }
    }

    fn to_toml(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Number(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
            Self::List(items) => format!(
                "[{}]",
                items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", ")
            ),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
            Self::Truth(truth) => (*truth).into(),
            Self::List(items) => items.as_slice().into(),
        }
    }
}

/// The defaults, in their order.
fn defaults() -> Vec<Entry> {
    let table = DeTable::parse(DEFAULTS).expect("default.toml is TOML: a test reads it");
    let mut entries = Vec::new();
    collect("", table.get_ref(), &mut entries);
    entries.sort_by_key(|(offset, _)| *offset);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

fn collect(section: &str, table: &DeTable<'_>, entries: &mut Vec<(usize, Entry)>) {
    const KINDS: [Value; 4] = [
        Value::Text(String::new()),
        Value::Number(0),
        Value::Truth(false),
        Value::List(Vec::new()),
    ];
    for (key, value) in table {
        let path = join(section, key.get_ref());
        if let DeValue::Table(table) = value.get_ref() {
            collect(&path, table, entries);
        } else if let Some(value) = KINDS.iter().find_map(|kind| kind.same_kind(value.get_ref())) {
            entries.push((key.span().start, Entry { path, value, origin: Origin::Default }));
        }
    }
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// Text as a TOML string: JSON's escapes, and the one character JSON leaves bare.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// A value about as it was written.
fn written(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| written(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(_) => "a table".to_owned(),
    }
}
