//! What a condition can read of `failure` and `step`: each name, its type, and where it is found.

use super::expression::{Double, Int, Relation, Test, Text, Value};
use super::{ConditionScope, FailureClass};

/// A field of `failure` or `step`.
pub(super) struct Field {
    pub name: &'static str,
    reader: Reader,
}

/// How a field is read. The ints and doubles that may be unknown carry the value that says so.
#[derive(Clone, Copy)]
enum Reader {
    Test(fn(&ConditionScope<'_>) -> bool),
    Int(fn(&ConditionScope<'_>) -> i64, Option<i64>),
    Double(fn(&ConditionScope<'_>) -> f64, Option<f64>),
    Text(for<'a> fn(&ConditionScope<'a>) -> &'a str),
    /// One of a few words.
    Word(for<'a> fn(&ConditionScope<'a>) -> &'a str, &'static [&'static str]),
}

impl Field {
    const fn new(name: &'static str, reader: Reader) -> Self {
        Self { name, reader }
    }

    pub fn read(&self) -> Value {
        match self.reader {
            Reader::Test(read) => Value::Test(Test::Field(read)),
            Reader::Int(read, _) => Value::Int(Int::Field(read)),
            Reader::Double(read, _) => Value::Double(Double::Field(read)),
            Reader::Text(read) => Value::Text(Text::Field(read, &[])),
            Reader::Word(read, words) => Value::Text(Text::Field(read, words)),
        }
    }

    /// What `has()` asks.
    pub fn is_present(&self) -> Test {
        match (self.reader, self.read()) {
            (Reader::Int(_, Some(absent)), Value::Int(int)) => {
                Test::Ints(Relation::NotEqual, Box::new((int, Int::Const(absent))))
            }
            (Reader::Double(_, Some(absent)), Value::Double(double)) => {
                Test::Doubles(Relation::NotEqual, Box::new((double, Double::Const(absent))))
            }
            (_, Value::Text(text)) => {
                Test::Texts(Relation::NotEqual, Box::new((text, Text::Const("".into()))))
            }
            _ => Test::Const(true),
        }
    }
}

const FAILURE: &[Field] = &[
    Field::new("class", Reader::Word(|scope| scope.failure.class.name(), &CLASSES)),
    Field::new("error_type", Reader::Text(|scope| scope.failure.error_type)),
    Field::new("code", Reader::Text(|scope| scope.failure.code)),
    Field::new("exit_code", Reader::Int(|scope| scope.failure.exit_code.into(), Some(-1))),
    Field::new("signal", Reader::Int(|scope| scope.failure.signal.into(), Some(0))),
    Field::new("message", Reader::Text(|scope| scope.failure.message)),
    Field::new("cause", Reader::Text(|scope| scope.failure.cause)),
    Field::new("host", Reader::Text(|scope| scope.failure.host)),
    Field::new("worker", Reader::Text(|scope| scope.failure.worker)),
    Field::new("target", Reader::Text(|scope| scope.failure.target)),
    Field::new("action", Reader::Text(|scope| scope.failure.action)),
    Field::new("duration_s", Reader::Double(|scope| scope.failure.duration_s, Some(0.0))),
    Field::new(
        "executed",
        Reader::Word(|scope| scope.failure.executed, &["NO", "MAYBE", "YES", ""]),
    ),
    Field::new("retryable", Reader::Test(|scope| scope.failure.retryable)),
];

const STEP: &[Field] = &[
    Field::new("namespace", Reader::Text(|scope| scope.step.namespace)),
    Field::new("run", Reader::Text(|scope| scope.step.run)),
    Field::new("name", Reader::Text(|scope| scope.step.name)),
    Field::new("kind", Reader::Text(|scope| scope.step.kind)),
    Field::new("attempt", Reader::Int(|scope| scope.step.attempt.into(), None)),
    Field::new("retries", Reader::Int(|scope| scope.step.retries.into(), None)),
    Field::new("uncounted", Reader::Int(|scope| scope.step.uncounted.into(), None)),
    Field::new("crashes", Reader::Int(|scope| scope.step.crashes.into(), None)),
    Field::new("elapsed_s", Reader::Double(|scope| scope.step.elapsed_s, None)),
];

const CLASSES: [&str; FailureClass::ALL.len()] = {
    let mut names = [""; FailureClass::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = FailureClass::ALL[index].name();
        index += 1;
    }
    names
};

pub(super) fn fields(variable: &str) -> Option<&'static [Field]> {
    match variable {
        "failure" => Some(FAILURE),
        "step" => Some(STEP),
        _ => None,
    }
}

pub(super) fn names(fields: &[Field]) -> String {
    fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ")
}
