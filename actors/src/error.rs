//! The one error of the engine, and the codes that clients see.
//!
//! A tool that fails is no error: it is an [`crate::execution::Outcome`]. What stands here is a request
//! that could not be served. The edge maps a [`Code`] to an HTTP status in one place.

use serde_json::{Value, json};

/// What went wrong, as a client can match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is malformed: its JSON, a field, a filter, an id.
    Invalid,
    /// The caller has no key, or none that is good.
    Unauthorized,
    /// The caller may not do this: a foreign `Origin` or `Host`, a key without the scope.
    Forbidden,
    /// There is no such definition, route or execution.
    NotFound,
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// A definition with this id exists already.
    Conflict,
    /// `If-Match` named another revision than the stored one.
    PreconditionFailed,
    /// The body is larger than the configured limit.
    TooLarge,
    /// The body is not declared as `application/json`.
    UnsupportedMediaType,
    /// The input does not fit the definition's schema.
    Unprocessable,
    /// A queue is full; try again after the told time.
    Overloaded,
    /// An external registry did not give a usable answer.
    SourceUnavailable,
    /// The service is shutting down and takes no new work.
    Draining,
    /// A part of the service is being restarted, or cannot do this.
    Unavailable,
}

impl Code {
    /// The code as it stands in an answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict => "conflict",
            Self::PreconditionFailed => "precondition_failed",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Unprocessable => "unprocessable",
            Self::Overloaded => "overloaded",
            Self::SourceUnavailable => "source_unavailable",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A request that could not be served: a code, one sentence, and where known the place.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    code: Code,
    message: String,
    details: Option<Value>,
}

/// The result of everything that can be asked of the engine.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a code and one sentence for a person to read.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None }
    }

    /// The request is malformed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// A part of the service is absent for the moment.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// Names the field that is wrong, as `details: {"field": …}`.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.details = Some(json!({ "field": field.into() }));
        self
    }

    /// Tells when to come back, as `details: {"retry_after_ms": …}`.
    #[must_use]
    pub fn after(mut self, pause: std::time::Duration) -> Self {
        let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.details = Some(json!({ "retry_after_ms": millis }));
        self
    }

    /// When to come back, where that was told.
    pub fn retry_after_ms(&self) -> Option<u64> {
        self.details.as_ref()?["retry_after_ms"].as_u64()
    }

    /// Puts the named field inside another: `runtime` within `tool_metadata` is `tool_metadata.runtime`.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        let inner = self.details.as_ref().and_then(|details| details["field"].as_str());
        let field = inner.map_or_else(|| outer.to_owned(), |inner| format!("{outer}.{inner}"));
        self.at(field)
    }

    /// What a client can match on.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The field or position, where one can be named.
    pub fn details(&self) -> Option<&Value> {
        self.details.as_ref()
    }
}
