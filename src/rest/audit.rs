//! The audit log: read as lines of JSON, and verified.

use actors::audit::{Page, PageRequest};
use actors::error::Result;
use actors::system::Acting;
use futures_util::stream;
use poem::Body;
use poem_openapi::OpenApi;
use poem_openapi::param::Query;

use super::authorized::Authorized;
use super::bulk::json_lines;
use super::executions::whole;
use super::reply::Reply;

/// How many entries are read at a time.
const PAGE: u64 = 1_000;

/// Who did what, when and from where; all of it needs the scope `admin`.
pub struct Audit;

#[OpenApi]
impl Audit {
    /// The entries of the audit log as JSON lines, in their order. `hash` is the SHA-256 of the `hash` before it (64 zeros
    /// before the first) and of the line's own text without `hash`. A broken connection says that it is not all of them:
    /// `after` goes on behind the last one that came.
    #[oai(path = "/audit", method = "get")]
    async fn list(
        &self,
        acting: Authorized,
        /// Only those after the entry of this `sequence`.
        after: Query<Option<String>>,
        /// Only those that happened at or after this time, in milliseconds since the epoch.
        from_ms: Query<Option<String>>,
        /// Only those that happened before this time, in milliseconds since the epoch.
        to_ms: Query<Option<String>>,
    ) -> Reply<200> {
        let page = || {
            Ok(PageRequest {
                after: whole("after", after.0, |_| true)?.unwrap_or(0),
                from_ms: whole("from_ms", from_ms.0, |_| true)?.unwrap_or(0),
                to_ms: whole("to_ms", to_ms.0, |_| true)?.unwrap_or(u64::MAX),
                limit: PAGE,
            })
        };
        let listed = async { entries(acting.0.clone(), page()?).await };
        listed.await.unwrap_or_else(|error| Reply::refused(&error))
    }

    /// Whether the audit log is whole: `intact`, how many `entries` it has, when the first and the last happened, its `head`
    /// to be noted elsewhere, and where it is `broken` if it is.
    #[oai(path = "/audit/verify", method = "get")]
    async fn verify(
        &self,
        acting: Authorized,
        /// The hash of a head that was noted earlier: whether it is in the chain.
        head: Query<Option<String>>,
    ) -> Reply<200> {
        match acting.verify_audit(head.0).await {
            Ok(report) => Reply::data(&report.to_json().to_string()),
            Err(error) => Reply::refused(&error),
        }
    }
}

/// A page at a time, as the client takes it; the first one tells whether it may.
async fn entries(acting: Acting, first: PageRequest) -> Result<Reply<200>> {
    let page = acting.audit(first, true).await?;
    let begun: (Result<Page>, PageRequest) = (Ok(page), first);
    let pages = stream::unfold(Some(begun), move |step| {
        let acting = acting.clone();
        async move {
            let (page, request) = step?;
            match page {
                Ok(page) => {
                    let text = page.links.iter().fold(String::new(), |text, link| text + &link.line() + "\n");
                    let next = match page.next {
                        Some(after) => {
                            let request = PageRequest { after, ..request };
                            Some((acting.audit(request, false).await, request))
                        }
                        None => None,
                    };
                    Some((Ok(text.into_bytes()), next))
                }
                Err(error) => {
                    tracing::warn!(%error, "an export of the audit log broke off");
                    Some((Err(std::io::Error::other(error.to_string())), None))
                }
            }
        }
    });
    Ok(json_lines(Body::from_bytes_stream(pages)))
}
