//! Request bodies: declared as JSON, bounded, UTF-8. What stands in them is read by the engine, which keeps the text.

use std::time::Duration;

use actors::error::{Code, Error};
use poem::error::ReadBodyError;
use poem::http::header;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use super::reply::refuse;

/// What a body must be declared as.
pub const MEDIA_TYPE: &str = "the body must be declared as `Content-Type: application/json`";

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many bytes a body may have.
#[derive(Clone, Copy, Debug)]
pub struct Limit(pub usize);

/// A JSON object, as its text.
#[derive(Debug)]
pub struct JsonText(pub String);

impl<'a> ApiExtractor<'a> for JsonText {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn request_meta() -> Option<MetaRequest> {
        let schema = MetaSchemaRef::Inline(Box::new(MetaSchema::new("object")));
        let content = vec![MetaMediaType { content_type: "application/json", schema }];
        Some(MetaRequest { description: Some("A JSON object"), content, required: true })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        read(request, body).await.map(Self).map_err(|error| poem::Error::from_response(refuse(&error)))
    }
}

async fn read(request: &Request, body: &mut RequestBody) -> Result<String, Error> {
    let declared =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Error::new(Code::UnsupportedMediaType, MEDIA_TYPE));
    }
    let Limit(max_bytes) =
        *request.data::<Limit>().ok_or_else(|| Error::unavailable("no body limit is set"))?;
    let too_large = || Error::new(Code::TooLarge, format!("the body is larger than {max_bytes} bytes"));
    let length = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > max_bytes as u64) {
        return Err(too_large());
    }
    let body = body.take().map_err(|_| Error::invalid("the body is missing"))?;
    let whole = tokio::time::timeout(PATIENCE, body.into_bytes_limit(max_bytes)).await;
    let slow = |_| Error::invalid(format!("the body took longer than {} s", PATIENCE.as_secs()));
    let bytes = whole.map_err(slow)?.map_err(|error| match error {
        ReadBodyError::PayloadTooLarge => too_large(),
        _ => Error::invalid("the body broke off"),
    })?;
    String::from_utf8(bytes.into()).map_err(|_| Error::invalid("the body is not UTF-8"))
}
