//! Sizes, times and ages: read from the command line, and shown.

use std::time::Duration;

use time::OffsetDateTime;

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuantityError {
    /// It is not a size.
    #[error("give a size such as 64KiB, 256MiB or 1GiB (a number alone is bytes)")]
    Size,
    /// It is not a time.
    #[error("give a time such as 500ms, 30s or 5min (a number alone is milliseconds)")]
    Time,
    /// It is more than can be counted.
    #[error("that is too much")]
    TooMuch,
}

/// Units of sizes, in bytes.
const SIZES: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

/// Units of times, in milliseconds.
const TIMES: [(&str, u64); 6] = [
    ("", 1),
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
];

/// Reads a size in bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, QuantityError> {
    parse(text, &SIZES, &QuantityError::Size)
}

/// Reads a size in bytes that has 32 bits.
pub(crate) fn parse_small_size(text: &str) -> Result<u32, QuantityError> {
    parse_size(text).and_then(|size| u32::try_from(size).map_err(|_| QuantityError::TooMuch))
}

/// Reads a time in milliseconds.
pub(crate) fn parse_millis(text: &str) -> Result<u64, QuantityError> {
    parse(text, &TIMES, &QuantityError::Time)
}

fn parse(text: &str, units: &[(&str, u64)], wrong: &QuantityError) -> Result<u64, QuantityError> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let factor = units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor);
    let (Some(factor), false) = (factor, number.is_empty()) else {
        return Err(wrong.clone());
    };
    let number = number.parse::<u64>().map_err(|_| QuantityError::TooMuch)?;
    number.checked_mul(factor).ok_or(QuantityError::TooMuch)
}

/// A size as a person reads it: `20.5 KiB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" || value >= 100.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// A time as a person reads it: `0.21 ms`, `12.3 ms`, `1.50 s`.
pub(crate) fn duration(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1_000.0;
    match millis {
        ..1.0 => format!("{:.0} µs", millis * 1_000.0),
        ..10.0 => format!("{millis:.2} ms"),
        ..100.0 => format!("{millis:.1} ms"),
        ..1_000.0 => format!("{millis:.0} ms"),
        ..60_000.0 => format!("{:.2} s", millis / 1_000.0),
        _ => span(time.as_secs()),
    }
}

/// A span in its two largest units: `3 h 12 min`.
pub(crate) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// How long ago something was, in its largest unit: `5 min ago`.
pub(crate) fn age(then: OffsetDateTime, now: OffsetDateTime) -> String {
    let seconds = (now - then).whole_seconds();
    match seconds {
        // Clocks of two hosts differ a little.
        ..5 => "now".to_owned(),
        5..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        86_400.. => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("64KiB", 65_536),
            ("256 mib", 1 << 28),
            ("1g", 1 << 30),
            ("2MB", 2_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "1 XB", "0x10", "ä"] {
            assert_eq!(parse_size(text), Err(QuantityError::Size), "{text}");
        }
        assert_eq!(parse_size("99999999TiB"), Err(QuantityError::TooMuch));
        assert_eq!(
            parse_size("99999999999999999999999"),
            Err(QuantityError::TooMuch)
        );
        assert_eq!(parse_small_size("4GiB"), Err(QuantityError::TooMuch));
    }

    #[test]
    fn times() {
        for (text, millis) in [
            ("10", 10),
            ("500ms", 500),
            ("30s", 30_000),
            ("5min", 300_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(parse_millis(text), Ok(millis), "{text}");
        }
        assert_eq!(parse_millis("5d"), Err(QuantityError::Time));
    }

    #[test]
    fn shown() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(20_962), "20.5 KiB");
        assert_eq!(size(512 << 20), "512 MiB");
        assert_eq!(duration(Duration::from_micros(213)), "213 µs");
        assert_eq!(duration(Duration::from_micros(1_913)), "1.91 ms");
        assert_eq!(duration(Duration::from_millis(1_500)), "1.50 s");
        assert_eq!(duration(Duration::from_secs(3_700)), "1 h 1 min");
        assert_eq!(span(59), "59 s");
        assert_eq!(span(3 * 86_400 + 7_200), "3 d 2 h");
        let now = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(age(now + time::Duration::SECOND, now), "now");
        assert_eq!(age(now - time::Duration::minutes(90), now), "1 h ago");
    }
}
