//! What the store keeps of API keys: all but their secrets.

use std::num::NonZeroU32;

use surrealdb::types::{RecordId, SurrealValue};

use super::{Store, StoreError};
use crate::access::{About, Grant, Hash, Ids, KeyId, Scope};

/// What holds keys; part of the store's schema.
pub const SCHEMA: &str = "DEFINE TABLE IF NOT EXISTS api_key SCHEMALESS;";

#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct KeyRow {
    id: RecordId,
    key: String,
    name: String,
    hash: String,
    scopes: Vec<String>,
    ids: Option<Vec<String>>,
    created_ms: u64,
    expires_ms: Option<u64>,
    revoked_ms: Option<u64>,
    requests_per_second: Option<u64>,
    max_open: Option<u64>,
}

impl Store {
    /// All keys that there ever were.
    ///
    /// # Errors
    /// The store erred, or a record cannot be read.
    pub async fn keys(&self) -> Result<Vec<About>, StoreError> {
        let rows: Vec<KeyRow> = self.rows("SELECT * FROM api_key", Vec::new()).await?;
        rows.into_iter().map(KeyRow::about).collect()
    }

    /// Writes what is known of a key, over what was known of it before.
    ///
    /// # Errors
    /// The store erred: it may be written or not.
    pub async fn put_key(&self, about: &About) -> Result<(), StoreError> {
        let row = KeyRow::of(about);
        let bound = vec![("record", row.id.clone().into_value()), ("row", row.into_value())];
        self.execute("UPSERT $record CONTENT $row RETURN NONE", bound).await
    }
}

impl KeyRow {
    fn of(about: &About) -> Self {
        let (key, grant) = (about.id.to_string(), &about.grant);
        Self {
            id: RecordId::new("api_key", key.as_str()),
            key,
            name: about.name.clone(),
            hash: about.hash.to_string(),
            scopes: grant.scopes.given().map(|scope| scope.name().to_owned()).collect(),
            ids: grant.ids.patterns().map(|patterns| patterns.map(str::to_owned).collect()),
            created_ms: about.created_ms,
            expires_ms: grant.expires_ms,
            revoked_ms: about.revoked_ms,
            requests_per_second: grant.requests_per_second.map(|rate| rate.get().into()),
            max_open: grant.max_open.map(|open| open as u64),
        }
    }

    /// A record that cannot be read is no key: it opens nothing.
    fn about(self) -> Result<About, StoreError> {
        let unreadable = || StoreError::Failed(format!("the key {:?} cannot be read", self.key));
        let id: KeyId = self.key.parse().map_err(|_| unreadable())?;
        let scopes = self.scopes.iter().map(|name| Scope::named(name).ok_or_else(unreadable));
        let ids = self.ids.as_deref().map(Ids::matching).transpose().map_err(|_| unreadable())?;
        let rate = self.requests_per_second.map(|rate| u32::try_from(rate).ok().and_then(NonZeroU32::new));
        let rate = rate.map(|rate| rate.ok_or_else(unreadable)).transpose()?;
        let grant = Grant {
            scopes: scopes.collect::<Result<_, _>>()?,
            ids: ids.unwrap_or_default(),
            expires_ms: self.expires_ms,
            requests_per_second: rate,
            max_open: self.max_open.map(|open| usize::try_from(open).unwrap_or(usize::MAX)),
        };
        let hash = Hash::parse(&self.hash).ok_or_else(unreadable)?;
        let (name, created_ms, revoked_ms) = (self.name, self.created_ms, self.revoked_ms);
        Ok(About { id, name, hash, grant, created_ms, revoked_ms })
    }
}
