//! The frames that a client gets, in the seed's words. Only the last one has a key `output` or `error`, so that a
//! client which waits for one of them goes on past all others.

use actors::execution::Outcome;
use actors::log::Lines;
use actors::session::News;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::envelope::{failure, refusal};

/// How much `"id":,"uuid":"…",` takes at most, in bytes.
const NAMES: usize = 64;

/// The execution is in the queue.
pub fn accepted(uuid: Uuid, warning: Option<&str>) -> String {
    match warning {
        None => json!({ "success": true, "uuid": uuid }).to_string(),
        Some(warning) => json!({ "success": true, "uuid": uuid, "warning": warning }).to_string(),
    }
}

/// Whether a client's message asks for the end of this execution: `{"cancel":"UUID"}`.
pub fn is_cancel(text: &str, uuid: Option<Uuid>) -> bool {
    let asked =
        serde_json::from_str::<Value>(text).ok().and_then(|message| message["cancel"].as_str()?.parse().ok());
    asked.is_some() && asked == uuid
}

/// Something came after the request that means nothing here. Told once.
pub fn ignored() -> String {
    let message =
        "after its request a connection to /tool or /function takes nothing but a `cancel` of its execution";
    json!({ "success": true, "event": "ignored", "message": message }).to_string()
}

/// It began to run.
pub fn started(uuid: Uuid) -> String {
    json!({ "success": true, "event": "started", "uuid": uuid }).to_string()
}

/// It printed a line: progress where the line is `{"progress":0.4,"message":"…"}`, else log.
pub fn log(uuid: Option<Uuid>, line: &str) -> String {
    let progress = line.starts_with('{').then(|| serde_json::from_str::<Value>(line).ok()).flatten();
    if let Some(progress) = progress.filter(|line| line["progress"].is_number()) {
        let message = progress["message"].as_str().unwrap_or_default();
        let share = &progress["progress"];
        return json!({ "success": true, "event": "progress", "uuid": uuid, "progress": share, "message": message })
            .to_string();
    }
    json!({ "success": true, "event": "log", "uuid": uuid, "stream": "stderr", "line": line }).to_string()
}

/// Lines were lost, because the client reads slower than the program prints.
pub fn dropped(uuid: Option<Uuid>, lines: u64) -> String {
    json!({ "success": true, "event": "dropped", "uuid": uuid, "lines": lines }).to_string()
}

/// All log lines that wait, with how many were lost before them; on a connection of many with the request's name.
pub fn lines(id: Option<&str>, uuid: Option<Uuid>, waiting: &Lines) -> Vec<String> {
    let lost = (waiting.dropped > 0).then(|| dropped(uuid, waiting.dropped));
    let frames = lost.into_iter().chain(waiting.lines.iter().map(|line| log(uuid, line)));
    frames.map(|frame| named(id, None, &frame)).collect()
}

/// What is told on a connection of many: each frame bears the request's name and the execution.
pub fn one_of_many(id: Option<&str>, uuid: Option<Uuid>, news: &News) -> String {
    match news {
        News::Accepted { warning: None, .. } => named(id, uuid, r#"{"success":true}"#),
        News::Accepted { warning: Some(warning), .. } => {
            named(id, uuid, &json!({ "success": true, "warning": &**warning }).to_string())
        }
        News::Started => named(id, uuid, r#"{"success":true,"event":"started"}"#),
        News::Cancelling => named(id, uuid, r#"{"success":true,"event":"cancelling"}"#),
        News::Finished(outcome) => named(id, uuid, &finished(outcome)),
        News::Refused(error) => named(id, uuid, &refusal(error)),
        News::Postponed => named(id, uuid, r#"{"success":true,"event":"postponed"}"#),
    }
}

fn named(id: Option<&str>, uuid: Option<Uuid>, frame: &str) -> String {
    // Two of these for each execution: written straight, in one piece of memory.
    let mut named = String::with_capacity(frame.len() + id.map_or(0, str::len) + NAMES);
    named.push('{');
    if let Some(id) = id {
        named.extend([r#""id":"#, id, ","]);
    }
    if let Some(uuid) = uuid {
        let mut buffer = Uuid::encode_buffer();
        named.extend([r#""uuid":""#, uuid.hyphenated().encode_lower(&mut buffer), r#"","#]);
    }
    named.push_str(&frame[1..]);
    named
}

/// It ended.
pub fn finished(outcome: &Outcome) -> String {
    match &outcome.result {
        Ok(output) => format!(r#"{{"success":true,"output":{output}}}"#),
        Err(failed) => failure(&failed.message, &failed.code, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_are_the_seeds() {
        let uuid = Uuid::nil();
        assert_eq!(accepted(uuid, None), r#"{"success":true,"uuid":"00000000-0000-0000-0000-000000000000"}"#);
        let outcome = Outcome::succeeded(r#"{"result":6}"#.into());
        assert_eq!(finished(&outcome), r#"{"success":true,"output":{"result":6}}"#);
        let failed: Value =
            serde_json::from_str(&finished(&Outcome::failed("exit_status", "x"))).expect("JSON");
        assert_eq!(failed, json!({"success": false, "error": "x", "code": "exit_status"}));
    }

    #[test]
    fn on_a_connection_of_many_each_frame_bears_name_and_execution() {
        let uuid = Some(Uuid::nil());
        let start = r#"{"id":"a","uuid":"00000000-0000-0000-0000-000000000000","success":"#;
        let frame = |news| one_of_many(Some(r#""a""#), uuid, &news);
        assert_eq!(frame(News::Accepted { log: None, warning: None }), format!("{start}true}}"));
        let outcome = Outcome::succeeded("[1]".into());
        assert_eq!(frame(News::Finished(outcome)), format!(r#"{start}true,"output":[1]}}"#));
        let refused = one_of_many(None, None, &News::Refused(actors::error::Error::invalid("x")));
        assert_eq!(refused, r#"{"success":false,"error":"x","code":"invalid"}"#);
        let lines = lines(Some("7"), uuid, &Lines { dropped: 2, lines: ["b".to_owned()].into() });
        for (line, event) in lines.iter().zip(["dropped", "log"]) {
            let frame: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!((&frame["id"], &frame["event"]), (&json!(7), &json!(event)), "{line}");
        }
    }

    #[test]
    fn a_cancel_names_the_execution() {
        let uuid = Uuid::from_u128(7);
        assert!(is_cancel(&format!(r#"{{"cancel":"{uuid}"}}"#), Some(uuid)));
        for other in [r#"{"cancel":"x"}"#, r#"{"cancel":true}"#, "[]", "x", r#"{"tool_id":"t"}"#] {
            assert!(!is_cancel(other, Some(uuid)), "{other}");
        }
        assert!(!is_cancel(&format!(r#"{{"cancel":"{uuid}"}}"#), None));
        assert!(!is_cancel(&format!(r#"{{"cancel":"{}"}}"#, Uuid::nil()), Some(uuid)));
    }

    #[test]
    fn what_comes_between_has_neither_output_nor_error() {
        for line in ["plain", "{\"output\":1}", "{\"progress\":0.4,\"message\":\"m\",\"error\":1}", "{broken"]
        {
            let frame: Value = serde_json::from_str(&log(None, line)).expect("JSON");
            assert!(frame.get("output").is_none() && frame.get("error").is_none(), "{frame}");
        }
        let frame: Value =
            serde_json::from_str(&log(None, "{\"progress\":0.4,\"message\":\"m\"}")).expect("JSON");
        assert_eq!(
            (&frame["event"], &frame["progress"], &frame["message"]),
            (&json!("progress"), &json!(0.4), &json!("m"))
        );
    }
}
