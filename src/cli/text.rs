//! Values as people and machines read and write them: spans, instants, names.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Timestamp, tz::TimeZone};

/// Reads a span such as `500ms`, `1.5s`, `5m` or `1h30m`. A day is 24 hours.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const ACCEPTED: &str = "a span with its unit, such as 500ms, 1.5s, 5m, 1h30m or 7d";
    if text.parse::<f64>().is_ok() {
        return Err(format!("a unit is missing; accepted is {ACCEPTED}"));
    }
    let span: Span = text.parse().map_err(|_| format!("accepted is {ACCEPTED}"))?;
    span.to_duration(SpanRelativeTo::days_are_24_hours())
        .ok()
        .and_then(|span| Duration::try_from(span).ok())
        .ok_or_else(|| format!("accepted is {ACCEPTED}, not negative"))
}

/// As [`parse_duration`], more than zero.
pub fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("accepted is a span longer than zero".to_owned()),
        span => Ok(span),
    }
}

/// Reads an instant such as `2030-01-31T14:00:00Z`.
pub fn parse_instant(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        "accepted is an RFC 3339 instant with its zone, such as 2030-01-31T14:00:00Z".to_owned()
    })
}

/// A span in its two largest units: `0.2s`, `1.8s`, `5m 3s`, `2h 5m`, `3d 4h`.
pub fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let (large, small) = match seconds {
        _ if span.is_zero() => return "0s".to_owned(),
        _ if span < Duration::from_millis(50) => return format!("{}ms", span.as_millis().max(1)),
        0..60 => return tenths(span),
        60..3600 => ((seconds / 60, "m"), (seconds % 60, "s")),
        3600..86400 => ((seconds / 3600, "h"), (seconds % 3600 / 60, "m")),
        _ => ((seconds / 86400, "d"), (seconds % 86400 / 3600, "h")),
    };
    match small {
        (0, _) => format!("{}{}", large.0, large.1),
        (n, unit) => format!("{}{} {n}{unit}", large.0, large.1),
    }
}

/// Seconds and tenths of a span under a minute, rounded down there so as not
/// to become one.
fn tenths(span: Duration) -> String {
    let text = format!("{:.1}", span.as_secs_f64().min(59.9));
    format!("{}s", text.trim_end_matches(".0"))
}

/// An instant as a time of day, with its date when it is not `today`'s.
pub fn clock_time(instant: Timestamp, today: Timestamp) -> String {
    let utc = |at: Timestamp| at.to_zoned(TimeZone::UTC);
    let format =
        if utc(instant).date() == utc(today).date() { "%H:%M:%SZ" } else { "%F %H:%M:%SZ" };
    utc(instant).strftime(format).to_string()
}

/// An instant beside how far it is away: `14:03:07Z (in 1m 20s)`.
pub fn relative(instant: Timestamp, now: Timestamp) -> String {
    let away = |span| duration(Duration::try_from(span).unwrap_or_default());
    let clock = clock_time(instant, now);
    match instant > now {
        true => format!("{clock} (in {})", away(instant.duration_since(now))),
        false => format!("{clock} ({} ago)", away(now.duration_since(instant))),
    }
}

/// A span of so many seconds; what is no span is no time at all.
pub fn from_seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// A span of the contract; a negative one is no time at all.
pub fn from_proto_duration(span: prost_types::Duration) -> Duration {
    Duration::try_from(span).unwrap_or_default()
}

/// A span for the contract; longer ones than it can say are its longest.
pub fn to_proto_duration(span: Duration) -> prost_types::Duration {
    const LONGEST: i64 = 315_576_000_000;
    match i64::try_from(span.as_secs()) {
        Ok(seconds) if seconds < LONGEST => prost_types::Duration {
            seconds,
            // Less than 10^9, so it fits.
            nanos: span.subsec_nanos().cast_signed(),
        },
        _ => prost_types::Duration { seconds: LONGEST, nanos: 0 },
    }
}

/// An instant of the contract; `None` when it is none that a calendar knows.
pub fn from_proto_timestamp(at: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(at.seconds, at.nanos).ok()
}

/// An instant for the contract, which wants its nanoseconds not negative.
pub fn to_proto_timestamp(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = (at.as_second(), at.subsec_nanosecond());
    match nanos {
        0.. => prost_types::Timestamp { seconds, nanos },
        _ => prost_types::Timestamp { seconds: seconds - 1, nanos: nanos + 1_000_000_000 },
    }
}

/// The short name of a contract's enum value: `REASON_BACKOFF` is `BACKOFF`.
pub fn short_name(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// A short name as prose: `RETRIES_SPENT` is `retries spent`.
pub fn words(short_name: &str) -> String {
    short_name.to_lowercase().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86400)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        for wrong in ["", "5", "5 parsecs", "-1s", "1 month"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
        assert!(parse_positive_duration("0s").is_err());
    }

    #[test]
    fn spans_are_written_short() {
        let written = |ms| duration(Duration::from_millis(ms));
        assert_eq!(written(0), "0s");
        assert_eq!(written(7), "7ms");
        assert_eq!(written(200), "0.2s");
        assert_eq!(written(10_000), "10s");
        assert_eq!(written(59_999), "59.9s");
        assert_eq!(written(60_000), "1m");
        assert_eq!(written(303_000), "5m 3s");
        assert_eq!(written(7_500_000), "2h 5m");
        assert_eq!(written(100 * 3600 * 1000), "4d 4h");
    }

    #[test]
    fn instants_survive_the_contract() {
        for at in ["1969-12-31T23:59:59.5Z", "2030-01-31T14:00:00.25Z"] {
            let at: Timestamp = at.parse().unwrap();
            assert_eq!(from_proto_timestamp(to_proto_timestamp(at)), Some(at));
            assert!(to_proto_timestamp(at).nanos >= 0);
        }
    }
}
