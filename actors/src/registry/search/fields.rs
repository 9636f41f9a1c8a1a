//! What the text index holds of a definition, and how words are looked for in it.

use tantivy::columnar::StrColumn;
use tantivy::query::{BooleanQuery, BoostQuery, EmptyQuery, Occur, PhraseQuery, Query, TermQuery};
use tantivy::schema::{FAST, Field, IndexRecordOption, STRING, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::{
    AsciiFoldingFilter, LowerCaser, RemoveLongFilter, SimpleTokenizer, TextAnalyzer, TokenStream,
};
use tantivy::{DocAddress, Index, Score, Searcher, TantivyDocument, Term};

use super::{Hit, SearchError, Similar};
use crate::definition::{Definition, Kind};
use crate::query::Text;

/// The tokenizer's name in the schema.
const WORDS: &str = "words";

/// The longest word, in bytes; what is longer is no word that somebody types.
const MAX_WORD: usize = 64;

/// How much more a word counts in the id and in a tag than in the description.
const BOOSTS: [Score; 3] = [4.0, 3.0, 1.0];

/// Beginnings and typos are looked for where fewer definitions than this have the word itself: beyond, nobody gets to them.
const PLENTY: u64 = 1_000;

/// A part of a query, and whether it has to hold.
type Clause = (Occur, Box<dyn Query>);

/// The fields of an entry. Tools and functions have fields of their own, so that one is never looked for among the
/// others.
#[derive(Clone)]
pub struct Fields {
    /// What an entry is replaced and removed by.
    pub key: Field,
    of_kind: [[Field; 3]; 2],
    words: TextAnalyzer,
}

impl Fields {
    /// The schema of an index.
    pub fn schema() -> Schema {
        let mut schema = Schema::builder();
        schema.add_text_field("key", STRING | FAST);
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(WORDS)
            .set_index_option(IndexRecordOption::WithFreqsAndPositions);
        let text = TextOptions::default().set_indexing_options(indexing);
        for kind in Kind::ALL {
            for name in ["id", "tags", "description"] {
                schema.add_text_field(&kind.field(name), text.clone());
            }
        }
        schema.build()
    }

    /// The fields of this index, which learns how words are told apart.
    pub fn of(index: &Index) -> Self {
        let words = TextAnalyzer::builder(SimpleTokenizer::default())
            .filter(RemoveLongFilter::limit(MAX_WORD))
            .filter(LowerCaser)
            .filter(AsciiFoldingFilter)
            .build();
        index.tokenizers().register(WORDS, words.clone());
        let schema = index.schema();
        let field = |name: &str| schema.get_field(name).expect("the schema is the one above");
        let of_kind =
            Kind::ALL.map(|kind| ["id", "tags", "description"].map(|name| field(&kind.field(name))));
        Self { key: field("key"), of_kind, words }
    }

    /// What an entry is found by again; an id has no control character.
    pub fn key(kind: Kind, id: &str) -> String {
        format!("{}\u{1}{id}", kind.name())
    }

    /// The entry of a definition.
    pub fn document(&self, definition: &Definition) -> TantivyDocument {
        let [id, tags, description] = self.of_kind[definition.kind as usize];
        let mut document = TantivyDocument::default();
        document.add_text(self.key, Self::key(definition.kind, &definition.id));
        document.add_text(id, &definition.id);
        for tag in &definition.tags {
            document.add_text(tags, tag);
        }
        document.add_text(description, &definition.description);
        document
    }

    /// What is looked for; nothing where no word is left of it.
    pub fn query(
        &self,
        kind: Kind,
        text: &Text,
        searcher: &Searcher,
    ) -> Result<Option<Box<dyn Query>>, SearchError> {
        let fields = self.of_kind[kind as usize];
        let (mut any, mut all) = (Vec::new(), Vec::new());
        for word in text.words.iter().flat_map(|word| self.split(word)) {
            any.extend(Self::word(fields, &word, searcher)?);
        }
        for phrase in &text.phrases {
            all.push((Occur::Must, Self::phrase(fields, &self.split(phrase))));
        }
        if any.is_empty() && all.is_empty() {
            return Ok(None);
        }
        for phrase in &text.excluded {
            let words = self.split(phrase);
            if !words.is_empty() {
                all.push((Occur::MustNot, Self::phrase(fields, &words)));
            }
        }
        if all.is_empty() {
            // A union of nothing but words is searched without a look at all that have one of them (block-max WAND).
            return Ok(Some(Box::new(BooleanQuery::new(any))));
        }
        let has_phrase = !text.phrases.is_empty();
        // Where a phrase is asked for, words beside it make an answer better, not one.
        let occur = if has_phrase { Occur::Should } else { Occur::Must };
        if !any.is_empty() {
            all.push((occur, Box::new(BooleanQuery::new(any))));
        }
        Ok(Some(Box::new(BooleanQuery::new(all))))
    }

    /// The ids of these entries, which come in the order of their scores.
    pub fn hits(&self, searcher: &Searcher, found: &[(Score, DocAddress)]) -> Result<Vec<Hit>, SearchError> {
        let mut columns: Vec<Option<StrColumn>> = Vec::new();
        for segment in searcher.segment_readers() {
            columns.push(segment.fast_fields().str("key")?);
        }
        let mut hits = Vec::with_capacity(found.len());
        for (score, address) in found {
            let column = columns[address.segment_ord as usize].as_ref();
            let column = column.ok_or_else(|| SearchError("an entry has no key".into()))?;
            let mut key = String::new();
            for ord in column.term_ords(address.doc_id) {
                column.ord_to_str(ord, &mut key).map_err(|error| SearchError(error.to_string()))?;
            }
            let id = key.split_once('\u{1}').map_or("", |(_, id)| id).to_owned();
            hits.push(Hit { score: *score, id });
        }
        Ok(hits)
    }

    /// The words of a text, as they are in the index.
    fn split(&self, text: &str) -> Vec<String> {
        let mut words = self.words.clone();
        let mut stream = words.token_stream(text);
        let mut found = Vec::new();
        while let Some(token) = stream.next() {
            found.push(token.text.clone());
        }
        found
    }

    /// The ways in which a definition may have a word.
    fn word(fields: [Field; 3], word: &str, searcher: &Searcher) -> Result<Vec<Clause>, SearchError> {
        let (mut ways, mut known) = (Vec::new(), 0);
        let mut add = |term, boost| {
            let query = Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs));
            ways.push((Occur::Should, Box::new(BoostQuery::new(query, boost)) as Box<dyn Query>));
        };
        for (field, boost) in fields.into_iter().zip(BOOSTS) {
            let term = Term::from_field_text(field, word);
            known += searcher.doc_freq(&term)?;
            add(term, boost);
        }
        if known < PLENTY {
            let similar = Similar::to(word)?;
            for (field, boost) in fields.into_iter().zip(BOOSTS) {
                for (term, weight) in similar.terms(searcher, field)? {
                    add(term, boost * weight);
                }
            }
        }
        Ok(ways)
    }

    fn phrase(fields: [Field; 3], words: &[String]) -> Box<dyn Query> {
        if words.is_empty() {
            return Box::new(EmptyQuery);
        }
        let in_field = fields.into_iter().zip(BOOSTS).map(|(field, boost)| {
            let terms: Vec<_> = words.iter().map(|word| Term::from_field_text(field, word)).collect();
            let query: Box<dyn Query> = match <[Term; 1]>::try_from(terms) {
                Ok([term]) => Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)),
                Err(terms) => Box::new(PhraseQuery::new(terms)),
            };
            (Occur::Should, Box::new(BoostQuery::new(query, boost)) as Box<dyn Query>)
        });
        Box::new(BooleanQuery::new(in_field.collect()))
    }
}
