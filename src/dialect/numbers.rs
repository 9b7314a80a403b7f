//! Numbers and lengths of time as Go and Python read them.

use std::time::Duration;

/// A whole number as Go's `strconv` reads it.
pub fn go_int(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// A whole number as Python's `int()` reads it: blanks around it and single
/// underscores between digits do not matter.
pub fn python_int(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let grouped = digits
        .split('_')
        .all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()));
    grouped.then(|| text.replace('_', "").parse().ok()).flatten()
}

/// A length of time in nanoseconds as Go's `time.ParseDuration` reads it, or
/// what Go says.
pub fn go_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (number, after) = go_number(rest).ok_or_else(invalid)?;
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total = total.checked_add(number.of(scale).ok_or_else(invalid)?).ok_or_else(invalid)?;
        rest = after;
    }
    let total = if negative { -total } else { total };
    i64::try_from(total).map_err(|_| invalid())
}

/// A decimal number: its digits before and after the point.
struct Decimal<'a> {
    whole: &'a str,
    fraction: &'a str,
}

impl Decimal<'_> {
    /// The number times `scale`, cut off; None when it is out of any range.
    fn of(&self, scale: i128) -> Option<i128> {
        let whole: i128 = if self.whole.is_empty() { 0 } else { self.whole.parse().ok()? };
        let kept = &self.fraction[..self.fraction.len().min(18)];
        let fraction: i128 = if kept.is_empty() { 0 } else { kept.parse().ok()? };
        let places = u32::try_from(kept.len()).ok()?;
        whole.checked_mul(scale)?.checked_add(fraction * scale / 10_i128.pow(places))
    }
}

fn go_number(text: &str) -> Option<(Decimal<'_>, &str)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = text.split_at(digits(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let number = Decimal { whole, fraction };
    (!whole.is_empty() || !fraction.is_empty()).then_some((number, rest))
}

/// Nanoseconds as a length of time; what is negative is none at all.
pub fn nanos(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// A count as a policy has it: none below 0, and no more than it can say.
pub fn count(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("5m", 300_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("-2ms", -2_000_000),
            ("+3us", 3_000),
            ("3µs", 3_000),
            ("1m0.25s", 60_250_000_000),
        ] {
            assert_eq!(go_duration(text), Ok(nanos), "{text}");
        }
        for (text, said) in [
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("1.5", "time: missing unit in duration \"1.5\""),
            ("", "time: invalid duration \"\""),
            ("-", "time: invalid duration \"-\""),
            (".s", "time: invalid duration \".s\""),
            ("soon", "time: invalid duration \"soon\""),
            ("9999999999h", "time: invalid duration \"9999999999h\""),
        ] {
            assert_eq!(go_duration(text), Err(said.to_owned()), "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_read_as_their_systems_read_them() {
        assert_eq!(go_int("+3"), Some(3));
        assert_eq!(go_int(" 3"), None);
        assert_eq!(go_int("1_000"), None);
        assert_eq!(go_int(""), None);
        assert_eq!(python_int(" -1_000 "), Some(-1000));
        for text in ["3.0", "abc", "", "_1", "1__0", "+"] {
            assert_eq!(python_int(text), None, "{text}");
        }
        assert_eq!((count(-1), count(3), count(i64::MAX)), (0, 3, u32::MAX));
    }
}
