//! The document as it came: read from JSON or YAML, and walked with the place of every part at hand. Pure.

use serde_json::{Map, Value};

use crate::json;

/// What goes wrong says where: `#/paths/~1pets/get: …`.
pub type Result<T> = std::result::Result<T, String>;

/// How many references may lead on to one another before it counts as a circle.
const MAX_HOPS: usize = 32;

/// Reads JSON, or else YAML. Both refuse a key that stands twice and bound the depth; what YAML's aliases make of a
/// small text is bounded by the library's budget.
pub fn read(text: &str) -> Result<Value> {
    let not_json = match json::parse(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // As in YAML 1.2, `no` and `on` are texts.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        if text.trim_start().starts_with(['{', '[']) {
            return not_json.to_string();
        }
        let told = error.to_string();
        format!("not valid YAML: {}", told.lines().next().unwrap_or("no reason given"))
    })
}

/// A part of the document and its place, a JSON pointer with `#` before it.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    root: &'a Value,
    pub value: &'a Value,
    pub pointer: String,
}

impl<'a> Node<'a> {
    pub fn root(document: &'a Value) -> Self {
        Self { root: document, value: document, pointer: "#".into() }
    }

    /// One sentence about this place.
    pub fn wrong(&self, problem: impl AsRef<str>) -> String {
        format!("{}: {}", self.pointer, problem.as_ref())
    }

    /// What stands under a key, where this is an object that has it.
    pub fn get(&self, key: &str) -> Option<Self> {
        Some(self.child(key, self.value.get(key)?))
    }

    fn child(&self, key: &str, value: &'a Value) -> Self {
        let key = key.replace('~', "~0").replace('/', "~1");
        Self { root: self.root, value, pointer: format!("{}/{key}", self.pointer) }
    }

    pub fn object(&self) -> Result<&'a Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.not("an object"))
    }

    /// The members of an object.
    pub fn members(&self) -> Result<Vec<(&'a str, Self)>> {
        Ok(self.object()?.iter().map(|(key, value)| (key.as_str(), self.child(key, value))).collect())
    }

    /// The members of the object under a key; none where it is absent.
    pub fn members_of(&self, key: &str) -> Result<Vec<(&'a str, Self)>> {
        self.get(key).map_or_else(|| Ok(Vec::new()), |node| node.members())
    }

    /// The items of the array under a key; none where it is absent.
    pub fn items_of(&self, key: &str) -> Result<Vec<Self>> {
        self.get(key).map_or_else(|| Ok(Vec::new()), |node| node.items())
    }

    /// The items of an array.
    pub fn items(&self) -> Result<Vec<Self>> {
        let items = self.value.as_array().ok_or_else(|| self.not("an array"))?;
        Ok(items.iter().enumerate().map(|(index, item)| self.child(&index.to_string(), item)).collect())
    }

    /// The text under a key.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(node) = self.get(key) else { return Ok(None) };
        node.value.as_str().map(Some).ok_or_else(|| node.not("a string"))
    }

    /// As [`Self::text`], of a key that has to be there.
    pub fn needed(&self, key: &str) -> Result<&'a str> {
        self.text(key)?.ok_or_else(|| self.wrong(format!("`{key}` is missing")))
    }

    /// The boolean under a key.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(node) = self.get(key) else { return Ok(None) };
        node.value.as_bool().map(Some).ok_or_else(|| node.not("a boolean"))
    }

    fn not(&self, expected: &str) -> String {
        self.wrong(format!("is {}, not {expected}", json::type_name(self.value)))
    }

    /// Itself, or what its `$ref` means in the end.
    pub fn resolved(&self) -> Result<Self> {
        let mut node = self.clone();
        for _ in 0..MAX_HOPS {
            match node.target()? {
                Some(target) => node = target,
                None => return Ok(node),
            }
        }
        Err(self.wrong("its `$ref` leads round in a circle"))
    }

    /// Where its `$ref` leads, if it is one.
    pub fn target(&self) -> Result<Option<Self>> {
        let Some(reference) = self.text("$ref")? else { return Ok(None) };
        let Some(fragment) = reference.strip_prefix('#') else {
            return Err(self.wrong(format!("the `$ref` {reference:?} leads out of the document")));
        };
        let lost = || self.wrong(format!("the `$ref` {reference:?} leads nowhere"));
        let pointer = unescaped(fragment).ok_or_else(lost)?;
        let value = self.root.pointer(&pointer).ok_or_else(lost)?;
        Ok(Some(Self { root: self.root, value, pointer: format!("#{pointer}") }))
    }
}

/// Undoes percent-encoding.
fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_followed_with_their_escapes() {
        let document = json!({
            "a": {"x/y": {"z~w": [{"deep": true}]}, "ü %": 1},
            "refs": [
                {"$ref": "#/a/x~1y/z~0w/0"}, {"$ref": "#/a/%C3%BC%20%25"}, {"$ref": "#/refs/0"},
                {"$ref": "#/refs/3"}, {"$ref": "other.json#/a"}, {"$ref": "#/b"}, {"$ref": "#anchor"},
                {"$ref": "#/%zz"}, {"$ref": 5},
            ],
        });
        let refs = Node::root(&document).items_of("refs").expect("an array");
        let found = |index: usize| refs[index].resolved().map(|node| (node.value.clone(), node.pointer));
        assert_eq!(found(0), Ok((json!({"deep": true}), "#/a/x~1y/z~0w/0".into())));
        assert_eq!(found(1).expect("found").0, json!(1));
        assert_eq!(found(2).expect("found").0, json!({"deep": true}));
        for (index, why) in [
            (3, "round in a circle"),
            (4, "\"other.json#/a\" leads out of the document"),
            (5, "\"#/b\" leads nowhere"),
            (6, "leads nowhere"),
            (7, "leads nowhere"),
            (8, "is a number, not a string"),
        ] {
            let problem = found(index).expect_err(why);
            assert!(problem.starts_with(&format!("#/refs/{index}")) && problem.contains(why), "{problem}");
        }
    }

    #[test]
    fn json_and_yaml_are_told_apart_and_bad_ones_say_why() {
        assert_eq!(read(r#"{"a": [1]}"#), Ok(json!({"a": [1]})));
        let yaml = "responses:\n  200: &ok {description: no}\n  '201': *ok\nflag: true\n";
        let ok = json!({"description": "no"});
        assert_eq!(read(yaml), Ok(json!({"responses": {"200": ok, "201": ok}, "flag": true})));
        for (text, why) in [
            (r#"{"a":1,"a":2}"#, "\"a\" stands twice"),
            ("{\"a\": ", "not valid JSON"),
            ("a: 1\na: 2\n", "not valid YAML"),
            ("a: [1\n", "not valid YAML"),
            ("a: *nothing\n", "not valid YAML"),
        ] {
            let problem = read(text).expect_err(text);
            assert!(problem.contains(why) && !problem.contains('\n'), "{problem}");
        }
    }

    #[test]
    fn a_bomb_of_aliases_and_a_deep_text_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let inner = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
        }
        let large = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), ["*a"; 90].join(", "));
        for text in [bomb, large, format!("a: {}", "[".repeat(100_000)), "- ".repeat(10_000)] {
            let problem = read(&text).expect_err("too much");
            assert!(problem.len() < 300, "{problem}");
        }
    }
}
