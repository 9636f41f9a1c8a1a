//! The envelope of everything that failed, the same on both ports, and the one place where an error's code becomes an HTTP
//! status.

use actors::error::{Code, Error};
use actors::json::quote;
use poem::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use poem::http::{HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

/// When a client that was refused for load may come back, in milliseconds, where nothing better is known.
const RETRY_AFTER_MS: u64 = 1_000;

/// All codes.
pub const CODES: [Code; 14] = [
    Code::Invalid,
    Code::Unauthorized,
    Code::Forbidden,
    Code::NotFound,
    Code::MethodNotAllowed,
    Code::Conflict,
    Code::PreconditionFailed,
    Code::TooLarge,
    Code::UnsupportedMediaType,
    Code::Unprocessable,
    Code::Overloaded,
    Code::SourceUnavailable,
    Code::Draining,
    Code::Unavailable,
];

/// The HTTP status of a code.
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::Invalid => StatusCode::BAD_REQUEST,
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::Conflict => StatusCode::CONFLICT,
        Code::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
        Code::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        Code::SourceUnavailable => StatusCode::BAD_GATEWAY,
        Code::Draining | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// What the head of a refusal says besides: how to come in, or when to come back.
pub fn headers(error: &Error) -> Option<(HeaderName, HeaderValue)> {
    match error.code() {
        Code::Unauthorized => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
        Code::Overloaded => {
            let seconds = error.retry_after_ms().unwrap_or(RETRY_AFTER_MS).div_ceil(1_000);
            Some((RETRY_AFTER, seconds.into()))
        }
        _ => None,
    }
}

/// `{"success":false,"error":"one sentence","code":"snake_case"}`, with `details` where a place can be named.
pub fn refusal(error: &Error) -> String {
    failure(&error.to_string(), error.code().as_str(), error.details())
}

/// The same, for an execution that ended without an output.
pub fn failure(message: &str, code: &str, details: Option<&Value>) -> String {
    let details = details.map_or_else(String::new, |details| format!(r#","details":{details}"#));
    format!(r#"{{"success":false,"error":{},"code":"{code}"{details}}}"#, quote(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told_in_one_order() {
        let error = Error::invalid("a \"word\"").at("tool_id");
        let expected =
            r#"{"success":false,"error":"a \"word\"","code":"invalid","details":{"field":"tool_id"}}"#;
        assert_eq!(refusal(&error), expected);
        assert_eq!(
            failure("x", "exit_status", None),
            r#"{"success":false,"error":"x","code":"exit_status"}"#
        );
    }
}
