//! What is registered: a tool or a function. Pure: parsing, checking and rendering, no store.
//!
//! A definition keeps the JSON text of its free-form fields, so that what was stored comes back with
//! every number as it was written.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::json::{self, RawObject};
use crate::spec::Spec;

/// Tools and functions are one thing told apart by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A binary, script or container.
    Tool,
    /// A versioned, typed function, local or behind an API.
    Function,
}

impl Kind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Tool, Self::Function];

    /// `tool` or `function`: the path, the table and the prefix of every field.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Function => "function",
        }
    }

    /// `Tool` or `Function`, to begin a sentence.
    pub fn title(self) -> &'static str {
        match self {
            Self::Tool => "Tool",
            Self::Function => "Function",
        }
    }

    /// The field's full name: `field("id")` is `tool_id`.
    pub fn field(self, name: &str) -> String {
        format!("{}_{name}", self.name())
    }

    /// How the audit log calls the definition of this id.
    pub fn subject(self, id: &str) -> Subject<'_> {
        Subject(self, id)
    }

    /// What a client is told of an id that is not there, in the seed's words.
    pub fn not_registered(self) -> Error {
        Error::new(crate::error::Code::NotFound, format!("{} not registered", self.title()))
    }
}

/// A definition as the audit log calls it: `tool/upper`.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a>(Kind, &'a str);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.0.name(), self.1)
    }
}

/// The longest id, in characters.
pub const MAX_ID_CHARS: usize = 256;

/// Ids that are routes or verbs of the API.
pub const RESERVED_IDS: [&str; 6] = [".", "..", "register", "refresh", "import", "export"];

/// Checks an id: 1 to 256 characters, no control character, no `/`, no reserved word.
///
/// # Errors
/// `invalid`, naming what is wrong with it.
pub fn check_id(id: &str) -> Result<()> {
    let problem = if id.is_empty() {
        "is empty"
    } else if id.chars().count() > MAX_ID_CHARS {
        "is longer than 256 characters"
    } else if id.chars().any(char::is_control) {
        "has a control character"
    } else if id.contains('/') {
        "has a `/`"
    } else if RESERVED_IDS.contains(&id) {
        "is a reserved word"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("the id {problem}")))
}

/// A registered tool or function, its free-form fields as compact JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Tool or function.
    pub kind: Kind,
    /// Unique among its kind, compared byte for byte.
    pub id: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// A JSON object: how it runs, its schemas, and whatever else its owner keeps there.
    pub metadata: String,
    /// What it does, for people.
    pub description: String,
    /// A JSON object: the input's defaults.
    pub default_params: String,
}

/// The fields that a body gave; the others stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    id: Option<String>,
    tags: Option<Vec<String>>,
    metadata: Option<String>,
    description: Option<String>,
    default_params: Option<String>,
}

impl Definition {
    /// Reads the body of a create request: the id is required, the other fields may be left out.
    ///
    /// # Errors
    /// `invalid`, naming the field.
    pub fn parse(kind: Kind, body: &str) -> Result<Self> {
        Patch::parse(kind, body)?.into_definition(kind)
    }

    /// Reads what the store holds. It was judged when it came in; another version's rules may have been others.
    ///
    /// # Errors
    /// `invalid` where it is no definition at all.
    pub fn from_stored(kind: Kind, text: &str) -> Result<Self> {
        Patch::read(kind, text, false)?.into_definition(kind)
    }

    /// The definition's own JSON text, with the seed's five names in the seed's order.
    pub fn to_json(&self) -> String {
        let kind = self.kind.name();
        let tags = Value::from(self.tags.clone());
        format!(
            r#"{{"{kind}_id":{},"{kind}_search_tags":{tags},"{kind}_metadata":{},"{kind}_description":{},"{kind}_default_params":{}}}"#,
            json::quote(&self.id),
            self.metadata,
            json::quote(&self.description),
            self.default_params,
        )
    }
}

impl Patch {
    /// The JSON text of the new metadata, where there is some.
    pub fn metadata(&self) -> Option<&str> {
        self.metadata.as_deref()
    }

    /// All fields of a definition but its id.
    pub fn of(definition: Definition) -> Self {
        Self {
            id: None,
            tags: Some(definition.tags),
            metadata: Some(definition.metadata),
            description: Some(definition.description),
            default_params: Some(definition.default_params),
        }
    }

    /// Reads the body of a create or update request.
    ///
    /// # Errors
    /// `invalid`, naming the field: not an object, an unknown field, a wrong type, metadata that cannot run.
    pub fn parse(kind: Kind, body: &str) -> Result<Self> {
        Self::read(kind, body, true)
    }

    fn read(kind: Kind, body: &str, is_judged: bool) -> Result<Self> {
        let value = json::parse(body)?;
        let Value::Object(object) = &value else {
            return Err(Error::invalid(format!("the body is {}, not an object", json::type_name(&value))));
        };
        let mut texts = json::members(body)?;
        let mut patch = Self::default();
        for (field, value) in object {
            patch.take(kind, field, value, &mut texts, is_judged)?;
        }
        Ok(patch)
    }

    fn take(
        &mut self,
        kind: Kind,
        field: &str,
        value: &Value,
        texts: &mut RawObject,
        is_judged: bool,
    ) -> Result<()> {
        let unknown = || Error::invalid(format!("unknown field `{}`", json::shown(field))).at(field);
        let mut text = || texts.remove(field).map(|raw| json::compact(raw.get())).unwrap_or_default();
        match field.strip_prefix(kind.name()).ok_or_else(unknown)? {
            "_id" => {
                let id = string(field, value)?;
                check_id(&id).map_err(|error| error.at(field))?;
                self.id = Some(id);
            }
            "_search_tags" | "_tags" if self.tags.is_some() => {
                return Err(Error::invalid("the tags are given under two names").at(field));
            }
            "_search_tags" | "_tags" => self.tags = Some(strings(field, value)?),
            "_metadata" => {
                let object = object(field, value)?;
                if is_judged {
                    Spec::parse(object).map_err(|error| error.within(field))?;
                }
                self.metadata = Some(text());
            }
            "_description" => self.description = Some(string(field, value)?),
            "_default_params" => {
                object(field, value)?;
                self.default_params = Some(text());
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// A new definition, absent fields empty.
    ///
    /// # Errors
    /// `invalid` where the id is missing.
    pub fn into_definition(self, kind: Kind) -> Result<Definition> {
        let field = kind.field("id");
        let id =
            self.id.ok_or_else(|| Error::invalid(format!("the field `{field}` is missing")).at(&field))?;
        Ok(Definition {
            kind,
            id,
            tags: self.tags.unwrap_or_default(),
            metadata: self.metadata.unwrap_or_else(|| "{}".into()),
            description: self.description.unwrap_or_default(),
            default_params: self.default_params.unwrap_or_else(|| "{}".into()),
        })
    }

    /// The given fields replace, the others stay.
    ///
    /// # Errors
    /// `invalid` where the body names another id.
    pub fn apply(self, definition: &mut Definition) -> Result<()> {
        if self.id.is_some_and(|id| id != definition.id) {
            let field = definition.kind.field("id");
            return Err(Error::invalid("the body names another id than the path").at(field));
        }
        if let Some(tags) = self.tags {
            definition.tags = tags;
        }
        if let Some(metadata) = self.metadata {
            definition.metadata = metadata;
        }
        if let Some(description) = self.description {
            definition.description = description;
        }
        if let Some(default_params) = self.default_params {
            definition.default_params = default_params;
        }
        Ok(())
    }
}

fn wrong(field: &str, expected: &str, value: &Value) -> Error {
    Error::invalid(format!("`{field}` is {}, not {expected}", json::type_name(value))).at(field)
}

fn string(field: &str, value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong(field, "a string", value))
}

fn strings(field: &str, value: &Value) -> Result<Vec<String>> {
    let items = value.as_array().ok_or_else(|| wrong(field, "an array of strings", value))?;
    items.iter().enumerate().map(|(index, item)| string(&format!("{field}[{index}]"), item)).collect()
}

fn object<'a>(field: &str, value: &'a Value) -> Result<&'a serde_json::Map<String, Value>> {
    value.as_object().ok_or_else(|| wrong(field, "an object", value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"tool_id":"t","tool_tags":["a"],"tool_metadata":{"n": 18446744073709551615, "x":0.10},"tool_description":"d"}"#;

    #[test]
    fn what_was_stored_comes_back_with_the_same_text() {
        let definition = Definition::parse(Kind::Tool, BODY).expect("valid");
        assert_eq!(
            definition.to_json(),
            r#"{"tool_id":"t","tool_search_tags":["a"],"tool_metadata":{"n":18446744073709551615,"x":0.10},"tool_description":"d","tool_default_params":{}}"#
        );
        assert_eq!(Definition::parse(Kind::Tool, &definition.to_json()).expect("valid"), definition);
    }

    #[test]
    fn given_fields_replace_and_the_others_stay() {
        let mut definition = Definition::parse(Kind::Tool, BODY).expect("valid");
        let patch = Patch::parse(Kind::Tool, r#"{"tool_description":"new"}"#).expect("valid");
        patch.apply(&mut definition).expect("same id");
        assert_eq!((definition.description.as_str(), definition.tags.len()), ("new", 1));
        let other = Patch::parse(Kind::Tool, r#"{"tool_id":"u"}"#).expect("valid");
        assert!(other.apply(&mut definition).is_err());
    }

    #[test]
    fn a_bad_body_is_told_by_its_field() {
        for (body, place) in [
            (r#"{"tool_id":5}"#, "tool_id"),
            (r#"{"tool_id":"a/b"}"#, "tool_id"),
            (r#"{"tool_id":"a","tool_search_tags":["x",1]}"#, "tool_search_tags[1]"),
            (r#"{"tool_id":"a","tool_tags":[],"tool_search_tags":[]}"#, "tool_tags"),
            (r#"{"tool_id":"a","tool_metadata":[]}"#, "tool_metadata"),
            (r#"{"tool_id":"a","tool_metadata":{"runtime":"cobol"}}"#, "tool_metadata.runtime"),
            (r#"{"tool_id":"a","function_id":"b"}"#, "function_id"),
            (r#"{"tool_description":"no id"}"#, "tool_id"),
        ] {
            let error = Definition::parse(Kind::Tool, body).expect_err(body);
            let field = error.details().and_then(|details| details["field"].as_str().map(str::to_owned));
            assert_eq!(field.as_deref(), Some(place), "{body}: {error}");
        }
        assert!(Definition::parse(Kind::Tool, "[]").is_err());
    }

    #[test]
    fn ids_of_every_odd_kind_are_checked() {
        for good in
            ["a", "weather_lookup:v1.0.0-stable", "日本", "a b", "`x`", "⟨x⟩", "%2F", &"x".repeat(256)]
        {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "register", "a/b", "a\0b", "a\nb", &"x".repeat(257)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }
}
