//! The YAML file of policies, of targets and of namespaces' settings.
//!
//! Parsing checks everything that can be known without a store: the shape, the
//! names, every policy and target. What comes out can be applied as a whole.

use std::{collections::BTreeMap, ops::RangeInclusive, path::Path, sync::Arc, time::Duration};

use serde::Deserialize;

use super::{
    problem::{Origin, PROBLEMS_MAX, Place, Problem, Problems, Source, nearest},
    watch::{Contents, read_blocking},
    yaml::{self, Fault, Field, Kind, Node},
};
use crate::domain::{
    id::{ID_ACCEPTED, Id},
    limit::{Target, spec::TargetSpec},
    namespace::{DEFAULT_NAMESPACE, LEASE_MAX, LEASE_MIN, Settings},
    policy::{Policy, spec::PolicySpec},
    time::Span,
    violation::Violations,
};

/// Retention and the wait for a worker: one minute to 365 days.
const KEPT: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(365 * 24 * 3600);
/// Steps that are not over.
const LIVE_STEPS: RangeInclusive<u64> = 1..=100_000_000;

/// A file of policies, whole and valid.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyFile {
    /// As it was read.
    pub source: Arc<Source>,
    /// What it says, by namespace.
    pub namespaces: BTreeMap<Id, NamespacePart>,
}

/// What a file says of one namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespacePart {
    /// Settings that it sets.
    pub settings: SettingsChange,
    /// Its policies.
    pub policies: BTreeMap<Id, PolicySpec>,
    /// Its targets.
    pub targets: BTreeMap<Id, TargetSpec>,
    /// Where it is first mentioned, for what is only known once it is applied.
    pub place: Option<Place>,
}

/// Settings of a namespace that are set; what is None stays as it is. The
/// contract's `NamespaceSettings` says what each is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the contract documents each setting, once")]
pub struct SettingsChange {
    /// Some(None) is the built-in policy.
    pub default_policy: Option<Option<Id>>,
    /// Where the default policy is named.
    pub default_policy_place: Option<Place>,
    /// Some(None) gives targets that nobody wrote no limits.
    pub default_target: Option<Option<Id>>,
    /// Where the default target is named.
    pub default_target_place: Option<Place>,
    pub lease: Option<Duration>,
    pub max_retries_ceiling: Option<u32>,
    pub max_elapsed_ceiling: Option<Duration>,
    pub retention: Option<Duration>,
    pub abandon_after: Option<Duration>,
    pub max_live_steps: Option<u64>,
}

impl SettingsChange {
    /// The settings with what is set.
    #[must_use]
    pub fn apply(&self, current: &Settings) -> Settings {
        Settings {
            default_policy: self
                .default_policy
                .clone()
                .unwrap_or_else(|| current.default_policy.clone()),
            default_target: self
                .default_target
                .clone()
                .unwrap_or_else(|| current.default_target.clone()),
            lease: self.lease.unwrap_or(current.lease),
            max_retries_ceiling: self.max_retries_ceiling.unwrap_or(current.max_retries_ceiling),
            max_elapsed_ceiling: self.max_elapsed_ceiling.unwrap_or(current.max_elapsed_ceiling),
            retention: self.retention.unwrap_or(current.retention),
            abandon_after: self.abandon_after.unwrap_or(current.abandon_after),
            max_live_steps: self.max_live_steps.unwrap_or(current.max_live_steps),
        }
    }
}

/// Settings as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SettingsSpec {
    default_policy: Option<String>,
    default_target: Option<String>,
    lease: Option<Span>,
    max_retries_ceiling: Option<u32>,
    max_elapsed_ceiling: Option<Span>,
    retention: Option<Span>,
    abandon_after: Option<Span>,
    max_live_steps: Option<u64>,
}

impl PolicyFile {
    /// Reads a file's text; `name` is how problems call the file. An empty one
    /// says nothing.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(name: &str, text: &str) -> Result<Self, Problems> {
        let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
        let root = yaml::parse(&source).map_err(|problem| Problems(vec![problem]))?;
        let mut reading = Reading { source, problems: Vec::new(), namespaces: BTreeMap::new() };
        reading.root(root);
        let Reading { source, mut problems, namespaces } = reading;
        problems.sort_by_key(|problem| match &problem.origin {
            Origin::File(_, place) => Some(*place),
            _ => None,
        });
        problems.truncate(PROBLEMS_MAX);
        if problems.is_empty() { Ok(Self { source, namespaces }) } else { Err(Problems(problems)) }
    }

    /// Reads and parses a file, where nothing else waits for this thread.
    ///
    /// # Errors
    /// It cannot be read, or everything that is wrong with it.
    pub fn read(file: &Path) -> Result<Self, Problems> {
        Self::of(file, read_blocking(file, yaml::TEXT_MAX))
    }

    /// Parses what was read of a file.
    ///
    /// # Errors
    /// It could not be read, or everything that is wrong with it.
    pub fn of(file: &Path, contents: Contents) -> Result<Self, Problems> {
        let name = file.display().to_string();
        match contents {
            Ok(text) => Self::parse(&name, &text),
            Err(why) => Err(Problems(vec![Problem::new(Origin::Unread(name), "", "", why)])),
        }
    }

    /// Where something of this file is.
    #[must_use]
    pub fn origin(&self, place: Option<Place>) -> Origin {
        Origin::File(Arc::clone(&self.source), place.unwrap_or(Place { line: 1, column: 1 }))
    }
}

/// Reads a file, remembering what is wrong.
struct Reading {
    source: Arc<Source>,
    problems: Vec<Problem>,
    namespaces: BTreeMap<Id, NamespacePart>,
}

impl Reading {
    fn refuse(&mut self, place: Place, field: &str, value: &str, message: impl Into<String>) {
        let origin = Origin::File(Arc::clone(&self.source), place);
        self.problems.push(Problem::new(origin, field, value, message));
    }

    fn root(&mut self, root: Node) {
        for field in self.fields(root, "", Some(&["policies", "targets", "namespaces"])) {
            let place = field.key_place;
            match field.key.as_str() {
                "policies" => self.policies("policies", DEFAULT_NAMESPACE, place, field.value),
                "targets" => self.targets("targets", DEFAULT_NAMESPACE, place, field.value),
                _ => {
                    for namespace in self.fields(field.value, "namespaces", None) {
                        self.namespace(namespace);
                    }
                }
            }
        }
    }

    /// The fields of a mapping; None stands for names that the operator chooses.
    fn fields(&mut self, node: Node, path: &str, known: Option<&[&str]>) -> Vec<Field> {
        let fields = match node.kind {
            Kind::Map(fields) => fields,
            Kind::Nothing => return Vec::new(),
            _ => {
                let accepted = known.map_or("a mapping from names".to_owned(), |known| {
                    format!("a mapping with {}", all_of(known))
                });
                self.refuse(node.place, path, &node.in_words(), format!("accepted: {accepted}"));
                return Vec::new();
            }
        };
        let Some(known) = known else { return fields };
        let (right, wrong): (Vec<_>, Vec<_>) =
            fields.into_iter().partition(|field| known.contains(&field.key.as_str()));
        for field in wrong {
            let meant = nearest(&field.key, known.iter().copied())
                .map(|name| format!("did you mean {name}? "))
                .unwrap_or_default();
            let message = format!("there is no such field; {meant}accepted: {}", known.join(", "));
            self.refuse(field.key_place, &below(path, &field.key), "", message);
        }
        right
    }

    fn namespace(&mut self, field: Field) {
        let path = below("namespaces", &field.key);
        if !self.is_name(&path, &field) {
            return;
        }
        self.part(&field.key, field.key_place);
        for part in self.fields(field.value, &path, Some(&["settings", "policies", "targets"])) {
            let within = below(&path, &part.key);
            match part.key.as_str() {
                "policies" => self.policies(&within, &field.key, part.key_place, part.value),
                "targets" => self.targets(&within, &field.key, part.key_place, part.value),
                _ => {
                    let settings = self.settings(&within, part.value);
                    if let Some(part) = self.part(&field.key, field.key_place) {
                        part.settings = settings;
                    }
                }
            }
        }
    }

    /// What is known so far of a namespace.
    fn part(&mut self, namespace: &str, place: Place) -> Option<&mut NamespacePart> {
        let id: Id = namespace.parse().ok()?;
        let part = self.namespaces.entry(id).or_default();
        part.place.get_or_insert(place);
        Some(part)
    }

    fn is_name(&mut self, path: &str, field: &Field) -> bool {
        let legal = field.key.parse::<Id>().is_ok();
        if !legal {
            self.refuse(field.key_place, path, "", format!("accepted as a name: {ID_ACCEPTED}"));
        }
        legal
    }

    fn policies(&mut self, path: &str, namespace: &str, place: Place, node: Node) {
        self.part(namespace, place);
        for field in self.fields(node, path, None) {
            let path = below(path, &field.key);
            if !self.is_name(&path, &field) {
                continue;
            }
            let (name, key_place) = (field.key.clone(), field.key_place);
            let spec = self.policy(&path, field);
            let Some(part) = self.part(namespace, place) else { continue };
            let (Some(spec), Ok(id)) = (spec, name.parse()) else { continue };
            if part.policies.insert(id, spec).is_some() {
                self.refuse_twice(key_place, &path, "policy", "policies");
            }
        }
    }

    fn targets(&mut self, path: &str, namespace: &str, place: Place, node: Node) {
        self.part(namespace, place);
        for field in self.fields(node, path, None) {
            let path = below(path, &field.key);
            if !self.is_name(&path, &field) {
                continue;
            }
            let (name, key_place) = (field.key.clone(), field.key_place);
            let spec = self.target(&path, field);
            let Some(part) = self.part(namespace, place) else { continue };
            let (Some(spec), Ok(id)) = (spec, name.parse()) else { continue };
            if part.targets.insert(id, spec).is_some() {
                self.refuse_twice(key_place, &path, "target", "targets");
            }
        }
    }

    fn refuse_twice(&mut self, place: Place, path: &str, what: &str, list: &str) {
        self.refuse(place, path, "", format!("namespace {DEFAULT_NAMESPACE} has this {what} twice: under {list} and under namespaces.{DEFAULT_NAMESPACE}.{list}; accepted: one of them"));
    }

    fn policy(&mut self, path: &str, field: Field) -> Option<PolicySpec> {
        let mut node = field.value;
        if node.kind == Kind::Nothing {
            self.refuse(field.key_place, path, "nothing", "accepted: a policy; {} is one that retries without a wait and up to the namespace's ceilings");
            return None;
        }
        let spec: PolicySpec = node.read(&mut |fault| self.fault(path, fault))?;
        self.violations(path, field.key_place, &node, Policy::parse(&spec).err());
        Some(spec)
    }

    fn target(&mut self, path: &str, field: Field) -> Option<TargetSpec> {
        let mut node = field.value;
        if node.kind == Kind::Nothing {
            self.refuse(
                field.key_place,
                path,
                "nothing",
                "accepted: a target; {} is one without limits",
            );
            return None;
        }
        let spec: TargetSpec = node.read(&mut |fault| self.fault(path, fault))?;
        self.violations(path, field.key_place, &node, Target::parse(&spec).err());
        Some(spec)
    }

    fn violations(
        &mut self,
        path: &str,
        key_place: Place,
        node: &Node,
        violations: Option<Violations>,
    ) {
        for violation in violations.into_iter().flat_map(|violations| violations.0) {
            // What is missing because it was wrong has been told already.
            if node.is_pruned_below(&violation.field) {
                continue;
            }
            let found = node.find(&violation.field);
            let place = if found.path.is_empty() { key_place } else { found.place };
            self.refuse(place, &below(path, &violation.field), &violation.value, violation.problem);
        }
    }

    fn fault(&mut self, path: &str, fault: Fault) {
        let place = fault.place.unwrap_or(Place { line: 1, column: 1 });
        self.refuse(place, &below(path, &fault.path()), &fault.value, fault.message);
    }

    fn settings(&mut self, path: &str, mut node: Node) -> SettingsChange {
        if node.kind == Kind::Nothing {
            return SettingsChange::default();
        }
        let spec = node.read(&mut |fault| self.fault(path, fault)).unwrap_or_default();
        let mut check = Bounds { reading: self, node: &node, path };
        check.settings(&spec)
    }
}

/// Holds settings to their bounds.
struct Bounds<'a> {
    reading: &'a mut Reading,
    node: &'a Node,
    path: &'a str,
}

impl Bounds<'_> {
    fn settings(&mut self, spec: &SettingsSpec) -> SettingsChange {
        let (default_policy, default_policy_place) =
            self.default("default_policy", spec.default_policy.as_deref(), "the built-in policy");
        let (default_target, default_target_place) = self.default(
            "default_target",
            spec.default_target.as_deref(),
            "a target without limits",
        );
        SettingsChange {
            default_policy,
            default_policy_place,
            default_target,
            default_target_place,
            lease: self.span("lease", spec.lease, LEASE_MIN..=LEASE_MAX),
            max_retries_ceiling: spec.max_retries_ceiling,
            max_elapsed_ceiling: self.span(
                "max_elapsed_ceiling",
                spec.max_elapsed_ceiling,
                Duration::from_nanos(1)..=Duration::MAX,
            ),
            retention: self.span("retention", spec.retention, KEPT),
            abandon_after: self.span("abandon_after", spec.abandon_after, KEPT),
            max_live_steps: spec.max_live_steps.filter(|steps| self.live_steps(*steps)),
        }
    }

    /// What stands in for what is not named, and where that is said; an empty
    /// name takes the default away, and `instead` is in force.
    fn default(
        &mut self,
        field: &str,
        name: Option<&str>,
        instead: &str,
    ) -> (Option<Option<Id>>, Option<Place>) {
        let Some(name) = name else { return (None, None) };
        let place = Some(self.node.find(field).place);
        if name.is_empty() {
            return (Some(None), place);
        }
        let id = name.parse().ok();
        if id.is_none() {
            self.refuse(
                field,
                &format!("{name:?}"),
                format!("accepted: {ID_ACCEPTED}; \"\" is {instead}"),
            );
        }
        (id.map(Some), place)
    }

    fn span(
        &mut self,
        field: &str,
        span: Option<Span>,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let span = span?;
        if !bounds.contains(&span.0) {
            let accepted = match *bounds.end() {
                Duration::MAX => "accepted: more than zero".to_owned(),
                end => format!("accepted: {} to {}", Span(*bounds.start()), Span(end)),
            };
            self.refuse(field, &span.to_string(), accepted);
        }
        Some(span.0)
    }

    fn live_steps(&mut self, steps: u64) -> bool {
        let legal = LIVE_STEPS.contains(&steps);
        if !legal {
            self.refuse(
                "max_live_steps",
                &steps.to_string(),
                format!("accepted: {} to {}", LIVE_STEPS.start(), LIVE_STEPS.end()),
            );
        }
        legal
    }

    fn refuse(&mut self, field: &str, value: &str, message: impl Into<String>) {
        let place = self.node.find(field).place;
        self.reading.refuse(place, &below(self.path, field), value, message);
    }
}

fn all_of(names: &[&str]) -> String {
    match names {
        [some @ .., last] if !some.is_empty() => format!("{} and {last}", some.join(", ")),
        names => names.concat(),
    }
}

fn below(path: &str, field: &str) -> String {
    match (path, field) {
        ("", field) => field.to_owned(),
        (path, "") => path.to_owned(),
        (path, field) => format!("{path}.{field}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../deploy/policies.example.yaml");

    fn problems(text: &str) -> Vec<String> {
        let problems = PolicyFile::parse("p.yaml", text).unwrap_err();
        problems.0.iter().map(ToString::to_string).collect()
    }

    fn policy(text: &str) -> PolicySpec {
        let file = PolicyFile::parse("p.yaml", &format!("policies:\n  p: {text}\n")).unwrap();
        file.namespaces[DEFAULT_NAMESPACE].policies["p"].clone()
    }

    #[test]
    fn the_example_parses_and_says_everything_a_policy_can() {
        let file = PolicyFile::parse("policies.example.yaml", EXAMPLE)
            .unwrap_or_else(|problems| panic!("{}", problems.in_full()));
        let default = &file.namespaces[DEFAULT_NAMESPACE];
        let json = serde_json::to_value(&default.policies["nightly"]).unwrap();
        let written: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(written.len(), 11, "{written:?}");
        let team = &file.namespaces["team-a"];
        let settings = team.settings.apply(&Settings::default());
        assert_eq!(settings.default_policy.as_deref(), Some("careful"));
        assert_eq!(settings.retention, Duration::from_secs(48 * 3600));
        assert!(team.policies.contains_key("careful"));
        assert_eq!(settings.default_target.as_deref(), Some("shared"));
        assert!(team.targets.contains_key("shared"));
        let json = serde_json::to_value(&default.targets["warehouse-db"]).unwrap();
        for (limit, fields) in [("rate", 4), ("concurrency", 1), ("budget", 4)] {
            assert_eq!(json[limit].as_object().unwrap().len(), fields, "{limit}");
        }
        for part in file.namespaces.values() {
            for spec in part.policies.values() {
                let json = serde_json::to_string(spec).unwrap();
                assert_eq!(serde_json::from_str::<PolicySpec>(&json).unwrap(), *spec, "{json}");
            }
        }
    }

    #[test]
    fn shapes_that_people_write_mean_what_they_look_like() {
        let same = |one, other| assert_eq!(policy(one), policy(other), "{one}");
        same(
            "{ backoff: { fixed: { delay: 1s }, jitter: full } }",
            "{ backoff: { fixed: { delay: 1s }, jitter: 'full' } }",
        );
        same("{ rules: [{ name: a, stop: {} }] }", "{ rules: [{ name: a, stop: at_once }] }");
        same(
            "{ rules: [{ name: a, match: { exit_codes: ['7-9'] }, skip: {} }] }",
            "{ rules: [{ name: a, match: { exit_codes: [{ min: 7, max: 9 }] }, skip: {} }] }",
        );
        same(
            "{ rules: [{ name: a, match: { codes: [503] }, skip: {} }] }",
            "{ rules: [{ name: a, match: { codes: ['503'] }, skip: {} }] }",
        );
        same("{ max_elapsed: 90 }", "{ max_elapsed: PT1M30S }");
        same("{ max_retries: , rules: }", "{}");
    }

    #[test]
    fn everything_wrong_is_told_at_once_and_at_its_place() {
        let text = "\
policies:
  nightly:
    max_retires: 3
    backoff: { exponential: { delay: soon }, jitter: fulll }
    rules:
      - name: Bad Name
        match: { classes: [TRANSIENT, OOPS], codes: [503, 777], message_pattern: '(' }
        stop: at_once
      - name: two
        skip: {}
        hold: {}
      - name: three
        retry: { max_retries: -1 }
      - name: four
        match: { condition: 'nonsense(' }
        skip: {}
  'no way!': {}
namespaces:
  team-a:
    setings: {}
    settings: { lease: 10h, max_live_steps: 0, default_policy: 'a b' }
  team-b: 7
";
        let problems = problems(text);
        let starts = [
            "p.yaml:3:5: policies.nightly.max_retires: there is no such field; did you mean max_retries? ",
            "p.yaml:4:38: policies.nightly.backoff.exponential.delay: \"soon\": ",
            "p.yaml:4:54: policies.nightly.backoff.jitter: \"fulll\": did you mean full? ",
            "p.yaml:6:15: policies.nightly.rules[0].name: \"Bad Name\": accepted: 1 to 32",
            "p.yaml:7:39: policies.nightly.rules[0].match.classes[1]: \"OOPS\": accepted: FAILURE, ",
            "p.yaml:7:59: policies.nightly.rules[0].match.codes[1]: \"777\": ",
            "p.yaml:7:82: policies.nightly.rules[0].match.message_pattern: \"(\": ",
            "p.yaml:9:9: policies.nightly.rules[1]: 2 actions: accepted: exactly one",
            "p.yaml:13:31: policies.nightly.rules[2].retry.max_retries: -1: accepted: a whole number, 0 to",
            "p.yaml:15:29: policies.nightly.rules[3].match.condition: ",
            "p.yaml:17:3: policies.no way!: accepted as a name: ",
            "p.yaml:20:5: namespaces.team-a.setings: there is no such field; did you mean settings? ",
            "p.yaml:21:24: namespaces.team-a.settings.lease: 10h: accepted: 1s to 1h",
            "p.yaml:21:45: namespaces.team-a.settings.max_live_steps: 0: accepted: 1 to 100000000",
            "p.yaml:21:64: namespaces.team-a.settings.default_policy: \"a b\": accepted: ",
            "p.yaml:22:11: namespaces.team-b: 7: accepted: a mapping with settings, policies and targets",
        ];
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
        for (problem, start) in problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "\n{problem}\n{start}");
        }
    }

    #[test]
    fn what_is_wrong_with_targets_is_told_at_its_place() {
        let text = "\
targets:
  db:
    rate: { limit: 0, period: 1s, bursts: 3 }
    concurency: { max: 10 }
    budget: { ratio: 11, when_spent: stopp }
  'no way!': {}
  gpu:
  pool: { concurrency: { max: -1 }, each_run: maybe }
namespaces:
  default: { targets: { db: {} } }
  team: { settings: { default_target: 'a b' }, targets: { a: { budget: { ratio: 0, floor: 0 } } } }
";
        let problems = problems(text);
        let starts = [
            "p.yaml:3:20: targets.db.rate.limit: 0: accepted: 1 or more",
            "p.yaml:3:35: targets.db.rate.bursts: there is no such field; did you mean burst? ",
            "p.yaml:4:5: targets.db.concurency: there is no such field; did you mean concurrency? ",
            "p.yaml:5:22: targets.db.budget.ratio: 11: accepted: 0 to 10",
            "p.yaml:5:38: targets.db.budget.when_spent: \"stopp\": did you mean stop? ",
            "p.yaml:6:3: targets.no way!: accepted as a name: ",
            "p.yaml:7:3: targets.gpu: nothing: accepted: a target",
            "p.yaml:8:31: targets.pool.concurrency.max: -1: accepted: a whole number, 0 to",
            "p.yaml:8:47: targets.pool.each_run: ",
            "p.yaml:10:25: namespaces.default.targets.db: namespace default has this target twice: ",
            "p.yaml:11:39: namespaces.team.settings.default_target: \"a b\": accepted: ",
            "p.yaml:11:72: namespaces.team.targets.a.budget: ratio 0 and floor 0: no retry",
        ];
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
        for (problem, start) in problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "\n{problem}\n{start}");
        }
    }

    #[test]
    fn a_problem_shows_its_line_with_a_caret() {
        let wrong =
            PolicyFile::parse("p.yaml", "policies:\n  p: { max_retries: many }\n").unwrap_err();
        let shown = "\
p.yaml:2:21: policies.p.max_retries: \"many\": accepted: a whole number, 0 to 4294967295
   |
 2 |   p: { max_retries: many }
   |                     ^";
        assert_eq!(wrong.in_full(), shown);
    }

    #[test]
    fn what_is_wrong_in_an_alias_is_told_where_it_is_defined() {
        let text = "policies:\n  a: { backoff: &slow { fixed: { delay: -1s } } }\n  b: { backoff: *slow }\n";
        let problems = problems(text);
        assert!(
            problems.iter().all(|problem| problem.starts_with("p.yaml:2:41: ")),
            "{problems:#?}"
        );
        assert_eq!(problems.len(), 2);
    }

    #[test]
    fn a_policy_in_two_places_is_refused() {
        let problems =
            problems("policies: { a: {} }\nnamespaces: { default: { policies: { a: {} } } }\n");
        assert!(problems[0].contains("has this policy twice"), "{problems:?}");
    }

    #[test]
    fn nothing_and_empty_parts_are_fine_but_not_a_policy_left_out() {
        for text in [
            "",
            "# nothing\n",
            "policies:\n",
            "namespaces:\n  a:\n",
            "namespaces: { a: { settings: , policies: } }",
        ] {
            assert!(PolicyFile::parse("p.yaml", text).is_ok(), "{text}");
        }
        assert!(
            problems("policies:\n  a:\n")[0]
                .starts_with("p.yaml:2:3: policies.a: nothing: accepted: a policy")
        );
    }

    #[test]
    fn hostile_documents_are_refused_quickly() {
        let bomb = (1..12).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
            let before = format!("*a{}", level - 1);
            text + &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(", "))
        });
        let deep_flow = format!("policies: {}", "[".repeat(100_000));
        let deep_block: String =
            (0..500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        let long = format!("# {}\n", "x".repeat(yaml::TEXT_MAX));
        for text in [&bomb, &deep_flow, &deep_block, &long] {
            assert_eq!(problems(text).len(), 1, "{}…", &text[..20]);
        }
        for text in [
            "a: 1\na: 2\n",
            "{",
            "\u{0}",
            "--- a\n--- b\n",
            "policies: !!binary x",
            "&a [*a]",
            "? [a]: b\n: c\n",
            "policies: { p: { max_elapsed: 1e999 } }",
            "policies: { p: { rules: 3 } }",
            "[]",
            "7",
        ] {
            assert!(!problems(text).is_empty(), "{text}");
        }
    }
}
