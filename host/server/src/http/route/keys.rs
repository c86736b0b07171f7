//! `/v1/keys`

use std::{collections::BTreeSet, sync::Arc};

use axum::{Json, extract::State};
use skep_rules::{
    command::Command,
    key::PublicKey,
    limits::MAX_RELEASE_LIFE,
    metadata::{self, Clock, Document, Index, Root, Rotation},
    reason::Reason,
    rejection::Rejection,
    trust::Revocation,
};
use skep_runtime::signature::{self, Opened};

use super::{blocking, plugins::revoked};
use crate::{
    driver::{ADMIN, Decided, Driver, Error},
    host::Shared,
    http::{
        api::{
            key::{NewPublisher, ResetTime, Revoke, Trust},
            plugin::Revoked,
            problem::Problem,
        },
        extract::Body,
        problem::{Answer, Refusal},
    },
    install, read,
};

/// Read what this host trusts: publishers, their keys, the roles, and what is revoked.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", responses((status = 200, body = Trust)))]
pub(crate) async fn show(State(shared): State<Arc<Shared>>) -> Answer<Json<Trust>> {
    let now = shared.driver.clock.now();
    Ok(Json(shared.driver.read_durable(|state| read::trust(state, now)).await?))
}

/// What is trusted once a decision is durable.
async fn after(shared: &Shared, decided: Decided) -> Answer<Json<Trust>> {
    shared.driver.store.wait(decided.position).await?;
    let now = shared.driver.clock.now();
    Ok(Json(shared.driver.read_durable(|state| read::trust(state, now)).await?))
}

/// Trust a publisher, or say anew what it may sign. Only while no root was adopted.
#[utoipa::path(post, path = "/v1/keys", tag = "keys", request_body = NewPublisher,
    responses((status = 200, description = "Trusted, durable", body = Trust), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn trust(State(shared): State<Arc<Shared>>, body: Body) -> Answer<Json<Trust>> {
    let new: NewPublisher = body.json()?;
    for key in new.release.keys.iter().chain(&new.recovery) {
        signature::check_key(*key).map_err(|refused| Refusal::from(Rejection::from(refused)))?;
    }
    let decided = shared.driver.accept(|_, _, now| {
        Ok(Command::TrustPublisher {
            publisher: metadata::Publisher {
                name: new.name,
                release: new.release,
                recovery: new.recovery,
                plugins: new.plugins,
                ceiling: new.ceiling,
                expires: new.expires.unwrap_or_else(|| now.after(MAX_RELEASE_LIFE)),
            },
            by: ADMIN.to_owned(),
        })
    })?;
    after(&shared, decided).await
}

/// Computes the signatures of a document and has it decided. A refusal is put on record.
async fn adopt<D: Document + Send + 'static>(
    shared: &Arc<Shared>,
    body: Body,
    keys: impl FnOnce(&Driver, &[u8]) -> Result<BTreeSet<PublicKey>, Error> + Send + 'static,
    command: impl FnOnce(Opened<D>) -> Command + Send + 'static,
) -> Answer<Json<Trust>> {
    let decided = blocking(&shared.driver, move |driver| {
        let adopted = keys(driver, &body.0).and_then(|keys| {
            let opened = signature::open::<D>(&body.0, keys).map_err(Rejection::from)?;
            driver.accept(|_, _, _| Ok(command(opened)))
        });
        adopted.inspect_err(|error| install::note(driver, D::NAME, error))
    })
    .await?;
    after(shared, decided).await
}

/// Refuses a document that names a key under which anything holds.
fn sound<'a>(keys: impl IntoIterator<Item = &'a PublicKey>) -> Result<(), Rejection> {
    for key in keys {
        signature::check_key(*key).map_err(|refused| Rejection::new(Reason::InvalidMetadata, refused.message))?;
    }
    Ok(())
}

/// The keys of this host, and those that an unsigned reading of a root names: that enough of both have signed it is decided with the
/// signatures computed.
fn root_keys(driver: &Driver, envelope: &[u8]) -> Result<BTreeSet<PublicKey>, Error> {
    let mut keys = install::keys(driver)?;
    let most = skep_rules::limits::MAX_METADATA_ENVELOPE_BYTES;
    let envelope = signature::Envelope::parse(envelope, most).map_err(Rejection::from)?;
    let root = Root::parse(envelope.payload()).map_err(Rejection::from)?;
    let publishers = root.publishers.iter();
    let published = publishers.flat_map(|publisher| publisher.release.keys.iter().chain(&publisher.recovery));
    let roles = [Some(&root.root), root.index.as_ref(), root.clock.as_ref()];
    let named = roles.into_iter().flatten().flat_map(|role| &role.keys);
    sound(named.chain(published))?;
    keys.extend(root.root.keys.iter().copied());
    Ok(keys)
}

/// Adopt a root: who may sign what. The first is signed by its own keys, each later one by those of the one before as well.
#[utoipa::path(post, path = "/v1/keys/root", tag = "keys", request_body(content = Vec<u8>, content_type = "application/json", description = "The envelope"),
    responses((status = 200, description = "Adopted, durable", body = Trust), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn root(State(shared): State<Arc<Shared>>, body: Body) -> Answer<Json<Trust>> {
    let command = |opened: Opened<Root>| Command::AdoptRoot {
        root: opened.document,
        signers: opened.signers,
        by: ADMIN.to_owned(),
    };
    adopt(&shared, body, root_keys, command).await
}

/// Let a publisher change its keys: signed by its release keys of before and its recovery key.
#[utoipa::path(post, path = "/v1/keys/rotation", tag = "keys", request_body(content = Vec<u8>, content_type = "application/json", description = "The envelope"),
    responses((status = 200, description = "Rotated, durable", body = Trust), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn rotation(State(shared): State<Arc<Shared>>, body: Body) -> Answer<Json<Trust>> {
    let keys = |driver: &Driver, envelope: &[u8]| {
        let most = skep_rules::limits::MAX_METADATA_ENVELOPE_BYTES;
        let envelope = signature::Envelope::parse(envelope, most).map_err(Rejection::from)?;
        let rotation = Rotation::parse(envelope.payload()).map_err(Rejection::from)?;
        sound(rotation.release.keys.iter().chain([&rotation.recovery]))?;
        install::keys(driver)
    };
    let command = |opened: Opened<Rotation>| Command::RotateKeys {
        rotation: opened.document,
        signers: opened.signers,
        by: ADMIN.to_owned(),
    };
    adopt(&shared, body, keys, command).await
}

/// Adopt an index: what is newest, and what is revoked. Agents of what it revokes are drained and then ended.
#[utoipa::path(post, path = "/v1/keys/index", tag = "keys", request_body(content = Vec<u8>, content_type = "application/json", description = "The envelope"),
    responses((status = 200, description = "Adopted, durable", body = Trust), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn index(State(shared): State<Arc<Shared>>, body: Body) -> Answer<Json<Trust>> {
    let command = |opened: Opened<Index>| Command::AdoptIndex {
        index: opened.document,
        digest: opened.digest,
        signers: opened.signers,
        by: ADMIN.to_owned(),
    };
    adopt(&shared, body, |driver, _| install::keys(driver), command).await
}

/// Adopt a clock: which index is the newest.
#[utoipa::path(post, path = "/v1/keys/clock", tag = "keys", request_body(content = Vec<u8>, content_type = "application/json", description = "The envelope"),
    responses((status = 200, description = "Adopted, durable", body = Trust), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn clock(State(shared): State<Arc<Shared>>, body: Body) -> Answer<Json<Trust>> {
    let command = |opened: Opened<Clock>| Command::AdoptClock {
        clock: opened.document,
        signers: opened.signers,
        by: ADMIN.to_owned(),
    };
    adopt(&shared, body, |driver, _| install::keys(driver), command).await
}

/// Revoke a key, or a publisher with all its keys, at once: what they signed is ended where it runs. There is no way back.
#[utoipa::path(post, path = "/v1/keys/revoke", tag = "keys", request_body = Revoke,
    responses((status = 200, description = "Revoked, durable", body = Revoked), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn revoke(State(shared): State<Arc<Shared>>, body: Body) -> Answer<Json<Revoked>> {
    let Revoke { key, publisher, reason } = body.json()?;
    let what = match (key, publisher) {
        (Some(key), None) => Revocation::Key(key),
        (None, Some(publisher)) => Revocation::Publisher(publisher),
        _ => return Err(Refusal::invalid("give either `key` or `publisher`")),
    };
    Ok(Json(revoked(&shared, |_| Ok(what), reason).await?))
}

/// Take the machine's clock for right again, after it stood in the future.
#[utoipa::path(post, path = "/v1/keys/time", tag = "keys", request_body = ResetTime,
    responses((status = 200, description = "Reset, durable", body = Trust), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn time(State(shared): State<Arc<Shared>>, body: Body) -> Answer<Json<Trust>> {
    let ResetTime { reason } = body.json()?;
    let decided = shared.driver.decide(Vec::new(), |_, _, _| {
        Ok(Command::ResetTime {
            why: reason,
            by: ADMIN.to_owned(),
        })
    })?;
    after(&shared, decided).await
}
