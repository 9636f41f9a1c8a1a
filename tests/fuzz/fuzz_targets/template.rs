//! A template, and on the last line the input that fills it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use org_executor_fuzz::json;
use org_executor_fuzz::template::Template;
use regex::{Captures, Regex};
use serde_json::Value;

/// What a placeholder is, of plain characters.
static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\{\{ *([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*) *\}\}").expect("it is well formed")
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let (text, input) = text.rsplit_once('\n').unwrap_or((text, ""));
    let input = json::parse(input).unwrap_or_default();
    // As the library writes it, so that it is known how each field stands there.
    let members = json::members(&input.to_string()).unwrap_or_default();
    let template = Template::parse(text);
    assert_eq!(Template::parse(text), template, "the same text is the same template");
    if template.missing(&Value::Null).is_none() {
        assert_eq!(template.render(&members), text, "without placeholders it comes back as it was");
    }
    if let Some(place) = template.missing(&input) {
        let path = place.strip_prefix('/').expect("a place begins with a slash").replace('/', ".");
        assert!(field(&path, &input).is_none(), "{place} is not there");
    }
    if text.is_ascii() {
        let expected = PLACEHOLDER.replace_all(text, |found: &Captures<'_>| filled(&found[1], &input));
        assert_eq!(template.render(&members), expected, "only placeholders are replaced, and only once");
        let lacks = PLACEHOLDER.captures_iter(text).any(|found| field(&found[1], &input).is_none());
        assert_eq!(template.missing(&input).is_some(), lacks, "what is missing is told");
    }
});

fn field<'a>(path: &str, input: &'a Value) -> Option<&'a Value> {
    path.split('.').try_fold(input, |value, name| value.as_object()?.get(name))
}

fn filled(path: &str, input: &Value) -> String {
    match field(path, input) {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}
