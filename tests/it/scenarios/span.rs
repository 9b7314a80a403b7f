//! Lengths of time as transcripts write them: `90s`, `1m30s`, `2.5s`, `7d`.

use std::time::Duration;

const UNITS: [(&str, u64); 6] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

/// Reads a length of time; None when `text` is not one.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut micros = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|char: char| !char.is_ascii_lowercase()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let (_, scale) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        micros += number.parse::<f64>().ok()? * scale as f64;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_micros(micros.round() as u64))
}

/// Writes a length of time, whole seconds and milliseconds exactly.
pub fn shown(span: Duration) -> String {
    let mut left = span.as_micros() as u64;
    let mut text = String::new();
    for (unit, scale) in UNITS.into_iter().rev().filter(|(_, scale)| *scale > 1_000_000) {
        if left >= scale {
            text += &format!("{}{unit}", left / scale);
            left %= scale;
        }
    }
    if left > 0 || text.is_empty() {
        text += &format!("{}s", left as f64 / 1e6);
    }
    text
}

#[test]
fn spans_read_what_they_write() {
    for text in ["0s", "90s", "1m30s", "2.5s", "0.25s", "7d", "1d2h3m4.000001s"] {
        let span = parse(text).unwrap();
        assert_eq!(parse(&shown(span)), Some(span), "{text}");
    }
    assert_eq!(parse("250ms"), Some(Duration::from_millis(250)));
    assert_eq!(shown(Duration::from_secs(5400)), "1h30m");
    for text in ["", "5", "soon", "5 s", "s", "-1s"] {
        assert_eq!(parse(text), None, "{text}");
    }
}
