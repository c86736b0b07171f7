//! What the scanners and the checker of the audit share: how a batch is read, what counts as a finding, and how a finding is quoted
//! without giving a secret away.
//!
//! Everything here is a pure function of the bytes of one file (and, for `no-license`, of the names around it), so the checker verifies a
//! finding by asking the same question again. Only [`agent`] knows the SDK; nothing here knows the host. It builds natively and is tested there.
//!
//! ```
//! use skep_scan::secret::{Place, Secrets};
//!
//! let secrets = Secrets::new();
//! let line = b"remote = https://ci:tr0ub4dor@git.acme.dev/x.git";
//! let found = secrets.find(line, 0..line.len(), Place::default());
//! assert_eq!(found[0].rule, "url-password");
//! assert_eq!(secrets.excerpt(line, found[0].secret.start), "remote = https://ci:****@git.acme.dev/x.git");
//! ```

pub mod agent;
pub mod batch;
pub mod blocks;
pub mod excerpt;
pub mod language;
pub mod license;
pub mod scanner;
pub mod secret;
pub mod spdx;
pub mod todo;
