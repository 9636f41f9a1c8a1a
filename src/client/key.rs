//! `key`: create, list, revoke; asked of a running service, or done on its store while none runs.

use std::path::Path;

use actors::access::{About, NewKey, Offline};
use actors::execution::now_ms;
use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};

use super::service::{Service, encode};
use super::{Failure, Refusal, note, print, table};
use crate::cli::{KeyArgs, KeyCommand, KeyCreateArgs};
use crate::config;
use crate::envelope::refusal;

/// Does what was asked with keys.
pub async fn run(args: KeyArgs, file: Option<&Path>, json: bool) -> Result<(), Failure> {
    let data = if args.offline {
        offline(&args.command, file).await?
    } else {
        ask(&Service::new(args.service.base())?, &args.command).await?
    };
    if json {
        return print(&data.to_string());
    }
    match args.command {
        KeyCommand::Create(_) if text(&data, "key").is_empty() => {
            Err(anyhow::anyhow!("what answers is not Org Executor: there is no key in what it said").into())
        }
        KeyCommand::Create(_) => {
            print(&text(&data, "key"))?;
            note(format!("this is the key {} ({}); it is shown this once", text(&data, "id"), scopes(&data)));
            Ok(())
        }
        KeyCommand::List => {
            let keys = data.as_array().map(Vec::as_slice).unwrap_or_default();
            let rows: Vec<[String; 5]> = keys.iter().map(row).collect();
            if rows.is_empty() {
                note("there is no key: everybody who reaches the service may do everything");
                return Ok(());
            }
            print(&table::draw(["ID", "STATE", "SCOPES", "IDS", "NAME"], &rows, table::terminal_width()))
        }
        KeyCommand::Revoke { .. } => print("Key revoked"),
    }
}

fn row(key: &Value) -> [String; 5] {
    let ids = key["ids"].as_array().map_or_else(
        || "all".to_owned(),
        |ids| ids.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
    );
    [text(key, "id"), text(key, "state"), scopes(key), ids, text(key, "name")]
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn scopes(key: &Value) -> String {
    let scopes = key["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    scopes.collect::<Vec<_>>().join(",")
}

/// The body of the request that makes a key.
fn wanted(args: &KeyCreateArgs) -> Value {
    let mut wanted = json!({ "name": args.name, "scopes": args.scopes });
    if !args.ids.is_empty() {
        wanted["ids"] = json!(args.ids);
    }
    let numbers = [
        ("expires_ms", args.expires.map(|span| now_ms().saturating_add(span))),
        ("requests_per_second", args.rate.map(u64::from)),
        ("max_open", args.max_open.map(u64::from)),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            wanted[name] = number.into();
        }
    }
    wanted
}

async fn ask(service: &Service, command: &KeyCommand) -> Result<Value, Failure> {
    let answer = match command {
        KeyCommand::Create(args) => {
            service.call(Method::POST, "/keys", Some(wanted(args).to_string())).await?
        }
        KeyCommand::List => service.call(Method::GET, "/keys", None).await?,
        KeyCommand::Revoke { id } => {
            service.call(Method::DELETE, &format!("/keys/{}", encode(id)), None).await?
        }
    };
    let data =
        serde_json::from_str(answer.data()).context("the service answered with something else than keys")?;
    Ok(data)
}

/// The same without a service: whoever may write the store may make a key.
async fn offline(command: &KeyCommand, file: Option<&Path>) -> Result<Value, Failure> {
    let config = config::load(file).map_err(anyhow::Error::from)?;
    // The first key of a service may be made before its store is.
    let makes = matches!(command, KeyCommand::Create(_));
    let keys = Offline::open(&config.engine, makes).await.map_err(anyhow::Error::from)?;
    let done = async {
        match command {
            KeyCommand::Create(args) => {
                let issued = keys.create(NewKey::parse(&wanted(args).to_string())?).await?;
                let mut data = issued.about.to_json();
                data["key"] = issued.key.into();
                Ok(data)
            }
            KeyCommand::List => Ok(keys.all().iter().map(About::to_json).collect()),
            KeyCommand::Revoke { id } => {
                let id = id.parse().map_err(actors::error::Error::invalid)?;
                Ok(keys.revoke(id).await?.to_json())
            }
        }
    };
    let done: actors::error::Result<Value> = done.await;
    keys.close().await.context("the store could not be closed in order")?;
    done.map_err(|error| Failure::Refused(Refusal::parse(&refusal(&error))))
}
