//! Sizes, durations, fuel and points in time: numbers whose unit is their type. People write them with a suffix (`16MiB`, `30s`, `5G`).

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::id::text_serde;

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct Error {
    text: String,
    expected: &'static str,
}

/// Reads `123` or `123unit` where the units are given with what they multiply by, the largest first.
fn parse(text: &str, units: &[(&str, u64)], expected: &'static str) -> Result<u64, Error> {
    let error = || Error {
        text: text.chars().take(80).collect(),
        expected,
    };
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let number: u64 = number.parse().map_err(|_| error())?;
    let unit = unit.trim();
    let factor = units.iter().find(|(name, _)| *name == unit).ok_or_else(error)?.1;
    number.checked_mul(factor).ok_or_else(error)
}

/// Writes the largest unit that divides the number.
fn print(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let whole = |(_, factor): &&(&str, u64)| value != 0 && value.is_multiple_of(*factor);
    let (unit, factor) = units
        .iter()
        .find(whole)
        .copied()
        .unwrap_or(units.last().copied().unwrap_or(("", 1)));
    write!(f, "{}{unit}", value / factor)
}

macro_rules! quantities {
    ($($(#[$doc:meta])* $name:ident, $units:ident, $expected:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                print(f, self.0, $units)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                parse(text, $units, $expected).map($name)
            }
        }

        text_serde!($name);
    )*};
}

const SIZES: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1), ("", 1)];
const FUEL: &[(&str, u64)] = &[
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("K", 1_000),
    ("", 1),
];
const TIMES: &[(&str, u64)] = &[
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

quantities! {
    /// A number of bytes.
    Size, SIZES, "a size (a whole number of B, KiB, MiB or GiB)";
    /// Units of fuel; one is about one WebAssembly instruction, 1 G some 0.1 s of a tight loop.
    Fuel, FUEL, "an amount of fuel (a whole number, or with K, M, G or T)";
    /// A duration in milliseconds.
    Millis, TIMES, "a duration (a whole number of ms, s, min, h or d)";
}

impl Millis {
    /// As the standard library has it.
    #[must_use]
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

/// A point in time: milliseconds since 1970-01-01 00:00 UTC, as the driver's clock gave it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Time(#[n(0)] pub u64);

impl Time {
    /// Later by a duration; never wraps.
    #[must_use]
    pub fn after(self, delay: Millis) -> Time {
        Time(self.0.saturating_add(delay.0))
    }

    /// How long since an earlier point; zero when it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Time) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_what_they_print() {
        for (text, bytes) in [("16MiB", 16 << 20), ("0", 0), ("1537B", 1537), ("2GiB", 2 << 30)] {
            assert_eq!(text.parse(), Ok(Size(bytes)));
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!("50G".parse(), Ok(Fuel(50_000_000_000)));
        assert_eq!(
            ("5min".parse(), "5m".parse()),
            (Ok(Millis(300_000)), Ok(Millis(300_000)))
        );
        assert_eq!(Millis(1_500).to_string(), "1500ms");
    }

    #[test]
    fn quantities_refuse_what_they_cannot_hold() {
        for bad in [
            "",
            "MiB",
            "1.5MiB",
            "-1B",
            "1mib",
            "99999999999999999999",
            "18446744073709551615GiB",
        ] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
        assert!("30".parse::<Millis>().is_err(), "a bare number has no unit");
    }
}
