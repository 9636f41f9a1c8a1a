//! Request bodies: declared as JSON or as lines of it, bounded, UTF-8. What stands in them is read by the engine, which keeps the text.

use std::pin::pin;
use std::time::Duration;

use actors::error::{Code, Error};
use futures_util::StreamExt;
use poem::error::ReadBodyError;
use poem::http::header;
use poem::{Body, Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use super::reply::refuse;

/// What a body must be declared as.
pub const MEDIA_TYPE: &str = "the body must be declared as `Content-Type: application/json`";

/// How much is read of a body that is too large, and for how long.
const DISCARDED: usize = 64 << 20;
const DISCARDING: Duration = Duration::from_secs(2);

/// How much a body may be.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// In bytes; of a body of lines, each line.
    pub bytes: usize,
    /// How long it may take; a body of lines, which may be endless, from one part to the next.
    pub patience: Duration,
}

impl Limit {
    fn too_slow(&self) -> Error {
        Error::invalid(format!("the body took longer than {} ms", self.patience.as_millis()))
    }
}

/// What a body of lines must be declared as.
const LINES_MEDIA_TYPE: &str = "the body must be declared as `Content-Type: application/x-ndjson`";

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

/// JSON objects, one a line; the body may have any length, a line the length that other bodies may have.
pub struct JsonLines(pub Lines);

impl<'a> ApiExtractor<'a> for JsonLines {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn request_meta() -> Option<MetaRequest> {
        let schema = MetaSchemaRef::Inline(Box::new(MetaSchema::new("string")));
        let content = vec![MetaMediaType { content_type: "application/x-ndjson", schema }];
        Some(MetaRequest { description: Some("JSON objects, one a line"), content, required: true })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let mut lines = || {
            declared(request, &["application/x-ndjson", "application/jsonl"], LINES_MEDIA_TYPE)?;
            let limit = limit(request)?;
            let body = body.take().map_err(|_| Error::invalid("the body is missing"))?;
            let reader: Box<dyn AsyncRead + Send + Unpin> = Box::new(body.into_async_read());
            Ok(Lines {
                reader: BufReader::with_capacity(64 << 10, reader),
                line: Vec::new(),
                is_long: false,
                limit,
            })
        };
        lines().map(Self).map_err(|error: Error| poem::Error::from_response(refuse(&error)))
    }
}

/// The lines of a body, as they come.
pub struct Lines {
    reader: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    /// What was read of the next line. It is kept when waiting for the rest is given up.
    line: Vec<u8>,
    /// It is longer than a line may be, and the rest of it is skipped.
    is_long: bool,
    limit: Limit,
}

impl Lines {
    /// The next line, or what is wrong with it; nothing at the end.
    ///
    /// # Errors
    /// The body broke off, or took too long: there are no further lines.
    pub async fn next(&mut self) -> Result<Option<Result<String, Error>>, Error> {
        loop {
            let chunk = tokio::time::timeout(self.limit.patience, self.reader.fill_buf()).await;
            let chunk = chunk
                .map_err(|_| self.limit.too_slow())?
                .map_err(|_| Error::invalid("the body broke off"))?;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let is_over = chunk.is_empty();
            let part = &chunk[..end.unwrap_or(chunk.len())];
            self.is_long |= self.line.len() + part.len() > self.limit.bytes;
            if !self.is_long {
                self.line.extend_from_slice(part);
            }
            let taken = end.map_or(chunk.len(), |end| end + 1);
            self.reader.consume(taken);
            if is_over && self.line.is_empty() && !self.is_long {
                return Ok(None);
            }
            if end.is_some() || is_over {
                let line = std::mem::take(&mut self.line);
                if std::mem::take(&mut self.is_long) {
                    let message = format!("the line is longer than {} bytes", self.limit.bytes);
                    return Ok(Some(Err(Error::new(Code::TooLarge, message))));
                }
                let text = String::from_utf8(line).map_err(|_| Error::invalid("the line is not UTF-8"));
                return Ok(Some(text));
            }
        }
    }
}

/// Refuses a body of another type than these, and one that is encoded (RFC 9110, 8.4).
fn declared(request: &Request, types: &[&str], message: &str) -> Result<(), Error> {
    let encoded = request.headers().get_all(header::CONTENT_ENCODING).iter();
    if encoded.into_iter().any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        let message = "`Content-Encoding`: a body is read as it is, and must not be compressed";
        return Err(Error::new(Code::UnsupportedMediaType, message).at("Content-Encoding"));
    }
    let declared =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim();
    if types.iter().any(|known| essence.eq_ignore_ascii_case(known)) {
        Ok(())
    } else {
        Err(Error::new(Code::UnsupportedMediaType, message))
    }
}

fn limit(request: &Request) -> Result<Limit, Error> {
    request.data::<Limit>().copied().ok_or_else(|| Error::unavailable("no body limit is set"))
}

/// Reads what will not be used, for a moment: a client that is still sending when its connection is closed sees that, and not
/// the answer.
async fn discard(body: Body) {
    let mut parts = pin!(body.into_bytes_stream());
    let reading = async {
        let mut bytes = 0;
        while let Some(Ok(part)) = parts.next().await {
            bytes += part.len();
            if bytes > DISCARDED {
                return;
            }
        }
    };
    // Whoever sends more, or more slowly, is cut off.
    drop(tokio::time::timeout(DISCARDING, reading).await);
}

async fn read(request: &Request, body: &mut RequestBody) -> Result<String, Error> {
    declared(request, &["application/json"], MEDIA_TYPE)?;
    let limit = limit(request)?;
    let max_bytes = limit.bytes;
    let too_large = || Error::new(Code::TooLarge, format!("the body is larger than {max_bytes} bytes"));
    let length = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let is_too_large = length.is_some_and(|length| length > max_bytes as u64);
    // Who asked whether to send it has not.
    if is_too_large && request.headers().contains_key(header::EXPECT) {
        return Err(too_large());
    }
    let body = body.take().map_err(|_| Error::invalid("the body is missing"))?;
    if is_too_large {
        discard(body).await;
        return Err(too_large());
    }
    let whole = tokio::time::timeout(limit.patience, body.into_bytes_limit(max_bytes)).await;
    let bytes = whole.map_err(|_| limit.too_slow())?.map_err(|error| match error {
        ReadBodyError::PayloadTooLarge => too_large(),
        _ => Error::invalid("the body broke off"),
    })?;
    String::from_utf8(bytes.into()).map_err(|_| Error::invalid("the body is not UTF-8"))
}
