//! What the host says about itself: structured lines on standard error. Standard output belongs to commands.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

/// How the lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The level that is used where none is given.
pub const DEFAULT_LEVEL: &str = "info";

/// A filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{filter}` is no log filter (a level such as `debug`, or `target=level` pairs)")]
pub struct Error {
    /// What was given.
    pub filter: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Begins to log. A second call changes nothing.
///
/// # Errors
/// When the filter cannot be read.
pub fn start(filter: &str, format: Format, colour: bool) -> Result<(), Error> {
    let parsed = EnvFilter::builder().parse(filter).map_err(|source| Error {
        filter: filter.to_owned(),
        source,
    })?;
    let terminal = std::io::stderr().is_terminal();
    let lines = fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    let json = match format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    // An error means that a subscriber is there already, which then stays.
    let started = if json {
        lines.json().flatten_event(true).try_init()
    } else {
        lines.with_ansi(colour && terminal).with_target(false).try_init()
    };
    drop(started);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named() {
        let error = start("a=b=c", Format::Text, false).unwrap_err();
        assert!(error.to_string().contains("a=b=c"));
    }
}
