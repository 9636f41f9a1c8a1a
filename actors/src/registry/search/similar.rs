//! Words of the index that are like one that is looked for: they begin with it, or differ by a typo or two.

use std::collections::HashMap;

use tantivy::query::{DfaWrapper, FuzzyTermQuery};
use tantivy::schema::Field;
use tantivy::{Score, Searcher, Term};

use super::SearchError;

/// How much a word counts that only begins with what is looked for, one with a typo, and one with two of them.
const BEGINS: Score = 0.4;
const TYPO: Score = 0.2;
const TYPOS: Score = 0.1;

/// From which length on words may have one typo, and two.
const ONE_TYPO: usize = 4;
const TWO_TYPOS: usize = 8;

/// How many words of each kind are looked for in a field: those that most definitions have. A search for hundreds of words
/// at once would take as long as hundreds of searches.
const MOST: usize = 128;

/// How many words of one segment are looked at for them.
const MOST_SEEN: usize = 50_000;

/// A way of being like a word.
struct Way {
    automaton: DfaWrapper,
    weight: Score,
}

/// Words that are like this one, without itself.
pub struct Similar {
    word: String,
    ways: Vec<Way>,
}

impl Similar {
    /// Of a word that is long enough to be mistaken: others have none.
    pub fn to(word: &str) -> Result<Self, SearchError> {
        let length = word.chars().count();
        // An automaton knows the text only, whatever its field.
        let term = || Term::from_field_text(Field::from_field_id(0), word);
        let mut queries = Vec::new();
        if length >= 2 {
            queries.push((FuzzyTermQuery::new_prefix(term(), 0, true), BEGINS));
        }
        if length >= ONE_TYPO {
            queries.push((FuzzyTermQuery::new(term(), 1, true), TYPO));
        }
        if length >= TWO_TYPOS {
            queries.push((FuzzyTermQuery::new(term(), 2, true), TYPOS));
        }
        let ways =
            queries.into_iter().map(|(query, weight)| Ok(Way { automaton: query.automaton()?, weight }));
        Ok(Self { word: word.to_owned(), ways: ways.collect::<Result<_, SearchError>>()? })
    }

    /// Those of a field, each with how much it counts.
    pub fn terms(&self, searcher: &Searcher, field: Field) -> Result<Vec<(Term, Score)>, SearchError> {
        let mut found: HashMap<String, Score> = HashMap::new();
        for way in &self.ways {
            let mut words = self.words(searcher, field, &way.automaton)?;
            words.retain(|(word, _)| !found.contains_key(word));
            words.sort_unstable_by(|(left, of_left), (right, of_right)| {
                of_right.cmp(of_left).then_with(|| left.cmp(right))
            });
            found.extend(words.into_iter().take(MOST).map(|(word, _)| (word, way.weight)));
        }
        let terms = found.into_iter().map(|(word, weight)| (Term::from_field_text(field, &word), weight));
        Ok(terms.collect())
    }

    /// The words that an automaton accepts, each with how many entries have it.
    fn words(
        &self,
        searcher: &Searcher,
        field: Field,
        automaton: &DfaWrapper,
    ) -> Result<Vec<(String, u64)>, SearchError> {
        let mut words: HashMap<String, u64> = HashMap::new();
        for segment in searcher.segment_readers() {
            let index = segment.inverted_index(field)?;
            let unreadable = |error: std::io::Error| SearchError(error.to_string());
            let mut stream = index.terms().search(automaton).into_stream().map_err(unreadable)?;
            let mut seen = 0;
            while seen < MOST_SEEN
                && let Some((word, about)) = stream.next()
            {
                seen += 1;
                let Ok(word) = std::str::from_utf8(word) else { continue };
                if word == self.word {
                    continue;
                }
                match words.get_mut(word) {
                    Some(count) => *count += u64::from(about.doc_freq),
                    None => drop(words.insert(word.to_owned(), u64::from(about.doc_freq))),
                }
            }
        }
        Ok(words.into_iter().collect())
    }
}
