//! Documents of other systems: parts with their places, and what is wrong.

use std::{sync::Arc, time::Duration};

use super::{Imported, ImportedPolicy, Note, Reading, System, Unit};
use crate::{
    config::{
        problem::{Origin, PROBLEMS_MAX, Place, Problem, Problems, Source, nearest},
        yaml::{self, Kind, Node},
    },
    domain::{
        id::is_id,
        policy::{Policy, spec::PolicySpec},
        time::Span,
    },
};

/// Documents of one file at most.
const DOCUMENTS_MAX: usize = 64;

/// Reads the documents of a file, as YAML or JSON; those that say nothing are
/// left out.
pub fn parse(source: &Arc<Source>) -> Result<Vec<Node>, Problem> {
    let mut documents = Vec::new();
    for text in split(&source.text).into_iter().take(DOCUMENTS_MAX) {
        let part = Arc::new(Source { name: source.name.clone(), text });
        let node = yaml::parse(&part)?;
        if node.kind != Kind::Nothing {
            documents.push(node);
        }
    }
    Ok(documents)
}

/// The documents of a stream, each with empty lines in place of those before
/// it, so that what is wrong is told by its line in the file.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for (before, line) in text.lines().enumerate() {
        if line.trim_end() == "---" {
            documents.push("\n".repeat(before + 1));
        } else if let Some(document) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents
}

/// A part of a document, and the way to it.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    node: &'a Node,
    /// Such as `spec.templates[1].retryStrategy`.
    pub path: String,
}

impl<'a> Part<'a> {
    /// The whole document.
    pub const fn root(node: &'a Node) -> Self {
        Self { node, path: String::new() }
    }

    /// What it is.
    pub const fn kind(&self) -> &'a Kind {
        &self.node.kind
    }

    /// Where it begins.
    pub const fn place(&self) -> Place {
        self.node.place
    }

    /// The value in a few words.
    pub fn in_words(&self) -> String {
        self.node.in_words()
    }

    /// The value of a key; None when the key is absent or says nothing.
    pub fn get(&self, key: &str) -> Option<Self> {
        self.said(key).filter(|part| part.node.kind != Kind::Nothing)
    }

    /// The same, where an explicit nothing is something else than absence.
    pub fn said(&self, key: &str) -> Option<Self> {
        let Kind::Map(fields) = &self.node.kind else { return None };
        let field = fields.iter().find(|field| field.key == key)?;
        Some(Self { node: &field.value, path: below(&self.path, key) })
    }

    /// The value at the end of keys.
    pub fn at(&self, keys: &[&str]) -> Option<Self> {
        keys.iter().try_fold(self.clone(), |part, key| part.get(key))
    }

    /// The keys of a mapping, where each is written, and their values.
    pub fn entries(&self) -> Vec<(&'a str, Place, Self)> {
        let Kind::Map(fields) = &self.node.kind else { return Vec::new() };
        let entry = |field: &'a yaml::Field| {
            let part = Self { node: &field.value, path: below(&self.path, &field.key) };
            (field.key.as_str(), field.key_place, part)
        };
        fields.iter().map(entry).collect()
    }

    /// The items of a list.
    pub fn items(&self) -> Vec<Self> {
        let Kind::List(items) = &self.node.kind else { return Vec::new() };
        let item = |(at, node)| Self { node, path: format!("{}[{at}]", self.path) };
        items.iter().enumerate().map(item).collect()
    }

    /// Whether it is a mapping.
    pub const fn is_map(&self) -> bool {
        matches!(self.node.kind, Kind::Map(_))
    }

    /// Whether it is a mapping with one of these keys.
    pub fn has_any(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.said(key).is_some())
    }

    /// The text, when it is one.
    pub const fn text(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Text(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// The truth, when it is one.
    pub const fn truth(&self) -> Option<bool> {
        match self.node.kind {
            Kind::Truth(truth) => Some(truth),
            _ => None,
        }
    }

    /// The number, when it is one.
    pub fn number(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "more than anybody counts or waits")]
        match self.node.kind {
            Kind::Count(number) => Some(number as f64),
            Kind::Negative(number) => Some(number as f64),
            Kind::Number(number) => Some(number),
            _ => None,
        }
    }

    /// The first of these keys that says something.
    pub fn any(&self, keys: &[&str]) -> Option<Self> {
        keys.iter().find_map(|key| self.get(key))
    }

    /// The whole number, when it is one.
    pub fn whole(&self) -> Option<i64> {
        match self.node.kind {
            Kind::Count(number) => i64::try_from(number).ok(),
            Kind::Negative(number) => Some(number),
            _ => None,
        }
    }
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Reads documents, remembering policies, notes and what is wrong.
pub struct Reader {
    /// The behaviour that is wanted.
    pub reading: Reading,
    source: Arc<Source>,
    policies: Vec<ImportedPolicy>,
    notes: Vec<Note>,
    problems: Vec<Problem>,
}

impl Reader {
    /// A reader of `source`.
    pub const fn new(source: Arc<Source>, reading: Reading) -> Self {
        Self { reading, source, policies: Vec::new(), notes: Vec::new(), problems: Vec::new() }
    }

    /// Whether surprises are wanted.
    pub fn is_faithful(&self) -> bool {
        self.reading == Reading::Faithful
    }

    /// Says what is wrong with a part, or what would be accepted.
    pub fn refuse(&mut self, part: &Part<'_>, message: impl Into<String>) {
        self.refuse_at(part.place(), &part.path, &part.in_words(), message);
    }

    /// Says what is wrong at a place.
    pub fn refuse_at(
        &mut self,
        place: Place,
        field: &str,
        value: &str,
        message: impl Into<String>,
    ) {
        if self.problems.len() < PROBLEMS_MAX {
            let origin = Origin::File(Arc::clone(&self.source), place);
            self.problems.push(Problem::new(origin, field, value, message));
        }
    }

    /// The line of a place, as it was read.
    pub fn line(&self, place: Place) -> Option<&str> {
        self.source.text.lines().nth(place.line.saturating_sub(1))
    }

    /// Refuses keys of a mapping that nobody knows.
    pub fn only(&mut self, part: &Part<'_>, known: &[&str]) {
        for (key, place, value) in part.entries() {
            if !known.contains(&key) {
                let meant = nearest(key, known.iter().copied())
                    .map(|name| format!("did you mean {name}? "))
                    .unwrap_or_default();
                let accepted = known.join(", ");
                self.refuse_at(
                    place,
                    &value.path,
                    "",
                    format!("there is no such field; {meant}accepted: {accepted}"),
                );
            }
        }
    }

    /// Refuses a part that is no mapping.
    pub fn mapping(&mut self, part: &Part<'_>) -> bool {
        let is_map = part.is_map();
        if !is_map {
            self.refuse(part, "accepted: a mapping");
        }
        is_map
    }

    /// Reads true or false.
    pub fn truth(&mut self, part: &Part<'_>) -> Option<bool> {
        let truth = part.truth();
        if truth.is_none() {
            self.refuse(part, "accepted: true or false");
        }
        truth
    }

    /// Reads a whole number that is at least so much.
    pub fn whole(&mut self, part: &Part<'_>, least: i64) -> Option<i64> {
        let number = part.whole().filter(|number| *number >= least);
        if number.is_none() {
            self.refuse(part, format!("accepted: a whole number, {least} or more"));
        }
        number
    }

    /// Reads a number that is at least so much.
    pub fn number(&mut self, part: &Part<'_>, least: f64) -> Option<f64> {
        let number = part.number().filter(|number| *number >= least);
        if number.is_none() {
            self.refuse(part, format!("accepted: a number, {least} or more"));
        }
        number
    }

    /// Reads a length of time: seconds, or a text with its unit.
    pub fn span(&mut self, part: &Part<'_>) -> Option<Duration> {
        let span = match part.text() {
            Some(text) => text.parse::<Span>().ok().map(|span| span.0),
            None => part.number().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        };
        if span.is_none() {
            self.refuse(
                part,
                "accepted: seconds, or a length of time such as 90s, 1m30s or PT1M30S",
            );
        }
        span
    }

    /// Reads a list of texts.
    pub fn texts<'a>(&mut self, part: &Part<'a>) -> Option<Vec<&'a str>> {
        let texts: Option<Vec<&str>> = part.items().iter().map(Part::text).collect();
        let texts = texts.filter(|_| matches!(part.kind(), Kind::List(_)));
        if texts.is_none() {
            self.refuse(part, "accepted: a list of texts");
        }
        texts
    }

    /// Reads text, refusing a template that only the engine resolves.
    pub fn text<'a>(&mut self, part: &Part<'a>, engine: System) -> Option<&'a str> {
        let Some(text) = part.text() else {
            self.refuse(
                part,
                "accepted: text; a value that looks like something else stands in quotes",
            );
            return None;
        };
        (!self.is_template(part, engine)).then_some(text)
    }

    /// Refuses a template.
    pub fn is_template(&mut self, part: &Part<'_>, engine: System) -> bool {
        let opening = if engine == System::Octopus { "#{" } else { "{{" };
        let found = part.text().is_some_and(|text| text.contains(opening));
        if found {
            let engine = engine.title();
            self.refuse(
                part,
                format!(
                    "a template that only {engine} can resolve when it runs; accepted: the value itself"
                ),
            );
        }
        found
    }

    /// Says something about the whole file, once.
    pub fn note(&mut self, field: impl Into<String>, text: impl Into<String>) {
        let note = Note { field: field.into(), text: text.into() };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Keeps a policy; `part` is what it was read from.
    pub fn keep(&mut self, part: &Part<'_>, name: &str, unit: Unit, drawn: Drawn) {
        let Drawn { spec, notes } = drawn;
        if let Err(violations) = Policy::parse(&spec) {
            for violation in violations.0 {
                let message = format!("the policy would not hold: {violation}");
                self.refuse_at(part.place(), &part.path, "", message);
            }
        }
        let name = self.unique(name);
        self.policies.push(ImportedPolicy { name, unit, spec, notes });
    }

    fn unique(&self, name: &str) -> String {
        let name = legal(name);
        let taken = |name: &str| self.policies.iter().any(|policy| policy.name == name);
        if !taken(&name) {
            return name;
        }
        let numbered = |number: usize| format!("{name}-{number}");
        (2..).map(numbered).find(|name| !taken(name)).unwrap_or(name)
    }

    /// What was read.
    pub fn finish(mut self, system: System) -> Result<Imported, Problems> {
        if self.policies.is_empty() && self.problems.is_empty() {
            let message = format!(
                "nothing in this file says how {} retries; accepted: {}",
                system.title(),
                accepted(system)
            );
            self.refuse_at(Place { line: 1, column: 1 }, "", "", message);
        }
        if self.problems.is_empty() {
            Ok(Imported { policies: self.policies, notes: self.notes })
        } else {
            Err(Problems(self.problems))
        }
    }
}

/// A policy that is being written, with its notes.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    /// The policy.
    pub spec: PolicySpec,
    /// What its readers should know.
    pub notes: Vec<Note>,
}

impl Drawn {
    /// Adds a note.
    pub fn note(&mut self, field: impl Into<String>, text: impl Into<String>) {
        self.notes.push(Note { field: field.into(), text: text.into() });
    }
}

/// What a file of a system has in it.
const fn accepted(system: System) -> &'static str {
    match system {
        System::Argo => {
            "a Workflow, WorkflowTemplate, ClusterWorkflowTemplate or CronWorkflow, or a \
             retryStrategy"
        }
        System::Dagster => {
            "a dagster.yaml with run_retries, tags of a job, retry_policy or op_retry_policy"
        }
        System::Zenml => {
            "a run configuration with steps.<name>.retry or retry, or a StepRetryConfig"
        }
        System::Octopus => "a deployment process with Steps, or the properties of a step",
        System::Temporal => "a RetryPolicy, by itself or as retryPolicy",
        System::StepFunctions => "a state machine with Retry in its States, or a list of retriers",
        System::CloudTasks => "a queue with retryConfig, or a RetryConfig",
        System::Kubernetes => "a Job or CronJob",
        System::Airflow => "default_args or arguments of a task: retries, retry_delay …",
        System::Prefect => "arguments of a task or flow: retries, retry_delay_seconds …",
        System::Celery => "arguments of a task: autoretry_for, max_retries, retry_backoff …",
        System::Sidekiq | System::Asynq => "retry: a number",
    }
}

/// The name with a dash for what a policy's name may not have.
fn legal(name: &str) -> String {
    let dashed = |c: char| if is_id(c.encode_utf8(&mut [0; 4])) { c } else { '-' };
    let name: String = name.trim().chars().map(dashed).take(100).collect();
    match name.trim_matches('-') {
        "" => "imported".to_owned(),
        name => name.to_owned(),
    }
}
