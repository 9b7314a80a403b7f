//! YAML as a tree that knows where each part of it was written.
//!
//! Reading a document straight into types ends at its first fault, and forgets
//! the places that a later check would point at. So it is read into a tree
//! first; types are read from the tree, a part that is wrong is taken out of
//! it, and reading goes on until everything wrong is known.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize,
    de::{
        self, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
        SeqAccess, VariantAccess, Visitor,
    },
};
use serde_saphyr::{Spanned, budget::Budget};

use super::problem::{Origin, PROBLEMS_MAX, Place, Problem, Source, nearest};

/// Longest document, in bytes.
pub const TEXT_MAX: usize = 1 << 20;
/// Lists and mappings within one another at most.
const DEPTH_MAX: usize = 24;
/// Parts of a document at most, those that aliases repeat included.
const PARTS_MAX: usize = 200_000;

/// A part of a document.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub kind: Kind,
    /// Taken out, because it is wrong.
    pruned: bool,
}

/// What a part of a document is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Nothing: `null`, `~`, or no value at all.
    Nothing,
    /// true or false.
    Truth(bool),
    /// A whole number from 0.
    Count(u64),
    /// A whole number below 0.
    Negative(i64),
    /// Another number.
    Number(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order written.
    Map(Vec<Field>),
}

/// A key of a mapping and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub key_place: Place,
    /// The value.
    pub value: Node,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

/// A step on the way from a part to one within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into the mapping, by key.
    Key(String),
    /// Into the list, by position from 0.
    Item(usize),
}

/// Reads a document.
///
/// # Errors
/// It is not YAML, repeats a key, or asks for more than a file of policies has
/// any reason to.
pub fn parse(source: &Arc<Source>) -> Result<Node, Problem> {
    let at = |place| Origin::File(Arc::clone(source), place);
    let start = Place { line: 1, column: 1 };
    if source.text.len() > TEXT_MAX {
        return Err(Problem::new(
            at(start),
            "",
            &format!("{} bytes", source.text.len()),
            format!("accepted: at most {TEXT_MAX}"),
        ));
    }
    let mut options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let mut budget = Budget::default();
    budget.max_depth = DEPTH_MAX;
    budget.flow_nesting_limit = DEPTH_MAX;
    budget.max_nodes = PARTS_MAX;
    budget.max_events = 2 * PARTS_MAX;
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = PARTS_MAX;
    serde_saphyr::from_str_with_options::<Spanned<Tree>>(&source.text, options)
        .map(Node::from)
        .map_err(|error| {
            let place = error.location().and_then(place_of).unwrap_or(start);
            let message = error.without_snippet().to_string();
            Problem::new(at(place), "", "", message.lines().next().unwrap_or_default())
        })
}

fn place_of(location: serde_saphyr::Location) -> Option<Place> {
    let (line, column) =
        (usize::try_from(location.line()).ok()?, usize::try_from(location.column()).ok()?);
    (line > 0).then_some(Place { line, column: column.max(1) })
}

impl Node {
    /// A part that stands for a document without any.
    #[must_use]
    pub const fn nothing(place: Place) -> Self {
        Self { place, kind: Kind::Nothing, pruned: false }
    }

    /// The value in a few words, as a problem shows it.
    #[must_use]
    pub fn in_words(&self) -> String {
        match &self.kind {
            Kind::Nothing => "nothing".to_owned(),
            Kind::Truth(truth) => truth.to_string(),
            Kind::Count(number) => number.to_string(),
            Kind::Negative(number) => number.to_string(),
            Kind::Number(number) => number.to_string(),
            Kind::Text(text) => format!("{text:?}"),
            Kind::List(items) => format!("a list of {}", items.len()),
            Kind::Map(_) => "a mapping".to_owned(),
        }
    }

    /// Reads a value of a type out of the part. What is wrong is told, taken
    /// out, and reading begins again; None when nothing is left to read.
    pub fn read<T: for<'de> Deserialize<'de>>(
        &mut self,
        told: &mut impl FnMut(Fault),
    ) -> Option<T> {
        // Each round takes a part out, so the rounds end; the bound is for files
        // of which every line is wrong.
        for _ in 0..PROBLEMS_MAX {
            match T::deserialize(&*self) {
                Ok(value) => return Some(value),
                Err(fault) => {
                    let fault = *fault.0;
                    // What is missing because it was wrong has been told already.
                    let follows =
                        self.written(fault.steps.iter().rev()).is_some_and(Self::has_pruned);
                    let found = !fault.steps.is_empty() && self.prune(fault.steps.iter().rev());
                    if !follows {
                        told(fault);
                    }
                    if !found {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// The part at a path such as `rules[2].match`, among what was read, or the
    /// innermost one on the way that exists; with its real path.
    #[must_use]
    pub fn find(&self, path: &str) -> Found<'_> {
        let mut found = Found { place: self.place, node: self, path: String::new() };
        for step in steps(path) {
            let Some(next) = found.node.child(&step) else { break };
            found = Found { path: joined(&found.path, &next.1), place: next.0.place, node: next.0 };
        }
        found
    }

    /// Whether something at or below `path` was taken out.
    #[must_use]
    pub fn is_pruned_below(&self, path: &str) -> bool {
        let mut node = self;
        for step in steps(path) {
            match node.child(&step) {
                Some((child, _)) => node = child,
                None => return node.has_pruned_field(&step),
            }
        }
        node.has_pruned()
    }

    fn has_pruned_field(&self, step: &Step) -> bool {
        let (Kind::Map(fields), Step::Key(key)) = (&self.kind, step) else { return false };
        fields.iter().any(|field| field.key == *key && field.value.pruned)
    }

    fn has_pruned(&self) -> bool {
        self.pruned
            || match &self.kind {
                Kind::List(items) => items.iter().any(Self::has_pruned),
                Kind::Map(fields) => fields.iter().any(|field| field.value.has_pruned()),
                _ => false,
            }
    }

    /// The child that a reader saw under `step`, and the step as it is written.
    fn child(&self, step: &Step) -> Option<(&Self, Step)> {
        match (&self.kind, step) {
            (Kind::Map(fields), Step::Key(key)) => {
                let field = fields.iter().find(|field| field.key == *key && !field.value.pruned)?;
                Some((&field.value, step.clone()))
            }
            (Kind::List(items), Step::Item(seen)) => {
                let (at, item) =
                    items.iter().enumerate().filter(|(_, item)| !item.pruned).nth(*seen)?;
                Some((item, Step::Item(at)))
            }
            _ => None,
        }
    }

    /// The part that the steps lead to, by their places as written.
    fn written<'a>(&self, mut steps: impl Iterator<Item = &'a Step>) -> Option<&Self> {
        steps.try_fold(self, |node, step| match (&node.kind, step) {
            (Kind::Map(fields), Step::Key(key)) => {
                fields.iter().find(|field| field.key == *key).map(|field| &field.value)
            }
            (Kind::List(items), Step::Item(at)) => items.get(*at),
            _ => None,
        })
    }

    /// Takes out the part that the steps lead to, by their places as written.
    fn prune<'a>(&mut self, mut steps: impl Iterator<Item = &'a Step>) -> bool {
        let child = match (steps.next(), &mut self.kind) {
            (None, _) => return !std::mem::replace(&mut self.pruned, true),
            (Some(Step::Key(key)), Kind::Map(fields)) => {
                fields.iter_mut().find(|field| field.key == *key).map(|field| &mut field.value)
            }
            (Some(Step::Item(at)), Kind::List(items)) => items.get_mut(*at),
            _ => None,
        };
        child.is_some_and(|child| child.prune(steps))
    }
}

/// A part of a document that was looked for.
#[derive(Debug)]
pub struct Found<'a> {
    /// Where it is.
    pub place: Place,
    /// The part.
    pub node: &'a Node,
    /// Its path as written.
    pub path: String,
}

/// The path one step further.
#[must_use]
pub fn joined(path: &str, step: &Step) -> String {
    match step {
        Step::Item(at) => format!("{path}[{at}]"),
        Step::Key(key) if path.is_empty() => key.clone(),
        Step::Key(key) => format!("{path}.{key}"),
    }
}

/// The steps of a path such as `rules[2].match`.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (key, items) = part.split_once('[').unwrap_or((part, ""));
        steps.push(Step::Key(key.to_owned()));
        let items = items.split(['[', ']']).filter_map(|item| item.parse().ok());
        steps.extend(items.map(Step::Item));
    }
    steps
}

/// What the YAML reader hands over; places come around it.
struct Tree(Kind);

impl From<Spanned<Tree>> for Node {
    fn from(spanned: Spanned<Tree>) -> Self {
        // What an alias repeats is wrong where it is defined.
        let place = place_of(spanned.defined).or_else(|| place_of(spanned.referenced));
        Self {
            place: place.unwrap_or(Place { line: 1, column: 1 }),
            kind: spanned.value.0,
            pruned: false,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree(Kind::Nothing))
    }

    fn visit_none<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree(Kind::Nothing))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Tree, E> {
        Ok(Tree(Kind::Truth(truth)))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree(Kind::Count(number)))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree(u64::try_from(number).map_or(Kind::Negative(number), Kind::Count)))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Tree, E> {
        Ok(Tree(Kind::Number(number)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree(Kind::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Tree>>()? {
            list.push(item.into());
        }
        Ok(Tree(Kind::List(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let value: Node = entries.next_value::<Spanned<Tree>>()?.into();
            let key_place = place_of(key.defined).unwrap_or(value.place);
            fields.push(Field { key: key.value, key_place, value });
        }
        Ok(Tree(Kind::Map(fields)))
    }
}

/// One thing that keeps a part from being read as a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where; None until a part of the tree has claimed it.
    pub place: Option<Place>,
    /// The way to it from the part that was read, the last step first.
    pub steps: Vec<Step>,
    /// The value.
    pub value: String,
    /// What is wrong, or would be accepted.
    pub message: String,
}

impl Fault {
    /// The path from the part that was read.
    #[must_use]
    pub fn path(&self) -> String {
        self.steps.iter().rev().fold(String::new(), |path, step| joined(&path, step))
    }
}

/// A [`Fault`] on its way up; boxed, since every reading may return one.
#[derive(Debug)]
pub struct Unread(Box<Fault>);

impl Unread {
    fn new(message: String) -> Self {
        Self(Box::new(Fault { place: None, steps: Vec::new(), value: String::new(), message }))
    }

    /// Claims a fault for a part, unless one within it has.
    fn at(mut self, place: Place, value: impl FnOnce() -> String) -> Self {
        if self.0.place.is_none() {
            self.0.place = Some(place);
            self.0.value = value();
        }
        self
    }

    fn below(mut self, step: Step) -> Self {
        self.0.steps.push(step);
        self
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Unread {}

impl de::Error for Unread {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("accepted: {}", in_words(&expected.to_string())))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("accepted: {}", in_words(&expected.to_string())))
    }

    fn unknown_variant(given: &str, accepted: &'static [&'static str]) -> Self {
        Self::new(format!("{}accepted: {}", meant(given, accepted), accepted.join(", ")))
    }

    fn unknown_field(given: &str, accepted: &'static [&'static str]) -> Self {
        let known = if accepted.is_empty() { "none".to_owned() } else { accepted.join(", ") };
        Self::new(format!("there is no such field; {}accepted: {known}", meant(given, accepted)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("{field} is missing, and required"))
    }
}

fn meant(given: &str, accepted: &[&str]) -> String {
    nearest(given, accepted.iter().copied())
        .map(|name| format!("did you mean {name}? "))
        .unwrap_or_default()
}

/// What serde expects, in the words of somebody who writes YAML.
fn in_words(expected: &str) -> String {
    match expected {
        "u32" => "a whole number, 0 to 4294967295".to_owned(),
        "u64" => "a whole number, 0 or more".to_owned(),
        "i32" => "a whole number, -2147483648 to 2147483647".to_owned(),
        "f64" => "a number".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a string" => "text; a value that looks like something else stands in quotes".to_owned(),
        "newtype variant" => "this kind with its value, as in {ratio: 0.2}".to_owned(),
        "unit variant" => "this kind without a value".to_owned(),
        other if other.starts_with("struct ") => "a mapping".to_owned(),
        other => other.to_owned(),
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Unread;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        let read = match &self.kind {
            Kind::Nothing => visitor.visit_unit(),
            Kind::Truth(truth) => visitor.visit_bool(*truth),
            Kind::Count(number) => visitor.visit_u64(*number),
            Kind::Negative(number) => visitor.visit_i64(*number),
            Kind::Number(number) => visitor.visit_f64(*number),
            Kind::Text(text) => visitor.visit_borrowed_str(text),
            Kind::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Kind::Map(fields) => visitor.visit_map(Fields { fields: fields.iter(), value: None }),
        };
        read.map_err(|error| error.at(self.place, || self.in_words()))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        match self.kind {
            Kind::Nothing => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unread> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unread> {
        let read = match &self.kind {
            Kind::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Kind::Map(fields) => {
                match fields.iter().filter(|field| !field.value.pruned).collect::<Vec<_>>()[..] {
                    [field] => visitor.visit_enum(Variant(field)),
                    _ => Err(Unread::custom("accepted: a name, or a mapping with one key")),
                }
            }
            _ => Err(Unread::custom("accepted: a name, or a mapping with one key")),
        };
        read.map_err(|error| error.at(self.place, || self.in_words()))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Unread;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unread> {
        let Some((at, item)) = self.items.find(|(_, item)| !item.pruned) else { return Ok(None) };
        seed.deserialize(item)
            .map(Some)
            .map_err(|error| error.at(item.place, || item.in_words()).below(Step::Item(at)))
    }
}

struct Fields<'de> {
    fields: std::slice::Iter<'de, Field>,
    value: Option<&'de Field>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Unread;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unread> {
        // A key without a value leaves the field out.
        let said = |field: &&Field| !field.value.pruned && field.value.kind != Kind::Nothing;
        let Some(field) = self.fields.find(said) else { return Ok(None) };
        self.value = Some(field);
        let key: de::value::StrDeserializer<'_, Unread> = field.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| {
            error.at(field.key_place, String::new).below(Step::Key(field.key.clone()))
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unread> {
        let Some(field) = self.value.take() else {
            return Err(Unread::custom("a value was asked for before its key"));
        };
        let value = &field.value;
        seed.deserialize(value).map_err(|error| {
            error.at(value.place, || value.in_words()).below(Step::Key(field.key.clone()))
        })
    }
}

/// A variant with a value: `{ratio: 0.2}`.
struct Variant<'de>(&'de Field);

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Unread;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Unread> {
        let key: de::value::StrDeserializer<'_, Unread> = self.0.key.as_str().into_deserializer();
        let variant = seed.deserialize(key);
        let step = || Step::Key(self.0.key.clone());
        variant
            .map(|variant| (variant, self.again()))
            .map_err(|error| error.at(self.0.key_place, String::new).below(step()))
    }
}

impl<'de> Variant<'de> {
    const fn again(&self) -> Self {
        Self(self.0)
    }

    fn within(&self, error: Unread) -> Unread {
        let value = &self.0.value;
        error.at(value.place, || value.in_words()).below(Step::Key(self.0.key.clone()))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Unread;

    fn unit_variant(self) -> Result<(), Unread> {
        Err(self.within(Unread::custom("accepted: its name alone, without a value")))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Unread> {
        seed.deserialize(&self.0.value).map_err(|error| self.within(error))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Unread> {
        self.0.value.deserialize_any(visitor).map_err(|error| self.within(error))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unread> {
        self.0.value.deserialize_any(visitor).map_err(|error| self.within(error))
    }
}
