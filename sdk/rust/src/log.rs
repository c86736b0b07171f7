//! Structured log lines, shown to the operator by `skep logs` as they come, and by `skep task logs`. No grant needed.
//!
//! The host cuts a message at 4 KiB, keeps 16 fields of it, and past 1 MiB per attempt drops the oldest lines.

#[cfg(target_family = "wasm")]
use crate::bindings::imports::skep::agent::log as host;
#[cfg(not(target_family = "wasm"))]
use crate::double::log as host;

pub use crate::bindings::imports::skep::agent::log::Level;

/// Write one line with named fields.
pub fn write(level: Level, message: &str, fields: &[(&str, &str)]) {
    let fields: Vec<(String, String)> = fields
        .iter()
        .map(|&(name, value)| (name.into(), value.into()))
        .collect();
    host::write(level, message, &fields);
}

/// Detail for whoever debugs the agent.
pub fn trace(message: impl AsRef<str>) {
    host::write(Level::Trace, message.as_ref(), &[]);
}

/// What a developer wants to see.
pub fn debug(message: impl AsRef<str>) {
    host::write(Level::Debug, message.as_ref(), &[]);
}

/// What an operator wants to see.
pub fn info(message: impl AsRef<str>) {
    host::write(Level::Info, message.as_ref(), &[]);
}

/// Something is odd, the work goes on.
pub fn warn(message: impl AsRef<str>) {
    host::write(Level::Warn, message.as_ref(), &[]);
}

/// Something went wrong.
pub fn error(message: impl AsRef<str>) {
    host::write(Level::Error, message.as_ref(), &[]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::double;

    #[test]
    fn lines_arrive_with_level_and_fields() {
        info("reading");
        write(Level::Warn, "odd", &[("file", "a.rs")]);
        let lines = double::lines();
        assert_eq!(
            lines[0],
            double::Line {
                level: Level::Info,
                message: "reading".into(),
                fields: vec![]
            }
        );
        assert_eq!(lines[1].fields, [("file".to_string(), "a.rs".to_string())]);
    }
}
