//! `/v1/artifacts`

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use skep_rules::{id::Digest, limits::MAX_ARTIFACT_BYTES};

use super::blocking;
use crate::{
    host::Shared,
    http::{
        api::problem::Problem,
        extract::{self, Query},
        problem::{Answer, Refusal},
    },
    perform,
};

/// Whose artifact.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct FetchQuery {
    /// The crew's id, unique prefix or name. May be left out where there is only one.
    crew: Option<String>,
}

/// Fetch an artifact of a crew. Another crew's is not there.
#[utoipa::path(get, path = "/v1/artifacts/{digest}", tag = "artifacts", params(("digest" = String, Path, description = "SHA-256"), FetchQuery),
    responses((status = 200, description = "The bytes, under the media type that they were stored with", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn fetch(
    State(shared): State<Arc<Shared>>,
    Path(digest): Path<String>,
    Query(query): Query<FetchQuery>,
) -> Answer<Response> {
    let digest: Digest = digest
        .parse()
        .map_err(|error: skep_rules::id::Error| Refusal::invalid(error.to_string()))?;
    let driver = &shared.driver;
    let (crew, _) = driver.read(|state| extract::crew(state, query.crew.as_deref()))?;
    let crew = crew?;
    let found = blocking(driver, move |driver| {
        let Some(artifact) = perform::artifact(driver, crew, digest)? else {
            return Ok(None);
        };
        let length = usize::try_from(MAX_ARTIFACT_BYTES).unwrap_or(usize::MAX);
        Ok(Some((
            artifact.media,
            driver.store.blobs().read(perform::blob(digest), 0, length)?,
        )))
    });
    let Some((media, bytes)) = found.await? else {
        return Err(Refusal::not_found(format!("artifact {digest} in this crew")));
    };
    let plain = HeaderValue::from_static("application/octet-stream");
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::try_from(media).unwrap_or(plain));
    // An agent wrote it: a browser is to keep it, not to run it under the API's origin.
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'"),
    );
    Ok(response)
}
