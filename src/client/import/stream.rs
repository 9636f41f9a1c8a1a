//! The way of one kind's definitions to the service: lines go out while the answers to earlier ones come back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use actors::definition::Kind;
use anyhow::{Context, Result, anyhow};
use futures_util::stream;
use reqwest::{Body, Method};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::read::{Item, Place};
use super::{Became, Told};
use crate::client::lines::Lines;
use crate::client::service::Service;
use crate::client::{Failure, Refusal, table};

/// How long a request waits for its next line. The service gives up one that is quiet for a minute; what comes
/// after a pause goes into a request of its own.
const PAUSE: Duration = Duration::from_secs(5);

/// How many lines wait to be taken by the connection, and how many bytes it takes at a time.
const LINES: usize = 64;
const CHUNK: usize = 64 << 10;

const NOT_WHOLE: &str = "the import is not whole";

/// The answers to an import.
pub struct Answers(Lines);

/// What the service says of one line.
pub struct Answer {
    /// Counted from 1.
    pub line: u64,
    id: Option<String>,
    became: Became,
    why: Option<Refusal>,
}

/// Sends all items to where their kind is imported, and tells what became of each.
pub async fn send(
    service: &Service,
    path: &str,
    mut items: mpsc::Receiver<Item>,
    told: mpsc::Sender<Told>,
) -> Result<(), Failure> {
    while let Some(first) = items.recv().await {
        request(service, path, first, &mut items, &told).await?;
    }
    Ok(())
}

/// One request, from its first line to a pause or the end.
async fn request(
    service: &Service,
    path: &str,
    first: Item,
    items: &mut mpsc::Receiver<Item>,
    told: &mpsc::Sender<Told>,
) -> Result<(), Failure> {
    let (lines, body) = body();
    let (unanswered, is_sent) = (RefCell::new(VecDeque::new()), Cell::new(false));
    let sending = async {
        // Dropped at the end, and that is the end of the body.
        let lines = lines;
        let mut next = Some(first);
        while let Some(Item { kind, id, mut text, place }) = next {
            unanswered.borrow_mut().push_back((kind, id, place));
            text.push('\n');
            if lines.send(text).await.is_err() {
                // The request has ended, and its answer says why.
                return Ok(());
            }
            next = timeout(PAUSE, items.recv()).await.ok().flatten();
        }
        is_sent.set(true);
        Ok::<(), Failure>(())
    };
    let hearing = async {
        let mut answers = Answers::new(service.lines(Method::POST, path, Some(body)).await?);
        let mut count = 0;
        while let Some(answer) = answers.next().await? {
            count += 1;
            let sent = unanswered.borrow_mut().pop_front().filter(|_| answer.line == count);
            let (kind, id, place) = sent.ok_or_else(|| answer.unasked())?;
            // Whoever hears has failed when nobody does, and says so.
            drop(told.send(answer.told(place, kind, Some(id))).await);
        }
        if is_sent.get() && unanswered.borrow().is_empty() {
            return Ok(());
        }
        Err::<(), Failure>(anyhow!("the service ended it before all was sent").context(NOT_WHOLE).into())
    };
    tokio::try_join!(sending, hearing).map(|((), ())| ())
}

/// A body of the lines that are sent into it.
fn body() -> (mpsc::Sender<String>, Body) {
    let (lines, waiting) = mpsc::channel::<String>(LINES);
    let chunks = stream::unfold(waiting, |mut waiting| async {
        let mut chunk = waiting.recv().await?;
        while chunk.len() < CHUNK
            && let Ok(line) = waiting.try_recv()
        {
            chunk.push_str(&line);
        }
        Some((Ok::<_, Infallible>(chunk), waiting))
    });
    (lines, Body::wrap_stream(chunks))
}

impl Answers {
    /// The answers that stand in these lines.
    pub fn new(lines: Lines) -> Self {
        Self(lines)
    }

    /// The next answer; nothing once the service has told how many there were.
    pub async fn next(&mut self) -> Result<Option<Answer>> {
        let line = self.0.next().await.context(NOT_WHOLE)?;
        let line = line.ok_or_else(|| anyhow!("the service broke off its answer").context(NOT_WHOLE))?;
        Answer::parse(&line)
    }
}

impl Answer {
    /// Reads a line of the answer; nothing of the last, which sums them up.
    fn parse(text: &str) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Fields {
            success: Option<bool>,
            line: Option<u64>,
            id: Option<String>,
            result: Option<Became>,
        }
        let foreign = || format!("the service does not answer as an import does: {}", table::plain(text));
        let fields: Fields = serde_json::from_str(text).with_context(foreign)?;
        match (fields.success, fields.line, fields.result) {
            (Some(true), ..) => Ok(None),
            (None, Some(line), Some(became)) => {
                let why = (became == Became::Failed).then(|| Refusal::parse(text));
                Ok(Some(Self { line, id: fields.id, became, why }))
            }
            _ => Err(anyhow!(foreign())),
        }
    }

    /// What there is to tell of it; the id as it was sent, where it was.
    pub fn told(self, place: Place, kind: Kind, id: Option<String>) -> Told {
        Told { place, kind: Some(kind), id: id.or(self.id), became: self.became, why: self.why }
    }

    /// It answers what was not asked: the service could not read on.
    fn unasked(&self) -> anyhow::Error {
        let reason = self.why.as_ref().map_or("it answered what was not asked".to_owned(), Refusal::sentence);
        anyhow!("the service cannot go on: {reason}").context(NOT_WHOLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_answer_tells_what_became_of_a_line() {
        let answer = Answer::parse(r#"{"line":7,"id":"x","result":"unchanged"}"#).unwrap().unwrap();
        assert_eq!((answer.line, answer.id.as_deref(), answer.became), (7, Some("x"), Became::Unchanged));
        assert!(answer.why.is_none());
        let text = r#"{"line":8,"result":"failed","error":"no","code":"invalid","details":{"field":"f"}}"#;
        let why = Answer::parse(text).unwrap().unwrap().why.unwrap();
        assert_eq!(why.sentence(), r#"no (invalid) {"field":"f"}"#);
        assert!(Answer::parse(r#"{"success":true,"data":{"created":1}}"#).unwrap().is_none());
    }

    #[test]
    fn what_is_no_answer_says_so() {
        for text in ["", "7", "{}", r#"{"line":1}"#, r#"{"line":1,"result":"new"}"#, r#"{"success":false}"#] {
            let error = format!("{:#}", Answer::parse(text).err().unwrap());
            assert!(error.starts_with("the service does not answer as an import does"), "{text}: {error}");
        }
    }
}
