//! A failure as a person writes it: `class=TRANSIENT,code=503,times=3`, or the
//! same keys as a JSON object.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::{exec::class_named, text};
use crate::{
    domain::failure::Code,
    proto::{
        Executed, Failure, FailureClass, Pushback, failure::Code as ProtoCode, pushback::Until,
    },
};

/// Failures that one entry may stand for; the service takes no more at once.
const TIMES_MAX: usize = 256;

const KEYS: &str = "class, type, code, exit, signal, message, cause, host, target, action, \
                    duration, pushback, retryable, executed and times";

/// A failure, so many times in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct FailureFlag {
    failure: Failure,
    times: usize,
}

impl FailureFlag {
    /// The failures that it stands for.
    pub fn failures(self) -> impl Iterator<Item = Failure> {
        std::iter::repeat_n(self.failure, self.times)
    }

    fn read<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> Result<Self, String> {
        let mut flag = Self { failure: Failure::default(), times: 1 };
        flag.failure.set_class(FailureClass::Failure);
        for (key, value) in pairs {
            flag.set(key, value)?;
        }
        Ok(flag)
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), String> {
        let failure = &mut self.failure;
        match key {
            "class" => failure.set_class(class(&value)?),
            "type" => failure.error_type = value,
            "code" => failure.code = Some(code(&value)?),
            "exit" => failure.exit_code = Some(number(key, &value)?),
            "signal" => failure.signal = Some(number(key, &value)?),
            "message" => failure.message = value,
            "cause" => failure.cause = value,
            "host" => failure.host = value,
            "target" => failure.target = value,
            "action" => failure.action = value,
            "duration" => failure.duration = Some(span(key, &value)?),
            "pushback" => failure.pushback = Some(pushback(&value)?),
            "retryable" => failure.retryable = Some(number(key, &value)?),
            "executed" => failure.set_executed(executed(&value)?),
            "times" => self.times = times(&value)?,
            _ => return Err(format!("{key:?} is no key; accepted are {KEYS}")),
        }
        Ok(())
    }
}

impl FromStr for FailureFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |pair: &str| {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("{pair:?} is not KEY=VALUE; accepted keys are {KEYS}"))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        };
        let pairs = text.split(',').map(pair).collect::<Result<Vec<_>, String>>()?;
        Self::read(pairs.iter().map(|(key, value)| (key.as_str(), value.clone())))
    }
}

/// Reads a JSON list of failures.
pub fn from_json(json: &str) -> Result<Vec<FailureFlag>, String> {
    let list: Vec<Map<String, Value>> = serde_json::from_str(json)
        .map_err(|e| format!("not a JSON list of objects with the keys {KEYS}: {e}"))?;
    let read = |(at, object): (usize, &Map<String, Value>)| {
        let pairs = object.iter().map(|(key, value)| (key.as_str(), plain(value)));
        FailureFlag::read(pairs).map_err(|e| format!("[{at}]: {e}"))
    };
    list.iter().enumerate().map(read).collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A failure in a few words: what tells it apart, without its message.
pub fn in_words(failure: &Failure) -> String {
    let class = text::short_name(failure.class().as_str_name(), "FAILURE_CLASS_").to_owned();
    let code = failure.code.as_ref().map(|code| match code {
        ProtoCode::GrpcCode(code) => {
            Code::Grpc(u8::try_from(*code).unwrap_or(0)).name().into_owned()
        }
        ProtoCode::HttpStatus(status) => status.to_string(),
    });
    let parts = [
        Some(class),
        Some(failure.error_type.clone()).filter(|name| !name.is_empty()),
        code,
        failure.exit_code.map(|code| format!("exit {code}")),
        failure.signal.map(|signal| format!("signal {signal}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn class(value: &str) -> Result<FailureClass, String> {
    class_named(value)
        .ok_or_else(|| format!("class {value:?}: accepted are {}", super::exec::CLASSES))
}

fn code(value: &str) -> Result<ProtoCode, String> {
    if let Some(Code::Grpc(code)) = Code::from_grpc_name(&value.to_uppercase()) {
        return Ok(ProtoCode::GrpcCode(code.into()));
    }
    match value.parse() {
        Ok(status @ 100..600) => Ok(ProtoCode::HttpStatus(status)),
        _ => Err(format!(
            "code {value:?}: accepted is a gRPC name such as UNAVAILABLE, or an HTTP status"
        )),
    }
}

fn number<T: FromStr>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| match key {
        "retryable" => format!("{key} {value:?}: accepted are true and false"),
        _ => format!("{key} {value:?}: accepted is a whole number"),
    })
}

fn span(key: &str, value: &str) -> Result<prost_types::Duration, String> {
    let span = text::parse_duration(value).map_err(|e| format!("{key} {value:?}: {e}"))?;
    Ok(text::to_proto_duration(span))
}

fn pushback(value: &str) -> Result<Pushback, String> {
    let until = match value {
        "never" => Until::Never(true),
        _ => Until::After(span("pushback", value)?),
    };
    Ok(Pushback { until: Some(until) })
}

fn executed(value: &str) -> Result<Executed, String> {
    match value.to_lowercase().as_str() {
        "no" => Ok(Executed::No),
        "maybe" => Ok(Executed::Maybe),
        "yes" => Ok(Executed::Yes),
        _ => Err(format!("executed {value:?}: accepted are no, maybe and yes")),
    }
}

fn times(value: &str) -> Result<usize, String> {
    match value.parse() {
        Ok(times @ 1..=TIMES_MAX) => Ok(times),
        _ => Err(format!("times {value:?}: accepted is a number of 1 to {TIMES_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_read_from_keys_and_values() {
        let flag: FailureFlag =
            "class=transient, code=503,exit=7,duration=2s,pushback=never,times=3".parse().unwrap();
        let failures: Vec<_> = flag.failures().collect();
        assert_eq!(failures.len(), 3);
        let failure = &failures[2];
        assert_eq!(failure.class(), FailureClass::Transient);
        assert_eq!(failure.code, Some(ProtoCode::HttpStatus(503)));
        assert_eq!(failure.duration.unwrap().seconds, 2);
        assert_eq!(in_words(failure), "TRANSIENT 503 exit 7");
    }

    #[test]
    fn json_says_the_same() {
        let read = from_json(r#"[{"class":"ERROR","code":"unavailable","retryable":false}]"#);
        let flag: FailureFlag = "class=ERROR,code=UNAVAILABLE,retryable=false".parse().unwrap();
        assert_eq!(read.unwrap(), [flag]);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_accepted() {
        for (wrong, named) in [
            ("class=ODD", "TRANSIENT"),
            ("code=42", "UNAVAILABLE"),
            ("colour=red", "accepted are class"),
            ("exit", "KEY=VALUE"),
            ("times=0", "1 to 256"),
            ("executed=perhaps", "maybe"),
        ] {
            let refusal = wrong.parse::<FailureFlag>().unwrap_err();
            assert!(refusal.contains(named), "{wrong}: {refusal}");
        }
        assert!(from_json("{}").is_err());
        assert!(from_json(r#"[{}, {"exit": "x"}]"#).unwrap_err().starts_with("[1]"));
    }
}
