//! The table of what is accepted and refused, the meaning of what is accepted, and the properties
//! that hold for every source.

use cel::{Context, Env, Value};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

use super::compile::NOTHING;
use super::*;

const OUTCOMES: [FailureClass; 5] = [
    FailureClass::Transient,
    FailureClass::Transient,
    FailureClass::Timeout,
    FailureClass::Transient,
    FailureClass::Crash,
];

const EXIT_CODES: [i32; 4] = [137, 1, -1, 143];

const SCOPE: ConditionScope<'static> = ConditionScope {
    failure: FailureView {
        class: FailureClass::Transient,
        error_type: "java.net.ConnectException",
        code: "503",
        exit_code: 137,
        signal: 9,
        message: "connection to warehöuse reset by peer",
        cause: "c0ffee",
        host: "node-17",
        worker: "w-3",
        target: "warehouse-db",
        action: "load",
        duration_s: 12.5,
        executed: "MAYBE",
        retryable: true,
    },
    step: StepView {
        namespace: "etl",
        run: "2024-06-01",
        name: "load-orders",
        kind: "sql",
        attempt: 4,
        retries: 2,
        uncounted: 1,
        crashes: 1,
        elapsed_s: 95.25,
    },
    outcomes: &OUTCOMES,
    last_exit_codes: &EXIT_CODES,
};

fn holds(source: &str, scope: &ConditionScope<'_>) -> Result<bool, EvaluationError> {
    match Condition::parse(source) {
        Ok(condition) => condition.holds(scope),
        Err(error) => panic!("{source}: {error}"),
    }
}

fn refusal(source: &str) -> ConditionError {
    match Condition::parse(source) {
        Ok(_) => panic!("accepted: {source}"),
        Err(error) => error,
    }
}

#[test]
fn every_name_of_the_reference_reads_what_it_says() {
    for source in [
        r#"failure.class == "TRANSIENT""#,
        r#"failure.error_type == "java.net.ConnectException""#,
        r#"failure.code == "503""#,
        "failure.exit_code == 137",
        "failure.signal == 9",
        r#"failure.message == "connection to warehöuse reset by peer""#,
        r#"failure.cause == "c0ffee""#,
        r#"failure.host == "node-17""#,
        r#"failure.worker == "w-3""#,
        r#"failure.target == "warehouse-db""#,
        r#"failure.action == "load""#,
        "failure.duration_s == 12.5",
        r#"failure.executed == "MAYBE""#,
        "failure.retryable",
        r#"step.namespace == "etl""#,
        r#"step.run == "2024-06-01""#,
        r#"step.name == "load-orders""#,
        r#"step.kind == "sql""#,
        "step.attempt == 4",
        "step.retries == 2",
        "step.uncounted == 1",
        "step.crashes == 1",
        "step.elapsed_s == 95.25",
        "last_exit_codes[0] == 137 && last_exit_codes[3] == 143",
        "size(last_exit_codes) == 4",
        r#"count("TRANSIENT") == 3"#,
        r#"count("THROTTLED") == 0"#,
        r#"consecutive("TRANSIENT") == 2"#,
        r#"consecutive("TIMEOUT") == 0"#,
    ] {
        assert_eq!(holds(source, &SCOPE), Ok(true), "{source}");
    }
}

#[test]
fn operators_and_functions_mean_what_cel_says() {
    for (source, expected) in [
        ("true", Ok(true)),
        ("!failure.retryable", Ok(false)),
        ("!!failure.retryable == true", Ok(true)),
        ("failure.retryable != (step.attempt > 4)", Ok(true)),
        ("1 + 2 * 3 - 4 / 2 == 5 && -7 % 3 == -1 && -7 / 2 == -3", Ok(true)),
        ("step.attempt - step.retries * 2 == 0", Ok(true)),
        ("-step.attempt == -4 && - failure.duration_s == -12.5", Ok(true)),
        ("0x10 == 16 && 1e3 == 1000.0", Ok(true)),
        ("failure.duration_s * 2.0 + 1.0 > 25.5", Ok(true)),
        ("failure.duration_s / 0.0 > 1e300", Ok(true)),
        ("failure.duration_s > 12 && 13 > failure.duration_s && 12 < failure.duration_s", Ok(true)),
        ("failure.duration_s == 12 || failure.duration_s <= 12", Ok(false)),
        ("-9223372036854775808 < -9223372036854775807.0", Ok(false)),
        ("9007199254740993 == 9007199254740992.0", Ok(false)),
        ("9007199254740993 > 9007199254740992.0", Ok(true)),
        ("-1 > -1.5 && -2 < -1.5 && 0 == -0.0", Ok(true)),
        (
            r#"double("nan") == double("nan") || double("nan") < 1.0 || 1 < double("nan")"#,
            Ok(false),
        ),
        (
            r#"double("nan") != 1 && step.attempt < double("inf") && step.attempt > double("-inf")"#,
            Ok(true),
        ),
        ("failure.exit_code in [1, 137] && !(failure.exit_code in [2])", Ok(true)),
        ("failure.duration_s in [1.0, 12.5]", Ok(true)),
        (r#"failure.class in ["TIMEOUT", "TRANSIENT"]"#, Ok(true)),
        (r#""x" + failure.host in ["xnode-17"]"#, Ok(true)),
        ("143 in last_exit_codes && !(2 in last_exit_codes)", Ok(true)),
        ("last_exit_codes[step.retries - 2] == 137", Ok(true)),
        (r#"failure.message.startsWith("conn") && failure.message.endsWith("peer")"#, Ok(true)),
        (r#"failure.message.contains("reset") && !failure.message.contains("Reset")"#, Ok(true)),
        (
            r#"failure.message.matches("(?i)RESET by") && matches(failure.host, "^node-\\d+$")"#,
            Ok(true),
        ),
        (r#"failure.message.matches(r"^\w+ to \S+ reset")"#, Ok(true)),
        (r#""warehöuse".size() == 9 && size("") == 0 && last_exit_codes.size() == 4"#, Ok(true)),
        (r#""abc" < "abd" && "Z" < "a" && "a" <= "a" && "b" > "a" && "b" >= "b""#, Ok(true)),
        (r#""a" + "b" == 'ab'"#, Ok(true)),
        (
            r#"int(failure.code) / 100 == 5 && int("-7") == -7 && int(-2.9) == -2 && int(3) == 3"#,
            Ok(true),
        ),
        (
            r#"double(step.retries) * 1.5 == 3.0 && double("2.5") == 2.5 && double(1.5) == 1.5"#,
            Ok(true),
        ),
        (r#"string(failure.exit_code) == "137" && string(1.5) == "1.5""#, Ok(true)),
        (r#"string(true) == "true" && string(failure.host) == "node-17""#, Ok(true)),
        ("step.attempt > 3 ? failure.retryable : false", Ok(true)),
        (r#"(step.attempt > 9 ? "a" : step.attempt > 3 ? "b" : "c") == "b""#, Ok(true)),
        ("(failure.retryable ? 1 : 2) == 1 && (failure.retryable ? 1.5 : 2.5) == 1.5", Ok(true)),
        ("step.attempt\n  > 3 // a comment\n  && failure.retryable", Ok(true)),
    ] {
        assert_eq!(holds(source, &SCOPE), expected, "{source}");
    }
}

#[test]
fn has_asks_whether_it_was_reported() {
    for field in ["code", "error_type", "exit_code", "signal", "duration_s", "executed", "target"] {
        let source = format!("has(failure.{field})");
        assert_eq!(holds(&source, &SCOPE), Ok(true), "{source}");
        assert_eq!(holds(&source, &NOTHING), Ok(false), "{source}");
    }
    for source in ["has(failure.class)", "has(failure.retryable)", "has(step.retries)"] {
        assert_eq!(holds(source, &NOTHING), Ok(true), "{source}");
    }
}

#[test]
fn an_evaluation_without_an_answer_says_why() {
    let not_a = |wanted| Err(EvaluationError::NotANumber { wanted });
    for (source, expected) in [
        ("last_exit_codes[4] == 1", Err(EvaluationError::NoSuchElement { index: 4, length: 4 })),
        (
            "last_exit_codes[step.retries - 3] == 1",
            Err(EvaluationError::NoSuchElement { index: -1, length: 4 }),
        ),
        ("1 / (step.retries - 2) == 1", Err(EvaluationError::DivisionByZero)),
        ("1 % (step.retries - 2) == 1", Err(EvaluationError::DivisionByZero)),
        ("step.retries + 9223372036854775807 > 0", Err(EvaluationError::Overflow)),
        ("step.retries * 9223372036854775807 > 0", Err(EvaluationError::Overflow)),
        ("-9223372036854775808 / (1 - step.retries) > 0", Err(EvaluationError::Overflow)),
        ("-9223372036854775808 % (1 - step.retries) > 0", Err(EvaluationError::Overflow)),
        ("-(step.retries - 2 + -9223372036854775808) > 0", Err(EvaluationError::Overflow)),
        ("int(failure.duration_s * 1e300) > 0", Err(EvaluationError::Overflow)),
        ("int(failure.duration_s / 0.0) > 0", Err(EvaluationError::Overflow)),
        ("int(failure.host) == 1", not_a("int")),
        ("double(failure.host) == 1.0", not_a("double")),
        ("1 in [1, int(failure.host)]", not_a("int")),
    ] {
        assert_eq!(holds(source, &SCOPE), expected, "{source}");
    }
}

#[test]
fn a_side_that_decides_outweighs_an_error_on_the_other() {
    let error = Err(EvaluationError::NoSuchElement { index: 9, length: 4 });
    for (source, expected) in [
        ("last_exit_codes[9] == 1 || failure.retryable", Ok(true)),
        ("failure.retryable || last_exit_codes[9] == 1", Ok(true)),
        ("last_exit_codes[9] == 1 && !failure.retryable", Ok(false)),
        ("!failure.retryable && last_exit_codes[9] == 1", Ok(false)),
        ("last_exit_codes[9] == 1 || !failure.retryable", error),
        ("failure.retryable && last_exit_codes[9] == 1", error),
        ("last_exit_codes[9] == 1 && int(failure.host) == 1", error),
        ("!(last_exit_codes[9] == 1)", error),
        ("last_exit_codes[9] == 1 ? true : true", error),
        ("failure.retryable ? true : last_exit_codes[9] == 1", Ok(true)),
    ] {
        assert_eq!(holds(source, &SCOPE), expected, "{source}");
    }
}

#[test]
fn only_the_last_sixteen_attempts_are_seen() {
    let outcomes = [FailureClass::Crash; 20];
    let last_exit_codes = [1; 20];
    let scope = ConditionScope { outcomes: &outcomes, last_exit_codes: &last_exit_codes, ..SCOPE };
    for source in
        [r#"count("CRASH") == 16 && consecutive("CRASH") == 16"#, "size(last_exit_codes) == 16"]
    {
        assert_eq!(holds(source, &scope), Ok(true), "{source}");
    }
    assert!(holds("last_exit_codes[16] == 1", &scope).is_err());
}

#[test]
fn a_refusal_says_what_where_and_what_would_be_accepted() {
    let mut wrong = Vec::new();
    for (source, column, expected) in [
        // Syntax.
        ("", 1, "the condition is empty; accepted: an expression"),
        ("  // nothing\n", 1, "the condition is empty"),
        (
            "step.attempt >",
            15,
            "mismatched input '<EOF>' expecting expression; accepted: CEL syntax",
        ),
        ("step.attempt > 1)", 17, "mismatched input ')' expecting <EOF> in `)`"),
        ("(step.attempt > 1", 18, "expected ')'"),
        ("failure.retryable & true", 19, "unexpected single '&', expected '&&' in `&`"),
        ("failure.retryable and true", 19, "mismatched input 'and' expecting <EOF>"),
        ("failure.host == 'x", 17, "unterminated string literal in `'x`"),
        ("step.attempt = 1", 14, "mismatched input '=' expecting <EOF>"),
        ("'é' == é", 8, "unexpected character in `é`"),
        ("a\u{0}b", 2, "unexpected character in `\\u{0}`"),
        ("9223372036854775808 > 1", 1, "invalid int literal"),
        // Names.
        (
            "attempt > 1",
            1,
            "unknown variable attempt in `attempt`; accepted: failure, step, last_exit_codes",
        ),
        ("true && request.method == 'x'", 9, "unknown variable request"),
        (
            "failure.clas == 'x'",
            1,
            "unknown field clas of failure in `failure.clas`; accepted: class, error_type",
        ),
        (
            "step.duration_s > 1.0",
            1,
            "unknown field duration_s of step in `step.duration_s`; accepted: namespace",
        ),
        ("failure.host.name == 'x'", 1, "a string has no field name in `failure.host`"),
        ("has(failure.clas)", 5, "unknown field clas of failure"),
        ("has(failure)", 5, "invalid argument to has() macro"),
        ("failure == step", 1, "failure stands alone in `failure`; accepted: a field of it: class"),
        ("failure['class'] == 'x'", 1, "failure stands alone"),
        (
            "max(1, 2) == 2",
            1,
            "unknown function max() in `max`; accepted: count, consecutive, size",
        ),
        ("duration('1s') > 1", 1, "unknown function duration()"),
        (
            "failure.host.lowerAscii() == 'x'",
            14,
            "unknown method lowerAscii() in `lowerAscii`; accepted: startsWith",
        ),
        ("contains(failure.host, 'x')", 1, "contains() stands alone"),
        ("failure.host.contains('a', 'b')", 14, "contains() takes one argument"),
        ("size() == 1", 1, "size() takes one argument"),
        (".failure.retryable", 2, "unknown variable .failure"),
        // Loops.
        (
            "last_exit_codes.all(c, c == 1)",
            17,
            "all() loops over a list in `all`; accepted: what takes one step",
        ),
        ("last_exit_codes.exists(c, c == 1)", 17, "exists() loops"),
        ("last_exit_codes.exists_one(c, c == 1)", 17, "exists_one() loops"),
        ("last_exit_codes.map(c, c) == []", 17, "map() loops"),
        ("size(last_exit_codes.filter(c, c == 1)) > 0", 22, "filter() loops"),
        ("last_exit_codes . all (c, c == 1)", 19, "all() loops"),
        // Types.
        (
            "step.attempt",
            1,
            "the condition is an int, not a bool in `step.attempt`; accepted: what is true or false",
        ),
        ("last_exit_codes", 1, "the condition is a list of int, not a bool"),
        (
            "failure.exit_code == '137'",
            1,
            "an int is compared with a string in `failure.exit_code == '137'`",
        ),
        ("failure.code >= 500", 1, "a string is compared with an int"),
        ("failure.retryable < true", 1, "a bool is compared with a bool"),
        ("last_exit_codes == [1]", 21, "a list stands alone"),
        (
            "failure.retryable && step.attempt",
            22,
            "this is an int in `step.attempt`; accepted: a bool",
        ),
        (
            "(-step.attempt) == (('a'))",
            1,
            "an int is compared with a string in `(-step.attempt) == (('a'))`",
        ),
        ("!step.attempt", 2, "this is an int"),
        ("-failure.host == 'x'", 2, "this is a string"),
        (
            "failure.duration_s * 2 > 1",
            1,
            "arithmetic on a double and an int in `failure.duration_s * 2`",
        ),
        ("failure.host * 2 == 'x'", 1, "arithmetic on a string and an int"),
        ("failure.duration_s % 2.0 > 1.0", 1, "the remainder of doubles"),
        ("failure.host in 'abc'", 17, "a string in a string"),
        ("failure.host in [1]", 18, "this is an int in `1`; accepted: a string"),
        ("failure.exit_code in [1, 2.0]", 26, "this is a double"),
        ("failure.exit_code in []", 1, "the list after `in` is empty"),
        ("failure.retryable in [true]", 1, "a bool in a list"),
        ("failure.host[0] == 'n'", 1, "a string has no elements"),
        ("last_exit_codes['0'] == 1", 17, "this is a string"),
        ("last_exit_codes[-1] == 1", 18, "there is no element -1"),
        ("(failure.retryable ? 1 : 'a') == 1", 22, "the branches are an int and a string"),
        ("size(1) == 1", 6, "this is an int in `1`; accepted: a string or last_exit_codes"),
        ("failure.host.startsWith(1)", 25, "this is an int"),
        ("int(failure.retryable) == 1", 5, "this is a bool"),
        ("string(last_exit_codes) == ''", 8, "this is a list of int"),
        ("5u == 5", 1, "an unsigned int in `5u`; accepted: an int, without the u"),
        ("b'x' == 'x'", 1, "bytes"),
        ("failure.code == null", 17, "null: nothing is ever null here"),
        ("size({'a': 1}) == 1", 7, "a map or message is of no use here"),
        ("Foo{a: 1} == 1", 1, "a map or message"),
        // A wrong part is found where a dry run would not come by.
        ("failure.retryable || 'a' + 1 == 2", 22, "arithmetic on a string and an int"),
        // Closed words.
        (
            r#"failure.class == "TRANSIET""#,
            1,
            r#"it is never "TRANSIET" in `failure.class == "TRANSIET"`; accepted: "FAILURE", "ERROR""#,
        ),
        (r#"failure.class in ["TIMEOUT", "TIMED_OUT"]"#, 1, r#"it is never "TIMED_OUT""#),
        (
            r#""no" == failure.executed"#,
            1,
            r#"it is never "no" in `"no" == failure.executed`; accepted: "NO", "MAYBE", "YES", """#,
        ),
        (
            "count(\"FLAKY\") > 1",
            7,
            "unknown class \"FLAKY\" in `\"FLAKY\"`; accepted: \"FAILURE\", \"ERROR\"",
        ),
        ("consecutive(failure.class) > 1", 21, "the class is not written out"),
        ("count() > 1", 1, "count() takes one argument"),
        // Patterns.
        ("failure.message.matches('(')", 25, "not a regular expression: unclosed group"),
        ("failure.message.matches('(?=x)')", 25, "look-around"),
        (
            "failure.message.matches(failure.host)",
            33,
            "the pattern of matches() is not written out",
        ),
        ("failure.message.matches('a' + 'b')", 31, "the pattern of matches() is not written out"),
        (r"failure.message.matches(r'(\w{99}){99}')", 25, "when compiled"),
        ("matches(failure.message)", 1, "matches() takes a text and a pattern"),
        // What could never have a value.
        ("1 / 0 == 1", 1, "always fails: division by zero in `1 / 0`"),
        ("step.attempt % 0 == 1", 1, "always fails: division by zero"),
        ("9223372036854775807 + 1 > 0", 1, "always fails: integer overflow"),
        ("int('abc') == 1", 5, "always fails: int() of a text that is no int"),
        ("double('abc') == 1.0", 8, "always fails: double()"),
    ] {
        let error = refusal(source);
        let message = error.to_string();
        if !message.contains(expected) || error.column != column {
            wrong.push(format!("{source}\n got: {message}\nwant: column {column}: {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_refusal_counts_lines_and_characters() {
    let error = refusal("failure.host == 'ü' &&\n 'ü' == attempt");
    assert_eq!((error.line, error.column), (2, 9));
    let long = format!("failure.host == '{}' + 1", "x".repeat(100));
    assert!(refusal(&long).excerpt.ends_with("xx…"));
    assert!(refusal("'a\nb' == 1").excerpt.contains("a\\nb"));
}

#[test]
fn hostile_sources_are_refused_before_they_cost_anything() {
    let nested = |open: &str, close: &str, times: usize| {
        format!("{}true{}", open.repeat(times), close.repeat(times))
    };
    for (source, expected) in [
        ("x".repeat(1025), "the condition has 1025 bytes; accepted: at most 1024 bytes"),
        (nested("(", ")", 500), "too many brackets within brackets"),
        ("(".repeat(1024), "too many brackets"),
        ("[".repeat(1024), "too many brackets"),
        ("{".repeat(1024), "too many brackets"),
        ("a(".repeat(512), "too many brackets"),
        ("a[".repeat(512), "too many brackets"),
        ("a?".repeat(512), "too many conditionals"),
        (format!("{}true", "true?true:".repeat(100)), "too many conditionals"),
        (format!("{}true", "!-".repeat(500)), "too many names, literals and signs"),
        (format!("{}true", "!-".repeat(200)), "nested too deeply"),
        (format!("step{}", ".a".repeat(500)), "too many names, literals and signs"),
        (format!("step{}", ".a".repeat(200)), "nested too deeply"),
        (format!("step{}", ".a()".repeat(100)), "nested too deeply"),
        (format!("1{}", "+1".repeat(500)), "too many names, literals and signs"),
        (format!("1{}", "+1".repeat(200)), "nested too deeply"),
        (format!("1{}", "<1".repeat(200)), "nested too deeply"),
        (format!("last_exit_codes{}", "[0]".repeat(120)), "nested too deeply"),
        (format!("1<2{}", "&&1<2".repeat(90)), "too large"),
        (format!("1 in [1{}]", ",1".repeat(250)), ""),
        (format!("true{}", "&&true".repeat(170)), ""),
        (nested("!(", ")", 16), ""),
        (["failure.host.matches('a')"; 9].join("||"), "too many patterns"),
    ] {
        match (on_a_small_stack(&source), expected) {
            (Ok(_), "") => {}
            (Ok(_), _) => panic!("accepted: {source}"),
            (Err(error), _) => {
                assert!(
                    !expected.is_empty() && error.to_string().contains(expected),
                    "{source}: {error}"
                );
            }
        }
    }
}

/// Parses, evaluates and drops with a quarter of the stack that a thread usually has.
fn on_a_small_stack(source: &str) -> Result<bool, ConditionError> {
    let source = source.to_owned();
    let thread = std::thread::Builder::new().stack_size(512 * 1024);
    let work = move || Condition::parse(&source).map(|condition| condition.holds(&SCOPE).unwrap());
    thread.spawn(work).unwrap().join().unwrap()
}

#[test]
fn is_equal_by_source_and_prints_it() {
    let condition = Condition::parse("true").unwrap();
    assert_eq!(condition, condition.clone());
    assert_ne!(condition, Condition::parse("true ").unwrap());
    assert_eq!(format!("{condition:?}"), r#"Condition("true")"#);
    assert_eq!(condition.source(), "true");
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    shared(&condition);
}

/// Sources of each type, as an operator could write them: always accepted, unless too large or
/// bound to fail.
mod sources {
    use super::*;

    pub fn test() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("true".to_owned()),
            Just("failure.retryable".to_owned()),
            relation_of(int(0), int(0)),
            relation_of(double(0), int(0)),
            relation_of(double(0), double(0)),
            relation_of(text(0), text(0)),
            int(1).prop_map(|int| format!("{int} in last_exit_codes")),
            (int(1), int(1), int(1)).prop_map(|(a, b, c)| format!("{a} in [{b}, {c}]")),
            (text(1), text(0)).prop_map(|(a, b)| format!("{a} in [{b}, 'load']")),
            (text(1), text(0), prop::sample::select(vec!["startsWith", "endsWith", "contains"]))
                .prop_map(|(a, b, method)| format!("({a}).{method}({b})")),
            text(1).prop_map(|text| format!("({text}).matches('e.*[rt]')")),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) || ({b})")),
                inner.clone().prop_map(|a| format!("!({a})")),
                (inner.clone(), inner.clone(), inner)
                    .prop_map(|(a, b, c)| format!("({a}) ? ({b}) : ({c})")),
            ]
        })
    }

    fn relation_of(
        left: impl Strategy<Value = String>,
        right: impl Strategy<Value = String>,
    ) -> impl Strategy<Value = String> {
        let relation = prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
        (left, relation, right).prop_map(|(a, relation, b)| format!("{a} {relation} {b}"))
    }

    fn int(depth: u32) -> BoxedStrategy<String> {
        let leaf = prop_oneof![
            (-20_i64..200).prop_map(|value| value.to_string()),
            prop::sample::select(vec![
                "failure.exit_code",
                "failure.signal",
                "step.attempt",
                "step.retries",
                "size(failure.message)",
                "last_exit_codes.size()",
                "last_exit_codes[0]",
                "last_exit_codes[step.retries]",
                "last_exit_codes[step.attempt + 3]",
                "int(failure.duration_s)",
                "int(failure.code)",
                "9223372036854775807",
            ])
            .prop_map(str::to_owned),
        ];
        if depth == 1 {
            return leaf.boxed();
        }
        let sign = prop::sample::select(vec!["+", "-", "*", "/", "%"]);
        prop_oneof![
            leaf.clone(),
            (leaf.clone(), sign, leaf).prop_map(|(a, sign, b)| format!("({a} {sign} {b})"))
        ]
        .boxed()
    }

    fn double(_depth: u32) -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            (-40_i32..400).prop_map(|value| format!("{:?}", f64::from(value) / 4.0)),
            prop::sample::select(vec![
                "failure.duration_s",
                "step.elapsed_s",
                "double(step.attempt)",
                "double(failure.code)",
            ])
            .prop_map(str::to_owned),
        ];
        let sign = prop::sample::select(vec!["+", "-", "*"]);
        (leaf.clone(), sign, leaf).prop_map(|(a, sign, b)| format!("({a} {sign} {b})"))
    }

    fn text(_depth: u32) -> impl Strategy<Value = String> {
        let leaf = prop::sample::select(vec![
            "failure.message",
            "failure.host",
            "failure.code",
            "step.name",
            "'load'",
            "''",
            "'503'",
            "string(step.attempt)",
            "string(failure.retryable)",
            "string(failure.duration_s)",
        ]);
        prop_oneof![
            leaf.clone().prop_map(str::to_owned),
            (leaf.clone(), leaf).prop_map(|(a, b)| format!("{a} + {b}")),
        ]
    }
}

/// The same scope for the library's own evaluator.
fn library_context(scope: &ConditionScope<'_>) -> Context<'static, 'static> {
    let (failure, step) = (&scope.failure, &scope.step);
    let mut context = Context::with_env(Arc::new(Env::stdlib()));
    let failure: HashMap<&str, Value> = HashMap::from([
        ("message", failure.message.into()),
        ("host", failure.host.into()),
        ("code", failure.code.into()),
        ("exit_code", i64::from(failure.exit_code).into()),
        ("signal", i64::from(failure.signal).into()),
        ("duration_s", failure.duration_s.into()),
        ("retryable", failure.retryable.into()),
    ]);
    let step: HashMap<&str, Value> = HashMap::from([
        ("name", step.name.into()),
        ("attempt", i64::from(step.attempt).into()),
        ("retries", i64::from(step.retries).into()),
        ("elapsed_s", step.elapsed_s.into()),
    ]);
    let codes: Vec<i64> = scope.last_exit_codes.iter().map(|&code| code.into()).collect();
    context.add_variable_from_value("failure", failure);
    context.add_variable_from_value("step", step);
    context.add_variable_from_value("last_exit_codes", codes);
    context
}

proptest! {
    #[test]
    fn accepted_conditions_answer_as_the_library_does(source in sources::test()) {
        let parsed = Condition::parse(&source);
        if let Err(error) = &parsed {
            let too_much = ["bytes", "too many", "too large", "too deep", "always fails", "no element"];
            prop_assert!(too_much.iter().any(|limit| error.problem.contains(limit)), "{source}: {error}");
        }
        let (Ok(condition), Ok(program)) = (parsed, Env::stdlib().compile(&source)) else {
            return Ok(());
        };
        for scope in [&SCOPE, &NOTHING] {
            let expected = program.execute(&library_context(scope));
            match (condition.holds(scope), expected) {
                (Ok(ours), Ok(Value::Bool(theirs))) => prop_assert_eq!(ours, theirs, "{}", source),
                (Err(_), Err(_)) => {}
                (ours, theirs) => prop_assert!(false, "{source}: {ours:?} {theirs:?}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn no_source_panics(
        source in prop_oneof![
            any::<String>(),
            "\\PC{0,400}",
            "[\\x00-\\x7f]{0,200}",
            r#"[()\[\]{}!?:.,<>=&|+*/%'"`ré\\ \n0-9a-]{0,1100}"#,
        ],
    ) {
        if let Ok(condition) = Condition::parse(&source) {
            let _ = condition.holds(&SCOPE);
        }
    }

    #[test]
    fn no_run_of_words_panics(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "failure", "step", "last_exit_codes", ".", "class", "code", "exit_code", "message", "attempt",
                "namespace", "(", ")", "[", "]", "{", "}", ",", "?", ":", "!", "-", "+", "*", "/", "%", "==", "<", "in",
                "&&", "||", "count", "\"CRASH\"", "has", "size", "matches", "contains", "int", "string", "map", "all",
                "1", "0", "-1", "2.5", "7u", "b'x'", "'a'", "r'\\d'", "true", "null", "\n", "// x\n", "é", "\0", "`a`",
            ]),
            0..60,
        ),
    ) {
        if let Ok(condition) = Condition::parse(&words.join(" ")) {
            let _ = condition.holds(&SCOPE);
            let _ = condition.holds(&NOTHING);
        }
    }
}
