//! What has happened: an append-only journal, tables, blobs and a hash-chained audit log, made durable together.
//!
//! The store remembers and nothing else. Entries, rows and payloads are opaque bytes; it does not know what an agent is.
//! [`Store::append`] never waits for the disk: it hands out positions, and [`Store::wait`] tells when one is durable. A
//! crash keeps a prefix of the journal, with exactly the audit rows and table writes that belong to that prefix.
//!
//! ```
//! use skep_store::{Batch, Options, Store, Table, Write};
//!
//! const COLOURS: Table = Table::new("colours");
//!
//! # fn main() -> Result<(), skep_store::Error> {
//! let (store, recovered) = Store::in_memory(Options::default())?;
//! assert_eq!(recovered.entries().count(), 0);
//!
//! let write = Write::Put { table: COLOURS, key: b"sky".to_vec(), value: b"blue".to_vec() };
//! let position = store.append(Batch { entries: vec![b"painted".to_vec()], writes: vec![write], ..Batch::default() })?;
//! assert_eq!(store.get(COLOURS, b"sky")?.as_deref(), Some(&b"blue"[..])); // at once, durable or not
//! store.wait_blocking(position)?;
//! assert_eq!(store.durable(), position);
//! # Ok(())
//! # }
//! ```

mod audit;
mod backup;
mod batch;
mod blob;
mod checkpoint;
pub mod engine;
mod error;
mod frame;
mod key;
mod memory;
mod overlay;
mod piece;
mod record;
mod redb;
mod restore;
mod seal;
mod store;
mod upgrade;
mod writer;

pub use audit::{AUDIT_BYTES, AuditHead, AuditRow};
pub use backup::{BACKUP_FILE_BYTES, BackedUp, check_backup};
pub use batch::{Batch, KEY_BYTES, VALUE_BYTES, Write};
pub use blob::{Blobs, Digest, NotADigest};
pub use checkpoint::Recovered;
pub use error::Error;
pub use frame::{Entry, FRAME_BYTES};
pub use key::{Position, Range, Table};
pub use memory::Memory;
pub use redb::Redb;
pub use restore::restore;
pub use store::{Options, SCAN_ROWS, Store};
