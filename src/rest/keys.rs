//! API keys: made, listed, revoked.

use actors::access::NewKey;
use actors::error::{Code, Error, Result};
use actors::system::Acting;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;
use serde_json::json;

use super::authorized::Authorized;
use super::body::JsonText;
use super::reply::Reply;

/// The keys of the service; all of it needs the scope `admin`.
pub struct Keys;

impl Keys {
    async fn try_create(acting: &Acting, body: &str) -> Result<Reply<201>> {
        let issued = acting.create_key(NewKey::parse(body)?).await?;
        let mut data = issued.about.to_json();
        data["message"] = "Key created; it is shown this once".into();
        data["key"] = issued.key.into();
        Ok(Reply::data(&data.to_string()))
    }

    async fn try_revoke(acting: &Acting, id: &str) -> Result<Reply<200>> {
        // What is no id of a key is the id of none.
        let none = |_| Error::new(Code::NotFound, "there is no key with this id");
        let mut data = acting.revoke_key(id.parse().map_err(none)?).await?.to_json();
        data["message"] = "Key revoked".into();
        Ok(Reply::data(&data.to_string()))
    }
}

#[OpenApi]
impl Keys {
    /// Make a key: `name`, `scopes` (`read`, `write`, `execute`, `admin`), and where it is bound `ids` (patterns with `*` and
    /// `?`), `expires_ms` (milliseconds since the epoch), `requests_per_second`, `max_open` (executions at one time). The answer
    /// has the key itself, as `key`, which is kept nowhere. Once there is a key, nobody comes in without one.
    #[oai(path = "/keys", method = "post")]
    async fn create(&self, acting: Authorized, body: JsonText) -> Reply<201> {
        Self::try_create(&acting.0, &body.0).await.unwrap_or_else(|error| Reply::refused(&error))
    }

    /// All keys, the oldest first, those that were revoked among them, without the keys themselves.
    #[oai(path = "/keys", method = "get")]
    async fn list(&self, acting: Authorized) -> Reply<200> {
        match acting.keys() {
            Ok(keys) => {
                let keys: Vec<_> = keys.iter().map(actors::access::About::to_json).collect();
                Reply::data(&json!(keys).to_string())
            }
            Err(error) => Reply::refused(&error),
        }
    }

    /// Revoke a key. Its sessions end. The last one that has the scope `admin` and no end stays.
    #[oai(path = "/keys/:id", method = "delete")]
    async fn revoke(&self, acting: Authorized, id: Path<String>) -> Reply<200> {
        Self::try_revoke(&acting.0, &id).await.unwrap_or_else(|error| Reply::refused(&error))
    }
}
