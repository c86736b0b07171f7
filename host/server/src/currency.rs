//! How current this build is: its wasmtime, the advisories that were known against it, its age. Knows what was true at build time only; it asks
//! nobody.

use std::sync::LazyLock;

use semver::Version;
use serde::Deserialize;
use skep_rules::{limits::BUILD_LIFE, quantity::Time};
use skep_runtime::WASMTIME;

use crate::http::api::host::{Advisory, Currency};

/// The list as it is checked in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// The version of wasmtime that it was compared with.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test compares it with what is compiled in"))]
    checked: String,
    /// When: `2026-01-31`.
    date: String,
    advisory: Vec<Advisory>,
}

/// Read once: it is a part of the binary.
static LIST: LazyLock<List> = LazyLock::new(|| {
    toml::from_str(include_str!("advisories.toml")).expect("a test reads the list that is compiled in")
});

/// When this binary was built, as its build script said.
///
/// # Panics
/// Never: the build script writes a number.
#[must_use]
pub fn built_at() -> Time {
    let seconds: u64 = env!("SKEP_BUILT_SECONDS")
        .parse()
        .expect("the build script writes a number");
    Time(seconds.saturating_mul(1_000))
}

/// How current this build is at a point in time.
#[must_use]
pub fn at(now: Time) -> Currency {
    let built_at = built_at();
    Currency {
        wasmtime: WASMTIME.to_owned(),
        built_at,
        outdated: now.since(built_at) > BUILD_LIFE,
        advisories_as_of: LIST.date.clone(),
        advisories: LIST.against(WASMTIME),
    }
}

impl List {
    /// The advisories that a version has no fix of. Versions that cannot be compared count as having none.
    fn against(&self, version: &str) -> Vec<Advisory> {
        let version = Version::parse(version);
        let fixed = |advisory: &Advisory| match (Version::parse(&advisory.fixed), &version) {
            (Ok(fixed), Ok(version)) => fixed <= *version,
            _ => false,
        };
        self.advisory
            .iter()
            .filter(|advisory| !fixed(advisory))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use skep_rules::quantity::Millis;

    use super::*;

    #[test]
    fn the_list_was_compared_with_the_wasmtime_that_is_compiled_in() {
        assert_eq!(
            LIST.checked, WASMTIME,
            "advisories.toml: look at what was published about this version, then change `checked` and `date`"
        );
        let locked: Vec<&str> = include_str!("../../../Cargo.lock")
            .split("name = \"wasmtime\"\nversion = \"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert_eq!(locked, [WASMTIME]);
    }

    #[test]
    fn an_advisory_is_told_until_its_fix_is_compiled_in() {
        let list = |fixed: &[&str]| List {
            checked: String::new(),
            date: String::new(),
            advisory: fixed
                .iter()
                .map(|fixed| Advisory {
                    fixed: (*fixed).to_owned(),
                    ..LIST.advisory[0].clone()
                })
                .collect(),
        };
        let told = |version: &str| {
            let told = list(&["48.0.9", "48.0.10", "49.0.0", "soon"]).against(version);
            told.into_iter().map(|advisory| advisory.fixed).collect::<Vec<_>>()
        };
        assert_eq!(told("48.0.8"), ["48.0.9", "48.0.10", "49.0.0", "soon"]);
        assert_eq!(told("48.0.9"), ["48.0.10", "49.0.0", "soon"]);
        assert_eq!(told("49.0.0"), ["soon"]);
        assert_eq!(told("?").len(), 4);
    }

    #[test]
    fn every_advisory_is_named_once_and_dated() {
        let mut ids: Vec<&str> = LIST.advisory.iter().map(|advisory| advisory.id.as_str()).collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
        assert!(
            ids.iter()
                .all(|id| id.starts_with("GHSA-") || id.starts_with("RUSTSEC-")),
            "{ids:?}"
        );
        assert!(
            LIST.advisory
                .iter()
                .all(|advisory| Version::parse(&advisory.fixed).is_ok())
        );
        let digits = LIST.date.split('-').map(|part| part.parse::<u32>().map(|_| part.len()));
        assert_eq!(
            digits.collect::<Result<Vec<_>, _>>(),
            Ok(vec![4, 2, 2]),
            "{}",
            LIST.date
        );
    }

    #[test]
    fn a_build_is_outdated_after_ninety_days() {
        let built = built_at();
        assert!(built > Time(1_700_000_000_000), "{built:?}");
        for (age, outdated) in [
            (Millis(0), false),
            (BUILD_LIFE, false),
            (Millis(BUILD_LIFE.0 + 1), true),
        ] {
            assert_eq!(at(built.after(age)).outdated, outdated, "{age}");
        }
        assert!(
            !at(Time(0)).outdated,
            "a clock that is before the build says nothing about its age"
        );
    }
}
