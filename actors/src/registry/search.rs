//! The text index: which definitions answer a `$text`, and how well. What names tantivy is here and below.
//!
//! It is fed from the store, which stays the truth: each write is told to it once it is stored, and a commit notes up to
//! where the store's clock it has come. What it has not when it is opened, it is given again from there; an index
//! that cannot be read is made anew. What it finds is read from the store, so that an entry too many does no harm.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tantivy::collector::TopDocs;
use tantivy::directory::MmapDirectory;
use tantivy::directory::error::OpenReadError;
use tantivy::indexer::UserOperation;
use tantivy::schema::Term;
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, Searcher, TantivyDocument, TantivyError};

use crate::definition::{Definition, Kind};
use crate::query::Text;

mod fields;
mod held;
mod similar;

use fields::Fields;
use held::Held;
use similar::Similar;

/// What an index of this version says of itself; another one is made anew.
const FORMAT: &str = "1";

/// How much memory the writer takes before it makes a segment, in bytes; 15 MB is the least that it accepts.
const WRITER_BYTES: usize = 32 << 20;

/// How much may wait for a commit.
const MAX_PENDING: usize = 400_000;

/// How many definitions one search finds at most.
pub const MAX_FOUND: usize = 10_000;

/// A definition that answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// How well; the more, the better.
    pub score: f32,
    /// Its id.
    pub id: String,
}

/// What a search finds.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The best first, and equal ones by their ids.
    pub hits: Vec<Hit>,
    /// Whether there are no others.
    pub is_all: bool,
}

/// What went wrong in the index.
#[derive(Debug, thiserror::Error)]
#[error("the text index: {0}")]
pub struct SearchError(String);

impl From<tantivy::TantivyError> for SearchError {
    fn from(error: tantivy::TantivyError) -> Self {
        Self(error.to_string())
    }
}

/// What is to be written.
#[derive(Debug)]
pub enum Entry<'a> {
    /// The definition is as it is here.
    Put(&'a Definition),
    /// There is none with this id.
    Remove(Kind, &'a str),
}

/// The index of a store.
pub struct Search {
    folder: Option<PathBuf>,
    writer: Mutex<Option<Writer>>,
    reader: RwLock<Option<(IndexReader, Fields)>>,
    pending: Mutex<Pending>,
    held: Mutex<Held>,
    /// Whether it has all that the store has, but for what is pending.
    is_level: AtomicBool,
}

/// What was taken in, and waits for a commit.
#[derive(Default)]
struct Pending {
    /// None are taken while the index is closed: then it is given all of it later.
    fields: Option<Fields>,
    operations: Vec<UserOperation<TantivyDocument>>,
    clock: u64,
}

/// The index as it was at one moment: what is written later does not change what is found in it, nor how well it answers.
pub struct View {
    searcher: Searcher,
    fields: Fields,
}

/// What writes the index.
struct Writer {
    index: IndexWriter,
    /// Up to where the store's clock it has what was written.
    clock: u64,
}

impl std::fmt::Debug for Search {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Search").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("View").field("generation", self.searcher.generation()).finish_non_exhaustive()
    }
}

impl Search {
    /// An index in this folder, or in memory; it is not open yet.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            writer: Mutex::default(),
            reader: RwLock::default(),
            pending: Mutex::default(),
            held: Mutex::default(),
            is_level: AtomicBool::new(false),
        }
    }

    /// Opens the index, and tells up to where the store's clock it has what was written: 0 is nothing. Blocks.
    ///
    /// # Errors
    /// It can neither be read nor be made anew.
    pub fn open(&self) -> Result<u64, SearchError> {
        let mut writer = lock(&self.writer);
        if let Some(writer) = &*writer {
            let mut pending = lock(&self.pending);
            if pending.fields.is_none() {
                pending.fields = self.reader().map(|(_, fields)| fields);
            }
            return Ok(writer.clock);
        }
        let (opened, reader, fields) = opened(self.folder.as_deref())?;
        let clock = opened.clock;
        *lock(&self.pending) = Pending { fields: Some(fields.clone()), operations: Vec::new(), clock };
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = Some((reader, fields));
        *writer = Some(opened);
        Ok(clock)
    }

    /// Whether it has all that the store has, but for what is pending.
    pub fn is_level(&self) -> bool {
        self.is_level.load(Ordering::Acquire)
    }

    /// It was given all that the store has.
    pub fn levelled(&self) {
        self.is_level.store(true, Ordering::Release);
    }

    /// The store may have what it was not given.
    pub fn distrust(&self) {
        self.is_level.store(false, Ordering::Release);
    }

    /// Takes these in, which were written at that moment of the store's clock. They can be found, and last, after the next
    /// commit.
    pub fn take(&self, clock: u64, entries: &[Entry<'_>]) {
        let mut pending = lock(&self.pending);
        let Some(fields) = pending.fields.clone() else { return };
        if pending.operations.len() > MAX_PENDING {
            // Nobody commits: it is given all of it again, once somebody does.
            pending.operations.clear();
            pending.fields = None;
            self.is_level.store(false, Ordering::Release);
            return;
        }
        for entry in entries {
            let (kind, id) = match entry {
                Entry::Put(definition) => (definition.kind, definition.id.as_str()),
                Entry::Remove(kind, id) => (*kind, *id),
            };
            let key = Term::from_field_text(fields.key, &Fields::key(kind, id));
            pending.operations.push(UserOperation::Delete(key));
            if let Entry::Put(definition) = entry {
                pending.operations.push(UserOperation::Add(fields.document(definition)));
            }
        }
        pending.clock = pending.clock.max(clock);
    }

    /// Makes what was taken in findable, and lasting. Returns up to where the store's clock the index has all: where it was
    /// before, as long as it is not level, since what was taken in then is not all that was written until then. Blocks.
    ///
    /// # Errors
    /// The disk takes nothing; the index is closed then, and has to be opened and levelled again.
    pub fn commit(&self) -> Result<u64, SearchError> {
        let mut guard = lock(&self.writer);
        let Some(writer) = guard.as_mut() else { return Err(SearchError("it is not open".into())) };
        let (operations, clock) = {
            let mut pending = lock(&self.pending);
            let clock = if self.is_level() { pending.clock } else { writer.clock };
            (std::mem::take(&mut pending.operations), clock)
        };
        if operations.is_empty() && clock == writer.clock {
            return Ok(clock);
        }
        lock(&self.held).prune();
        let committed = writer.commit(operations, clock).and_then(|()| match self.reader() {
            Some((reader, _)) => reader.reload(),
            None => Ok(()),
        });
        match committed {
            Ok(()) => Ok(clock),
            Err(error) if is_damage(&error) => {
                tracing::error!(%error, "the text index is damaged, and is made anew");
                self.discard(&mut guard);
                Err(error.into())
            }
            Err(error) => {
                tracing::error!(%error, "the text index failed, and is opened again");
                self.shut(&mut guard);
                Err(error.into())
            }
        }
    }

    /// What is found in a view of it. An index that cannot be read is made anew when it is opened next: its files may be
    /// damaged, and then its library may panic. Blocks for milliseconds.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn find(&self, view: &View, kind: Kind, text: &Text, limit: usize) -> Result<Found, SearchError> {
        let found = catch_unwind(AssertUnwindSafe(|| view.find(kind, text, limit)));
        let found = found.unwrap_or_else(|_| Err(SearchError("its library panicked".into())));
        found.inspect_err(|error| {
            tracing::error!(%error, "the text index is damaged, and is made anew");
            self.discard(&mut lock(&self.writer));
        })
    }

    fn discard(&self, writer: &mut MutexGuard<'_, Option<Writer>>) {
        self.shut(writer);
        if let Some(folder) = &self.folder
            && let Err(error) = std::fs::remove_dir_all(folder)
        {
            tracing::error!(%error, "the text index cannot be removed");
        }
    }

    /// Whether something was taken in that is not committed.
    pub fn is_pending(&self) -> bool {
        !lock(&self.pending).operations.is_empty()
    }

    /// The index as it is now.
    ///
    /// # Errors
    /// It is not open.
    pub fn view(&self) -> Result<View, SearchError> {
        let (reader, fields) = self.reader().ok_or_else(|| SearchError("it is not open".into()))?;
        Ok(View { searcher: reader.searcher(), fields })
    }

    /// Keeps a view for those who come back for more of it, for some minutes. Its number.
    pub fn hold(&self, view: &Arc<View>) -> u32 {
        lock(&self.held).hold(view)
    }

    /// The view of this number, while it is held.
    pub fn held(&self, number: u32) -> Option<Arc<View>> {
        lock(&self.held).get(number)
    }

    /// Closes the index, with what was taken in. Blocks.
    pub fn close(&self) {
        if self.is_pending()
            && let Err(error) = self.commit()
        {
            tracing::warn!(%error, "the text index will be given again what it lacks");
        }
        self.shut(&mut lock(&self.writer));
    }

    fn shut(&self, writer: &mut MutexGuard<'_, Option<Writer>>) {
        self.is_level.store(false, Ordering::Release);
        *lock(&self.pending) = Pending::default();
        lock(&self.held).clear();
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = None;
        drop(writer.take());
    }

    fn reader(&self) -> Option<(IndexReader, Fields)> {
        self.reader.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl View {
    /// Those that answer best: so many, or somewhat fewer where several answer as well as the last one. Blocks for
    /// milliseconds.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn find(&self, kind: Kind, text: &Text, limit: usize) -> Result<Found, SearchError> {
        let Self { searcher, fields } = self;
        let Some(query) = fields.query(kind, text, searcher)? else {
            return Ok(Found { hits: Vec::new(), is_all: true });
        };
        let mut limit = limit.min(MAX_FOUND);
        loop {
            let found = searcher.search(&*query, &TopDocs::with_limit(limit).order_by_score())?;
            let is_all = found.len() < limit || limit == MAX_FOUND;
            let worst = found.last().map_or(0.0, |(score, _)| *score);
            if !is_all && found.first().is_some_and(|(best, _)| *best <= worst) {
                // All are equal, and some are beyond the limit: which of them come first is for their ids to say.
                limit = (limit * 10).min(MAX_FOUND);
                continue;
            }
            let mut hits = fields.hits(searcher, &found)?;
            if !is_all {
                // Of those that answer as well as the last one, some may be beyond the limit: then all of them wait.
                hits.retain(|hit| hit.score > worst);
            }
            hits.sort_by(|left, right| {
                right.score.total_cmp(&left.score).then_with(|| left.id.cmp(&right.id))
            });
            return Ok(Found { hits, is_all });
        }
    }
}

impl Writer {
    fn commit(&mut self, operations: Vec<UserOperation<TantivyDocument>>, clock: u64) -> tantivy::Result<()> {
        self.index.run(operations)?;
        let mut prepared = self.index.prepare_commit()?;
        prepared.set_payload(&format!("{FORMAT} {clock}"));
        prepared.commit()?;
        self.clock = clock;
        Ok(())
    }
}

/// Whether it says that the index is not as it was written. What the machine did not do says nothing of that.
fn is_damage(error: &TantivyError) -> bool {
    match error {
        TantivyError::IoError(error) => error.raw_os_error().is_none(),
        TantivyError::OpenReadError(error) => !matches!(error, OpenReadError::IoError { .. }),
        TantivyError::DataCorruption(_)
        | TantivyError::DeserializeError(_)
        | TantivyError::IncompatibleIndex(_)
        | TantivyError::InternalError(_) => true,
        _ => false,
    }
}

/// A panic of another one leaves what is behind the lock as it was.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Opened = (Writer, IndexReader, Fields);

/// Opens the index; one that cannot be read is made anew.
fn opened(folder: Option<&Path>) -> Result<Opened, SearchError> {
    let Some(folder) = folder else { return parts(Index::create_in_ram(Fields::schema())) };
    match in_folder(folder) {
        Ok(parts) => return Ok(parts),
        Err(error) if folder.exists() => {
            tracing::warn!(%error, "the text index cannot be read, and is made anew");
        }
        Err(_) => {}
    }
    let anew = || {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        super::store::private_folder(folder)
    };
    anew().map_err(|error| SearchError(error.to_string()))?;
    in_folder(folder)
}

fn in_folder(folder: &Path) -> Result<Opened, SearchError> {
    let directory = MmapDirectory::open(folder).map_err(TantivyError::from)?;
    parts(Index::open_or_create(directory, Fields::schema())?)
}

fn parts(index: Index) -> Result<Opened, SearchError> {
    let fields = Fields::of(&index);
    let clock = match index.load_metas()?.payload.as_deref() {
        None => 0,
        Some(payload) => payload
            .split_once(' ')
            .filter(|(format, _)| *format == FORMAT)
            .and_then(|(_, clock)| clock.parse().ok())
            .ok_or_else(|| SearchError("it was written by another version".into()))?,
    };
    let writer = Writer { index: index.writer_with_num_threads(1, WRITER_BYTES)?, clock };
    let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
    Ok((writer, reader, fields))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(id: &str, tags: &[&str], description: &str) -> Definition {
        let body = json!({ "tool_id": id, "tool_search_tags": tags, "tool_description": description });
        Definition::parse(Kind::Tool, &body.to_string()).expect("valid")
    }

    fn given(search: &Search, clock: u64, definitions: &[Definition]) {
        search.open().expect("opens");
        search.take(clock, &definitions.iter().map(Entry::Put).collect::<Vec<_>>());
        search.levelled();
        search.commit().expect("committed");
    }

    fn found(search: &Search, words: &str) -> Vec<String> {
        let text = Text::parse(&json!({ "$search": words }), "$text").expect("valid");
        let found = search.view().expect("open").find(Kind::Tool, &text, 100).expect("found");
        found.hits.into_iter().map(|hit| hit.id).collect()
    }

    #[test]
    fn an_index_whose_files_are_damaged_is_made_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("search");
        let all: Vec<Definition> =
            (0..20).map(|number| tool(&format!("t{number}"), &[], "weather")).collect();
        let search = Search::new(Some(place.clone()));
        given(&search, 7, &all);
        assert_eq!(found(&search, "weather").len(), 20);
        search.close();
        for entry in std::fs::read_dir(&place).expect("read") {
            let path = entry.expect("read").path();
            if path.extension().is_some_and(|ending| ending == "idx" || ending == "term") {
                let mut bytes = std::fs::read(&path).expect("read");
                let inside = bytes.len().saturating_sub(200).max(1);
                bytes[..inside].iter_mut().step_by(7).for_each(|byte| *byte ^= 0xff);
                std::fs::write(&path, bytes).expect("written");
            }
        }
        let search = Search::new(Some(place));
        assert_eq!(search.open().expect("its list of files is whole"), 7);
        search.take(8, &all[..1].iter().map(Entry::Put).collect::<Vec<_>>());
        search.levelled();
        let text = Text::parse(&json!({ "$search": "weather" }), "$text").expect("valid");
        let asked = || search.find(&search.view()?, Kind::Tool, &text, 100);
        search.commit().map(drop).and_then(|()| asked().map(drop)).expect_err("it cannot be read");
        assert_eq!(search.open().expect("made anew"), 0);
        given(&search, 8, &all);
        assert_eq!(asked().expect("found").hits.len(), 20);
    }

    #[test]
    fn a_disk_that_takes_nothing_is_no_damage() {
        let io = |error: std::io::Error| TantivyError::IoError(Arc::new(error));
        assert!(!is_damage(&io(std::io::Error::from_raw_os_error(28))));
        assert!(is_damage(&io(std::io::Error::other("Unsupported dictionary type"))));
    }

    fn example() -> Search {
        let search = Search::new(None);
        given(
            &search,
            7,
            &[
                tool("weather_lookup:v1.0.0", &["climate"], "The usual temperature of a city"),
                tool("city-names", &["geography"], "All names of places, with their weather stations"),
                tool("word-count", &["text", "utils"], "Counts the words and lines of a text"),
                tool("résumé", &["text"], "Shortens a Naïve text"),
            ],
        );
        search
    }

    #[test]
    fn ids_count_more_than_tags_and_these_more_than_descriptions() {
        let search = example();
        assert_eq!(found(&search, "weather"), ["weather_lookup:v1.0.0", "city-names"]);
        assert_eq!(found(&search, "text"), ["résumé", "word-count"]);
        assert_eq!(found(&search, "weather city").len(), 2);
    }

    #[test]
    fn beginnings_and_small_typos_are_forgiven() {
        let search = example();
        for words in ["weath", "wether", "temperatrue", "WEATHER", "lookup v1", "climat"] {
            assert_eq!(
                found(&search, words).first().map(String::as_str),
                Some("weather_lookup:v1.0.0"),
                "{words}"
            );
        }
        assert_eq!(found(&search, "resume naive"), ["résumé"]);
        for words in ["wxyzther", "cat", "zzz", "x"] {
            assert_eq!(found(&search, words), [""; 0], "{words}");
            // Nobody is to look for more of them.
            let text = Text::parse(&json!({ "$search": words }), "$text").expect("valid");
            let view = search.view().expect("open");
            assert!(view.find(Kind::Tool, &text, 100).expect("found").is_all, "{words}");
        }
    }

    #[test]
    fn phrases_stand_as_they_are_and_excluded_words_do_not() {
        let search = example();
        assert_eq!(found(&search, "\"words and lines\""), ["word-count"]);
        assert_eq!(found(&search, "\"lines and words\""), [""; 0]);
        assert_eq!(found(&search, "\"temperature of\" city"), ["weather_lookup:v1.0.0"]);
        assert_eq!(found(&search, "weather -climate"), ["city-names"]);
        assert_eq!(found(&search, "text -\"x\" -utils"), ["résumé"]);
    }

    #[test]
    fn what_was_removed_or_changed_is_found_no_more() {
        let search = example();
        search.take(9, &[Entry::Remove(Kind::Tool, "city-names")]);
        given(&search, 9, &[tool("word-count", &[], "Tells how long it is")]);
        assert_eq!(found(&search, "geography"), [""; 0]);
        assert_eq!(found(&search, "utils"), [""; 0]);
        assert_eq!(found(&search, "long"), ["word-count"]);
        // Functions are others.
        let text = Text::parse(&json!({ "$search": "long" }), "$text").expect("valid");
        assert_eq!(search.view().expect("open").find(Kind::Function, &text, 9).expect("found").hits, []);
    }

    #[test]
    fn a_folder_is_kept_with_its_clock_and_one_that_is_broken_is_made_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("search");
        let search = Search::new(Some(place.clone()));
        assert_eq!(search.open().expect("made"), 0);
        given(&search, 42, &[tool("a", &["kept"], "")]);
        search.close();
        let search = Search::new(Some(place.clone()));
        assert_eq!(search.open().expect("opens again"), 42);
        assert_eq!(found(&search, "kept"), ["a"]);
        search.close();
        for entry in std::fs::read_dir(&place).expect("the folder") {
            std::fs::write(entry.expect("an entry").path(), b"garbage").expect("written");
        }
        let search = Search::new(Some(place));
        assert_eq!(search.open().expect("made anew"), 0);
        assert_eq!(found(&search, "kept"), [""; 0]);
    }

    #[test]
    fn what_is_given_while_more_lacks_does_not_move_the_clock() {
        let folder = tempfile::tempdir().expect("a folder");
        let search = Search::new(Some(folder.path().join("search")));
        search.open().expect("made");
        search.take(7, &[Entry::Put(&tool("a", &["kept"], ""))]);
        assert_eq!(search.commit().expect("committed"), 0);
        assert_eq!(found(&search, "kept"), ["a"]);
        search.close();
        assert_eq!(search.open().expect("opens again"), 0);
        assert_eq!(found(&search, "kept"), ["a"]);
        // Once it is level, what was taken in before counts too, also where nothing comes any more.
        search.take(9, &[Entry::Put(&tool("b", &["kept"], ""))]);
        assert_eq!(search.commit().expect("committed"), 0);
        search.levelled();
        assert_eq!(search.commit().expect("committed"), 9);
        search.close();
        assert_eq!(search.open().expect("opens again"), 9);
    }

    #[test]
    fn a_view_finds_what_it_found_whatever_is_written_and_is_held_under_its_number() {
        let search = example();
        let text = Text::parse(&json!({ "$search": "weather" }), "$text").expect("valid");
        let view = Arc::new(search.view().expect("open"));
        let before = view.find(Kind::Tool, &text, 100).expect("found");
        let number = search.hold(&view);
        assert_eq!(search.hold(&Arc::new(search.view().expect("open"))), number);
        given(&search, 9, &[tool("weather", &[], "weather"), tool("city-names", &[], "")]);
        let held = search.held(number).expect("held");
        assert_eq!(held.find(Kind::Tool, &text, 100).expect("found"), before);
        let now = Arc::new(search.view().expect("open"));
        assert_ne!(now.find(Kind::Tool, &text, 100).expect("found"), before);
        assert_ne!(search.hold(&now), number);
        search.close();
        assert!(search.held(number).is_none());
    }

    #[test]
    fn equals_stay_together_however_many_are_asked_for() {
        let search = Search::new(None);
        let many: Vec<_> = (0..50).map(|at| tool(&format!("t{at:02}"), &["same"], "")).collect();
        given(&search, 1, &many);
        let text = Text::parse(&json!({ "$search": "same" }), "$text").expect("valid");
        let found = search.view().expect("open").find(Kind::Tool, &text, 10).expect("found");
        let ids: Vec<_> = found.hits.iter().map(|hit| hit.id.as_str()).collect();
        let expected: Vec<_> = many.iter().map(|tool| tool.id.as_str()).collect();
        assert_eq!(ids, expected);
    }
}
