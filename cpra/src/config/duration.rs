//! Durations as Go writes them: `1m30s`, `250ms`, `1.5h`, `100us`.

use crate::units::Span;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Why a text is no duration; each names its remedy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DurationError {
    #[error("{0} has no unit: write \"{0}s\" for seconds")]
    Unitless(Box<str>),
    #[error("{text} has the unknown unit \"{unit}\": use ns, us, ms, s, m or h{}", if is_day(unit) { " (1d is 24h)" } else { "" })]
    Unit { text: String, unit: Box<str> },
    #[error("{0} is negative: a duration runs forwards")]
    Negative(String),
    #[error("{0} is longer than a duration can be")]
    Overflow(String),
    #[error("{0} is no duration: write it like \"30s\", \"1m30s\" or \"250ms\"")]
    Other(String),
}

fn is_day(unit: &str) -> bool {
    matches!(unit, "d" | "day" | "days")
}

/// # Errors
/// See [`DurationError`].
pub(super) fn parse(text: &str) -> Result<Span, DurationError> {
    let shown = || super::diagnostic::quoted(text);
    let unsigned = match text.as_bytes().first() {
        Some(b'-') => return Err(DurationError::Negative(shown())),
        Some(b'+') => &text[1..],
        _ => text,
    };
    if unsigned == "0" {
        return Ok(Span::ZERO);
    }
    let mut rest = unsigned;
    let mut nanos: u128 = 0;
    if rest.is_empty() {
        return Err(DurationError::Other(shown()));
    }
    while !rest.is_empty() {
        let whole = digits(rest);
        let mut number_end = whole.len();
        let mut fraction = "";
        if rest[number_end..].starts_with('.') {
            fraction = digits(&rest[number_end + 1..]);
            number_end += 1 + fraction.len();
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(DurationError::Other(shown()));
        }
        let number = &rest[..number_end];
        rest = &rest[number_end..];
        let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = &rest[..unit_end];
        rest = &rest[unit_end..];
        if unit.is_empty() {
            return Err(if number == unsigned && number.len() <= 20 {
                DurationError::Unitless(number.into())
            } else {
                DurationError::Other(shown())
            });
        }
        let Some(&(_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(if unit.chars().all(char::is_alphabetic) && unit.len() <= 16 {
                DurationError::Unit { text: shown(), unit: unit.into() }
            } else {
                DurationError::Other(shown())
            });
        };
        nanos = add(nanos, whole, fraction, scale).ok_or_else(|| DurationError::Overflow(shown()))?;
    }
    u64::try_from(nanos).map(Span::from_nanos).map_err(|_| DurationError::Overflow(shown()))
}

fn digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}

/// `sum + whole.fraction × scale`, `None` beyond 64 bits. A fraction finer than a nanosecond is cut, as Go does.
fn add(sum: u128, whole: &str, fraction: &str, scale: u64) -> Option<u128> {
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut part: u128 = 0;
    let mut divisor: u128 = 1;
    for digit in fraction.bytes().take(18) {
        part = part * 10 + u128::from(digit - b'0');
        divisor *= 10;
    }
    let nanos = sum + u128::from(whole) * u128::from(scale) + part * u128::from(scale) / divisor;
    (nanos <= u128::from(u64::MAX)).then_some(nanos)
}

/// The shortest text that reads back as `span`.
pub(super) fn written(span: Span) -> String {
    let mut nanos = span.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, scale) in UNITS.iter().rev().filter(|(unit, _)| unit.is_ascii()) {
        if nanos >= *scale {
            text.push_str(&format!("{}{unit}", nanos / scale));
            nanos %= scale;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn go_durations_read_as_go_reads_them() {
        for (text, nanos) in [
            ("1m30s", 90_000_000_000),
            ("250ms", 250_000_000),
            ("1.5h", 5_400_000_000_000),
            ("100us", 100_000),
            ("100µs", 100_000),
            ("100μs", 100_000),
            ("7ns", 7),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("+2s", 2_000_000_000),
            ("1h0m0s", 3_600_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(Span::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_what_to_write() {
        for (text, message) in [
            ("30", "30 has no unit: write \"30s\" for seconds"),
            ("1.5", "1.5 has no unit: write \"1.5s\" for seconds"),
            ("-5s", "\"-5s\" is negative: a duration runs forwards"),
            ("2d", "\"2d\" has the unknown unit \"d\": use ns, us, ms, s, m or h (1d is 24h)"),
            ("5sec", "\"5sec\" has the unknown unit \"sec\": use ns, us, ms, s, m or h"),
            ("1m30", "\"1m30\" is no duration: write it like \"30s\", \"1m30s\" or \"250ms\""),
            ("", "\"\" is no duration: write it like \"30s\", \"1m30s\" or \"250ms\""),
            ("soon", "\"soon\" is no duration: write it like \"30s\", \"1m30s\" or \"250ms\""),
            ("1 s", "\"1 s\" is no duration: write it like \"30s\", \"1m30s\" or \"250ms\""),
            (".s", "\".s\" is no duration: write it like \"30s\", \"1m30s\" or \"250ms\""),
            ("99999999h", "\"99999999h\" is longer than a duration can be"),
        ] {
            assert_eq!(parse(text).map_err(|e| e.to_string()), Err(message.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".*") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_reads_back(nanos: u64) {
            let span = Span::from_nanos(nanos);
            prop_assert_eq!(parse(&written(span)), Ok(span));
        }
    }
}
