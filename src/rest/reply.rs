//! Answers: `{"success":true,"data":…}` or `{"success":false,"error","code"}`.

use actors::error::Error;
use poem::http::StatusCode;
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{
    MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};

use crate::envelope::{headers, refusal, status};

/// An answer that succeeds with the status `OK`.
pub struct Reply<const OK: u16>(Response);

impl<const OK: u16> Reply<OK> {
    /// An envelope around data that is JSON text already.
    pub fn data(text: &str) -> Self {
        Self::envelope(format!(r#"{{"success":true,"data":{text}}}"#))
    }

    /// A whole envelope, as JSON text.
    pub fn envelope(text: String) -> Self {
        Self(json_response(StatusCode::from_u16(OK).unwrap_or(StatusCode::OK), text))
    }

    /// Any response, such as one with headers of its own.
    pub fn response(response: Response) -> Self {
        Self(response)
    }

    /// The refusal of a request.
    pub fn refused(error: &Error) -> Self {
        Self(refuse(error))
    }
}

/// The envelope of an error.
pub fn refuse(error: &Error) -> Response {
    let mut response = json_response(status(error.code()), refusal(error));
    response.headers_mut().extend(headers(error));
    response
}

/// A response of JSON text.
pub fn json_response(status: StatusCode, text: String) -> Response {
    Response::builder().status(status).content_type("application/json; charset=utf-8").body(text)
}

impl<const OK: u16> IntoResponse for Reply<OK> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<const OK: u16> ApiResponse for Reply<OK> {
    fn meta() -> MetaResponses {
        let success = (OK, "Done: `{\"success\":true,\"data\":…}`");
        let refusals = [
            (400, "`invalid`: the request is malformed; `details.field` names the place"),
            (401, "`unauthorized`: no key, or none that is good"),
            (403, "`forbidden`: a foreign Host or Origin, or a key without the scope"),
            (404, "`not_found`"),
            (409, "`conflict`: the id is taken"),
            (412, "`precondition_failed`: If-Match names another revision"),
            (413, "`too_large`"),
            (415, "`unsupported_media_type`"),
            (429, "`overloaded`: come back after Retry-After seconds"),
            (502, "`source_unavailable`"),
            (503, "`unavailable` or `draining`"),
        ];
        let responses = std::iter::once(success).chain(refusals).map(|(status, description)| MetaResponse {
            description,
            status: Some(status),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: "application/json; charset=utf-8",
                schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("object"))),
            }],
            headers: Vec::new(),
        });
        MetaResponses { responses: responses.collect() }
    }

    fn register(_: &mut Registry) {}
}
