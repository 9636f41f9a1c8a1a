//! What the service says on the WebSocket, frame by frame. Pure.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json;

/// One message of the service about an execution.
#[derive(Debug, PartialEq)]
pub enum Frame {
    /// It is accepted.
    Accepted {
        /// Its uuid.
        uuid: String,
        /// What is told of a definition that is deprecated.
        warning: Option<String>,
    },
    /// It runs.
    Started,
    /// It wrote a line.
    Log(String),
    /// How far it is.
    Progress(Progress),
    /// It succeeded: the JSON text of its output. Nothing follows.
    Output(String),
    /// It failed or was refused. Nothing follows.
    Failed,
    /// Something newer than this client; it goes by.
    Unknown,
}

/// How far an execution is.
#[derive(Debug, PartialEq)]
pub struct Progress {
    /// From 0 to 1.
    pub fraction: Option<f64>,
    /// What it is doing.
    pub message: Option<String>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    success: Option<bool>,
    event: Option<String>,
    uuid: Option<String>,
    warning: Option<String>,
    line: Option<String>,
    progress: Option<f64>,
    message: Option<String>,
    #[serde(default, borrow, deserialize_with = "json::present")]
    output: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "json::present")]
    error: Option<&'a RawValue>,
}

impl Frame {
    /// Reads the text of a frame.
    ///
    /// # Errors
    /// It is not JSON, or a field has another type than the contract says.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        let fields: Fields<'_> = serde_json::from_str(text)?;
        if fields.error.is_some() || fields.success == Some(false) {
            return Ok(Self::Failed);
        }
        if let Some(output) = fields.output {
            return Ok(Self::Output(output.get().to_owned()));
        }
        Ok(match (fields.event.as_deref(), fields.uuid) {
            (Some("started"), _) => Self::Started,
            (Some("log"), _) => Self::Log(fields.line.unwrap_or_default()),
            (Some("progress"), _) => Self::Progress(Progress {
                fraction: fields.progress.map(|value| value.clamp(0.0, 1.0)),
                message: fields.message,
            }),
            (None, Some(uuid)) => Self::Accepted { uuid, warning: fields.warning },
            _ => Self::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_frame_of_the_contract_is_known() {
        let cases = [
            (r#"{"success":true,"uuid":"u"}"#, Frame::Accepted { uuid: "u".to_owned(), warning: None }),
            (
                r#"{"success":true,"uuid":"u","warning":"old"}"#,
                Frame::Accepted { uuid: "u".to_owned(), warning: Some("old".to_owned()) },
            ),
            (r#"{"success":true,"event":"started"}"#, Frame::Started),
            (r#"{"success":true,"event":"log","stream":"stderr","line":"hi"}"#, Frame::Log("hi".to_owned())),
            (
                r#"{"success":true,"event":"progress","progress":4,"message":"half"}"#,
                Frame::Progress(Progress { fraction: Some(1.0), message: Some("half".to_owned()) }),
            ),
            (r#"{"success":true,"event":"from the future","uuid":"u"}"#, Frame::Unknown),
            (r#"{"success":false,"error":"Tool not registered"}"#, Frame::Failed),
            (r#"{"success":false}"#, Frame::Failed),
        ];
        for (text, frame) in cases {
            assert_eq!(Frame::parse(text).unwrap(), frame, "{text}");
        }
    }

    #[test]
    fn an_output_keeps_its_text_and_null_is_one() {
        for output in ["null", "{\"n\":18446744073709551616}", "0.10", "\"\"", "false"] {
            let text = format!(r#"{{"success":true,"uuid":"u","output":{output}}}"#);
            assert_eq!(Frame::parse(&text).unwrap(), Frame::Output(output.to_owned()));
        }
    }

    #[test]
    fn what_is_not_a_frame_is_an_error() {
        for text in ["", "hello", "7", r#"{"uuid":7}"#] {
            assert!(Frame::parse(text).is_err(), "{text}");
        }
    }
}
