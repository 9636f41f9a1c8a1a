//! Where each part of an http function's input goes: the metadata key `parameters`, in the manner of OpenAPI. Pure.

use std::collections::BTreeMap;

use reqwest::Url;
use serde_json::Value;

use super::Keys;
use crate::error::{Error, Result};

/// The property of the input that is the request's body, and so no parameter.
pub const BODY: &str = "body";

/// Headers that belong to the connection or to the body; nothing in an input may set them.
const RESERVED_HEADERS: [&str; 6] =
    ["connection", "content-length", "content-type", "host", "te", "transfer-encoding"];

/// One property of the input and its place in the request.
#[derive(Debug)]
pub struct Parameter {
    /// The property.
    pub property: String,
    /// What the service calls it.
    pub name: String,
    /// Where it stands.
    pub position: Position,
    /// How arrays and objects are written.
    pub style: Style,
    /// Whether each of their items stands by itself.
    pub explode: bool,
}

/// A place in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    /// `{name}` in the url.
    Path,
    /// Behind the `?`.
    Query,
    /// A header of its own.
    Header,
    /// In the header `cookie`.
    Cookie,
}

impl Position {
    const ALL: [Self; 4] = [Self::Path, Self::Query, Self::Header, Self::Cookie];

    /// The word of OpenAPI's `in`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
            Self::Cookie => "cookie",
        }
    }

    /// The position of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|position| position.name() == name)
    }

    /// How a value is written here; the first unless told.
    pub fn styles(self) -> &'static [Style] {
        match self {
            Self::Path | Self::Header => &[Style::Simple, Style::Json],
            Self::Query => {
                &[Style::Form, Style::SpaceDelimited, Style::PipeDelimited, Style::DeepObject, Style::Json]
            }
            Self::Cookie => &[Style::Form, Style::Json],
        }
    }
}

/// How an array or an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `a,b`.
    Simple,
    /// `name=a&name=b`, or `name=a,b`.
    Form,
    /// `name=a%20b`.
    SpaceDelimited,
    /// `name=a|b`.
    PipeDelimited,
    /// `name[key]=value`.
    DeepObject,
    /// Its JSON text; OpenAPI says this by a `content`.
    Json,
}

impl Style {
    /// OpenAPI's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Form => "form",
            Self::SpaceDelimited => "spaceDelimited",
            Self::PipeDelimited => "pipeDelimited",
            Self::DeepObject => "deepObject",
            Self::Json => "json",
        }
    }

    /// Whether items stand by themselves unless told.
    pub fn explodes(self) -> bool {
        self == Self::Form
    }
}

/// Reads the key `parameters` of an http function with this url and these headers.
pub(super) fn parse(
    keys: &Keys<'_>,
    url: Option<&str>,
    headers: &BTreeMap<String, String>,
) -> Result<Option<Vec<Parameter>>> {
    let Some(inner) = keys.inner("parameters")? else { return Ok(None) };
    let read = |(property, value): (&String, &Value)| Parameter::parse(property, value);
    let parameters = inner.object.iter().map(read).collect::<Result<Vec<_>>>()?;
    for parameter in parameters.iter().filter(|parameter| parameter.position == Position::Header) {
        parameter.check_header(headers)?;
    }
    check_names(&parameters)?;
    check_url(url, &parameters)?;
    Ok(Some(parameters))
}

impl Parameter {
    fn parse(property: &str, value: &Value) -> Result<Self> {
        let place = format!("parameters.{property}");
        let wrong = |message: String| Error::invalid(message).at(&place);
        if property == BODY {
            return Err(wrong("`body` is the body of the request, and no parameter".into()));
        }
        let known = || wrong(format!("`{place}` is none of \"path\", \"query\", \"header\", \"cookie\""));
        let told = match value {
            Value::String(position) => {
                let position = Position::named(position).ok_or_else(known)?;
                return Ok(Self::plain(property, position));
            }
            Value::Object(object) => Keys { object, prefix: &place },
            _ => return Err(known()),
        };
        let position = told.text("in")?.and_then(Position::named).ok_or_else(known)?;
        let mut parameter = Self::plain(property, position);
        if let Some(name) = told.text("name")? {
            parameter.name = name.to_owned();
        }
        if let Some(name) = told.text("style")? {
            let style = position.styles().iter().find(|style| style.name() == name);
            let unknown = || wrong(format!("a {} parameter has no style {name:?}", position.name()));
            parameter.style = *style.ok_or_else(unknown)?;
        }
        parameter.explode = told.flag("explode")?.unwrap_or_else(|| parameter.style.explodes());
        Ok(parameter)
    }

    /// As the position alone tells.
    fn plain(property: &str, position: Position) -> Self {
        let style = position.styles()[0];
        let (property, name) = (property.to_owned(), property.to_owned());
        Self { property, name, position, style, explode: style.explodes() }
    }

    fn check_header(&self, headers: &BTreeMap<String, String>) -> Result<()> {
        let name = &self.name;
        let problem = if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
            "is no HTTP header"
        } else if is_reserved_header(name) {
            "is a header that no input may set"
        } else if headers.keys().any(|fixed| fixed.eq_ignore_ascii_case(name)) {
            "stands in `headers` already"
        } else {
            return Ok(());
        };
        Err(Error::invalid(format!("{name:?} {problem}")).at(format!("parameters.{}", self.property)))
    }
}

/// A place in the path, and a header, takes one value.
fn check_names(parameters: &[Parameter]) -> Result<()> {
    let mut taken = BTreeMap::new();
    for parameter in parameters {
        let name = match parameter.position {
            Position::Path => parameter.name.clone(),
            Position::Header => parameter.name.to_ascii_lowercase(),
            Position::Query | Position::Cookie => continue,
        };
        if let Some(other) = taken.insert((parameter.position, name), &parameter.property) {
            let message = format!("{:?} is set by {other:?} too", parameter.name);
            return Err(Error::invalid(message).at(format!("parameters.{}", parameter.property)));
        }
    }
    Ok(())
}

/// Whether a header is the connection's or the body's.
pub fn is_reserved_header(name: &str) -> bool {
    RESERVED_HEADERS.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

/// The placeholders of the url are the parameters in the path, and what fills them cannot lead to another host.
fn check_url(url: Option<&str>, parameters: &[Parameter]) -> Result<()> {
    let wrong = |message: String| Error::invalid(message).at("url");
    let url = url.unwrap_or_default();
    let pieces = pieces(url).ok_or_else(|| wrong("`url` has a brace that stands alone".into()))?;
    let placeholders: Vec<&str> = pieces.iter().filter_map(Piece::name).collect();
    let in_path = |parameter: &&Parameter| parameter.position == Position::Path;
    let names: Vec<&str> = parameters.iter().filter(in_path).map(|parameter| &*parameter.name).collect();
    if let Some(name) = placeholders.iter().find(|name| !names.contains(*name)) {
        return Err(wrong(format!("`url` has {{{name}}}, and no parameter in the path has that name")));
    }
    let lacking = |parameter: &&Parameter| !placeholders.contains(&parameter.name.as_str());
    if let Some(parameter) = parameters.iter().filter(in_path).find(lacking) {
        let message =
            format!("`url` has no {{{}}}, and a parameter in the path has that name", parameter.name);
        return Err(Error::invalid(message).at(format!("parameters.{}", parameter.property)));
    }
    if placeholders.is_empty() {
        return Ok(());
    }
    let before_path = |value: &str| {
        let url = Url::parse(&filled(&pieces, |_| value.to_owned())).ok()?;
        Some((
            url.origin().ascii_serialization(),
            url.username().to_owned(),
            url.password().map(str::to_owned),
        ))
    };
    let first = before_path("0").ok_or_else(|| wrong("`url` is no valid address".into()))?;
    match before_path("1") {
        Some(second) if second == first => Ok(()),
        _ => Err(wrong("`url` has a placeholder before its path".into())),
    }
}

/// A part of a url with placeholders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As it stands.
    Text(&'a str),
    /// `{name}`.
    Name(&'a str),
}

impl<'a> Piece<'a> {
    /// The name of a placeholder.
    pub fn name(&self) -> Option<&'a str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Text(_) => None,
        }
    }
}

/// Takes a url with placeholders apart; nothing where a brace stands alone or nothing stands between two.
pub fn pieces(text: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(['{', '}']) {
        let inside = rest[start..].strip_prefix('{')?;
        let end = inside.find(['{', '}']).filter(|end| *end > 0 && inside[*end..].starts_with('}'))?;
        pieces.extend([Piece::Text(&rest[..start]), Piece::Name(&inside[..end])]);
        rest = &inside[end + 1..];
    }
    pieces.push(Piece::Text(rest));
    Some(pieces)
}

/// Puts it together again, with a text for each name.
pub fn filled(pieces: &[Piece<'_>], text: impl Fn(&str) -> String) -> String {
    let whole = pieces.iter().map(|piece| match piece {
        Piece::Text(plain) => (*plain).to_owned(),
        Piece::Name(name) => text(name),
    });
    whole.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::spec::Spec;

    fn read(metadata: Value) -> Result<Spec> {
        Spec::parse(metadata.as_object().expect("an object"))
    }

    #[test]
    fn defaults_are_those_of_openapi() {
        let spec = read(json!({
            "runtime": "http", "url": "http://h/{id}",
            "parameters": {
                "id": "path", "q": "query", "X-A": {"in": "header"}, "c": "cookie",
                "tags": {"in": "query", "style": "pipeDelimited"},
                "query_id": {"in": "query", "name": "id", "explode": false},
            },
        }));
        let parameters = spec.expect("valid").api.parameters.expect("some");
        let told: Vec<_> = parameters
            .iter()
            .map(|one| {
                (one.property.as_str(), one.name.as_str(), one.position.name(), one.style, one.explode)
            })
            .collect();
        assert_eq!(
            told,
            [
                ("X-A", "X-A", "header", Style::Simple, false),
                ("c", "c", "cookie", Style::Form, true),
                ("id", "id", "path", Style::Simple, false),
                ("q", "q", "query", Style::Form, true),
                ("query_id", "id", "query", Style::Form, false),
                ("tags", "tags", "query", Style::PipeDelimited, false),
            ]
        );
    }

    #[test]
    fn what_cannot_be_sent_so_is_refused_by_its_place() {
        for (url, parameters, place) in [
            ("http://h/", json!([]), "parameters"),
            ("http://h/", json!({"a": "body"}), "parameters.a"),
            ("http://h/", json!({"a": 1}), "parameters.a"),
            ("http://h/", json!({"X-A": "header", "b": {"in": "header", "name": "x-a"}}), "parameters.b"),
            ("http://h/{a}", json!({"a": "path", "b": {"in": "path", "name": "a"}}), "parameters.b"),
            ("http://h/", json!({"a": {"in": 5}}), "parameters.a.in"),
            ("http://h/", json!({"a": {}}), "parameters.a"),
            ("http://h/", json!({"a": {"in": "query", "style": "simple"}}), "parameters.a"),
            ("http://h/", json!({"a": {"in": "query", "explode": "yes"}}), "parameters.a.explode"),
            ("http://h/", json!({"body": "query"}), "parameters.body"),
            ("http://h/", json!({"a b": "header"}), "parameters.a b"),
            ("http://h/", json!({"Host": "header"}), "parameters.Host"),
            ("http://h/", json!({"X-Fixed": "header"}), "parameters.X-Fixed"),
            ("http://h/", json!({"a": "path"}), "parameters.a"),
            ("http://h/{a}", json!({}), "url"),
            ("http://h/{a}/{b}", json!({"a": "path"}), "url"),
            ("http://h/{a", json!({"a": "path"}), "url"),
            ("http://h/}a{", json!({}), "url"),
            ("http://h/{}", json!({}), "url"),
            ("http://{a}/", json!({"a": "path"}), "url"),
            ("http://{a}.example.org/", json!({"a": "path"}), "url"),
            ("http:///{a}/x", json!({"a": "path"}), "url"),
            ("http:\\\\{a}\\x", json!({"a": "path"}), "url"),
            ("http://h:{a}/", json!({"a": "path"}), "url"),
            ("http://{a}@h/", json!({"a": "path"}), "url"),
            ("{a}://h/", json!({"a": "path"}), "url"),
            ("/{a}", json!({"a": "path"}), "url"),
        ] {
            let metadata = json!({
                "runtime": "http", "url": url, "headers": {"x-fixed": "1"}, "parameters": parameters,
            });
            let error = read(metadata).expect_err(&format!("{url} {parameters}"));
            assert_eq!(error.details().expect("a place")["field"], place, "{url} {parameters}: {error}");
        }
    }

    #[test]
    fn only_an_http_function_gives_the_key_a_meaning() {
        let metadata = json!({"runtime": "binary", "parameters": {"type": "object"}});
        assert!(read(metadata).expect("valid").api.parameters.is_none());
    }
}
