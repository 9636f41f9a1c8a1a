//! What an operation gives: the bodies of its successes become one schema. Pure.

use serde_json::{Value, json};

use super::document::{Node, Result};
use super::media::{Format, best};
use super::schema::{Side, Translator};
use super::{Context, Operation};

/// The output of an operation.
pub struct Output {
    /// What it must be, as far as that is known and no larger than a function may be.
    pub schema: Option<Value>,
    /// The media type to ask for.
    pub accept: String,
    /// Whether it is a text and no JSON.
    pub is_text: bool,
    /// Why it cannot be read.
    pub unsupported: Option<String>,
}

/// Reads the responses. Each documented success may come, so that the output is one of them; a success without content
/// beside others gives null. Where one of them is not described, nothing is asked of the output.
pub fn of(context: &Context<'_>, operation: &Operation<'_>) -> Result<Output> {
    let mut translator = Translator::new(Side::Output, context.is_3_0);
    let (mut waiting, mut schemas) = (Vec::new(), Vec::new());
    let (mut formats, mut is_known, mut may_be_empty) = (Vec::new(), true, false);
    let mut accept = None;
    for response in successes(&operation.node)? {
        let Some(media) = best(&response)? else {
            may_be_empty = true;
            continue;
        };
        formats.push(media.format);
        accept.get_or_insert(media.name);
        match (media.format, media.schema) {
            (Format::Json, Some(schema)) => {
                let schema = translator.schema(&schema, &mut waiting)?;
                if !schemas.contains(&schema) {
                    schemas.push(schema);
                }
            }
            _ => is_known = false,
        }
    }
    let accept = accept.unwrap_or("application/json").to_owned();
    let all_are = |format: Format| !formats.is_empty() && formats.iter().all(|one| *one == format);
    // The body of an answer to HEAD is not sent.
    let has_body = operation.method != "head";
    let unsupported = (has_body && all_are(Format::Other)).then(|| format!("its answer is {accept}"));
    let is_text = all_are(Format::Text);
    let mut output = Output { schema: None, accept, is_text, unsupported };
    if has_body && is_known && !schemas.is_empty() {
        if may_be_empty {
            schemas.push(json!({ "type": "null" }));
        }
        let schema = if schemas.len() == 1 { schemas.remove(0) } else { json!({ "anyOf": schemas }) };
        output.schema = translator.finish(schema, waiting)?;
    }
    Ok(output)
}

/// The responses of 200 to 299, or else the one for everything.
fn successes<'a>(operation: &Node<'a>) -> Result<Vec<Node<'a>>> {
    let responses = operation.members_of("responses")?;
    let is_success = |status: &str| status.len() == 3 && status.starts_with('2');
    let mut chosen: Vec<_> = responses.iter().filter(|(status, _)| is_success(status)).collect();
    if chosen.is_empty() {
        chosen = responses.iter().filter(|(status, _)| *status == "default").collect();
    }
    chosen.into_iter().map(|(_, node)| node.resolved()).collect()
}
