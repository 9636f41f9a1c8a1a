//! Bad REST requests by the hundred, made from the tables.

use serde_json::{Value, json};

use crate::bad_tables::{
    FORBIDDEN_IDS, FOREIGN_HOSTS, FOREIGN_ORIGINS, NOT_OBJECTS, UNKNOWN_IDS, WRONG_CONTENT, WRONG_FILTERS,
    WRONG_FRAMES, WRONG_METADATA, WRONG_OBJECTS, WRONG_ROUTES,
};

/// A REST request that must be refused.
pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Request {
    fn new(method: &'static str, path: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        let json_type = ("content-type", "application/json".to_owned());
        Self { method, path: path.into(), headers: vec![json_type], body: body.into() }
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    /// How a failed test calls it.
    pub fn name(&self) -> String {
        let body: String = String::from_utf8_lossy(&self.body).chars().take(80).collect();
        format!("{} {:.80} {:?} {body}", self.method, self.path, self.headers)
    }
}

const KINDS: [&str; 2] = ["tool", "function"];
const INCREMENT: &str = "/tool/binary-increment-tool";
const WEATHER: &str = "/function/weather_lookup:v1.0.0-stable";

/// All bad REST requests.
pub fn rest() -> Vec<Request> {
    [
        not_json(),
        wrong_fields(),
        wrong_metadata(),
        odd_ids(),
        wrong_routes(),
        wrong_types_of_content(),
        foreign_doors(),
        wrong_filters(),
        wrong_queries(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Bodies that are no JSON object.
fn not_objects() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = NOT_OBJECTS.lines().map(Vec::from).collect();
    bodies.extend([Vec::new(), b" ".to_vec()]);
    bodies.push(b"{\"a\":\"\n\"}".to_vec());
    bodies.push("\u{feff}{}".into());
    bodies.push(b"{\"tool_id\":\"\xff\xfe\"}".to_vec());
    bodies.push(b"\x00\x01\x02".to_vec());
    bodies
}

fn not_json() -> Vec<Request> {
    let routes = [
        ("POST", "/tool"),
        ("POST", "/function"),
        ("PUT", INCREMENT),
        ("PUT", WEATHER),
        ("POST", "/tools"),
        ("POST", "/functions"),
    ];
    let mut requests = Vec::new();
    for (method, path) in routes {
        let bodies = not_objects().into_iter();
        requests.extend(bodies.map(|body| Request::new(method, path, body)));
    }
    requests
}

/// Wrong types, unknown and missing fields, duplicate keys.
fn wrong_fields() -> Vec<Request> {
    let mut requests = Vec::new();
    for (kind, stored) in KINDS.into_iter().zip([INCREMENT, WEATHER]) {
        for (field, value) in wrong_values() {
            let name = format!("{kind}_{field}");
            let mut body = json!({ format!("{kind}_id"): "refused" });
            body[&name] = value.clone();
            let create = Request::new("POST", format!("/{kind}"), body.to_string());
            let update = Request::new("PUT", stored, json!({ name: value }).to_string());
            requests.extend([create, update]);
        }
        for body in wrong_objects(kind) {
            requests.push(Request::new("POST", format!("/{kind}"), body.clone()));
            requests.push(Request::new("PUT", stored, body));
        }
        for body in ["{}".to_owned(), format!("{{\"{kind}_search_tags\":[]}}")] {
            requests.push(Request::new("POST", format!("/{kind}"), body));
        }
    }
    requests
}

fn wrong_values() -> Vec<(&'static str, Value)> {
    let values = [json!(null), json!(5), json!("x"), json!([]), json!({})];
    let right = [("id", 2), ("description", 2), ("search_tags", 3)];
    let right = right.into_iter().chain([("metadata", 4), ("default_params", 4)]);
    let mut wrong = vec![("search_tags", json!([1])), ("tags", json!("x"))];
    for (field, right) in right {
        let others = values.iter().enumerate().filter(|(at, _)| *at != right);
        wrong.extend(others.map(|(_, value)| (field, value.clone())));
    }
    wrong
}

fn wrong_objects(kind: &str) -> Vec<String> {
    let mut bodies: Vec<String> = lines_for(kind, WRONG_OBJECTS).collect();
    let deep = [("{\"a\":", "}"), ("[", "]")].map(|(open, close)| nested(100_000, open, close));
    bodies.extend(
        deep.map(|deep| format!("{{\"{kind}_id\":\"refused\",\"{kind}_metadata\":{{\"a\":{deep}}}}}")),
    );
    bodies
}

/// The lines of a table, made for a kind.
fn lines_for(kind: &str, table: &'static str) -> impl Iterator<Item = String> {
    let lines = table.lines().filter(|line| !line.trim().is_empty());
    lines.map(move |line| line.trim().replace("KIND", kind))
}

/// A document of this depth.
pub fn nested(depth: usize, open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

/// Keys of the metadata that have a meaning, with values of a wrong type.
fn wrong_metadata() -> Vec<Request> {
    let mut requests = Vec::new();
    for kind in KINDS {
        for metadata in lines_for(kind, WRONG_METADATA) {
            let body = format!("{{\"{kind}_id\":\"refused\",\"{kind}_metadata\":{metadata}}}");
            requests.push(Request::new("POST", format!("/{kind}"), body));
        }
    }
    requests
}

/// Ids that no definition has, and ids that none may have.
fn odd_ids() -> Vec<Request> {
    let long = "a".repeat(5_000);
    let unprintable = ["\0", "\n", "\u{7f}", "\u{85}", "a/b", long.as_str()];
    let mut requests = Vec::new();
    for kind in KINDS {
        for id in UNKNOWN_IDS.lines().chain([" "]).chain(unprintable) {
            let path = format!("/{kind}/{}", percent(id));
            let body = json!({ format!("{kind}_description"): "x" }).to_string();
            requests.push(Request::new("GET", path.clone(), ""));
            requests.push(Request::new("DELETE", path.clone(), ""));
            requests.push(Request::new("PUT", path, body));
        }
        for id in FORBIDDEN_IDS.lines().chain(unprintable) {
            let body = json!({ format!("{kind}_id"): id }).to_string();
            requests.push(Request::new("POST", format!("/{kind}"), body));
        }
    }
    let another = r#"{"tool_id":"another"}"#;
    requests.push(Request::new("GET", "/tool/%ff%fe", ""));
    requests.push(Request::new("PUT", INCREMENT, another));
    requests
}

fn percent(id: &str) -> String {
    id.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn wrong_routes() -> Vec<Request> {
    let request = |line: &'static str| {
        let (method, path) = line.trim().split_once(' ').unwrap();
        let has_body = ["POST", "PUT", "PATCH", "BREW"].contains(&method);
        Request::new(method, path, if has_body { "{}" } else { "" })
    };
    let lines = WRONG_ROUTES.lines().filter(|line| !line.trim().is_empty());
    lines.map(request).collect()
}

fn wrong_types_of_content() -> Vec<Request> {
    let mut requests = Vec::new();
    for kind in KINDS {
        let body = json!({ format!("{kind}_id"): "refused" }).to_string();
        for path in [format!("/{kind}"), format!("/{kind}s")] {
            let request = || Request::new("POST", path.clone(), body.clone());
            requests.extend(WRONG_CONTENT.map(|content| request().header("content-type", content)));
            let mut without = request();
            without.headers.clear();
            requests.push(without);
        }
    }
    requests
}

/// What a web page elsewhere, or a name rebound to loopback, would send.
fn foreign_doors() -> Vec<Request> {
    let routes = [("GET", INCREMENT), ("DELETE", INCREMENT), ("POST", "/tools")];
    let mut requests = Vec::new();
    for (method, path) in routes {
        let body = if method == "POST" { "{}" } else { "" };
        let request = || Request::new(method, path, body);
        requests.extend(FOREIGN_HOSTS.map(|host| request().header("host", host)));
        requests.extend(FOREIGN_ORIGINS.map(|origin| request().header("origin", origin)));
    }
    requests
}

fn wrong_filters() -> Vec<Request> {
    let mut requests = Vec::new();
    for kind in KINDS {
        let deep = format!("{{\"$and\":{}}}", nested(100_000, "[{\"$and\":", "}]"));
        let wide = format!("{{\"$or\":[{{}}{}]}}", ",{\"tool_id\":\"x\"}".repeat(50_000));
        let filters = lines_for(kind, WRONG_FILTERS).chain([deep, wide]);
        requests.extend(filters.map(|filter| Request::new("POST", format!("/{kind}s"), filter)));
    }
    requests
}

fn wrong_queries() -> Vec<Request> {
    let queries = ["limit=x", "limit=-1", "limit=1.5", "limit=99999999999999999999"];
    let request = |query| Request::new("POST", format!("/tools?{query}"), "{}");
    queries.map(request).into()
}

/// All bad frames: the path to send each to, and its text.
pub fn frames() -> Vec<(String, String)> {
    let runs = ["binary-increment-tool", "weather_lookup:v1.0.0-stable"];
    let mut frames = Vec::new();
    for (kind, id) in KINDS.into_iter().zip(runs) {
        let run = format!("\"{kind}_id\":\"{id}\"");
        let deep = nested(100_000, "[", "]");
        let texts = lines_for(kind, WRONG_FRAMES).chain([
            String::new(),
            " ".to_owned(),
            format!("{{RUN,\"input_data\":{{\"a\":{deep}}}}}"),
            nested(100_000, "{\"a\":", "}"),
            "[".repeat(100_000),
            format!("{{\"{kind}_id\":\"{}\",\"input_data\":{{}}}}", "x".repeat(100_000)),
        ]);
        frames.extend(texts.map(|text| (format!("/{kind}"), text.replace("RUN", &run))));
    }
    frames
}
