//! Instants and lengths of time. Nothing here reads a clock.

use std::{fmt, ops::Sub, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An instant of the store's clock: microseconds since the Unix epoch.
///
/// Microseconds, since the nanoseconds of today do not fit the 2⁵³ that every
/// store and client can represent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);
    /// Later than any instant that can be asked for.
    pub const NEVER: Self = Self(u64::MAX);

    /// The instant `micros` microseconds after the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The instant `span` later, [`Timestamp::NEVER`] when that is out of range.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// Time since `earlier`. Zero when `earlier` is the later one: time that
    /// runs backwards is no time at all.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = i64::try_from(self.0)
            .ok()
            .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
        match instant {
            Some(instant) => write!(f, "{instant:.3}"),
            None => f.write_str("never"),
        }
    }
}

/// Whole microseconds of `span`, saturating.
#[must_use]
pub fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// A length of time in a document that people write: `"1m30s"`, `"PT1M30S"`,
/// `"500ms"`, `"7d"`, or a number of seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// What is said about a number of seconds that could not be written out again.
const TOO_LONG: &str = "a length of time is below 2^63 seconds";

impl Span {
    /// The span, when it can be written and read again.
    fn checked(span: Duration) -> Option<Self> {
        jiff::SignedDuration::try_from(span).ok().map(|_| Self(span))
    }
}

impl From<Duration> for Span {
    fn from(span: Duration) -> Self {
        Self(span)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ACCEPTED: &str = "a length of time such as 500ms, 30s, 1m30s, 2h, 7d or PT1M30S";
        let signed = signed(text.trim())
            .ok_or_else(|| format!("{text:?} is not a length of time; accepted: {ACCEPTED}"))?;
        Duration::try_from(signed)
            .map(Self)
            .map_err(|_| format!("{text:?} is negative; accepted: {ACCEPTED}"))
    }
}

/// Reads a length of time; a day is 24 hours, a week seven days. Months and
/// years have no length of their own.
fn signed(text: &str) -> Option<jiff::SignedDuration> {
    let exact = text.parse().ok();
    exact.or_else(|| {
        let calendar: jiff::Span = text.parse().ok()?;
        calendar.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()
    })
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::SignedDuration::try_from(self.0) {
            Ok(signed) => write!(f, "{signed:#}"),
            Err(_) => write!(f, "{}s", self.0.as_secs()),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a length of time such as 500ms, 1m30s, 7d or PT2H, or a number of seconds",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
                Span::checked(Duration::from_secs(seconds)).ok_or_else(|| E::custom(TOO_LONG))
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Span, E> {
                u64::try_from(seconds)
                    .map_err(|_| E::custom("a length of time is not negative"))
                    .and_then(|s| self.visit_u64(s))
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Span, E> {
                let span = Duration::try_from_secs_f64(seconds).map_err(|_| {
                    E::custom(format!("{seconds} is not a length of time in seconds"))
                })?;
                Span::checked(span).ok_or_else(|| E::custom(TOO_LONG))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_what_people_write_and_write_what_they_read() {
        for (text, millis) in [
            ("500ms", 500),
            ("1m30s", 90_000),
            ("PT1M30S", 90_000),
            ("2h", 7_200_000),
            ("0s", 0),
            ("1.5s", 1_500),
            ("7d", 7 * 86_400_000),
            ("1d 12h", 36 * 3_600_000),
            ("2w", 14 * 86_400_000),
            ("P1DT1H", 25 * 3_600_000),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0, Duration::from_millis(millis), "{text}");
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span, "{text}");
        }
        assert!("-1s".parse::<Span>().is_err());
        for text in ["soon", "-1d", "1mo", "1y", "99999999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_span_that_is_read_is_written_so_that_it_is_read_again() {
        for json in [
            "0",
            "1",
            "0.1",
            "1.000000001",
            "9223372036854775807",
            "9e18",
            "\"90m\"",
            "\"PT2H\"",
            "\"1w\"",
        ] {
            let span: Span =
                serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
            let written = serde_json::to_string(&span).unwrap();
            assert_eq!(
                serde_json::from_str::<Span>(&written).unwrap(),
                span,
                "{json} as {written}"
            );
        }
        for json in [
            "-1",
            "-0.5",
            "18446744073709551615",
            "9223372036854775808",
            "1e300",
            "\"\"",
            "\"1mo\"",
            "\"-1s\"",
            "\"5\"",
            "null",
            "[]",
        ] {
            assert!(serde_json::from_str::<Span>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn time_saturates_and_never_runs_backwards() {
        let late = Timestamp::from_micros(5);
        assert_eq!(late.plus(Duration::MAX), Timestamp::NEVER);
        assert_eq!(Timestamp::EPOCH.since(late), Duration::ZERO);
    }
}
