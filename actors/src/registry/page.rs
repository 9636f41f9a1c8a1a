//! Pages of a query: how many, in which order, and where the next one begins. Pure.

use crate::error::{Error, Result};

/// Which part of the matches is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct PageRequest {
    /// How many at most.
    pub limit: usize,
    /// In which order.
    pub sort: Sort,
    /// Those that follow this one.
    pub after: Option<Position>,
}

/// Some of the matches, in the order that was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The definitions' JSON texts.
    pub items: Vec<String>,
    /// Where the next page begins, when there is more (or when the time for one query was over).
    pub next: Option<Position>,
}

/// An order of definitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub by: By,
    /// The last first.
    pub descending: bool,
}

/// What definitions are ordered by; among equals, their ids decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// Their ids, byte by byte.
    #[default]
    Id,
    /// When they were created.
    Created,
    /// When they were last written.
    Updated,
    /// How well they answer the `$text` of the filter, the best first.
    Relevance,
}

/// Where a definition stands in an order. It stays where it is while others come and go, so that pages neither
/// repeat nor leave out what was not written meanwhile; by relevance, because it stands in one view of the text index.
#[derive(Clone, Debug, PartialEq)]
pub struct Position {
    /// The order.
    pub sort: Sort,
    /// What it is ordered by: milliseconds since the epoch, or the bits of its score, in a cursor with the number of the
    /// view above them; 0 where it is the id alone.
    pub rank: u64,
    /// Its id.
    pub id: String,
}

impl Sort {
    /// The orders by name; a `-` before one turns it round.
    const NAMES: [(&'static str, By); 4] =
        [("id", By::Id), ("created", By::Created), ("updated", By::Updated), ("relevance", By::Relevance)];

    /// The best answers to a `$text` first.
    pub const RELEVANCE: Self = Self { by: By::Relevance, descending: false };

    /// Reads `sort`.
    ///
    /// # Errors
    /// `invalid` for an order that there is not.
    pub fn parse(text: &str) -> Result<Self> {
        let name = text.strip_prefix('-').unwrap_or(text);
        let found = Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, by)| *by);
        match found {
            Some(By::Relevance) if name != text => {
                Err(Error::invalid("`sort=relevance` has one direction, the best first").at("sort"))
            }
            Some(by) => Ok(Self { by, descending: name != text }),
            None => Err(Error::invalid(
                "`sort` is id, created, updated or relevance; a `-` before it turns it round",
            )
            .at("sort")),
        }
    }

    /// What a definition with these moments is ordered by before its id; a score is known to the search alone.
    pub fn rank(self, created_ms: u64, updated_ms: u64) -> u64 {
        match self.by {
            By::Id | By::Relevance => 0,
            By::Created => created_ms,
            By::Updated => updated_ms,
        }
    }

    fn letter(self) -> char {
        let letter = match self.by {
            By::Id => 'i',
            By::Created => 'c',
            By::Updated => 'u',
            By::Relevance => 'r',
        };
        if self.descending { letter.to_ascii_uppercase() } else { letter }
    }

    fn of_letter(letter: char) -> Option<Self> {
        let by = match letter.to_ascii_lowercase() {
            'i' => By::Id,
            'c' => By::Created,
            'u' => By::Updated,
            'r' if letter == 'r' => By::Relevance,
            _ => return None,
        };
        Some(Self { by, descending: letter.is_ascii_uppercase() })
    }
}

impl Position {
    /// As a cursor: opaque, and safe in a URL.
    pub fn cursor(&self) -> String {
        let text = format!("{}{:x}.{}", self.sort.letter(), self.rank, self.id);
        text.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads a cursor.
    pub fn parse(cursor: &str) -> Option<Self> {
        let digits = cursor.as_bytes();
        if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let pairs = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        let text = String::from_utf8(pairs.collect::<Option<_>>()?).ok()?;
        let mut letters = text.chars();
        let sort = Sort::of_letter(letters.next()?)?;
        let (rank, id) = letters.as_str().split_once('.')?;
        let rank = u64::from_str_radix(rank, 16).ok()?;
        (!id.is_empty()).then(|| Self { sort, rank, id: id.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_position() {
        for sort in ["id", "-id", "created", "-created", "updated", "-updated", "relevance"] {
            for (rank, id) in [(0, "a"), (u64::MAX, "weather_lookup:v1.0.0-stable"), (7, "日本.x")] {
                let position = Position { sort: Sort::parse(sort).expect("known"), rank, id: id.into() };
                assert_eq!(Position::parse(&position.cursor()), Some(position));
            }
        }
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        for bad in ["", "x", "6", "ff", "é", "+1", &hex("i0."), &hex("x0.a"), &hex("ig.a"), &hex("R0.a")] {
            assert_eq!(Position::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_order_that_there_is_not_is_refused() {
        for bad in ["", "age", "--id", "-relevance", "ID"] {
            assert!(Sort::parse(bad).is_err(), "{bad}");
        }
    }
}
