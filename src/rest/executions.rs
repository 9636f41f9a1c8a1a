//! Executions: begun, looked up by their uuid, listed, ended.

use std::marker::PhantomData;
use std::time::Duration;

use actors::dispatcher::Cancelled;
use actors::error::{Code, Error, Result};
use actors::execution::{Options, PageRequest, trace_context};
use actors::system::Acting;
use poem::http::{HeaderMap, StatusCode};
use poem_openapi::OpenApi;
use poem_openapi::param::{Header, Path, Query};
use serde_json::json;
use uuid::Uuid;

use super::authorized::Authorized;
use super::body::JsonText;
use super::definitions::Registered;
use super::reply::{Reply, json_response};

/// How many executions a page has unless told.
const DEFAULT_LIMIT: usize = 100;
/// How many it has at most.
pub const MAX_LIMIT: usize = 1_000;

/// Runs of tools or of functions.
pub struct Runs<R> {
    patience: Duration,
    registered: PhantomData<R>,
}

impl<R> Runs<R> {
    /// A client may wait for so long.
    pub fn new(patience: Duration) -> Self {
        Self { patience, registered: PhantomData }
    }
}

/// What a request asks for besides its input.
struct Asked {
    wait: Option<Duration>,
    options: Options,
    traceparent: Option<String>,
}

#[OpenApi(prefix_path = R::ONE)]
impl<R: Registered> Runs<R> {
    /// Run it with the body as its input. 202 with the `uuid` once the execution is recorded. With `wait` 200 and how it
    /// ended, a failed one too; where that takes longer, 202: `GET /execution/{uuid}` tells later.
    #[oai(path = "/:id/execute", method = "post")]
    #[expect(clippy::too_many_arguments, reason = "each is a part of the request")]
    async fn execute(
        &self,
        acting: Authorized,
        id: Path<String>,
        /// How many seconds to wait for the outcome.
        wait: Query<Option<String>>,
        /// A shorter timeout than the definition's, in milliseconds.
        timeout_ms: Query<Option<String>>,
        /// 0 to 9; higher goes first; 5 unless told.
        priority: Query<Option<String>>,
        /// 1 to 255 bytes: the same key for the same definition is the same execution; with another input it is a 409.
        #[oai(name = "Idempotency-Key")]
        _idempotency_key: Header<Option<String>>,
        headers: &HeaderMap,
        /// The caller's trace context (W3C Trace Context).
        traceparent: Header<Option<String>>,
        body: JsonText,
    ) -> Reply<202> {
        let asked = || {
            let wait = wait.0.as_deref().map(|text| seconds(text, self.patience)).transpose()?;
            let options = options(timeout_ms.0.as_deref(), priority.0.as_deref(), idempotency_key(headers)?)?;
            Ok(Asked { wait, options, traceparent: traceparent.0.as_deref().and_then(trace_context) })
        };
        let run = async { Self::run(&acting.0, &id, asked()?, &body.0).await };
        run.await.unwrap_or_else(|error| Reply::refused(&error))
    }
}

impl<R: Registered> Runs<R> {
    async fn run(acting: &Acting, id: &str, asked: Asked, body: &str) -> Result<Reply<202>> {
        let input = actors::json::members(body)?;
        let execution = acting.execute(R::KIND, id, input, asked.options, asked.traceparent).await?;
        let (uuid, warning) = (execution.uuid, execution.warning.clone());
        let has_ended = match asked.wait {
            None => false,
            Some(wait) => tokio::select! {
                biased;
                // It goes on, but who asked for it is told nothing of it any more.
                () = acting.ended() => {
                    return Err(Error::new(Code::Unauthorized, "the key of this request is not good any more"));
                }
                outcome = execution.outcome_within(wait) => outcome.is_some(),
            },
        };
        if has_ended {
            let mut text = acting.execution(uuid).await?.to_json();
            if let Some(warning) = &warning {
                text.insert_str(1, &format!(r#""warning":{},"#, actors::json::quote(warning)));
            }
            let envelope = format!(r#"{{"success":true,"data":{text}}}"#);
            return Ok(Reply::response(json_response(StatusCode::OK, envelope)));
        }
        let mut data = json!({ "uuid": uuid });
        if let Some(warning) = &warning {
            data["warning"] = json!(&**warning);
        }
        Ok(Reply::data(&data.to_string()))
    }
}

/// A time to wait.
fn seconds(text: &str, most: Duration) -> Result<Duration> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|wait| *wait <= most).ok_or_else(|| {
        let most = most.as_secs_f64();
        Error::invalid(format!("`wait` is not a number of seconds from 0 to {most}")).at("wait")
    })
}

/// The header that names what is not to run twice.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// The header's value, which may be any text: what is left out here would run twice.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>> {
    let text = headers.get(IDEMPOTENCY_KEY).map(|value| std::str::from_utf8(value.as_bytes())).transpose();
    text.map_err(|_| {
        Error::invalid(format!("the header `{IDEMPOTENCY_KEY}` is no UTF-8")).at(IDEMPOTENCY_KEY)
    })
}

fn options(timeout_ms: Option<&str>, priority: Option<&str>, key: Option<&str>) -> Result<Options> {
    let mut options = json!({});
    for (name, given) in [("timeout_ms", timeout_ms), ("priority", priority)] {
        let Some(text) = given else { continue };
        options[name] = text.parse::<u64>().map_or_else(|_| text.into(), Into::into);
    }
    if let Some(key) = key {
        options["idempotency_key"] = key.into();
    }
    Options::parse_as(&options, |name| match name {
        "idempotency_key" => IDEMPOTENCY_KEY.to_owned(),
        name => name.to_owned(),
    })
}

/// What was accepted.
pub struct Executions;

impl Executions {
    async fn try_get(acting: &Acting, uuid: &str) -> Result<Reply<200>> {
        Ok(Reply::data(&acting.execution(parsed(uuid)?).await?.to_json()))
    }

    async fn try_log(acting: &Acting, uuid: &str) -> Result<Reply<200>> {
        let uuid = parsed(uuid)?;
        let log = acting.execution_log(uuid).await?;
        let lines: Vec<&str> = log.lines().collect();
        Ok(Reply::data(&json!({ "uuid": uuid, "lines": lines }).to_string()))
    }

    async fn try_list(acting: &Acting, request: Result<PageRequest>) -> Result<Reply<200>> {
        let page = acting.executions(request?).await?;
        let data: Vec<String> = page.items.iter().map(actors::execution::Snapshot::to_json).collect();
        let next = page.next.map_or_else(String::new, |uuid| format!(r#","next":"{}""#, uuid.simple()));
        Ok(Reply::envelope(format!(r#"{{"success":true,"data":[{}]{next}}}"#, data.join(","))))
    }

    async fn cancelled(acting: &Acting, uuid: &str) -> Result<String> {
        let uuid = parsed(uuid)?;
        match acting.cancel_for_good(uuid).await? {
            Cancelled::Asked => Ok(json!({ "message": "Execution cancelled", "uuid": uuid }).to_string()),
            Cancelled::Ended => Err(Error::new(Code::Conflict, "the execution has ended already")),
            Cancelled::Unknown => Err(Error::new(Code::NotFound, "there is no execution with this uuid")),
        }
    }
}

fn parsed(uuid: &str) -> Result<Uuid> {
    uuid.parse().map_err(|_| Error::invalid("the uuid is not valid").at("uuid"))
}

#[OpenApi]
impl Executions {
    /// What is known of an execution: its state (`queued`, `running`, `succeeded`, `failed`, `timed_out`, `cancelled`,
    /// `interrupted`), its input, its output or error, its times in milliseconds since the epoch, its attempts.
    #[oai(path = "/execution/:uuid", method = "get")]
    async fn get(&self, acting: Authorized, uuid: Path<String>) -> Reply<200> {
        Self::try_get(&acting.0, &uuid).await.unwrap_or_else(|error| Reply::refused(&error))
    }

    /// The end of what an execution printed, 16 KiB at most, also while it runs: `lines`. Where more was printed, the first
    /// line says so.
    #[oai(path = "/execution/:uuid/log", method = "get")]
    async fn log(&self, acting: Authorized, uuid: Path<String>) -> Reply<200> {
        Self::try_log(&acting.0, &uuid).await.unwrap_or_else(|error| Reply::refused(&error))
    }

    /// Ends an execution, whether it waits or runs: answered once all that it started is gone and its end is recorded. Its
    /// client gets a last frame with the code `cancelled`. 409 where it has ended by itself.
    #[oai(path = "/execution/:uuid", method = "delete")]
    async fn cancel(&self, acting: Authorized, uuid: Path<String>) -> Reply<200> {
        match Self::cancelled(&acting.0, &uuid).await {
            Ok(data) => Reply::data(&data),
            Err(error) => Reply::refused(&error),
        }
    }

    /// Executions, the newest first. `next` is the cursor of the next page; a page may be short, or empty, and have one.
    #[oai(path = "/executions", method = "get")]
    #[expect(clippy::too_many_arguments, reason = "each is a part of the request")]
    async fn list(
        &self,
        acting: Authorized,
        /// Only those in this state.
        state: Query<Option<String>>,
        /// Only those of the tool with exactly this id.
        tool_id: Query<Option<String>>,
        /// Only those of the function with exactly this id.
        function_id: Query<Option<String>>,
        /// Only those that were accepted at or after this time, in milliseconds since the epoch.
        from_ms: Query<Option<String>>,
        /// Only those that were accepted before this time, in milliseconds since the epoch.
        to_ms: Query<Option<String>>,
        /// How many at most: 1 to 1,000, 100 unless told.
        limit: Query<Option<String>>,
        /// The `next` of the page before.
        cursor: Query<Option<String>>,
    ) -> Reply<200> {
        let request = || {
            let (kind, id) = definition(tool_id.0, function_id.0)?;
            Ok(PageRequest {
                limit: whole("limit", limit.0, |limit| (1..=MAX_LIMIT).contains(&limit))?
                    .unwrap_or(DEFAULT_LIMIT),
                before: cursor.0.map(|cursor| cursor.parse().map_err(|_| bad_cursor())).transpose()?,
                phase: state.0.as_deref().map(PageRequest::phase_named).transpose()?,
                kind,
                id,
                client: None,
                from_ms: whole("from_ms", from_ms.0, |_| true)?,
                to_ms: whole("to_ms", to_ms.0, |_| true)?,
            })
        };
        Self::try_list(&acting.0, request()).await.unwrap_or_else(|error| Reply::refused(&error))
    }
}

fn bad_cursor() -> Error {
    Error::invalid("`cursor` is not the `next` of an earlier page").at("cursor")
}

fn definition(
    tool: Option<String>,
    function: Option<String>,
) -> Result<(Option<actors::definition::Kind>, Option<String>)> {
    use actors::definition::Kind;
    match (tool, function) {
        (None, None) => Ok((None, None)),
        (Some(id), None) => Ok((Some(Kind::Tool), Some(id))),
        (None, Some(id)) => Ok((Some(Kind::Function), Some(id))),
        (Some(_), Some(_)) => {
            Err(Error::invalid("an execution is of a tool or of a function, not of both").at("function_id"))
        }
    }
}

/// A whole number of a query, where it is given.
pub fn whole<N: std::str::FromStr + Copy>(
    name: &str,
    text: Option<String>,
    is_allowed: fn(N) -> bool,
) -> Result<Option<N>> {
    let Some(text) = text else { return Ok(None) };
    let number = text.parse::<N>().ok().filter(|number| is_allowed(*number));
    let wrong = || {
        let bound = if name == "limit" { format!(" from 1 to {MAX_LIMIT}") } else { String::new() };
        Error::invalid(format!("`{name}` is not a whole number{bound}")).at(name)
    };
    Ok(Some(number.ok_or_else(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_wait_is_bounded() {
        let most = Duration::from_secs(54);
        assert_eq!(seconds("0.5", most), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("54", most), Ok(most));
        for bad in ["", "x", "-1", "NaN", "inf", "54.1", "1e300"] {
            let error = seconds(bad, most).expect_err(bad);
            assert!(error.to_string().contains("from 0 to 54"), "{error}");
        }
    }

    #[test]
    fn options_of_the_address_are_those_of_a_request() {
        let asked = options(Some("5"), Some("9"), Some("k")).expect("valid");
        assert_eq!((asked.timeout, asked.priority), (Some(Duration::from_millis(5)), 9));
        for (timeout, priority, key, name) in [
            (Some("0"), None, None, "timeout_ms"),
            (Some("x"), None, None, "timeout_ms"),
            (None, Some("10"), None, "priority"),
            (None, Some(""), None, "priority"),
            (None, None, Some(""), "Idempotency-Key"),
        ] {
            let error = options(timeout, priority, key).expect_err(name);
            let told = error.to_string();
            assert!(told.contains(&format!("`{name}`")) && !told.contains("options"), "{told}");
            assert_eq!(error.details().map(|details| &details["field"]), Some(&json!(name)));
        }
    }
}
