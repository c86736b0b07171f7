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

    /// The row without its payload.
    pub(crate) fn expired(&self) -> Vec<u8> {
        encode(&Stored {
            digest: self.digest,
            chain: self.chain,
            payload: None,
        })
    }
}

/// The first `limit` rows numbered `from` or higher.
pub(crate) fn rows(snapshot: &dyn Snapshot, from: u64, limit: usize) -> Result<Vec<AuditRow>, Error> {
    let mut range = Range::all();
    range.start = std::ops::Bound::Included(from.to_be_bytes().to_vec());
    snapshot
        .scan(AUDIT, &range, limit)?
        .iter()
        .map(|(key, row)| AuditRow::decode(key, row))
        .collect()
}

/// Walks the whole chain up to the head row.
pub(crate) fn verify(snapshot: &dyn Snapshot) -> Result<AuditHead, Error> {
    let damaged = |seq: u64, why: &str| Error::damaged("audit row", format!("{seq}: {why}"));
    let head = Head::read(snapshot)?.map(|(head, _)| head).unwrap_or_else(Head::new);
    let mut end = AuditHead::default();
    loop {
        let page = rows(snapshot, end.seq + 1, PAGE)?;
        if page.is_empty() {
            break;
        }
        for row in page {
            let seq = end.seq + 1;
            if row.seq != seq {
                return Err(damaged(seq, "missing"));
            }
            if row
                .payload
                .as_ref()
                .is_some_and(|payload| sha256(payload) != row.digest)
            {
                return Err(damaged(seq, "its payload does not match its digest"));
            }
            if row.payload.is_none() && seq > head.expired {
                return Err(damaged(seq, "its payload is missing"));
            }
            end = AuditHead {
                seq,
                chain: link(&end.chain, seq, &row.digest),
            };
            if end.chain != row.chain {
                return Err(damaged(seq, "its chain does not follow from the row before"));
            }
        }
    }
    if end.seq < head.audit.seq {
        return Err(damaged(end.seq + 1, "missing, the log is cut off here"));
    }
    if end != head.audit {
        return Err(damaged(head.audit.seq, "the log does not end as its head says"));
    }
    Ok(end)
}
