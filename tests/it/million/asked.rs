//! What is asked of either: filters and searches, with what the answers must hold.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::made::{Made, RARE};
use crate::cancels::Dice;

/// How many queries of each sort there are, which take turns.
const QUERIES: usize = 20;

/// Definitions that bear one of two rare tags, run in Python and have at least this size.
pub struct Compound {
    pub tags: [String; 2],
    pub size: u64,
    /// The numbers of those that match.
    pub hits: Vec<u64>,
}

/// What a search's first hit must hold.
#[derive(Clone, Copy)]
pub enum Holds {
    /// Each of the words.
    All,
    /// One of them at least.
    Any,
    /// A word that begins so.
    Beginning,
}

/// A search by words.
pub struct Search {
    /// What is typed.
    pub typed: String,
    /// What is meant by it, and found.
    pub words: Vec<String>,
    pub holds: Holds,
}

/// All that is asked.
pub struct Asked {
    pub compounds: Vec<Compound>,
    /// Two words that stand together in one short definition at least.
    pub pairs: Vec<Search>,
    /// Two of the forty most frequent words.
    pub frequent: Vec<Search>,
    /// One word with a wrong letter.
    pub typos: Vec<Search>,
    /// The first five letters of a word.
    pub prefixes: Vec<Search>,
}

impl Compound {
    fn new(made: &Made, dice: &mut Dice) -> Self {
        let tags = made.rare_tags();
        let first = dice.roll(tags);
        let teams = [first, (first + 1 + dice.roll(tags - 1)) % tags];
        let size = 2_000 + dice.roll(6_000);
        let bearers = teams.iter().flat_map(|team| (0..RARE).map(move |turn| team + turn * tags));
        let is_hit = |number: &u64| {
            let definition = made.definition(*number);
            let metadata = &definition["tool_metadata"];
            metadata["runtime"] == "python" && metadata["size"].as_u64().unwrap() >= size
        };
        let mut hits: Vec<u64> = bearers.filter(is_hit).collect();
        hits.sort_unstable();
        Self { tags: teams.map(Made::rare_tag), size, hits }
    }

    /// As MongoDB's filter.
    pub fn filter(&self) -> Value {
        json!({ "$and": [
            { "tool_search_tags": { "$in": self.tags } },
            { "tool_metadata.runtime": "python" },
            { "tool_metadata.size": { "$gte": self.size } },
        ]})
    }
}

impl Search {
    fn new(typed: impl Into<String>, words: &[&str], holds: Holds) -> Self {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        Self { typed: typed.into(), words, holds }
    }

    /// The same words, where one of them will do.
    pub fn either(&self) -> Self {
        Self { typed: self.typed.clone(), words: self.words.clone(), holds: Holds::Any }
    }

    pub fn filter(&self) -> Value {
        json!({ "$text": { "$search": self.typed } })
    }

    /// Whether a definition is what was meant.
    pub fn is_met_by(&self, definition: &Value) -> bool {
        let description = definition["tool_description"].as_str().unwrap();
        let has = |word: &String| match self.holds {
            Holds::Beginning => description.split(' ').any(|other| other.starts_with(word.as_str())),
            _ => description.split(' ').any(|other| other == word),
        };
        match self.holds {
            Holds::All => self.words.iter().all(has),
            _ => self.words.iter().any(has),
        }
    }
}

impl Asked {
    pub fn new(made: &Made) -> Self {
        let dice = &mut Dice(made.count);
        let mut asked = Self {
            compounds: (0..QUERIES).map(|_| Compound::new(made, dice)).collect(),
            pairs: Vec::new(),
            frequent: Vec::new(),
            typos: Vec::new(),
            prefixes: Vec::new(),
        };
        while asked.pairs.len() < QUERIES {
            asked.pairs.extend(pair(made, dice));
        }
        while asked.frequent.len() < QUERIES {
            let [first, second] =
                [10 + dice.roll(15), 25 + dice.roll(15)].map(|rank| &made.words[rank as usize]);
            asked.frequent.push(Search::new(format!("{first} {second}"), &[first, second], Holds::Any));
        }
        while asked.typos.len() < QUERIES {
            asked.typos.extend(typo(made, dice));
        }
        while asked.prefixes.len() < QUERIES {
            asked.prefixes.extend(prefix(made, dice));
        }
        asked
    }
}

/// The words of a definition that are neither in every tenth nor hardly anywhere.
fn middling(made: &Made, number: u64) -> Vec<String> {
    let middle: HashSet<&str> = made.words[100..2_000].iter().map(String::as_str).collect();
    let definition = made.definition(number);
    let description = definition["tool_description"].as_str().unwrap();
    let mut words: Vec<String> =
        description.split(' ').filter(|word| middle.contains(word)).map(str::to_owned).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// Of a short definition, so that it ranks before long ones that happen to have one of the words.
fn pair(made: &Made, dice: &mut Dice) -> Option<Search> {
    let number = dice.roll(made.count);
    let is_short = made.definition(number)["tool_description"].as_str().unwrap().len() < 150;
    let words = middling(made, number);
    let [first, second, ..] = words.as_slice() else { return None };
    is_short.then(|| Search::new(format!("{first} {second}"), &[first, second], Holds::All))
}

/// With a wrong letter inside, where no other word is meant as likely.
fn typo(made: &Made, dice: &mut Dice) -> Option<Search> {
    let words = middling(made, dice.roll(made.count));
    let word = words.iter().find(|word| word.len() >= 7)?;
    let at = 2 + dice.roll(word.len() as u64 - 4) as usize;
    let typed = format!("{}x{}", &word[..at], &word[at + 1..]);
    let near = made.words.iter().filter(|other| strsim::damerau_levenshtein(other, &typed) <= 2);
    (near.count() == 1).then(|| Search::new(typed, &[word], Holds::Any))
}

fn prefix(made: &Made, dice: &mut Dice) -> Option<Search> {
    let words = middling(made, dice.roll(made.count));
    let start = &words.iter().find(|word| word.len() >= 8)?[..5];
    Some(Search::new(start, &[start], Holds::Beginning))
}
