//! `audit`: verify and export; asked of a running service, or done on its store while none runs.

use std::path::Path;

use actors::audit::{Offline, PageRequest};
use actors::execution::now_ms;
use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};

use super::export::NOT_WHOLE;
use super::service::Service;
use super::{Failure, Refusal, print, time, write};
use crate::cli::{AuditArgs, AuditCommand};
use crate::config;

/// How many entries are read at a time.
const PAGE: u64 = 1_000;

/// Does what was asked with the audit log.
pub async fn run(args: AuditArgs, file: Option<&Path>, json: bool) -> Result<(), Failure> {
    match args.command {
        AuditCommand::Verify { head } => {
            let report = if args.offline {
                verify_offline(head.as_deref(), file).await?
            } else {
                ask(&Service::new(args.service.base())?, head.as_deref()).await?
            };
            told(&report, json)
        }
        AuditCommand::Export { from, to } => {
            let now = now_ms();
            let page = PageRequest {
                after: 0,
                from_ms: from.map_or(0, |from| from.ms(now)),
                to_ms: to.map_or(u64::MAX, |to| to.ms(now)),
                limit: PAGE,
            };
            if args.offline {
                export_offline(page, file).await
            } else {
                export(&Service::new(args.service.base())?, page).await
            }
        }
    }
}

async fn ask(service: &Service, head: Option<&str>) -> Result<Value, Failure> {
    let path = head.map_or_else(|| "/audit/verify".to_owned(), |head| format!("/audit/verify?head={head}"));
    let answer = service.call(Method::GET, &path, None).await?;
    let report = serde_json::from_str(answer.data());
    Ok(report.context("the service answered with something else than a report")?)
}

async fn opened(file: Option<&Path>) -> Result<Offline> {
    let config = config::load(file)?;
    Ok(Offline::open(&config.engine).await?)
}

async fn verify_offline(head: Option<&str>, file: Option<&Path>) -> Result<Value, Failure> {
    let log = opened(file).await?;
    let verified = log.verify(head).await;
    log.close().await.context("the store could not be closed in order")?;
    Ok(verified.map_err(anyhow::Error::from)?.to_json())
}

/// Says how the chain is; one that is not whole is a failure.
fn told(report: &Value, json: bool) -> Result<(), Failure> {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let head = &report["head"];
    if !report["intact"].is_boolean() || !head["hash"].is_string() {
        return Err(
            anyhow::anyhow!("what answers is not Org Executor: it said nothing of an audit log").into()
        );
    }
    let problem = match (&report["broken"], &report["noted"]) {
        (Value::Null, noted) if noted["sequence"].is_null() && !noted.is_null() => {
            let removed = match number(&report["removed"]) {
                0 => String::new(),
                last => format!("; those up to {last} were removed since they were old"),
            };
            Some(format!("the head {} is not in the audit log{removed}", text(&noted["hash"])))
        }
        (Value::Null, _) => None,
        (broken, _) => {
            Some(format!("the audit log is broken at {}: {}", broken["sequence"], text(&broken["message"])))
        }
    };
    if let Some(problem) = problem {
        let mut refusal = json!({ "success": false, "error": problem, "code": "not_intact" });
        refusal["data"] = report.clone();
        return Err(Failure::Refused(Refusal::parse(&refusal.to_string())));
    }
    if json {
        return print(&report.to_string());
    }
    let entries = number(&report["entries"]);
    let times = match (report["from_ms"].as_u64(), report["to_ms"].as_u64()) {
        (Some(first), Some(last)) => format!(", from {} to {}", time::utc(first), time::utc(last)),
        _ => String::new(),
    };
    print(&format!("{entries} entries{times}"))?;
    if let Some(place) = report["noted"]["sequence"].as_u64() {
        print(&format!("the noted head is that of the entry {place}"))?;
    }
    print(&format!("head {} of the entry {}", text(&head["hash"]), number(&head["sequence"])))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

async fn export(service: &Service, page: PageRequest) -> Result<(), Failure> {
    let path = format!("/audit?from_ms={}&to_ms={}", page.from_ms, page.to_ms);
    let mut lines = service.lines(Method::GET, &path, None).await?;
    lines.copy(NOT_WHOLE, write).await?;
    Ok(())
}

async fn export_offline(mut page: PageRequest, file: Option<&Path>) -> Result<(), Failure> {
    let log = opened(file).await?;
    let copied = async {
        loop {
            let links = log.entries(page.after, page.limit).await?;
            let Some(last) = links.last() else { return Ok(()) };
            page.after = last.sequence;
            let wanted = links.iter().filter(|link| page.has(link));
            let text = wanted.fold(String::new(), |text, link| text + &link.line() + "\n");
            if !write(text.as_bytes())? {
                return Ok(());
            }
        }
    };
    let copied: Result<()> = copied.await;
    log.close().await.context("the store could not be closed in order")?;
    Ok(copied?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_is_not_whole_is_a_failure_that_says_where() {
        let head = json!({ "sequence": 7, "hash": "h" });
        let whole = json!({ "intact": true, "entries": 7, "removed": 0, "head": head });
        assert!(told(&whole, true).is_ok());
        let mut broken = whole.clone();
        broken["broken"] =
            json!({ "sequence": 3, "problem": "missing", "message": "the entry 3 is missing" });
        let Err(Failure::Refused(refusal)) = told(&broken, false) else { panic!("not refused") };
        assert_eq!(refusal.error, "the audit log is broken at 3: the entry 3 is missing");
        let mut cut = whole.clone();
        cut["noted"] = json!({ "hash": "n", "sequence": null });
        let Err(Failure::Refused(refusal)) = told(&cut, false) else { panic!("not refused") };
        assert_eq!(refusal.error, "the head n is not in the audit log");
        cut["noted"]["sequence"] = 4.into();
        assert!(told(&cut, false).is_ok());
    }
}
