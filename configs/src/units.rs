//! Durations and sizes as operators write them.
//!
//! [`Period`] reads what Go's `time.ParseDuration` reads, because Fabric's files are written for it: `500ms`,
//! `2s`, `1m30s`, `1.5h`; a number without a unit is refused (Go would take it for nanoseconds, which nobody
//! means). [`ByteSize`] reads `10 MB`, `4MiB`, `512 k` and plain bytes; as in Fabric every unit is a power of
//! 1024, with or without the `i`. Both are exact: no floating point, and an overflow is an error.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A length of time in a configuration, exact to the nanosecond, at most 2^64 - 1 of them (584 years).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u64);

/// Nanoseconds of each unit, longest first; the order in which [`Period`] is written.
const PERIOD_UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const MINUTE_NANOS: u64 = 60_000_000_000;

impl Period {
    /// A period of whole seconds, saturating.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// A period of whole milliseconds, saturating.
    pub const fn milliseconds(milliseconds: u64) -> Self {
        Self(milliseconds.saturating_mul(1_000_000))
    }

    /// The same length as the standard library's type.
    pub const fn as_duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// Length in nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Length in whole milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// True for a length of nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Self {
        period.as_duration()
    }
}

/// The text is not a duration or size; says what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

fn not_a_period(text: &str) -> UnitError {
    UnitError(format!("{text:?} is not a duration; write a number with a unit, such as 500ms, 2s or 1m30s"))
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let trimmed = text.trim();
        if trimmed == "0" {
            return Ok(Self(0));
        }
        if trimmed.is_empty() {
            return Err(not_a_period(text));
        }
        let too_long = || UnitError(format!("{text:?} is too long; the longest duration is 584 years"));
        let mut rest = trimmed;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, tail) = rest.split_at(number_end);
            let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let nanos = unit_nanos(unit).ok_or_else(|| not_a_period(text))?;
            let part = scaled(number, nanos).ok_or_else(|| not_a_period(text))?;
            let part = u64::try_from(part).map_err(|_| too_long())?;
            total = total.checked_add(part).ok_or_else(too_long)?;
            rest = tail;
        }
        Ok(Self(total))
    }
}

fn unit_nanos(unit: &str) -> Option<u64> {
    let unit = match unit.trim() {
        "µs" | "μs" => "us",
        other => other,
    };
    PERIOD_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, nanos)| *nanos)
}

/// `number` (digits with at most one point) times `unit`, rounded down; `None` if it is no number.
/// Saturates instead of overflowing, since the caller's own limit is far below.
fn scaled(number: &str, unit: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let unit = u128::from(unit);
    let whole = whole.bytes().fold(0_u128, |value, digit| {
        value.saturating_mul(10).saturating_add(u128::from(digit.saturating_sub(b'0')))
    });
    // Units have at most thirteen digits, so digits behind the twentieth cannot count; products stay below 2^109.
    let (mut numerator, mut denominator) = (0_u128, 1_u128);
    for digit in fraction.bytes().take(20) {
        numerator = numerator * 10 + u128::from(digit.saturating_sub(b'0'));
        denominator *= 10;
    }
    Some(whole.saturating_mul(unit).saturating_add(numerator * unit / denominator))
}

impl fmt::Display for Period {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return formatter.write_str("0s");
        }
        let mut rest = self.0;
        for (name, nanos) in PERIOD_UNITS {
            // Below a minute one unit reads better than several: 1500ms, not 1s500ms.
            if self.0 < MINUTE_NANOS && rest.is_multiple_of(nanos) {
                return write!(formatter, "{}{name}", rest / nanos);
            }
            if self.0 >= MINUTE_NANOS && rest >= nanos {
                write!(formatter, "{}{name}", rest / nanos)?;
                rest %= nanos;
            }
        }
        Ok(())
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number of bytes in a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many mebibytes, saturating.
    pub const fn mebibytes(mebibytes: u64) -> Self {
        Self(mebibytes.saturating_mul(1 << 20))
    }

    /// The number of bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused = || {
            UnitError(format!("{text:?} is not a size; write bytes or a unit, such as 512 KB, 10 MB or 4MiB"))
        };
        let trimmed = text.trim();
        let number_end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(number_end);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            _ => return Err(refused()),
        };
        let bytes = scaled(number, factor).ok_or_else(refused)?;
        let too_large = |_| UnitError(format!("{text:?} is too large; the largest size is 2^64 - 1 bytes"));
        Ok(Self(u64::try_from(bytes).map_err(too_large)?))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, name) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(formatter, "{} {name}", self.0 >> shift);
            }
        }
        write!(formatter, "{} B", self.0)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
