//! Definitions in a store, in memory and in a folder.

use super::*;
use crate::registry::store::{Location, Memory};

fn revision(kind: Kind, id: &str, tags: &[&str]) -> Revision {
    let tags = serde_json::Value::from(tags.to_vec());
    let body = format!(
        r#"{{"{0}_id":{1},"{0}_tags":{tags},"{0}_metadata":{{"a":[18446744073709551615,9007199254740993,1e308,0.1,-0.0]}}}}"#,
        kind.name(),
        crate::json::quote(id),
    );
    let definition = Definition::parse(kind, &body).expect("valid");
    Revision { definition, number: 1, created_ms: 2, updated_ms: 3, pin: None }
}

async fn memory() -> Store {
    Store::open(Location::Memory, Memory(128)).await.expect("opens")
}

fn sorted_by(text: &str) -> Sort {
    Sort::parse(text).expect("an order")
}

#[tokio::test]
async fn what_was_stored_comes_back_byte_for_byte() {
    let store = memory().await;
    for id in ["a", "weather_lookup:v1.0.0-stable", "⟨x⟩", "`x`", "a'; DELETE tool; --", "日本", "a b"]
    {
        let stored = revision(Kind::Tool, id, &["x", "y'"]);
        store.create(&stored).await.expect("created");
        assert!(matches!(store.create(&stored).await, Err(StoreError::Exists)));
        assert_eq!(store.get(Kind::Tool, id).await.expect("read"), Some(stored));
        assert_eq!(store.get(Kind::Function, id).await.expect("read"), None);
    }
    store.delete(Kind::Tool, "a").await.expect("deleted");
    assert_eq!(store.get(Kind::Tool, "a").await.expect("read"), None);
}

#[tokio::test]
async fn pages_follow_each_order_in_both_directions_and_candidates_are_narrowed() {
    let store = memory().await;
    for (at, (id, tags)) in
        [("a", ["x", "y"]), ("b", ["y", "z"]), ("c", ["x", "z"]), ("d:v1.0.0", ["x", "x"])]
            .into_iter()
            .enumerate()
    {
        // The moments go down while the ids go up, and two are the same.
        let at = 10 - (at as u64 / 2);
        let revision = Revision { created_ms: at, updated_ms: at, ..revision(Kind::Function, id, &tags) };
        store.create(&revision).await.expect("created");
    }
    let between = |from: Option<&str>, to: Option<&str>| Scan {
        from: from.map(str::to_owned),
        to: to.map(str::to_owned),
    };
    let all = Scan::default();
    for (scan, sort, ids) in [
        (&all, "id", "a b c d:v1.0.0"),
        (&all, "-id", "d:v1.0.0 c b a"),
        (&all, "created", "c d:v1.0.0 a b"),
        (&all, "-updated", "b a d:v1.0.0 c"),
        (&between(Some("b"), None), "id", "b c d:v1.0.0"),
        (&between(Some("b"), Some("c")), "-id", "c b"),
        (&between(None, Some("b")), "created", "a b"),
    ] {
        let sort = sorted_by(sort);
        for limit in 1..=5 {
            let (mut found, mut after) = (Vec::new(), None::<Position>);
            loop {
                let rows = store.page(Kind::Function, scan, sort, after.as_ref(), limit).await.expect("read");
                let Some(last) = rows.last() else { break };
                let rank = sort.rank(last.created_ms, last.updated_ms);
                after = Some(Position { sort, rank, id: last.id.clone() });
                found.extend(rows.into_iter().map(|row| row.id));
            }
            assert_eq!(found.join(" "), ids, "{scan:?} {sort:?} by {limit}");
        }
    }
    let tagged = async |sets: &[&[&str]], most| {
        let sets: Vec<Vec<String>> =
            sets.iter().map(|tags| tags.iter().map(|tag| (*tag).into()).collect()).collect();
        let found = store.tagged(Kind::Function, &sets, most).await.expect("read");
        let places = store.tagged_places(Kind::Function, &sets, most).await.expect("read");
        let mut ids = found.map(|rows| rows.into_iter().map(|row| row.id).collect::<Vec<_>>());
        let mut keys = places.map(|places| places.into_iter().map(|place| place.key).collect::<Vec<_>>());
        ids.iter_mut().chain(&mut keys).for_each(|ids| ids.sort());
        assert_eq!(ids, keys);
        ids.map(|ids| ids.join(" "))
    };
    for (sets, ids) in [
        (&[&["x"][..]][..], "a c d:v1.0.0"),
        (&[&["x", "z"]], "a b c d:v1.0.0"),
        (&[&["x"], &["y", "z"]], "a c"),
        (&[&["none"]], ""),
    ] {
        assert_eq!(tagged(sets, 4).await.as_deref(), Some(ids), "{sets:?}");
    }
    assert_eq!(tagged(&[&["x"]], 2).await, None);
    let named = ["c", "none", "a"].map(str::to_owned);
    let rows = store.named(Kind::Function, &named).await.expect("read");
    assert_eq!(rows.into_iter().map(|row| row.id).collect::<Vec<_>>(), ["c", "a"]);
    assert_eq!(store.versions(Kind::Function, "d").await.expect("read"), ["d:v1.0.0"]);
}

/// Each statement reads what its page has, and not the table: an index or the records' own order gives the order.
#[tokio::test]
async fn every_scan_is_planned_over_an_index() {
    let store = memory().await;
    store.create(&revision(Kind::Tool, "a", &["x"])).await.expect("created");
    let range = Scan { from: Some("a".into()), to: Some("b".into()) };
    let tags = Statement::tagged(Kind::Tool, &[vec!["x".into(), "y".into()]]);
    let mut statements = vec![(tags, "tool_tags")];
    for (scan, sort, index) in [
        (&Scan::default(), "updated", "tool_updated"),
        (&Scan::default(), "-created", "tool_created"),
        (&range, "updated", "tool_updated"),
    ] {
        let sort = sorted_by(sort);
        for after in [None, Some(Position { sort, rank: 3, id: "a".into() })] {
            let all = Statement::of(Kind::Tool, scan, sort, after.as_ref());
            statements.extend(all.into_iter().map(|statement| (statement, index)));
        }
    }
    // In the order of the records there is nothing to sort, and no more is read than is wanted.
    statements.push((Statement::upwards(Kind::Tool, &range, None), "DynamicScan"));
    statements.push((Statement::upwards(Kind::Tool, &Scan::default(), None), "TableScan"));
    statements.push((Statement::downwards(Kind::Tool, &range, None), "TableScan"));
    for (statement, index) in statements {
        let sql = format!("SELECT {COLUMNS} FROM {} LIMIT $limit EXPLAIN", statement.from);
        let mut bound = statement.bound;
        bound.push(("limit", 50_u64.into_value()));
        let plan: Option<Value> = store.query(&sql, bound).await.expect("planned").take(0).expect("a plan");
        let plan = format!("{plan:?}");
        assert!(plan.contains(index) && !plan.contains("SortByKey"), "{sql}: {plan}");
    }
}

#[tokio::test]
async fn each_write_makes_a_revision_and_the_oldest_go() {
    let store = memory().await;
    let mut now = revision(Kind::Tool, "a", &[]);
    store.create(&now).await.expect("created");
    // An id that begins as this one does is another.
    store.create(&revision(Kind::Tool, "a b", &[])).await.expect("created");
    for number in 2..=KEPT_REVISIONS + 3 {
        let before = now.clone();
        now.number = number;
        now.definition.description = format!("revision {number}");
        let change = Change::Replace { before: Box::new(before), now: Box::new(now.clone()) };
        store.apply(Kind::Tool, &[change]).await.expect("replaced");
    }
    assert_eq!(store.get(Kind::Tool, "a").await.expect("read"), Some(now.clone()));
    let numbers: Vec<u64> =
        store.history(Kind::Tool, "a").await.expect("read").iter().map(|noted| noted.number).collect();
    let kept: Vec<u64> = (3..KEPT_REVISIONS + 3).rev().collect();
    assert_eq!(numbers, kept);
    let old = store.revision(Kind::Tool, "a", 50).await.expect("read").expect("kept");
    assert_eq!(old.definition.description, "revision 50");
    assert_eq!(store.revision(Kind::Tool, "a", 2).await.expect("read"), None);
    assert_eq!(store.history(Kind::Tool, "a b").await.expect("read"), []);
    store.delete(Kind::Tool, "a").await.expect("deleted");
    assert_eq!(store.history(Kind::Tool, "a").await.expect("read"), []);
}

#[tokio::test]
async fn many_changes_are_made_together_or_not_at_all() {
    let store = memory().await;
    let old = revision(Kind::Tool, "b", &["old"]);
    store.create(&old).await.expect("created");
    let new = Revision { number: 2, ..revision(Kind::Tool, "b", &["new"]) };
    let replace = || Change::Replace { before: Box::new(old.clone()), now: Box::new(new.clone()) };
    let create = |id| Change::Create(revision(Kind::Tool, id, &["new"]));
    store.apply(Kind::Tool, &[create("a"), replace(), create("c")]).await.expect("made");
    let found = store.get_all(Kind::Tool, &["a", "b", "c", "d"]).await.expect("read");
    assert_eq!(found.len(), 3);
    assert_eq!(found["b"], new);
    // One of these is there already.
    assert!(store.apply(Kind::Tool, &[create("x"), create("a")]).await.is_err());
    assert_eq!(store.get(Kind::Tool, "x").await.expect("read"), None);
}

#[tokio::test]
async fn the_text_index_catches_up_with_what_it_missed() {
    let folder = tempfile::tempdir().expect("a folder");
    let location = Location::Folder(folder.path().into());
    let text = |word: &str| {
        crate::query::Text::parse(&serde_json::json!({ "$search": word }), "$text").expect("valid")
    };
    let found = |store: &Store, word: &str| {
        store.search().commit().expect("committed");
        let found = store.search().view().expect("open").find(Kind::Tool, &text(word), 10).expect("found");
        found.hits.into_iter().map(|hit| hit.id).collect::<Vec<_>>()
    };
    let store = Store::open(location.clone(), Memory(128)).await.expect("opens");
    let at = |id: &str, tag: &str, now| Revision { updated_ms: now, ..revision(Kind::Tool, id, &[tag]) };
    store.create(&at("a", "first", store.now())).await.expect("created");
    store.level().await.expect("levelled");
    assert_eq!(found(&store, "first"), ["a"]);
    store.create(&at("b", "second", store.now())).await.expect("created");
    assert_eq!(found(&store, "second"), ["b"]);
    // What is written now is stored, and never committed to the index.
    store.create(&at("c", "third", store.now())).await.expect("created");
    store.delete(Kind::Tool, "a").await.expect("deleted");
    let before = store.now();
    drop(store);
    let store = loop {
        // The index's own threads let its lock go when they have ended.
        match Store::open(location.clone(), Memory(128)).await {
            Ok(store) => break store,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert!(store.now() >= before);
    store.level().await.expect("levelled");
    assert_eq!(found(&store, "third"), ["c"]);
    assert_eq!(found(&store, "first"), [""; 0]);
    store.close().await.expect("closes");
    // An index that is gone is made anew.
    std::fs::remove_dir_all(folder.path().join("search")).expect("removed");
    let store = Store::open(location, Memory(128)).await.expect("opens");
    store.level().await.expect("levelled");
    assert_eq!(found(&store, "second"), ["b"]);
}
