//! What can be read off a call before it is decoded: class, time left, namespace.

use std::time::Duration;

use http::HeaderMap;

use super::Class;

/// Time a call has when its client names none.
const TIME_LEFT_DEFAULT: Duration = Duration::from_secs(2);

/// The most time a call is given, whatever its client says.
const TIME_LEFT_MAX: Duration = Duration::from_secs(30);

/// The class of a call, by its path. None: the call passes without a slot. So do
/// health and reflection, which must answer under any load, and calls that wait by
/// design, which would hold a slot for nothing.
pub fn class_of(path: &str) -> Option<Class> {
    if let Some(method) = path.strip_prefix("/reprise.v1.RetryService/") {
        return match method {
            "ReportAttempt" | "BatchReportAttempts" | "Heartbeat" | "ReportRun" => {
                Some(Class::Report)
            }
            "BeginAttempt" | "BeginRun" => Some(Class::Begin),
            "AwaitDecision" | "ClaimDue" | "StreamDue" => None,
            _ => Some(Class::Other),
        };
    }
    match path.strip_prefix("/reprise.v1.AdminService/")? {
        "WatchEvents" => None,
        _ => Some(Class::Other),
    }
}

/// The time a call has, by its `grpc-timeout` header: digits and a unit. A header
/// that cannot be read counts as absent.
pub fn time_left(headers: &HeaderMap) -> Duration {
    let given = headers.get("grpc-timeout").and_then(|value| read_timeout(value.as_bytes()));
    given.unwrap_or(TIME_LEFT_DEFAULT).min(TIME_LEFT_MAX)
}

fn read_timeout(value: &[u8]) -> Option<Duration> {
    const DIGITS_MAX: usize = 8;
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || DIGITS_MAX < digits.len() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Length of what precedes a gRPC message: a flag and the message's length.
const PREFIX_LEN: usize = 5;

/// Bytes that hold the prefix and a namespace of the greatest length.
pub(super) const HEAD_LEN: usize = PREFIX_LEN + 3 + 128;

/// Length of prefix and message together; none while the prefix is incomplete.
pub(super) fn message_end(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(1..PREFIX_LEN)?.try_into().ok()?;
    (u32::from_be_bytes(length) as usize).checked_add(PREFIX_LEN)
}

/// Field 1 of the message at the start of `bytes`, if it stands first, as encoders
/// put it, is not compressed, and is text. Otherwise empty: all such calls share
/// one place in line, and the service will say what is wrong with them.
pub(super) fn namespace_in(bytes: &[u8]) -> &str {
    read_namespace(bytes).unwrap_or_default()
}

fn read_namespace(bytes: &[u8]) -> Option<&str> {
    const NOT_COMPRESSED: u8 = 0;
    const FIELD_1_TEXT: u8 = 0x0a;
    let message = bytes.get(PREFIX_LEN..)?;
    if bytes[0] != NOT_COMPRESSED {
        return None;
    }
    let (length, text) = match message {
        [FIELD_1_TEXT, length @ 0..0x80, text @ ..] => (usize::from(*length), text),
        // Lengths of two bytes: the longest name there is has 128.
        [FIELD_1_TEXT, low, high @ 0..0x80, text @ ..] => {
            (usize::from(low & 0x7f) | usize::from(*high) << 7, text)
        }
        _ => return None,
    };
    std::str::from_utf8(text.get(..length)?).ok()
}
