//! A checked condition as a tree, and its evaluation.
//!
//! There is one kind of node for each type of value, so that nothing here can meet a value of
//! another type: what may fail is only what [`EvaluationError`] names. The time that an evaluation
//! takes is bounded by the size of the tree times the length of the texts in the scope, since
//! nothing loops and nothing multiplies a text.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::{ATTEMPTS_SEEN_MAX, ConditionScope, EvaluationError, FailureClass};
use crate::domain::pattern::Pattern;

type Evaluated<T> = Result<T, EvaluationError>;

/// A checked value of any type.
pub(super) enum Value {
    Test(Test),
    Int(Int),
    Double(Double),
    Text(Text),
    /// `last_exit_codes`.
    ExitCodes,
}

impl Value {
    /// With its article, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Test(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Double(_) => "a double",
            Self::Text(_) => "a string",
            Self::ExitCodes => "a list of int",
        }
    }
}

/// What is true or false.
pub(super) enum Test {
    Const(bool),
    Field(fn(&ConditionScope<'_>) -> bool),
    Not(Box<Test>),
    All(Box<[Test]>),
    Any(Box<[Test]>),
    Choice(Box<Choice<Test>>),
    Tests(Relation, Box<(Test, Test)>),
    Ints(Relation, Box<(Int, Int)>),
    Doubles(Relation, Box<(Double, Double)>),
    IntToDouble(Relation, Box<(Int, Double)>),
    Texts(Relation, Box<(Text, Text)>),
    IntIn(Box<Int>, Box<[Int]>),
    DoubleIn(Box<Double>, Box<[Double]>),
    TextIn(Box<Text>, Box<[Text]>),
    InExitCodes(Box<Int>),
    Part(Place, Box<(Text, Text)>),
    Matches(Box<Text>, Pattern),
}

/// A whole number.
pub(super) enum Int {
    Const(i64),
    Field(fn(&ConditionScope<'_>) -> i64),
    Count(FailureClass),
    Consecutive(FailureClass),
    TextSize(Box<Text>),
    ExitCodesSize,
    ExitCode(Box<Int>),
    Negated(Box<Int>),
    Result(Arithmetic, Box<(Int, Int)>),
    OfDouble(Box<Double>),
    OfText(Box<Text>),
    Choice(Box<Choice<Int>>),
}

/// A number with a fraction.
pub(super) enum Double {
    Const(f64),
    Field(fn(&ConditionScope<'_>) -> f64),
    Negated(Box<Double>),
    Result(Arithmetic, Box<(Double, Double)>),
    OfInt(Box<Int>),
    OfText(Box<Text>),
    Choice(Box<Choice<Double>>),
}

/// A string.
pub(super) enum Text {
    Const(Box<str>),
    /// With the only words it can be, where there are such.
    Field(for<'a> fn(&ConditionScope<'a>) -> &'a str, &'static [&'static str]),
    Joined(Box<(Text, Text)>),
    OfInt(Box<Int>),
    OfDouble(Box<Double>),
    OfTest(Box<Test>),
    Choice(Box<Choice<Text>>),
}

/// `on ? yes : no`.
pub(super) struct Choice<T> {
    pub on: Test,
    pub yes: T,
    pub no: T,
}

#[derive(Clone, Copy)]
pub(super) enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// Of ints only.
    Remainder,
}

/// Where in a text another one is looked for.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Start,
    End,
    Anywhere,
}

impl Test {
    pub fn holds(&self, scope: &ConditionScope<'_>) -> Evaluated<bool> {
        match self {
            Self::Const(truth) => Ok(*truth),
            Self::Field(read) => Ok(read(scope)),
            Self::Not(test) => Ok(!test.holds(scope)?),
            Self::All(tests) => settled_by(false, tests, scope),
            Self::Any(tests) => settled_by(true, tests, scope),
            Self::Choice(choice) => choice.branch(scope)?.holds(scope),
            Self::Tests(relation, sides) => {
                let (left, right) = (sides.0.holds(scope)?, sides.1.holds(scope)?);
                Ok(relation.admits(Some(left.cmp(&right))))
            }
            Self::Ints(relation, sides) => {
                let (left, right) = (sides.0.value(scope)?, sides.1.value(scope)?);
                Ok(relation.admits(Some(left.cmp(&right))))
            }
            Self::Doubles(relation, sides) => {
                let (left, right) = (sides.0.value(scope)?, sides.1.value(scope)?);
                Ok(relation.admits(left.partial_cmp(&right)))
            }
            Self::IntToDouble(relation, sides) => {
                let (left, right) = (sides.0.value(scope)?, sides.1.value(scope)?);
                Ok(relation.admits(int_to_double(left, right)))
            }
            Self::Texts(relation, sides) => {
                let (left, right) = (sides.0.value(scope)?, sides.1.value(scope)?);
                Ok(relation.admits(Some(left.cmp(&right))))
            }
            Self::IntIn(needle, list) => {
                let needle = needle.value(scope)?;
                any_is(list, |element| Ok(element.value(scope)? == needle))
            }
            Self::DoubleIn(needle, list) => {
                let needle = needle.value(scope)?;
                any_is(list, |element| Ok(element.value(scope)? == needle))
            }
            Self::TextIn(needle, list) => {
                let needle = needle.value(scope)?;
                any_is(list, |element| Ok(element.value(scope)? == needle))
            }
            Self::InExitCodes(needle) => {
                let needle = needle.value(scope)?;
                Ok(exit_codes(scope).iter().any(|&code| i64::from(code) == needle))
            }
            Self::Part(place, texts) => {
                let (whole, part) = (texts.0.value(scope)?, texts.1.value(scope)?);
                Ok(place.has(&whole, &part))
            }
            Self::Matches(text, pattern) => Ok(pattern.is_match(&text.value(scope)?)),
        }
    }
}

impl Int {
    pub fn value(&self, scope: &ConditionScope<'_>) -> Evaluated<i64> {
        match self {
            Self::Const(value) => Ok(*value),
            Self::Field(read) => Ok(read(scope)),
            Self::Count(class) => Ok(length(outcomes(scope).filter(|outcome| *outcome == class))),
            Self::Consecutive(class) => {
                Ok(length(outcomes(scope).take_while(|outcome| *outcome == class)))
            }
            Self::TextSize(text) => Ok(length(text.value(scope)?.chars())),
            Self::ExitCodesSize => Ok(length(exit_codes(scope).iter())),
            Self::ExitCode(index) => exit_code(index.value(scope)?, exit_codes(scope)),
            Self::Negated(value) => {
                value.value(scope)?.checked_neg().ok_or(EvaluationError::Overflow)
            }
            Self::Result(arithmetic, sides) => {
                arithmetic.of_ints(sides.0.value(scope)?, sides.1.value(scope)?)
            }
            Self::OfDouble(value) => whole_part(value.value(scope)?),
            Self::OfText(text) => text
                .value(scope)?
                .parse()
                .map_err(|_| EvaluationError::NotANumber { wanted: "int" }),
            Self::Choice(choice) => choice.branch(scope)?.value(scope),
        }
    }
}

impl Double {
    pub fn value(&self, scope: &ConditionScope<'_>) -> Evaluated<f64> {
        match self {
            Self::Const(value) => Ok(*value),
            Self::Field(read) => Ok(read(scope)),
            Self::Negated(value) => Ok(-value.value(scope)?),
            Self::Result(arithmetic, sides) => {
                Ok(arithmetic.of_doubles(sides.0.value(scope)?, sides.1.value(scope)?))
            }
            // Beyond 2⁵³ the nearest double, as in CEL.
            Self::OfInt(value) => Ok(value.value(scope)? as f64),
            Self::OfText(text) => text
                .value(scope)?
                .parse()
                .map_err(|_| EvaluationError::NotANumber { wanted: "double" }),
            Self::Choice(choice) => choice.branch(scope)?.value(scope),
        }
    }
}

impl Text {
    pub fn value<'a>(&'a self, scope: &ConditionScope<'a>) -> Evaluated<Cow<'a, str>> {
        match self {
            Self::Const(text) => Ok(Cow::Borrowed(text)),
            Self::Field(read, _) => Ok(Cow::Borrowed(read(scope))),
            Self::Joined(texts) => Ok(texts.0.value(scope)? + texts.1.value(scope)?),
            Self::OfInt(value) => Ok(Cow::Owned(value.value(scope)?.to_string())),
            Self::OfDouble(value) => Ok(Cow::Owned(value.value(scope)?.to_string())),
            Self::OfTest(test) => {
                Ok(Cow::Borrowed(if test.holds(scope)? { "true" } else { "false" }))
            }
            Self::Choice(choice) => choice.branch(scope)?.value(scope),
        }
    }
}

impl<T> Choice<T> {
    fn branch(&self, scope: &ConditionScope<'_>) -> Evaluated<&T> {
        Ok(if self.on.holds(scope)? { &self.yes } else { &self.no })
    }
}

impl Relation {
    /// Whether the relation is true of two values in that order. Values without one (a double that
    /// is not a number) are unequal and nothing else.
    fn admits(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => order.is_some_and(Ordering::is_le),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        }
    }

    /// The same relation with its sides swapped.
    pub fn mirrored(self) -> Self {
        match self {
            Self::Equal | Self::NotEqual => self,
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
        }
    }
}

impl Arithmetic {
    fn of_ints(self, left: i64, right: i64) -> Evaluated<i64> {
        if right == 0 && matches!(self, Self::Divide | Self::Remainder) {
            return Err(EvaluationError::DivisionByZero);
        }
        match self {
            Self::Add => left.checked_add(right),
            Self::Subtract => left.checked_sub(right),
            Self::Multiply => left.checked_mul(right),
            Self::Divide => left.checked_div(right),
            Self::Remainder => left.checked_rem(right),
        }
        .ok_or(EvaluationError::Overflow)
    }

    fn of_doubles(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Remainder => left % right,
        }
    }
}

impl Place {
    fn has(self, whole: &str, part: &str) -> bool {
        match self {
            Self::Start => whole.starts_with(part),
            Self::End => whole.ends_with(part),
            Self::Anywhere => whole.contains(part),
        }
    }
}

/// `&&` (settled by false) and `||` (settled by true). One side that settles the matter outweighs
/// an error on another, whichever stands first; otherwise the first error is the answer.
fn settled_by(settling: bool, tests: &[Test], scope: &ConditionScope<'_>) -> Evaluated<bool> {
    let mut answer = Ok(!settling);
    for test in tests {
        match test.holds(scope) {
            Ok(truth) if truth == settling => return Ok(settling),
            Ok(_) => {}
            Err(error) => answer = answer.and(Err(error)),
        }
    }
    answer
}

/// Whether any element is the wanted one. All are evaluated: an error in a list is an error, found
/// or not.
fn any_is<T>(list: &[T], is_wanted: impl Fn(&T) -> Evaluated<bool>) -> Evaluated<bool> {
    list.iter().try_fold(false, |found, element| Ok(is_wanted(element)? || found))
}

fn outcomes<'a>(scope: &ConditionScope<'a>) -> impl Iterator<Item = &'a FailureClass> {
    scope.outcomes.iter().take(ATTEMPTS_SEEN_MAX)
}

fn exit_codes<'a>(scope: &ConditionScope<'a>) -> &'a [i32] {
    &scope.last_exit_codes[..scope.last_exit_codes.len().min(ATTEMPTS_SEEN_MAX)]
}

fn exit_code(index: i64, codes: &[i32]) -> Evaluated<i64> {
    usize::try_from(index)
        .ok()
        .and_then(|index| codes.get(index))
        .map(|&code| i64::from(code))
        .ok_or(EvaluationError::NoSuchElement { index, length: codes.len() })
}

fn length(items: impl Iterator) -> i64 {
    // No text or list in memory has more items than an i64 counts.
    items.count() as i64
}

/// 2⁶³: the first double above every int. Its negative is the least int.
const INT_END: f64 = 9_223_372_036_854_775_808.0;

fn whole_part(value: f64) -> Evaluated<i64> {
    let fits = (-INT_END..INT_END).contains(&value);
    fits.then_some(value as i64).ok_or(EvaluationError::Overflow)
}

/// Compares by value, without rounding the int to a double first.
fn int_to_double(int: i64, double: f64) -> Option<Ordering> {
    match whole_part(double) {
        Ok(whole) => Some(int.cmp(&whole).then(0.0_f64.partial_cmp(&double.fract())?)),
        Err(_) => 0.0_f64.partial_cmp(&double),
    }
}
