//! `execution`: list, get, log, cancel.

use std::time::Duration;

use actors::definition::Kind;
use actors::execution::now_ms;
use anyhow::{Context, Result};
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::pages::List;
use super::service::Service;
use super::{Failure, done, json, note, print, table, time};
use crate::cli::{ExecutionArgs, ExecutionCommand, ExecutionListArgs};

/// What is asked for at a time; the API's own default.
const PAGE: u64 = 100;
/// Where the values begin in what `get` shows.
const MARGIN: usize = 11;

/// Does what was asked with executions.
pub async fn run(args: ExecutionArgs, json: bool) -> Result<(), Failure> {
    let service = Service::new(args.service.base())?;
    match args.command {
        ExecutionCommand::List(args) => list(&service, &args, json).await,
        ExecutionCommand::Get { uuid } => get(&service, uuid, json).await,
        ExecutionCommand::Log { uuid } => log(&service, uuid, json).await,
        ExecutionCommand::Cancel { uuid } => {
            let answer = service.call(Method::DELETE, &format!("/execution/{uuid}"), None).await?;
            done(&answer, "Execution cancelled", json)
        }
    }
}

async fn get(service: &Service, uuid: Uuid, json: bool) -> Result<(), Failure> {
    let answer = service.call(Method::GET, &format!("/execution/{uuid}"), None).await?;
    if json {
        return print(&json::compact(answer.data()));
    }
    print(&Execution::parse(answer.data())?.block())
}

async fn log(service: &Service, uuid: Uuid, json: bool) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Log {
        lines: Vec<String>,
    }
    let answer = service.call(Method::GET, &format!("/execution/{uuid}/log"), None).await?;
    if json {
        return print(&json::compact(answer.data()));
    }
    let log: Log =
        serde_json::from_str(answer.data()).context("the service answered with something else than a log")?;
    if log.lines.is_empty() {
        note("nothing was printed");
        return Ok(());
    }
    print(&log.lines.join("\n"))
}

async fn list(service: &Service, args: &ExecutionListArgs, json: bool) -> Result<(), Failure> {
    let now = now_ms();
    let list = List {
        method: Method::GET,
        path: "/executions".to_owned(),
        parameters: parameters(args, now),
        body: None,
        page: PAGE,
    };
    let found = list.collect(service, Some(args.limit)).await?;
    found.print("execution", json, |texts| {
        let rows = texts.iter().map(|text| Execution::parse(text.get()).map(|execution| execution.row(now)));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        Ok(table::draw(["UUID", "STATE", "AGE", "DEFINITION"], &rows, table::terminal_width()))
    })
}

/// What the list is asked for, in the API's words.
fn parameters(args: &ExecutionListArgs, now: u64) -> Vec<(&'static str, String)> {
    let since = args.since.map(|moment| moment.ms(now).to_string());
    let until = args.until.map(|moment| moment.ms(now).to_string());
    let given = [
        ("state", args.state.clone()),
        ("tool_id", args.tool.clone()),
        ("function_id", args.function.clone()),
        ("from_ms", since),
        ("to_ms", until),
    ];
    given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// What the service tells of an execution.
#[derive(Debug, Deserialize)]
struct Execution<'a> {
    uuid: String,
    kind: Kind,
    tool_id: Option<String>,
    function_id: Option<String>,
    state: String,
    accepted_ms: u64,
    started_ms: Option<u64>,
    ended_ms: Option<u64>,
    attempts: Option<u64>,
    error: Option<String>,
    code: Option<String>,
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(default, borrow, deserialize_with = "json::present")]
    output: Option<&'a RawValue>,
}

impl<'a> Execution<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        serde_json::from_str(text).context("the service answered with something else than an execution")
    }

    /// The id of its definition.
    fn id(&self) -> &str {
        let id = match self.kind {
            Kind::Tool => &self.tool_id,
            Kind::Function => &self.function_id,
        };
        id.as_deref().unwrap_or_default()
    }

    /// How long it ran, the last time.
    fn ran_for(&self) -> Option<Duration> {
        Some(Duration::from_millis(self.ended_ms?.saturating_sub(self.started_ms?)))
    }

    fn failure(&self) -> Option<String> {
        let error = self.error.clone()?;
        Some(match &self.code {
            Some(code) => format!("{error} ({code})"),
            None => error,
        })
    }

    /// A line of the list.
    fn row(&self, now: u64) -> [String; 4] {
        let age = time::age(now.saturating_sub(self.accepted_ms));
        [self.uuid.clone(), self.state.clone(), age, format!("{} {}", self.kind.name(), self.id())]
    }

    /// All that is known of it, for a person: a line each, then the input and the output.
    fn block(&self) -> String {
        let fields = [
            ("execution", Some(self.uuid.clone())),
            (self.kind.name(), Some(self.id().to_owned())),
            ("state", Some(self.state.clone())),
            ("accepted", Some(time::utc(self.accepted_ms))),
            ("started", self.started_ms.map(time::utc)),
            ("ended", self.ended_ms.map(time::utc)),
            ("ran for", self.ran_for().map(|time| format!("{time:?}"))),
            ("attempts", self.attempts.map(|attempts| attempts.to_string())),
            ("error", self.failure()),
        ];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name, table::plain(&value?))));
        let documents = [("input", Some(self.input)), ("output", self.output)];
        let documents = documents.into_iter().filter_map(|(name, text)| Some((name, indented(text?))));
        let lines = fields.chain(documents).map(|(name, value)| format!("{name:MARGIN$}{value}"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// JSON whose further lines stand below the first.
fn indented(text: &RawValue) -> String {
    json::pretty(text.get()).replace('\n', &format!("\n{:MARGIN$}", ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Moment;

    const UUID: &str = "01a2058f-4d50-7178-ba6e-f4ea780dfaa8";

    /// What the service would tell of an execution, with these fields.
    fn told(fields: &str) -> String {
        format!(r#"{{"uuid":"{UUID}","accepted_ms":1735689599000,{fields},"input":{{"value": 5}}}}"#)
    }

    #[test]
    fn what_waits_has_no_times_yet() {
        let text = told(r#""kind":"function","function_id":"f:v1","state":"queued""#);
        assert_eq!(
            Execution::parse(&text).unwrap().block(),
            "execution  01a2058f-4d50-7178-ba6e-f4ea780dfaa8\n\
             function   f:v1\n\
             state      queued\n\
             accepted   2024-12-31T23:59:59.000Z\n\
             input      {\n             \"value\": 5\n           }"
        );
    }

    #[test]
    fn what_succeeded_shows_its_output_even_null() {
        let about = r#""kind":"tool","tool_id":"t","state":"succeeded","attempts":2"#;
        let times = r#""started_ms":1735689599001,"ended_ms":1735689600501"#;
        let block = |output: &str| {
            let text = told(&format!(r#"{about},{times},"output":{output}"#));
            Execution::parse(&text).unwrap().block()
        };
        let shown = block("null");
        for line in [
            "tool       t",
            "state      succeeded",
            "started    2024-12-31T23:59:59.001Z",
            "ended      2025-01-01T00:00:00.501Z",
            "ran for    1.5s",
            "attempts   2",
            "output     null",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
        }
        assert!(block("18446744073709551616").ends_with("\noutput     18446744073709551616"));
    }

    #[test]
    fn what_failed_says_why_on_one_line() {
        let about = r#""kind":"tool","tool_id":"t","state":"failed","attempts":1"#;
        let times = r#""started_ms":null,"ended_ms":1735689600000"#;
        let error = r#""error":"it said:\n\u001b[31mno","code":"exit_status""#;
        let text = told(&format!("{about},{times},{error}"));
        let block = Execution::parse(&text).unwrap().block();
        assert!(block.contains("\nerror      it said: no (exit_status)\ninput "), "{block}");
        assert!(!block.contains("started") && !block.contains("ran for"), "{block}");
    }

    #[test]
    fn a_row_shows_the_whole_uuid_and_the_age() {
        let text = told(r#""kind":"tool","tool_id":"t","state":"running","started_ms":1735689599001"#);
        let row = Execution::parse(&text).unwrap().row(1_735_689_599_000 + 7_200_000);
        assert_eq!(row, [UUID, "running", "2h", "tool t"]);
    }

    #[test]
    fn what_is_no_execution_says_so() {
        let foreign = told(r#""kind":"task","state":"queued""#);
        for text in ["null", "{}", "[]", foreign.as_str()] {
            let error = Execution::parse(text).unwrap_err().to_string();
            assert!(error.contains("something else than an execution"), "{text}: {error}");
        }
    }

    #[test]
    fn only_what_was_given_is_asked_for() {
        let mut args = ExecutionListArgs {
            state: None,
            tool: None,
            function: None,
            since: None,
            until: None,
            limit: 20,
        };
        assert!(parameters(&args, 100).is_empty());
        args.state = Some("failed".to_owned());
        args.function = Some("f:v1".to_owned());
        args.since = Some(Moment::Ago(30));
        args.until = Some(Moment::At(90));
        let expected = [("state", "failed"), ("function_id", "f:v1"), ("from_ms", "70"), ("to_ms", "90")];
        assert_eq!(parameters(&args, 100), expected.map(|(name, value)| (name, value.to_owned())));
    }
}
