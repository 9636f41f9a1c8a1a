//! Ids, one a line, and the versions in them: the order is one, and what is written anew means the same.
#![no_main]

use std::cmp::Ordering;

use libfuzzer_sys::fuzz_target;
use org_executor_fuzz::definition::{Definition, Kind, MAX_ID_CHARS, check_id};
use org_executor_fuzz::judge;
use org_executor_fuzz::version::{Request, Version, descending, parse_request, pick, split};

/// How many ids are compared with each other.
const MAX_IDS: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let ids: Vec<&str> = text.split('\n').take(MAX_IDS).collect();
    let mut versions = Vec::new();
    for id in &ids {
        check(id);
        versions.extend(Version::parse(id).inspect(|version| spelled_otherwise(id, version)));
        versions.extend(split(id).map(|(name, version)| {
            let text = &id[name.len() + 1..];
            assert_eq!(
                Version::parse(text).as_ref(),
                Some(&version),
                "an id has the version it is split into"
            );
            spelled_otherwise(text, &version);
            version
        }));
    }
    order(&versions);
    for id in &ids {
        if let Some(request) = parse_request(id) {
            choice(&request, &ids);
        }
    }
    sorting(&ids);
});

/// A good id comes back from a definition, any other is told.
fn check(id: &str) {
    let Err(error) = check_id(id) else {
        assert!((1..=MAX_ID_CHARS).contains(&id.chars().count()) && !id.contains('/'));
        let body = serde_json::json!({ "tool_id": id }).to_string();
        let definition = Definition::parse(Kind::Tool, &body).expect("its id is good");
        assert_eq!(definition.id, id);
        assert_eq!(Definition::from_stored(Kind::Tool, &definition.to_json()).as_ref(), Ok(&definition));
        return;
    };
    judge::error(&error);
}

/// With or without a `v`, and with the numbers that were left out, it is the same version.
fn spelled_otherwise(text: &str, version: &Version) {
    let bare = text.strip_prefix('v').unwrap_or(text);
    for spelled in [bare.to_owned(), format!("v{bare}")] {
        assert_eq!(Version::parse(&spelled).as_ref(), Some(version), "{spelled}");
    }
    let (numbers, tags) = bare.split_at(bare.find(['-', '+']).unwrap_or(bare.len()));
    let dots = numbers.matches('.').count();
    let whole = format!("{numbers}{}{tags}", ".0".repeat(2 - dots));
    assert_eq!(Version::parse(&whole).as_ref(), Some(version), "{whole}");
}

/// It is total, antisymmetric and transitive, and equal is only what is the same.
fn order(versions: &[Version]) {
    for a in versions {
        for b in versions {
            assert_eq!(a.cmp(b), b.cmp(a).reverse(), "{a:?} {b:?}");
            assert_eq!(a.cmp(b) == Ordering::Equal, a == b, "{a:?} {b:?}");
            assert_eq!(a.partial_cmp(b), Some(a.cmp(b)));
            for c in versions {
                assert!(!(a <= b && b <= c) || a <= c, "{a:?} {b:?} {c:?}");
            }
        }
    }
}

/// What is picked has the name, fits, and is the highest of its sort.
fn choice(request: &Request<'_>, ids: &[&str]) {
    if let Request::Range { name, req } = request {
        let written = format!("{name}:{req}");
        assert_eq!(parse_request(&written).as_ref(), Some(request), "{written}");
    }
    let picked = pick(request, ids.iter().copied());
    let backwards = pick(request, ids.iter().rev().copied());
    assert_eq!(picked, backwards, "the order in which they come does not matter");
    let named = || ids.iter().filter_map(|id| split(id)).filter(|(name, _)| *name == request.name());
    let Some(id) = picked else {
        assert!(!matches!(request, Request::Latest { .. }) || named().next().is_none());
        return;
    };
    let (name, version) = split(id).expect("what is picked has a version");
    assert!(ids.contains(&id) && name == request.name());
    if matches!(request, Request::Latest { .. }) {
        let rank = |version: &Version| (version.is_release(), version.clone());
        assert!(named().all(|(_, other)| rank(&other) <= rank(&version)), "{id} is the highest");
    }
}

/// Sorting leaves none out and adds none.
fn sorting(ids: &[&str]) {
    let sorted = descending(ids.iter().map(|id| (*id).to_owned()).collect());
    assert!(sorted.is_sorted_by(|left, right| split(left).map(|it| it.1) >= split(right).map(|it| it.1)));
    let mut versioned: Vec<&str> = ids.iter().copied().filter(|id| split(id).is_some()).collect();
    let mut sorted: Vec<&str> = sorted.iter().map(String::as_str).collect();
    versioned.sort_unstable();
    sorted.sort_unstable();
    assert_eq!(sorted, versioned);
}
