//! Methods, headers and addresses as reqwest re-exports them, without a client to build.

pub use http::{Method, header};
pub use url::Url;
