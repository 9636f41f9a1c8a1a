//! `run`: one execution over the WebSocket, watched until it ends.

use std::time::Duration;

use actors::cryptography;
use anyhow::{Context, Result, anyhow};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::frame::Frame;
use super::service::{address, credential};
use super::spinner::Spinner;
use super::{Failure, Refusal, json, print, table, unreachable};
use crate::cli::{RunArgs, key};

const CONNECT: Duration = Duration::from_secs(10);
const FAREWELL: Duration = Duration::from_secs(1);
/// The largest message that is taken: an output has its own, lower limit in the service.
const LARGEST: usize = 256 << 20;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Runs one tool or function and prints its output.
pub async fn run(args: &RunArgs, json: bool) -> Result<(), Failure> {
    let base = address(args.base(), &["ws", "wss"])?;
    let request = request(args)?;
    let url = format!("{base}/{}", args.kind.name());
    let mut execution =
        Execution { spinner: Spinner::start(format!("connecting to {base}")), stage: Stage::Unsent };
    let outcome = tokio::select! {
        outcome = execution.watch(&base, &url, request) => Some(outcome),
        Ok(()) = tokio::signal::ctrl_c() => None,
    };
    let stage = execution.end();
    let Some(outcome) = outcome else {
        return Err(Failure::Left(stage.farewell()));
    };
    let Outcome { frame, output, socket } = outcome?;
    let printed = match output {
        Some(_) if json => print(&json::compact(&frame)),
        Some(output) => print(&json::pretty(&output)),
        None => Err(Failure::Refused(Refusal::parse(&frame))),
    };
    part(socket).await;
    printed
}

/// The request frame. The input goes in as it was written.
fn request(args: &RunArgs) -> Result<String> {
    let input = json::argument("input", &args.input)?;
    let mut options = json!({ "stream": true });
    if let Some(timeout_ms) = args.timeout_ms {
        options["timeout_ms"] = timeout_ms.into();
    }
    if let Some(priority) = args.priority {
        options["priority"] = priority.into();
    }
    let field = args.kind.field("id");
    let id = Value::from(args.id.as_str());
    Ok(format!(r#"{{"{field}":{id},"input_data":{},"options":{options}}}"#, input.get()))
}

/// How far it came, for whoever leaves or loses it.
enum Stage {
    Unsent,
    Sent,
    Accepted(String),
}

impl Stage {
    fn farewell(&self) -> String {
        match self {
            Self::Unsent => "left; nothing was sent".to_owned(),
            Self::Sent => "left before the service had answered: whether it runs is not known".to_owned(),
            Self::Accepted(uuid) => {
                format!("left; execution {uuid} goes on: see `org-executor execution get {uuid}`")
            }
        }
    }

    fn loss(&self) -> String {
        match self {
            Self::Unsent | Self::Sent => "the connection ended before the service had answered".to_owned(),
            Self::Accepted(uuid) => format!(
                "the connection ended before execution {uuid} did: see `org-executor execution get {uuid}`"
            ),
        }
    }
}

struct Execution {
    spinner: Spinner,
    stage: Stage,
}

/// The final frame.
struct Outcome {
    /// Its whole text.
    frame: String,
    /// The JSON text of the output; `None` if it failed.
    output: Option<String>,
    socket: Socket,
}

impl Execution {
    async fn watch(&mut self, base: &str, url: &str, request: String) -> Result<Outcome, Failure> {
        let mut socket = connect(base, url).await?;
        self.stage = Stage::Sent;
        let sent = socket.send(Message::text(request)).await;
        sent.map_err(|error| self.lost(&error.to_string()))?;
        self.spinner.set_state("waiting to be accepted".to_owned());
        loop {
            let text = match socket.next().await {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(reason))) => return Err(self.lost(&closing(reason))),
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(self.lost(&error.to_string())),
                None => return Err(self.lost("closed")),
            };
            let frame = Frame::parse(&text)
                .with_context(|| format!("{url} does not speak as Org Executor: {}", table::plain(&text)))?;
            let output = match frame {
                Frame::Output(output) => Some(output),
                Frame::Failed => None,
                other => {
                    self.show(other);
                    continue;
                }
            };
            return Ok(Outcome { frame: text.to_string(), output, socket });
        }
    }

    fn show(&mut self, frame: Frame) {
        match frame {
            Frame::Accepted { uuid, warning } => {
                if let Some(warning) = warning {
                    self.spinner.log(&format!("warning: {warning}"));
                }
                self.spinner.set_state(format!("queued {uuid}"));
                self.stage = Stage::Accepted(uuid);
            }
            Frame::Started => self.spinner.set_state(match &self.stage {
                Stage::Accepted(uuid) => format!("running {uuid}"),
                Stage::Unsent | Stage::Sent => "running".to_owned(),
            }),
            Frame::Log(line) => self.spinner.log(&line),
            Frame::Progress(progress) => self.spinner.progress(&progress),
            Frame::Output(_) | Frame::Failed | Frame::Unknown => {}
        }
    }

    fn lost(&self, cause: &str) -> Failure {
        anyhow!("{} ({cause})", self.stage.loss()).into()
    }

    /// Takes the spinner away before anything else is printed.
    fn end(self) -> Stage {
        self.stage
    }
}

async fn connect(base: &str, url: &str) -> Result<Socket, Failure> {
    let config = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
    let mut request = url.into_client_request().map_err(|error| unreachable(base, &error))?;
    if let Some(key) = key() {
        request.headers_mut().insert(AUTHORIZATION, credential(&key)?);
    }
    cryptography::provider();
    let connecting = connect_async_with_config(request, Some(config), true);
    match timeout(CONNECT, connecting).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(Error::Http(response))) => Err(match response.body() {
            Some(body) if body.starts_with(b"{") => {
                Failure::Refused(Refusal::parse(&String::from_utf8_lossy(body)))
            }
            _ => anyhow!("{url} refused the connection: {}", response.status()).into(),
        }),
        Ok(Err(error)) => Err(unreachable(base, &error).into()),
        Err(_) => Err(anyhow!("no answer from {base} within {} s", CONNECT.as_secs()).into()),
    }
}

fn closing(reason: Option<CloseFrame>) -> String {
    match reason {
        Some(CloseFrame { code, reason }) if reason.is_empty() => format!("closed with {code}"),
        Some(CloseFrame { code, reason }) => {
            format!("closed with {code}: {}", table::plain(&reason))
        }
        None => "closed".to_owned(),
    }
}

/// Closes in good order, but waits for nobody: the outcome is here already.
async fn part(mut socket: Socket) {
    let goodbye = async {
        let _ = socket.close(None).await;
        while let Some(Ok(_)) = socket.next().await {}
    };
    let _ = timeout(FAREWELL, goodbye).await;
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, ClientCommand, Command};

    fn request_of(words: &[&str]) -> Result<String> {
        let words = ["org-executor", "run"].iter().chain(words);
        match Cli::try_parse_from(words).unwrap().into_command() {
            Command::Client(ClientCommand::Run(args)) => request(&args),
            other => panic!("not run: {other:?}"),
        }
    }

    #[test]
    fn a_request_without_input_has_an_empty_one() {
        assert_eq!(
            request_of(&["tool", "a\"b"]).unwrap(),
            r#"{"tool_id":"a\"b","input_data":{},"options":{"stream":true}}"#
        );
    }

    #[test]
    fn a_request_carries_its_options_and_its_input_as_written() {
        let input = r#"{"n": 18446744073709551616}"#;
        let words = ["function", "f:v1", input, "--timeout-ms=50", "--priority=9"];
        let request = request_of(&words).unwrap();
        assert!(request.contains(input));
        let request: Value = serde_json::from_str(&request).unwrap();
        let options = json!({"stream": true, "timeout_ms": 50, "priority": 9});
        assert_eq!(request["function_id"], "f:v1");
        assert_eq!(request["options"], options);
    }

    #[test]
    fn whoever_leaves_is_told_what_goes_on() {
        assert!(Stage::Unsent.farewell().contains("nothing was sent"));
        let accepted = Stage::Accepted("0f97".to_owned());
        assert!(accepted.farewell().contains("execution 0f97 goes on"));
        assert!(accepted.loss().contains("execution 0f97"));
    }
}
