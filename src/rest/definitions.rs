//! Tools and functions: one implementation for both, told apart by a type.

use std::marker::PhantomData;

use actors::compiled::{Compiled, etag, means_weakly};
use actors::definition::{Definition, Kind, Patch};
use actors::error::{Error, Result};
use actors::query::Filter;
use actors::registry::{By, PageRequest, Position, Sort};
use actors::system::Acting;
use actors::version;
use poem::http::{StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::OpenApi;
use poem_openapi::param::{Header, Path, Query};
use serde_json::json;

use super::authorized::Authorized;
use super::body::JsonText;
use super::reply::{Reply, json_response};

/// How many definitions a page has unless told.
const DEFAULT_LIMIT: usize = 1_000;
/// How many it has at most.
pub const MAX_LIMIT: usize = 10_000;

/// Tools or functions.
pub trait Registered: Send + Sync + 'static {
    /// What is registered.
    const KIND: Kind;
    /// The path of one.
    const ONE: &'static str;
    /// The path of a query.
    const MANY: &'static str;
}

/// `/tool` and `/tools`.
pub struct Tools;

/// `/function` and `/functions`.
pub struct Functions;

impl Registered for Tools {
    const KIND: Kind = Kind::Tool;
    const ONE: &'static str = "/tool";
    const MANY: &'static str = "/tools";
}

impl Registered for Functions {
    const KIND: Kind = Kind::Function;
    const ONE: &'static str = "/function";
    const MANY: &'static str = "/functions";
}

/// The life of one definition.
pub struct Definitions<R>(pub PhantomData<R>);

#[OpenApi(prefix_path = R::ONE)]
impl<R: Registered> Definitions<R> {
    /// Register a new definition; an id that is taken is a conflict.
    #[oai(path = "/", method = "post")]
    async fn create(&self, acting: Authorized, body: JsonText) -> Reply<201> {
        Self::try_create(&acting.0, &body.0).await.unwrap_or_else(|error| Reply::refused(&error))
    }

    /// Get a definition by its id. The ETag is its revision; with If-None-Match an unchanged one is a 304.
    #[oai(path = "/:id", method = "get")]
    async fn get(
        &self,
        acting: Authorized,
        id: Path<String>,
        #[oai(name = "If-None-Match")] if_none_match: Header<Option<String>>,
    ) -> Reply<200> {
        Self::try_get(&acting.0, &id, if_none_match.0.as_deref())
            .await
            .unwrap_or_else(|error| Reply::refused(&error))
    }

    /// Replace the given fields of a definition; the others stay. With If-Match only that revision is changed.
    #[oai(path = "/:id", method = "put")]
    async fn update(
        &self,
        acting: Authorized,
        id: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: JsonText,
    ) -> Reply<200> {
        Self::try_update(&acting.0, &id, if_match.0, &body.0)
            .await
            .unwrap_or_else(|error| Reply::refused(&error))
    }

    /// Remove a definition. With If-Match only that revision is removed.
    #[oai(path = "/:id", method = "delete")]
    async fn delete(
        &self,
        acting: Authorized,
        id: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> Reply<200> {
        let deleted = acting.delete(R::KIND, &id, if_match.0).await;
        deleted.map_or_else(|error| Reply::refused(&error), |_| done(R::KIND, "deleted"))
    }

    /// All versions of a name, the highest first: for each its id and its version, and which one the bare name means.
    #[oai(path = "/:name/versions", method = "get")]
    async fn versions(&self, acting: Authorized, name: Path<String>) -> Reply<200> {
        Self::try_versions(&acting.0, &name).await.unwrap_or_else(|error| Reply::refused(&error))
    }

    /// The revisions of a definition that are kept, the newest first, which is the one in force.
    #[oai(path = "/:id/revisions", method = "get")]
    async fn revisions(&self, acting: Authorized, id: Path<String>) -> Reply<200> {
        Self::try_revisions(&acting.0, &id).await.unwrap_or_else(|error| Reply::refused(&error))
    }

    /// One revision of a definition.
    #[oai(path = "/:id/revisions/:number", method = "get")]
    async fn revision(&self, acting: Authorized, id: Path<String>, number: Path<String>) -> Reply<200> {
        Self::try_revision(&acting.0, &id, &number).await.unwrap_or_else(|error| Reply::refused(&error))
    }

    /// Roll back: make an earlier revision the one in force again, as a new revision. With If-Match only that one is
    /// replaced.
    #[oai(path = "/:id/revisions/:number", method = "put")]
    async fn roll_back(
        &self,
        acting: Authorized,
        id: Path<String>,
        number: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> Reply<200> {
        Self::try_roll_back(&acting.0, &id, &number, if_match.0)
            .await
            .unwrap_or_else(|error| Reply::refused(&error))
    }

    /// Fetch a definition from the configured sources and register it.
    #[oai(path = "/register/:id", method = "post")]
    async fn register(&self, acting: Authorized, id: Path<String>) -> Reply<201> {
        Self::try_register(&acting.0, &id).await.unwrap_or_else(|error| Reply::refused(&error))
    }

    /// Fetch a definition again from the source that it came from. What has changed there becomes a new revision.
    #[oai(path = "/refresh/:id", method = "post")]
    async fn refresh(&self, acting: Authorized, id: Path<String>) -> Reply<200> {
        Self::try_refresh(&acting.0, &id).await.unwrap_or_else(|error| Reply::refused(&error))
    }
}

impl<R: Registered> Definitions<R> {
    async fn try_create(acting: &Acting, body: &str) -> Result<Reply<201>> {
        let definition = Definition::parse(R::KIND, body)?;
        let created = acting.create(definition).await?;
        let message = format!("{} created", R::KIND.title());
        Ok(Reply::data(&json!({ "message": message, "id": created.id }).to_string()))
    }

    async fn try_revisions(acting: &Acting, id: &str) -> Result<Reply<200>> {
        let revisions = acting.revisions(R::KIND, id).await?;
        let revisions = revisions.iter().enumerate().map(|(at, noted)| {
            json!({
                "revision": noted.number, "etag": etag(noted.number, noted.created_ms),
                "written_ms": noted.updated_ms, "in_force": at == 0
            })
        });
        Ok(Reply::data(&json!(revisions.collect::<Vec<_>>()).to_string()))
    }

    async fn try_revision(acting: &Acting, id: &str, number: &str) -> Result<Reply<200>> {
        let definition = acting.revision(R::KIND, id, revision(number)?).await?;
        Ok(shown(&definition))
    }

    async fn try_roll_back(
        acting: &Acting,
        id: &str,
        number: &str,
        if_match: Option<String>,
    ) -> Result<Reply<200>> {
        let number = revision(number)?;
        let now = acting.roll_back(R::KIND, id, number, if_match).await?;
        let message = format!("{} rolled back to revision {number}", R::KIND.title());
        Ok(Reply::data(&json!({ "message": message, "revision": now.number }).to_string()))
    }

    async fn try_get(acting: &Acting, id: &str, if_none_match: Option<&str>) -> Result<Reply<200>> {
        let definition = acting.get(R::KIND, id).await?;
        if if_none_match.is_some_and(|etags| means_weakly(etags, &definition.etag)) {
            let unchanged =
                Response::builder().status(StatusCode::NOT_MODIFIED).header(header::ETAG, &definition.etag);
            return Ok(Reply::response(unchanged.finish()));
        }
        Ok(shown(&definition))
    }

    async fn try_versions(acting: &Acting, name: &str) -> Result<Reply<200>> {
        let ids = acting.versions(R::KIND, name).await?;
        let latest = version::Request::Latest { name };
        let latest = version::pick(&latest, ids.iter().map(String::as_str));
        let versions = ids.iter().map(|id| {
            let version = id.rsplit_once(':').map_or("", |(_, version)| version);
            json!({ R::KIND.field("id"): id, "version": version, "latest": Some(id.as_str()) == latest })
        });
        Ok(Reply::data(&json!(versions.collect::<Vec<_>>()).to_string()))
    }

    async fn try_update(
        acting: &Acting,
        id: &str,
        if_match: Option<String>,
        body: &str,
    ) -> Result<Reply<200>> {
        let patch = Patch::parse(R::KIND, body)?;
        acting.update(R::KIND, id, patch, if_match).await?;
        Ok(done(R::KIND, "updated"))
    }

    async fn try_refresh(acting: &Acting, id: &str) -> Result<Reply<200>> {
        let (now, is_new) = acting.refresh(R::KIND, id).await?;
        let message = format!("{} {}", R::KIND.title(), if is_new { "refreshed" } else { "unchanged" });
        let data = json!({ "message": message, "id": now.id, "changed": is_new, "revision": now.number });
        Ok(Reply::data(&data.to_string()))
    }

    async fn try_register(acting: &Acting, id: &str) -> Result<Reply<201>> {
        let definition = acting.register(R::KIND, id).await?;
        let message = json!(format!("Inserted {} with id: {}", R::KIND.name(), definition.id));
        let data = String::from_utf8_lossy(&definition.json);
        Ok(Reply::envelope(format!(r#"{{"success":true,"message":{message},"data":{data}}}"#)))
    }
}

fn shown(definition: &Compiled) -> Reply<200> {
    let text = String::from_utf8_lossy(&definition.json);
    let response = json_response(StatusCode::OK, format!(r#"{{"success":true,"data":{text}}}"#));
    Reply::response(response.with_header(header::ETAG, &definition.etag).into_response())
}

fn revision(number: &str) -> Result<u64> {
    let wrong = || Error::invalid("a revision is a whole number from 1 on").at("revision");
    number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)
}

fn done(kind: Kind, what: &str) -> Reply<200> {
    Reply::data(&json!({ "message": format!("{} {what}", kind.title()) }).to_string())
}

/// Queries over definitions.
pub struct Queries<R>(pub PhantomData<R>);

#[OpenApi(prefix_path = R::MANY)]
impl<R: Registered> Queries<R> {
    /// Find definitions by a filter. `next` is the cursor of the next page.
    #[oai(path = "/", method = "post")]
    async fn query(
        &self,
        acting: Authorized,
        /// How many at most: 1 to 10,000, 1,000 unless told.
        limit: Query<Option<String>>,
        /// The `next` of the page before.
        cursor: Query<Option<String>>,
        /// The order: `id`, `created` or `updated`, with a `-` before it the other way round; `relevance`, which is the
        /// order of a `$text` unless told.
        sort: Query<Option<String>>,
        body: JsonText,
    ) -> Reply<200> {
        Self::try_query(&acting.0, &body.0, limit.0.as_deref(), cursor.0.as_deref(), sort.0.as_deref())
            .await
            .unwrap_or_else(|error| Reply::refused(&error))
    }
}

impl<R: Registered> Queries<R> {
    async fn try_query(
        acting: &Acting,
        body: &str,
        limit: Option<&str>,
        cursor: Option<&str>,
        sort: Option<&str>,
    ) -> Result<Reply<200>> {
        let filter = Filter::parse(R::KIND, &actors::json::parse(body)?)?;
        let page = page(limit, cursor, sort, filter.has_text())?;
        let page = acting.query(R::KIND, filter, page).await?;
        let data = page.items.join(",");
        let next = page.next.map_or_else(String::new, |at| format!(r#","next":"{}""#, at.cursor()));
        Ok(Reply::envelope(format!(r#"{{"success":true,"data":[{data}]{next}}}"#)))
    }
}

fn page(
    limit: Option<&str>,
    cursor: Option<&str>,
    sort: Option<&str>,
    has_text: bool,
) -> Result<PageRequest> {
    let bad_limit =
        || Error::invalid(format!("`limit` is not a whole number from 1 to {MAX_LIMIT}")).at("limit");
    let limit = match limit {
        None => DEFAULT_LIMIT,
        Some(text) => {
            text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(bad_limit)?
        }
    };
    let sort = match sort {
        Some(sort) => Sort::parse(sort)?,
        None if has_text => Sort::RELEVANCE,
        None => Sort::default(),
    };
    if sort.by == By::Relevance && !has_text {
        return Err(Error::invalid("`sort=relevance` needs a filter with a `$text`").at("sort"));
    }
    let bad_cursor =
        || Error::invalid("`cursor` is not the `next` of an earlier page in the same order").at("cursor");
    let after = cursor.map(|cursor| {
        Position::parse(cursor).filter(|position| position.sort == sort).ok_or_else(bad_cursor)
    });
    Ok(PageRequest { limit, sort, after: after.transpose()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_bounded() {
        let (limit, sort) = (1_000, Sort::default());
        assert_eq!(page(None, None, None, false), Ok(PageRequest { limit, sort, after: None }));
        let after = Position { sort, rank: 0, id: "a".into() };
        assert_eq!(
            page(Some("5"), Some(&after.cursor()), Some("id"), false),
            Ok(PageRequest { limit: 5, sort, after: Some(after.clone()) })
        );
        let ranked = page(None, None, None, true).expect("a page");
        assert_eq!(ranked.sort, Sort::RELEVANCE);
        for (limit, cursor, sort) in [
            (Some("0"), None, None),
            (Some("10001"), None, None),
            (Some("-1"), None, None),
            (Some("x"), None, None),
            (None, Some("zz"), None),
            (None, None, Some("age")),
            (None, None, Some("relevance")),
            (None, Some(after.cursor().as_str()), Some("-id")),
        ] {
            assert!(page(limit, cursor, sort, false).is_err());
        }
    }
}
