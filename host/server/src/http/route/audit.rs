//! `/v1/audit`

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;
use skep_rules::id::Digest;

use super::blocking;
use crate::{
    driver::decode,
    host::Shared,
    http::{
        api::{
            Page,
            audit::{Row, Verified},
            problem::Problem,
        },
        extract::{Query, page_size},
        problem::Answer,
    },
};

/// Which rows.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// The first row, 1 when absent.
    from: Option<u64>,
    /// At most so many, 100 when absent.
    limit: Option<usize>,
}

/// Read the audit log, the oldest row first. `next` is the `from` of the next page.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", params(ListQuery),
    responses((status = 200, body = Page<Row>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(State(shared): State<Arc<Shared>>, Query(query): Query<ListQuery>) -> Answer<Json<Page<Row>>> {
    let limit = page_size(query.limit)?;
    let page = blocking(&shared.driver, move |driver| {
        let mut rows = driver.store.audit(query.from.unwrap_or(1), limit + 1)?;
        let next = (rows.len() > limit)
            .then(|| rows.pop())
            .flatten()
            .map(|row| row.seq.to_string());
        let row = |row: skep_store::AuditRow| {
            Ok(Row {
                seq: row.seq,
                entry: row.payload.as_deref().map(decode).transpose()?,
                digest: Digest::from_bytes(row.digest),
                chain: Digest::from_bytes(row.chain),
            })
        };
        let items = rows.into_iter().map(row).collect::<Result<_, crate::driver::Error>>()?;
        Ok(Page { items, next })
    });
    Ok(Json(page.await?))
}

/// Recompute the whole chain of the audit log.
#[utoipa::path(get, path = "/v1/audit/verify", tag = "audit",
    responses((status = 200, description = "Every row follows from the one before", body = Verified),
        (status = 500, description = "A row was changed, dropped or put in between; the host's log names it", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn verify(State(shared): State<Arc<Shared>>) -> Answer<Json<Verified>> {
    let head = blocking(&shared.driver, |driver| Ok(driver.store.verify_audit()?)).await?;
    Ok(Json(Verified {
        rows: head.seq,
        chain: Digest::from_bytes(head.chain),
    }))
}
