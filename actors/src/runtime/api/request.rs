//! The request of an http function with `parameters`: each part of its input goes to its own place. Pure.

use std::collections::BTreeMap;

use reqwest::Url;
use reqwest::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;

use crate::egress::escaped;
use crate::execution::Outcome;
use crate::json::{self, RawObject};
use crate::spec::{ApiSpec, BODY, Parameter, Position, Style, filled, pieces};

/// How long an address may be, in bytes: what the `http` crate takes.
const MAX_URL: usize = 65_534;

const FORM: &str = "application/x-www-form-urlencoded";

/// What is sent, besides the method and the headers that the definition fixes.
#[derive(Debug)]
pub struct Request {
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Option<String>,
}

/// Takes the input apart; a parameter that is absent or null is left out.
///
/// # Errors
/// `invalid_input` where a value cannot stand at its place.
pub fn of(spec: &ApiSpec, url: &str, parameters: &[Parameter], input: &str) -> Result<Request, Outcome> {
    let input = json::members(input).map_err(|error| invalid(&error.to_string()))?;
    let given = |parameter: &Parameter| Some(&**input.get(&parameter.property)?).filter(|raw| !is_null(raw));
    let at = |position: Position| {
        let here = parameters.iter().filter(move |parameter| parameter.position == position);
        here.filter_map(|parameter| Some((parameter, given(parameter)?)))
    };
    let mut segments = BTreeMap::new();
    for (parameter, raw) in at(Position::Path) {
        segments.insert(parameter.name.as_str(), segment(parameter, raw)?);
    }
    let mut headers = HeaderMap::new();
    for (parameter, raw) in at(Position::Header) {
        let (name, value) = header(parameter, &shape(raw))?;
        headers.insert(name, value);
    }
    let cookies = parts(at(Position::Cookie)).join("; ");
    if !cookies.is_empty() {
        let value = HeaderValue::from_str(&cookies).expect("what is escaped is plain ASCII");
        let value = headers.remove(COOKIE).map_or(value.clone(), |given| self::cookies(&[given, value]));
        headers.insert(COOKIE, value);
    }
    let url = address(url, &segments, &parts(at(Position::Query)))?;
    let body = input.get(BODY).map(|raw| body(spec, raw)).transpose()?;
    Ok(Request { url, headers, body })
}

/// The url with its placeholders filled, and the query behind the one that it has. Registration has seen to it that
/// no placeholder stands before the path, and a value brings no character that ends a segment.
fn address(url: &str, segments: &BTreeMap<&str, String>, query: &[String]) -> Result<Url, Outcome> {
    let not_valid =
        |reason: &str| Outcome::failed("not_startable", format!("the url is not valid: {reason}"));
    let pieces = pieces(url).ok_or_else(|| not_valid("a brace stands alone"))?;
    if let Some(lacking) =
        pieces.iter().find_map(|piece| piece.name().filter(|name| !segments.contains_key(name)))
    {
        return Err(invalid(&format!("the parameter {lacking:?} is a part of the path, and missing")));
    }
    let text = filled(&pieces, |name| segments[name].clone());
    let mut url = Url::parse(&text).map_err(|error| not_valid(&error.to_string()))?;
    if !query.is_empty() {
        let whole: Vec<&str> = url.query().into_iter().chain(query.iter().map(String::as_str)).collect();
        url.set_query(Some(&whole.join("&")));
    }
    check_length(&url)?;
    Ok(url)
}

/// Refuses an address that the input made longer than the HTTP library takes.
pub fn check_length(url: &Url) -> Result<(), Outcome> {
    match url.as_str().len() {
        0..=MAX_URL => Ok(()),
        length => Err(invalid(&format!("the input makes a url of {length} bytes; {MAX_URL} are the most"))),
    }
}

/// Several lines of cookies as one.
pub fn cookies(lines: &[HeaderValue]) -> HeaderValue {
    let joined = lines.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    let mut value = HeaderValue::from_bytes(&joined).expect("what stands between them can stand there");
    value.set_sensitive(true);
    value
}

/// A value as one segment. An empty one, `.` and `..` would make another path of it, however they are escaped.
fn segment(parameter: &Parameter, raw: &RawValue) -> Result<String, Outcome> {
    let text = simple(parameter, &shape(raw), escaped);
    if matches!(text.as_str(), "" | "." | "..") {
        let name = &parameter.property;
        return Err(invalid(&format!(
            "the parameter {name:?} is {text:?}, which cannot be a part of a path"
        )));
    }
    Ok(text)
}

fn header(parameter: &Parameter, shape: &Shape) -> Result<(HeaderName, HeaderValue), Outcome> {
    let text = simple(parameter, shape, str::to_owned);
    let value = HeaderValue::from_bytes(text.as_bytes());
    let value = value.map_err(|_| invalid(&format!("{:?} cannot stand in a header", parameter.property)))?;
    let name = HeaderName::from_bytes(parameter.name.as_bytes()).expect("registration has checked the name");
    Ok((name, value))
}

/// `a`, `a,b`, `k,v` or, exploded, `k=v`.
fn simple(parameter: &Parameter, shape: &Shape, escape: impl Fn(&str) -> String) -> String {
    match shape {
        _ if parameter.style == Style::Json => escape(shape.text()),
        Shape::One { text, .. } => escape(text),
        Shape::Many { items, .. } => joined(items.iter().map(|item| escape(item)), ","),
        Shape::Named { members, .. } => {
            let between = if parameter.explode { "=" } else { "," };
            joined(
                members.iter().map(|(key, value)| format!("{}{between}{}", escape(key), escape(value))),
                ",",
            )
        }
    }
}

/// `name=value` for each of these parameters, escaped.
fn parts<'a>(given: impl Iterator<Item = (&'a Parameter, &'a RawValue)>) -> Vec<String> {
    given.flat_map(|(parameter, raw)| form(parameter, &shape(raw))).collect()
}

fn form(parameter: &Parameter, shape: &Shape) -> Vec<String> {
    let pair = |name: &str, value: &str| format!("{}={}", escaped(name), escaped(value));
    let name = parameter.name.as_str();
    let delimiter = match parameter.style {
        Style::SpaceDelimited => "%20",
        Style::PipeDelimited => "%7C",
        _ => ",",
    };
    match shape {
        _ if parameter.style == Style::Json => vec![pair(name, shape.text())],
        Shape::One { text, .. } => vec![pair(name, text)],
        Shape::Many { items, .. } if parameter.explode => items.iter().map(|item| pair(name, item)).collect(),
        Shape::Many { items, .. } => {
            vec![format!("{}={}", escaped(name), joined(items.iter().map(|item| escaped(item)), delimiter))]
        }
        Shape::Named { members, .. } if parameter.style == Style::DeepObject => {
            members.iter().map(|(key, value)| pair(&format!("{name}[{key}]"), value)).collect()
        }
        Shape::Named { members, .. } if parameter.explode => {
            members.iter().map(|(key, value)| pair(key, value)).collect()
        }
        Shape::Named { members, .. } => {
            let flat = members.iter().flat_map(|(key, value)| [escaped(key), escaped(value)]);
            vec![format!("{}={}", escaped(name), joined(flat, delimiter))]
        }
    }
}

/// The body's JSON text, or its members as a form where the definition's content type says so.
fn body(spec: &ApiSpec, raw: &RawValue) -> Result<String, Outcome> {
    let mut headers = spec.headers.iter();
    let content_type = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let is_form = content_type.is_some_and(|(_, value)| {
        value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM)
    });
    if !is_form {
        return Ok(raw.get().to_owned());
    }
    let members: RawObject =
        json::members(raw.get()).map_err(|_| invalid("`body` is sent as a form, and is no object"))?;
    let pair = |name: &str, text: &str| format!("{}={}", escaped(name), escaped(text));
    let pairs = members.iter().filter(|(_, raw)| !is_null(raw)).flat_map(|(name, raw)| match shape(raw) {
        Shape::Many { items, .. } => items.iter().map(|item| pair(name, item)).collect(),
        shape => vec![pair(name, shape.text())],
    });
    Ok(joined(pairs, "&"))
}

/// A value as far as its style looks into it: a string as it is, any other value as its JSON text.
enum Shape {
    One { text: String },
    Many { items: Vec<String>, text: String },
    Named { members: Vec<(String, String)>, text: String },
}

impl Shape {
    /// The whole of it.
    fn text(&self) -> &str {
        match self {
            Self::One { text } | Self::Many { text, .. } | Self::Named { text, .. } => text,
        }
    }
}

fn shape(raw: &RawValue) -> Shape {
    let text = plain(raw);
    match raw.get().as_bytes().first() {
        Some(b'[') => {
            let items: Vec<Box<RawValue>> =
                serde_json::from_str(raw.get()).expect("an input was parsed when it was checked");
            Shape::Many { items: items.iter().map(|item| plain(item)).collect(), text }
        }
        Some(b'{') => {
            let members = json::members(raw.get()).expect("an input was parsed when it was checked");
            Shape::Named {
                members: members.iter().map(|(key, raw)| (key.clone(), plain(raw))).collect(),
                text,
            }
        }
        _ => Shape::One { text },
    }
}

fn plain(raw: &RawValue) -> String {
    // Only a string is one for serde; a number keeps its text.
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

fn joined(parts: impl Iterator<Item = String>, delimiter: &str) -> String {
    parts.collect::<Vec<_>>().join(delimiter)
}

fn invalid(message: &str) -> Outcome {
    Outcome::failed("invalid_input", message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::Spec;

    fn request(metadata: Value, input: &str) -> Result<Request, Outcome> {
        let mut metadata = metadata;
        metadata["runtime"] = json!("http");
        let spec = Spec::parse(metadata.as_object().expect("an object")).expect("valid").api;
        let parameters = spec.parameters.as_ref().expect("some");
        of(&spec, spec.url.as_deref().expect("a url"), parameters, input)
    }

    fn url(template: &str, parameters: Value, input: &str) -> Result<String, Outcome> {
        let request = request(json!({"url": template, "parameters": parameters}), input)?;
        Ok(request.url.to_string())
    }

    #[test]
    fn each_style_writes_arrays_and_objects_in_its_way() {
        let input = r#"{"a":["x y",1.50],"o":{"k":"v&w","n":2},"s":"ä/?#","none":null}"#;
        for (name, told, query) in [
            ("s", json!("query"), "s=%C3%A4%2F%3F%23"),
            ("a", json!("query"), "a=x%20y&a=1.50"),
            ("a", json!({"in": "query", "explode": false}), "a=x%20y,1.50"),
            ("a", json!({"in": "query", "style": "pipeDelimited"}), "a=x%20y%7C1.50"),
            ("a", json!({"in": "query", "style": "spaceDelimited"}), "a=x%20y%201.50"),
            ("a", json!({"in": "query", "style": "json"}), "a=%5B%22x%20y%22%2C1.50%5D"),
            ("a", json!({"in": "query", "name": "a[]"}), "a%5B%5D=x%20y&a%5B%5D=1.50"),
            ("o", json!("query"), "k=v%26w&n=2"),
            ("o", json!({"in": "query", "explode": false}), "o=k,v%26w,n,2"),
            ("o", json!({"in": "query", "style": "deepObject"}), "o%5Bk%5D=v%26w&o%5Bn%5D=2"),
        ] {
            let address = url("http://h/p?fixed=1", json!({name: told, "none": "query"}), input);
            assert_eq!(address.expect(query), format!("http://h/p?fixed=1&{query}"));
        }
        for (name, told, path) in [
            ("s", json!("path"), "%C3%A4%2F%3F%23"),
            ("a", json!("path"), "x%20y,1.50"),
            ("o", json!("path"), "k,v%26w,n,2"),
            ("o", json!({"in": "path", "explode": true}), "k=v%26w,n=2"),
        ] {
            let address = url(&format!("http://h/p/{{{name}}}.json"), json!({name: told}), input);
            assert_eq!(address.expect(path), format!("http://h/p/{path}.json"));
        }
    }

    #[test]
    fn headers_and_cookies_come_from_the_input() {
        let parameters =
            json!({"X-A": "header", "X-L": "header", "c": "cookie", "d": "cookie", "q": "header"});
        let input = r#"{"X-A":"a; b","X-L":[1,2],"c":"x;y","d":5}"#;
        let request =
            request(json!({"url": "http://h/", "parameters": parameters}), input).expect("a request");
        let header = |name: &str| request.headers.get(name).map(|value| value.to_str().expect("ASCII"));
        assert_eq!(
            [header("x-a"), header("x-l"), header("cookie"), header("q")],
            [Some("a; b"), Some("1,2"), Some("c=x%3By; d=5"), None]
        );
    }

    #[test]
    fn the_body_keeps_its_text_or_is_a_form() {
        let input =
            r#"{"body":{"n":1.50,"big":18446744073709551616,"l":["a","b c"],"o":{"k":1},"none":null}}"#;
        let body = |content_type: &str, input: &str| {
            let headers = json!({"Content-Type": content_type});
            let request = request(json!({"url": "http://h/", "headers": headers, "parameters": {}}), input);
            request.map(|request| request.body)
        };
        let json = r#"{"n":1.50,"big":18446744073709551616,"l":["a","b c"],"o":{"k":1},"none":null}"#;
        assert_eq!(body("application/json", input), Ok(Some(json.into())));
        let form = "big=18446744073709551616&l=a&l=b%20c&n=1.50&o=%7B%22k%22:1%7D";
        assert_eq!(body("application/x-www-form-urlencoded; charset=utf-8", input), Ok(Some(form.into())));
        assert_eq!(body("application/json", "{}"), Ok(None));
        assert!(body("application/x-www-form-urlencoded", r#"{"body":[1]}"#).is_err());
    }

    #[test]
    fn no_value_leads_elsewhere() {
        for value in
            ["../admin", "a/../../b", "//evil.example", "x@evil.example", "\\evil", "%2e%2e", "a?b#c", "é\n"]
        {
            let input = json!({"id": value}).to_string();
            let address = url("http://h:81/a/{id}/z", json!({"id": "path"}), &input).expect(value);
            let address = Url::parse(&address).expect("a url");
            assert_eq!((address.host_str(), address.port()), (Some("h"), Some(81)), "{value}");
            let segments: Vec<&str> = address.path_segments().expect("a path").collect();
            assert_eq!((segments[0], segments[2], segments.len()), ("a", "z", 3), "{value}: {address}");
            assert_eq!((address.query(), address.fragment()), (None, None), "{value}");
        }
        for input in
            [r#"{"id":""}"#, r#"{"id":"."}"#, r#"{"id":".."}"#, r#"{"id":[]}"#, r#"{"id":null}"#, "{}"]
        {
            let outcome = url("http://h/{id}", json!({"id": "path"}), input).expect_err(input);
            assert_eq!(outcome.result.expect_err("a failure").code, "invalid_input", "{input}");
        }
        let header =
            request(json!({"url": "http://h/", "parameters": {"X-A": "header"}}), r#"{"X-A":"a\r\nb: c"}"#);
        assert_eq!(header.expect_err("two lines").result.expect_err("a failure").code, "invalid_input");
    }
}
