//! `skep:agent/state`: gives an agent the key-value state of its crew. Granted by `state` with a quota, which is kept where the state is. Refused: keys,
//! values and pages over their bounds, before a step is taken; everything once the grant was taken back, and to attempts without a record.

use skep_rules::{
    capability::Capability,
    limits::{MAX_STATE_KEY_BYTES, MAX_STATE_PAGE, MAX_STATE_VALUE_BYTES},
    reason::Reason,
    step::{StepCall, StepResult, Value},
};
use wasmtime::component::{HasSelf, Linker};

use super::stepped::Stepped;
use crate::{
    bindings::state::{self, Entry, Error, Key, Page, Version},
    ctx::Ctx,
    steps::Answer,
};

/// Links the interface.
///
/// # Errors
/// When the linker holds it already.
pub(super) fn link(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    use state::Host;
    state::add_to_linker::<Ctx, HasSelf<Ctx>>(linker, |ctx| ctx)?;
    let mut stepped = Stepped::new(linker, "skep:agent/state@0.1.0", |ctx| &mut ctx.base);
    stepped.plain("get", |ctx, (key,)| Ok((Host::get(ctx, key)?,)))?;
    stepped.plain("get-revision", |ctx, (key, revision)| {
        Ok((Host::get_revision(ctx, key, revision)?,))
    })?;
    stepped.plain("history", |ctx, (key,)| Ok((Host::history(ctx, key)?,)))?;
    stepped.plain("put", |ctx, (key, value)| Ok((Host::put(ctx, key, value)?,)))?;
    stepped.plain("compare-and-set", |ctx, (key, revision, value)| {
        Ok((Host::compare_and_set(ctx, key, revision, value)?,))
    })?;
    stepped.plain("delete", |ctx, (key, revision)| {
        Ok((Host::delete(ctx, key, revision)?,))
    })?;
    stepped.plain("list", |ctx, (prefix, after, limit)| {
        Ok((Host::list(ctx, prefix, after, limit)?,))
    })
}

/// What a call comes to: refused in words of the contract, or ended.
type Told<T> = wasmtime::Result<Result<T, Error>>;

impl Ctx {
    /// Takes the step of a call that moves `bytes`, if the agent may and the call is `sound`; `told` reads the kind of answer that it has.
    fn of_state<T>(
        &mut self,
        what: &str,
        bytes: usize,
        sound: bool,
        call: StepCall,
        told: impl FnOnce(StepResult) -> Result<T, StepResult>,
    ) -> Told<T> {
        if !self.step(Capability::State, bytes, what)? {
            return Ok(Err(Error::Denied));
        }
        if !sound {
            return Ok(Err(Error::InvalidInput));
        }
        let (reason, revision) = match self.base.steps.take(call)? {
            Answer::Given(StepResult::Refused { reason, revision }, _) => (reason, revision),
            Answer::Refused(reason) => (reason, 0),
            Answer::Given(result, ends) => {
                return match told(result) {
                    Ok(told) => Ok(Ok(told)),
                    Err(result) => Err(Answer::Given(result, ends).unfit().into()),
                };
            }
        };
        if matches!(reason, Reason::CapabilityDenied | Reason::QuotaExceeded) {
            self.base.denials.note(reason, what);
        }
        Ok(Err(error(reason, revision)))
    }

    fn write(&mut self, what: &str, key: String, value: Vec<u8>, expected: Option<u64>) -> Told<u64> {
        let sound = is_key(&key) && value.len() <= MAX_STATE_VALUE_BYTES;
        let bytes = key.len().saturating_add(value.len());
        let call = StepCall::Put { key, value, expected };
        self.of_state(what, bytes, sound, call, |result| match result {
            StepResult::Written(revision) => Ok(revision),
            other => Err(other),
        })
    }

    fn read(&mut self, what: &str, key: String, revision: Option<u64>) -> Told<Option<Entry>> {
        let (sound, bytes) = (is_key(&key), key.len());
        let call = StepCall::Get { key, revision };
        self.of_state(what, bytes, sound, call, |result| match result {
            StepResult::Value(value) => Ok(value.map(entry)),
            other => Err(other),
        })
    }
}

impl state::Host for Ctx {
    fn get(&mut self, key: String) -> Told<Option<Entry>> {
        self.read("state.get", key, None)
    }

    fn get_revision(&mut self, key: String, revision: u64) -> Told<Entry> {
        let found = self.read("state.get-revision", key, Some(revision))?;
        Ok(found.and_then(|entry| entry.ok_or(Error::NotFound)))
    }

    fn history(&mut self, key: String) -> Told<Vec<Version>> {
        let (sound, bytes) = (is_key(&key), key.len());
        let call = StepCall::History { key };
        self.of_state("state.history", bytes, sound, call, |result| match result {
            StepResult::Versions(versions) => {
                let version = |(revision, at): (u64, skep_rules::quantity::Time)| Version { revision, at: at.0 };
                Ok(versions.into_iter().map(version).collect())
            }
            other => Err(other),
        })
    }

    fn put(&mut self, key: String, value: Vec<u8>) -> Told<u64> {
        self.write("state.put", key, value, None)
    }

    fn compare_and_set(&mut self, key: String, revision: u64, value: Vec<u8>) -> Told<u64> {
        self.write("state.compare-and-set", key, value, Some(revision))
    }

    fn delete(&mut self, key: String, revision: Option<u64>) -> Told<bool> {
        let (sound, bytes) = (is_key(&key), key.len());
        let call = StepCall::Delete {
            key,
            expected: revision,
        };
        self.of_state("state.delete", bytes, sound, call, |result| match result {
            StepResult::Deleted(was_there) => Ok(was_there),
            other => Err(other),
        })
    }

    fn list(&mut self, prefix: String, after: Option<String>, limit: u32) -> Told<Page> {
        let texts = prefix.len().max(after.as_ref().map_or(0, String::len));
        let most = u32::try_from(MAX_STATE_PAGE).unwrap_or(u32::MAX);
        let sound = texts <= MAX_STATE_KEY_BYTES && (1..=most).contains(&limit);
        let call = StepCall::List { prefix, after, limit };
        self.of_state("state.list", 2 * texts, sound, call, |result| match result {
            StepResult::Keys { keys, more } => {
                let key = |(name, revision)| Key { name, revision };
                let keys = keys.into_iter().map(key).collect();
                Ok(Page { keys, more })
            }
            other => Err(other),
        })
    }
}

fn is_key(key: &str) -> bool {
    (1..=MAX_STATE_KEY_BYTES).contains(&key.len())
}

fn entry(value: Value) -> Entry {
    Entry {
        value: value.bytes,
        revision: value.revision,
        at: value.at.0,
    }
}

/// What a guest is told of a refusal; it never learns of troubles of the host.
fn error(reason: Reason, revision: u64) -> Error {
    match reason {
        Reason::NotFound => Error::NotFound,
        Reason::Conflict => Error::Conflict(revision),
        Reason::InvalidInput => Error::InvalidInput,
        Reason::QuotaExceeded => Error::QuotaExceeded,
        Reason::CapabilityDenied => Error::Denied,
        Reason::RecordFull => Error::RecordFull,
        _ => Error::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_bounds() {
        assert!(is_key("a") && is_key(&"a".repeat(MAX_STATE_KEY_BYTES)));
        assert!(!is_key("") && !is_key(&"a".repeat(MAX_STATE_KEY_BYTES + 1)));
    }

    #[test]
    fn a_refusal_shows_as_what_it_means_or_as_unavailable() {
        assert!(matches!(error(Reason::Conflict, 7), Error::Conflict(7)));
        assert!(matches!(error(Reason::RecordFull, 0), Error::RecordFull));
        assert!(matches!(error(Reason::DataDirectory, 0), Error::Unavailable));
    }
}
