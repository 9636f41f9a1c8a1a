//! What the functions of a document are called: by their `operationId`, or by method and path. Pure.

use std::collections::BTreeSet;

use super::Operation;
use super::document::Result;
use crate::definition::{MAX_ID_CHARS, check_id};
use crate::spec::{Piece, pieces};

/// How much of an id is kept free for what makes it unique, in characters.
const SPARE_CHARS: usize = 8;

/// The name of each operation, in their order, and whether it is made of its path or of what else there is: the prefix, and
/// an `operationId` as it stands where it can be a part of an id. Names that had to be made give way to those that did not.
pub fn all(operations: &[Operation<'_>], prefix: &str, suffix: &str) -> Result<Vec<(String, bool)>> {
    let fits = |name: &str| check_id(name).is_ok() && check_id(&format!("{name}{suffix}")).is_ok();
    let mut taken = BTreeSet::new();
    let mut names = Vec::new();
    for operation in operations {
        // What follows a `:` may be read as a version.
        let id = operation.node.text("operationId")?.filter(|id| !id.is_empty() && !id.contains(':'));
        let name = id.map(|id| format!("{prefix}{id}")).filter(|name| fits(name));
        if let Some(name) = name.as_ref().filter(|name| !taken.insert((*name).clone())) {
            return Err(operation.node.wrong(format!("another operation makes the name {name:?} too")));
        }
        names.push(name);
    }
    let room = MAX_ID_CHARS.saturating_sub(prefix.chars().count() + suffix.chars().count() + SPARE_CHARS);
    let made = operations.iter().zip(names).map(|(operation, name)| {
        if let Some(name) = name {
            return Ok((name, false));
        }
        let id = operation.node.text("operationId")?.map(slug).filter(|id| !id.is_empty());
        let whole = |slug: &str| format!("{prefix}{}", shortened(slug, room));
        let of_id = id.as_deref().map(whole);
        let mut candidates = of_id.clone().into_iter().chain([whole(&of_path(operation))]);
        let refused = || operation.node.wrong(format!("no id can begin with the prefix {prefix:?}"));
        let name = unique(candidates.find(|name| fits(name)).ok_or_else(refused)?, &taken);
        taken.insert(name.clone());
        let is_made = of_id.is_none_or(|of_id| of_id != name);
        Ok((name, is_made))
    });
    made.collect()
}

/// The word, with a number behind it where it is taken.
pub fn unique(word: String, taken: &BTreeSet<String>) -> String {
    if !taken.contains(&word) {
        return word;
    }
    // Then from how many there are, so that a long row of equal words is not counted through for each.
    let mut numbered = (2..10).chain(taken.len().max(10)..).map(|number| format!("{word}_{number}"));
    numbered.find(|name| !taken.contains(name)).expect("there are more numbers than names")
}

/// `GET /pet/{petId}` is `get_pet_by_petId`.
fn of_path(operation: &Operation<'_>) -> String {
    let words = pieces(operation.path).unwrap_or_default().into_iter().map(|piece| match piece {
        Piece::Text(text) => slug(text),
        Piece::Name(name) => format!("by_{}", slug(name)),
    });
    let words: Vec<String> = std::iter::once(operation.method.to_owned()).chain(words).collect();
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_")
}

/// Letters, digits, `-`, `.` and `_` stay; what is between becomes one `_`.
fn slug(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    let words = text.split(|c: char| !is_plain(c)).filter(|word| word.contains(char::is_alphanumeric));
    words.collect::<Vec<_>>().join("_")
}

fn shortened(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}
