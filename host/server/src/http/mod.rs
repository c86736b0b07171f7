//! The HTTP API: the list of routes, and what every request passes through. Handlers are in `route`, the JSON is in [`api`], errors become
//! problem documents in `problem` and nowhere else.

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, middleware, response::IntoResponse, routing::get};
use skep_rules::limits::MAX_BODY_BYTES;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::host::Shared;

pub mod api;
mod auth;
mod extract;
mod problem;
mod route;
pub(crate) mod serve;
#[cfg(test)]
mod tests;
mod zstd;

/// The description of the API besides its routes.
#[derive(OpenApi)]
#[openapi(
    info(title = "Skep", description = "Runs agents you did not write.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    components(schemas(api::problem::Problem, api::event::Event, api::plugin::Checked)),
    modifiers(&Bearer),
    security(("token" = []))
)]
struct Description;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let scheme = scheme.description(Some("The text of `admin.token` in the data directory."));
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(scheme.build()));
    }
}

/// Every route. Those of `public` answer without a token.
fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(route::tasks::submit, route::tasks::list))
        .routes(routes!(route::tasks::show, route::tasks::change))
        .routes(routes!(route::tasks::tree))
        .routes(routes!(route::tasks::export_tree))
        .routes(routes!(route::tasks::logs))
        .routes(routes!(route::tasks::redrive))
        .routes(routes!(route::approvals::list, route::approvals::decide))
        .routes(routes!(route::approvals::show))
        .routes(routes!(route::records::steps))
        .routes(routes!(route::records::export))
        .routes(routes!(route::state::list))
        .routes(routes!(route::state::show))
        .routes(routes!(route::state::history))
        .routes(routes!(route::messages::send, route::messages::list))
        .routes(routes!(route::messages::show))
        .routes(routes!(route::messages::tail))
        .routes(routes!(route::messages::redrive))
        .routes(routes!(route::crews::assemble))
        .routes(routes!(route::crews::list))
        .routes(routes!(route::crews::status))
        .routes(routes!(route::crews::drain))
        .routes(routes!(route::agents::list))
        .routes(routes!(route::agents::show))
        .routes(routes!(route::plugins::list))
        .routes(routes!(route::plugins::show, route::plugins::remove))
        .routes(routes!(route::plugins::revoke))
        .routes(routes!(route::plugins::diff))
        .routes(routes!(route::plugins::component))
        .route("/v1/plugins/{publisher}/{name}", get(route::plugins::show_named))
        .routes(routes!(route::keys::show, route::keys::trust))
        .routes(routes!(route::keys::root))
        .routes(routes!(route::keys::rotation))
        .routes(routes!(route::keys::index))
        .routes(routes!(route::keys::clock))
        .routes(routes!(route::keys::revoke))
        .routes(routes!(route::keys::time))
        .routes(routes!(route::artifacts::fetch))
        .routes(routes!(route::events::stream))
        .routes(routes!(route::audit::list))
        .routes(routes!(route::audit::verify))
        .routes(routes!(route::host::show))
        .routes(routes!(route::backup::make))
        .routes(routes!(route::logs::list))
        .routes(routes!(route::schedules::create, route::schedules::list))
        .routes(routes!(route::schedules::show, route::schedules::delete))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(route::plugins::install))
                .layer(route::plugins::limit()),
        )
        .merge(
            OpenApiRouter::new()
                .routes(routes!(route::host::healthz))
                .routes(routes!(route::host::readyz))
                .routes(routes!(route::metrics::metrics))
                .routes(routes!(route::host::openapi)),
        )
}

/// The API over a host.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let (router, openapi) = routes().split_for_parts();
    let text = openapi.to_json().expect("the description is made of texts and maps");
    drop(shared.openapi.set(text.into()));
    router
        .fallback(|| async { problem::Refusal::no_route() })
        .method_not_allowed_fallback(|| async { problem::Refusal::no_method() })
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), auth::check))
        .layer(CatchPanicLayer::custom(|_| {
            problem::Refusal::panicked().into_response()
        }))
        .with_state(shared)
}
