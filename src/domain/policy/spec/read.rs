//! Shapes that people write in more than one way.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, IntoDeserializer as _, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{ExitCodesSpec, StopTimingSpec};

impl<'de> Deserialize<'de> for ExitCodesSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ExitCodes)
    }
}

struct ExitCodes;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    min: i32,
    max: i32,
}

impl<'de> Visitor<'de> for ExitCodes {
    type Value = ExitCodesSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an exit code such as 1, or a range such as {min: 2, max: 5} or \"2-5\"")
    }

    fn visit_i64<E: de::Error>(self, code: i64) -> Result<ExitCodesSpec, E> {
        let unexpected = || E::invalid_value(de::Unexpected::Signed(code), &self);
        i32::try_from(code).map(ExitCodesSpec::One).map_err(|_| unexpected())
    }

    fn visit_u64<E: de::Error>(self, code: u64) -> Result<ExitCodesSpec, E> {
        let unexpected = || E::invalid_value(de::Unexpected::Unsigned(code), &self);
        i32::try_from(code).map(ExitCodesSpec::One).map_err(|_| unexpected())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ExitCodesSpec, E> {
        exit_codes(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ExitCodesSpec, A::Error> {
        let Range { min, max } = Range::deserialize(MapAccessDeserializer::new(map))?;
        Ok(ExitCodesSpec::Range { min, max })
    }
}

/// `7`, `7-9`, `-5--1`: a dash that is not the first character divides.
fn exit_codes(text: &str) -> Option<ExitCodesSpec> {
    if let Ok(code) = text.trim().parse() {
        return Some(ExitCodesSpec::One(code));
    }
    let divide = text.char_indices().skip(1).find(|(_, c)| *c == '-').map(|(at, _)| at)?;
    let (min, max) = (text[..divide].trim().parse().ok()?, text[divide + 1..].trim().parse().ok()?);
    Some(ExitCodesSpec::Range { min, max })
}

impl<'de> Deserialize<'de> for StopTimingSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StopTiming)
    }
}

/// The names.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum StopName {
    AtOnce,
    AfterBackoff,
}

struct StopTiming;

impl<'de> Visitor<'de> for StopTiming {
    type Value = StopTimingSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("at_once or after_backoff; {} is at_once")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<StopTimingSpec, E> {
        Ok(match StopName::deserialize(name.into_deserializer())? {
            StopName::AtOnce => StopTimingSpec::AtOnce,
            StopName::AfterBackoff => StopTimingSpec::AfterBackoff,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StopTimingSpec, A::Error> {
        match map.next_key::<String>()? {
            None => Ok(StopTimingSpec::default()),
            Some(key) => Err(de::Error::unknown_field(&key, &[])),
        }
    }
}

/// Codes are texts; an HTTP status is written as a number all the same.
pub(super) fn codes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let codes = Vec::<CodeText>::deserialize(deserializer)?;
    Ok(codes.into_iter().map(|code| code.0).collect())
}

struct CodeText(String);

impl<'de> Deserialize<'de> for CodeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Code)
    }
}

struct Code;

impl Visitor<'_> for Code {
    type Value = CodeText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a gRPC code such as UNAVAILABLE, an HTTP status from 100 to 599, or 1xx to 5xx",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<CodeText, E> {
        Ok(CodeText(text.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, status: u64) -> Result<CodeText, E> {
        Ok(CodeText(status.to_string()))
    }
}
