//! The seal at the end of every row that has no hash of its own: the engine checks its pages when it opens a small file or
//! one that was not closed, and trusts them afterwards. A value that has changed on the disk since, or that stands under
//! another key, is refused instead of being served.

use crate::{Error, Table};

/// Bytes of a seal: one damaged row in 2⁶⁴ would pass.
const SEAL: usize = 8;

fn seal(table: Table, key: &[u8], value: &[u8]) -> [u8; SEAL] {
    let mut hash = blake3::Hasher::new();
    // Lengths first, so that bytes cannot move between the three.
    for part in [table.name().as_bytes(), key] {
        hash.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut seal = [0; SEAL];
    hash.update(value).finalize_xof().fill(&mut seal);
    seal
}

/// The row to be stored for a value.
pub(crate) fn sealed(table: Table, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(value.len() + SEAL);
    row.extend_from_slice(value);
    row.extend_from_slice(&seal(table, key, value));
    row
}

/// Whether a row is as it was written, its seal included.
pub(crate) fn is_sealed(table: Table, key: &[u8], row: &[u8]) -> bool {
    row.split_last_chunk::<SEAL>()
        .is_some_and(|(value, found)| seal(table, key, value) == *found)
}

/// The value of a stored row, refusing one that is not as it was written.
pub(crate) fn opened(table: Table, key: &[u8], mut row: Vec<u8>) -> Result<Vec<u8>, Error> {
    if !is_sealed(table, key, &row) {
        let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let at = format!("table {}, key {key}: its bytes do not match its seal", table.name());
        return Err(Error::damaged("row", at));
    }
    row.truncate(row.len() - SEAL);
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_opens_only_as_it_was_written_and_where_it_was_put() {
        let table = Table::new("colours");
        let row = sealed(table, b"sky", b"blue");
        assert_eq!(opened(table, b"sky", row.clone()).unwrap(), b"blue");
        for at in 0..row.len() {
            let mut row = row.clone();
            row[at] ^= 0x80;
            assert_eq!(
                opened(table, b"sky", row).unwrap_err().to_string(),
                "damaged row: table colours, key 736b79: its bytes do not match its seal"
            );
        }
        assert!(opened(table, b"sea", row.clone()).is_err(), "another key");
        assert!(
            opened(Table::new("other"), b"sky", row.clone()).is_err(),
            "another table"
        );
        assert!(opened(table, b"sky", row[..SEAL - 1].to_vec()).is_err(), "cut");
    }
}
