//! The body of an upload: `multipart/form-data` (RFC 7578), read piece by piece, each field within its own bound. Unknown fields and fields
//! that come twice are refused: what a host installs is not to depend on how it reads.

use axum::{
    extract::{FromRequest as _, Multipart, Request, multipart::Field},
    http::StatusCode,
};
use skep_rules::{
    id::Digest,
    limits::{MAX_COMPONENT_BYTES, MAX_ENVELOPE_BYTES, MAX_REASON_BYTES, REQUEST},
    reason::Reason,
};

use crate::{
    http::problem::{Answer, Refusal},
    install::Upload,
};

/// A publisher's name, or two digests.
const MAX_TEXT: usize = 200;

/// Reads an upload within the time that a body has.
pub(super) async fn read(request: Request) -> Answer<Upload> {
    let form = Multipart::from_request(request, &()).await;
    let form = form.map_err(|_| {
        Refusal::invalid("a plugin is sent as `multipart/form-data` with the fields `component` and `signature`")
    })?;
    match tokio::time::timeout(REQUEST.duration(), fields(form)).await {
        Ok(upload) => upload,
        Err(_) => Err(Refusal::too_slow()),
    }
}

async fn fields(mut form: Multipart) -> Answer<Upload> {
    let mut component = None;
    let mut upload = Upload::default();
    while let Some(field) = form.next_field().await.map_err(|error| broken(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        let fresh = match name.as_str() {
            "component" => {
                let most = usize::try_from(MAX_COMPONENT_BYTES).unwrap_or(usize::MAX);
                component.replace(bytes(field, &name, most).await?).is_none()
            }
            "signature" => {
                let envelope = bytes(field, &name, MAX_ENVELOPE_BYTES).await?;
                upload.signature.replace(envelope).is_none()
            }
            "publisher" => {
                let publisher = text(field, &name, MAX_TEXT).await?;
                upload.consent.publisher.replace(publisher).is_none()
            }
            "approve" => {
                let approval = approval(&text(field, &name, MAX_TEXT).await?)?;
                upload.consent.widening.replace(approval).is_none()
            }
            "downgrade" => {
                let why = text(field, &name, MAX_REASON_BYTES).await?;
                upload.consent.downgrade.replace(why).is_none()
            }
            _ => {
                let shown: String = name.chars().take(80).collect();
                let known = "component, signature, publisher, approve, downgrade";
                return Err(Refusal::invalid(format!("`{shown}` is no field of an upload: {known}")));
            }
        };
        if !fresh {
            return Err(Refusal::invalid(format!("the field `{name}` comes twice")));
        }
    }
    upload.component = component.ok_or_else(|| Refusal::invalid("the field `component` is missing"))?;
    Ok(upload)
}

async fn bytes(mut field: Field<'_>, name: &str, most: usize) -> Answer<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(|error| broken(&error))? {
        if bytes.len() + piece.len() > most {
            let message = format!("the field `{name}` holds more than {most} bytes");
            return Err(Refusal::new(Reason::BodyLimit, message));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

async fn text(field: Field<'_>, name: &str, most: usize) -> Answer<String> {
    let bytes = bytes(field, name, most).await?;
    String::from_utf8(bytes).map_err(|_| Refusal::invalid(format!("the field `{name}` is not UTF-8")))
}

/// `FROM..TO`, both digests written out: nobody agrees to more than these two files.
fn approval(text: &str) -> Answer<(Digest, Digest)> {
    let digest = |text: &str| {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        hex.parse::<Digest>().ok()
    };
    let parsed = text
        .split_once("..")
        .and_then(|(from, to)| Some((digest(from)?, digest(to)?)));
    parsed.ok_or_else(|| Refusal::invalid("`approve` has the form FROM..TO, two whole digests of 64 digits"))
}

fn broken(error: &axum::extract::multipart::MultipartError) -> Refusal {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Refusal::new(Reason::BodyLimit, "the upload holds more bytes than this route takes");
    }
    Refusal::invalid(format!("the body: {}", error.body_text()))
}
