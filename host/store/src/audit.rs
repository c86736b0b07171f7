//! The audit log: rows numbered without gaps, chained over the digests of their payloads. Because the chain never touches
//! a payload itself, payloads can expire and the chain still proves that no row was changed, dropped or put in between.

use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::engine::Snapshot;
use crate::record::{Head, encode};
use crate::{Error, Range, Table};

pub(crate) const AUDIT: Table = Table::own(".audit");

/// Bytes of one audit payload: a row tells who did what to what, the rest is in the journal.
pub const AUDIT_BYTES: usize = 64 * 1024;

/// Rows read at a time while verifying.
const PAGE: usize = 256;

/// One row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number, from 1 without gaps.
    pub seq: u64,
    /// What the caller recorded; none once expired.
    pub payload: Option<Vec<u8>>,
    /// SHA-256 of the payload.
    pub digest: [u8; 32],
    /// SHA-256 of the previous row's chain, this row's number (8 bytes, big-endian) and its digest.
    pub chain: [u8; 32],
}

/// The end of the audit log. Who keeps a copy elsewhere can later prove that the log still begins with the same rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct AuditHead {
    /// The number of the last row; 0 when there is none.
    #[n(0)]
    pub seq: u64,
    /// Its chain; zeros when there is none.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub chain: [u8; 32],
}

#[derive(Debug, Encode, Decode)]
struct Stored {
    #[cbor(n(0), with = "minicbor::bytes")]
    digest: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    chain: [u8; 32],
    #[cbor(n(2), with = "minicbor::bytes")]
    payload: Option<Vec<u8>>,
}

fn sha256(payload: &[u8]) -> [u8; 32] {
    Sha256::digest(payload).into()
}

fn link(previous: &[u8; 32], seq: u64, digest: &[u8; 32]) -> [u8; 32] {
    Sha256::new()
        .chain_update(previous)
        .chain_update(seq.to_be_bytes())
        .chain_update(digest)
        .finalize()
        .into()
}

impl AuditHead {
    /// Chains one more payload; the key and row to store.
    pub(crate) fn push(&mut self, payload: &[u8]) -> ([u8; 8], Vec<u8>) {
        let digest = sha256(payload);
        let seq = self.seq + 1;
        *self = Self {
            seq,
            chain: link(&self.chain, seq, &digest),
        };
        (
            seq.to_be_bytes(),
            encode(&Stored {
                digest,
                chain: self.chain,
                payload: Some(payload.to_vec()),
            }),
        )
    }
}

impl AuditRow {
    fn decode(key: &[u8], row: &[u8]) -> Result<Self, Error> {
        let seq = <[u8; 8]>::try_from(key)
            .map(u64::from_be_bytes)
            .map_err(|_| Error::damaged("audit row", "a key is not a number"))?;
        let Stored { digest, chain, payload } =
            minicbor::decode(row).map_err(|error| Error::damaged("audit row", format!("{seq}: {error}")))?;
        Ok(Self {
            seq,
            payload,
            digest,
            chain,
        })
    }

    /// The end of a log of which this row is the last.
    fn head(&self) -> AuditHead {
        AuditHead {
            seq: self.seq,
            chain: self.chain,
        }
    }

    /// The row without its payload.
    pub(crate) fn expired(&self) -> Vec<u8> {
        encode(&Stored {
            digest: self.digest,
            chain: self.chain,
            payload: None,
        })
    }
}

/// The first `limit` rows numbered `from` or higher, as they lie there.
pub(crate) fn rows(snapshot: &dyn Snapshot, from: u64, limit: usize) -> Result<Vec<AuditRow>, Error> {
    let mut range = Range::all();
    range.start = std::ops::Bound::Included(from.to_be_bytes().to_vec());
    snapshot
        .scan(AUDIT, &range, limit)?
        .iter()
        .map(|(key, row)| AuditRow::decode(key, row))
        .collect()
}

fn damaged(seq: u64, why: &str) -> Error {
    Error::damaged("audit row", format!("{seq}: {why}"))
}

/// The first `limit` rows numbered `from` or higher, each checked against its digest and the row before it.
pub(crate) fn read(snapshot: &dyn Snapshot, head: &Head, from: u64, limit: usize) -> Result<Vec<AuditRow>, Error> {
    let from = from.max(1);
    let mut end = AuditHead::default();
    if from > head.audit.seq.saturating_add(1) {
        return Ok(Vec::new());
    }
    if from > 1 {
        let before = rows(snapshot, from - 1, 1)?.pop().filter(|row| row.seq == from - 1);
        end = before.ok_or_else(|| damaged(from - 1, "missing"))?.head();
    }
    let rows = rows(snapshot, from, limit)?;
    for row in &rows {
        end = follow(head, &end, row)?;
    }
    if rows.len() < limit && end.seq < head.audit.seq {
        return Err(damaged(end.seq + 1, "missing, the log is cut off here"));
    }
    Ok(rows)
}

/// The end of a log that ended with `end` and goes on with `row`, if it can.
fn follow(head: &Head, end: &AuditHead, row: &AuditRow) -> Result<AuditHead, Error> {
    let seq = end.seq + 1;
    if row.seq != seq {
        return Err(damaged(seq, "missing"));
    }
    match &row.payload {
        Some(payload) if sha256(payload) != row.digest => {
            return Err(damaged(seq, "its payload does not match its digest"));
        }
        None if seq > head.expired => return Err(damaged(seq, "its payload is missing")),
        _ => {}
    }
    if link(&end.chain, seq, &row.digest) != row.chain {
        return Err(damaged(seq, "its chain does not follow from the row before"));
    }
    if seq > head.audit.seq {
        return Err(damaged(seq, "it lies past the end of the log"));
    }
    Ok(row.head())
}

/// Walks the whole chain up to the head row.
pub(crate) fn verify(snapshot: &dyn Snapshot, head: &Head) -> Result<AuditHead, Error> {
    let mut end = AuditHead::default();
    while let Some(last) = read(snapshot, head, end.seq + 1, PAGE)?.last() {
        end = last.head();
    }
    if end != head.audit {
        return Err(damaged(head.audit.seq, "the log does not end as its head says"));
    }
    Ok(end)
}
