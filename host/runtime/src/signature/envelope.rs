//! The envelope of a signed document, after DSSE 1.0 (<https://github.com/secure-systems-lab/dsse>): the signed bytes as they are, their type,
//! and signatures over both. Knows nothing of what the bytes say. What is read here was written by strangers, so reading is strict: a
//! second spelling of an envelope is nothing that anyone needs.

use std::collections::BTreeSet;

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};
use skep_rules::{
    grant::Refused,
    key::{KeyId, PublicKey},
    limits::MAX_SIGNATURES,
    reason::Reason,
};

use super::{holds, key::SecretKey};
use crate::{escape::escape, plugin::refuse};

/// An envelope that was read: none of its signatures is known to hold before [`Envelope::verify`] says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    payload_type: String,
    /// One per key.
    signatures: Vec<(KeyId, Vec<u8>)>,
}

/// The envelope as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Json {
    payload: String,
    payload_type: String,
    signatures: Vec<Entry>,
}

/// One signature as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    keyid: KeyId,
    sig: String,
}

impl Envelope {
    /// Reads an envelope of at most `most` bytes.
    ///
    /// # Errors
    /// [`Reason::SignatureInvalid`]: too long, not JSON of this shape, a key that is unknown or there twice, base64 other than the standard one
    /// with its padding, no signature, more than [`MAX_SIGNATURES`], or two of the same key.
    pub fn parse(bytes: &[u8], most: usize) -> Result<Self, Refused> {
        if bytes.len() > most {
            return Err(bad(format!("it has {} bytes, at most {most}", bytes.len())));
        }
        let json: Json = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        if json.signatures.is_empty() || json.signatures.len() > MAX_SIGNATURES {
            let count = json.signatures.len();
            return Err(bad(format!(
                "it has {count} signatures; 1 to {MAX_SIGNATURES} are possible"
            )));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = json.signatures.iter().find(|entry| !seen.insert(entry.keyid)) {
            return Err(bad(format!("it has two signatures of {}", twice.keyid.short())));
        }
        let signature = |entry: Entry| Ok((entry.keyid, decode(&entry.sig, "sig")?));
        Ok(Envelope {
            payload: decode(&json.payload, "payload")?,
            payload_type: json.payload_type,
            signatures: json.signatures.into_iter().map(signature).collect::<Result<_, _>>()?,
        })
    }

    /// An envelope around bytes, signed by each of the keys once.
    pub(super) fn around(payload_type: &str, payload: &[u8], keys: &[&SecretKey]) -> Self {
        let message = pae(payload_type, payload);
        let mut seen = BTreeSet::new();
        let keys = keys.iter().map(|key| (key.public().id(), key));
        let keys = keys.filter(|(id, _)| seen.insert(*id));
        Envelope {
            payload: payload.to_vec(),
            payload_type: payload_type.to_owned(),
            signatures: keys.map(|(id, key)| (id, key.sign(&message).to_vec())).collect(),
        }
    }

    /// The bytes that are signed.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The type of what is signed, as the envelope has it.
    #[must_use]
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The keys that are said to have signed, in the order of the envelope.
    pub fn key_ids(&self) -> impl Iterator<Item = KeyId> {
        self.signatures.iter().map(|(key, _)| *key)
    }

    /// Which of these keys have signed the payload as one of this type. Signatures of other keys say nothing and are passed over; the set is
    /// empty when all are.
    ///
    /// # Errors
    /// [`Reason::SignatureInvalid`]: the envelope is of another type, or the signature of one of these keys does not hold: whoever changed it
    /// wanted something.
    pub fn verify(
        &self,
        expected_type: &str,
        keys: impl IntoIterator<Item = PublicKey>,
    ) -> Result<BTreeSet<KeyId>, Refused> {
        if self.payload_type != expected_type {
            let found = escape(self.payload_type.as_bytes(), 128);
            return Err(bad(format!("it holds `{found}`, not `{expected_type}`")));
        }
        let message = pae(expected_type, &self.payload);
        let mut signers = BTreeSet::new();
        for key in keys {
            let id = key.id();
            let Some((_, signature)) = self.signatures.iter().find(|(signer, _)| *signer == id) else {
                continue;
            };
            if !holds(key, &message, signature) {
                return Err(bad(format!("the signature of {} does not hold", id.short())));
            }
            signers.insert(id);
        }
        Ok(signers)
    }

    /// Adds the signature of a key, or makes it anew.
    ///
    /// # Errors
    /// [`Reason::SignatureInvalid`]: there are [`MAX_SIGNATURES`] already.
    pub fn add(&mut self, key: &SecretKey) -> Result<(), Refused> {
        let id = key.public().id();
        self.signatures.retain(|(signer, _)| *signer != id);
        if self.signatures.len() >= MAX_SIGNATURES {
            return Err(bad(format!("it has {MAX_SIGNATURES} signatures already")));
        }
        let signature = key.sign(&pae(&self.payload_type, &self.payload)).to_vec();
        self.signatures.push((id, signature));
        Ok(())
    }

    /// The envelope as it is written.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let entry = |(key, signature): &(KeyId, Vec<u8>)| Entry {
            keyid: *key,
            sig: Base64::encode_string(signature),
        };
        let json = Json {
            payload: Base64::encode_string(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: self.signatures.iter().map(entry).collect(),
        };
        serde_json::to_vec(&json).expect("an envelope has only texts and a list")
    }
}

/// What is signed of a payload: DSSE's pre-authentication encoding, in which no payload reads as another's type.
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn decode(text: &str, what: &str) -> Result<Vec<u8>, Refused> {
    Base64::decode_vec(text).map_err(|_| {
        bad(format!(
            "`{what}` is not base64 of the standard alphabet with its padding"
        ))
    })
}

fn bad(message: String) -> Refused {
    refuse(Reason::SignatureInvalid, format!("the envelope: {message}"))
}
