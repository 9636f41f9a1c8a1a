//! Documents become functions. The petstore is the public one's paths and operations in our words.

use serde_json::{Value, json};

use super::*;
use crate::schema::Schema;

const PETSTORE: &str = include_str!("tests/petstore.json");
const NOTES: &str = include_str!("tests/notes.yaml");

const PLACE: Place<'_> = Place {
    url: "http://user:pw@shop.example.org/docs/openapi.json",
    base_url: None,
    prefix: "",
    source: "shop",
};

/// The functions of a document that is read, by their names.
fn read(text: &str, place: &Place<'_>) -> Vec<(String, Value)> {
    let found = functions(text, place).expect("a document");
    let parsed = |found: Found| (found.name, serde_json::from_str(&found.definition).expect("JSON"));
    found.into_iter().map(parsed).collect()
}

fn one(text: &str, name: &str) -> Value {
    let found = read(text, &PLACE).into_iter().find(|(found, _)| found == name);
    found.unwrap_or_else(|| panic!("no {name}")).1
}

fn metadata(name: &str) -> Value {
    one(PETSTORE, name)["function_metadata"].clone()
}

/// Whether a value fits the schema under this key.
fn fits(metadata: &Value, key: &str, value: Value) -> bool {
    Schema::compile(&metadata[key]).expect("a schema").check(&value).is_ok()
}

/// A document of one operation, `get /a`, and these components.
fn small(operation: Value, schemas: Value) -> Value {
    json!({
        "openapi": "3.0.0", "info": {"version": "1.0.0"},
        "paths": {"/a": {"get": operation}}, "components": {"schemas": schemas},
    })
}

#[test]
fn each_operation_is_a_function_with_the_version_in_its_id() {
    let names: Vec<(String, String)> = read(PETSTORE, &PLACE)
        .into_iter()
        .map(|(name, definition)| (name, definition["function_id"].as_str().expect("an id").to_owned()))
        .collect();
    let expected = [
        "updatePet",
        "addPet",
        "findPetsByStatus",
        "findPetsByTags",
        "getPetById",
        "deletePet",
        "uploadFile",
        "getInventory",
        "placeOrder",
        "createUser",
        "loginUser",
        "get_user_by_username",
    ];
    let expected: Vec<_> =
        expected.iter().map(|name| ((*name).to_owned(), format!("{name}:1.0.27"))).collect();
    assert_eq!(names, expected);
    let place = Place { prefix: "shop.", base_url: Some("https://base.example.org/x/"), ..PLACE };
    let (name, definition) = read(PETSTORE, &place).swap_remove(4);
    assert_eq!(
        (name.as_str(), &definition["function_id"]),
        ("shop.getPetById", &json!("shop.getPetById:1.0.27"))
    );
    assert_eq!(definition["function_metadata"]["url"], "https://base.example.org/x/pet/{petId}");
}

#[test]
fn a_function_tells_how_it_is_called() {
    let added = one(PETSTORE, "addPet");
    let about = "Takes an animal in\n\nThe shop chooses its number unless one is given.";
    assert_eq!(added["function_description"], about);
    assert_eq!(added["function_search_tags"], json!(["pet", "openapi", "shop"]));
    assert_eq!(one(PETSTORE, "getPetById")["function_search_tags"], json!(["pet", "openapi", "shop"]));
    let json = json!({"accept": "application/json", "content-type": "application/json"});
    let form = json!({"accept": "application/json", "content-type": "application/x-www-form-urlencoded"});
    let order = json!({"accept": "application/vnd.shop+json", "content-type": "application/json"});
    for (name, method, url, headers) in [
        ("addPet", "POST", "http://shop.example.org/api/v3/pet", json.clone()),
        ("updatePet", "PUT", "http://shop.example.org/api/v3/pet", json),
        (
            "deletePet",
            "DELETE",
            "http://shop.example.org/api/v3/pet/{petId}",
            json!({"accept": "application/json"}),
        ),
        ("placeOrder", "POST", "https://eu.example.org:8443/shop/store/order", order),
        ("createUser", "POST", "http://shop.example.org/api/v3/user", form),
        ("loginUser", "GET", "http://shop.example.org/api/v3/user/login", json!({"accept": "text/plain"})),
    ] {
        let told = metadata(name);
        assert_eq!(
            (&told["method"], &told["url"], &told["headers"]),
            (&json!(method), &json!(url), &headers)
        );
        assert_eq!(
            (&told["runtime"], &told["protocol"], &told["version"]),
            (&json!("http"), &json!("http"), &json!("1.0.27"))
        );
        let is_idempotent = method != "POST";
        assert_eq!(told.get("idempotent").is_some(), is_idempotent, "{name}");
    }
    assert_eq!(metadata("findPetsByTags")["deprecated"], "this operation is deprecated");
    assert_eq!(metadata("loginUser")["output"], json!({"text": "text"}));
}

#[test]
fn parameters_of_the_path_hold_unless_the_operation_has_its_own() {
    let get = metadata("getPetById");
    assert_eq!(get["parameters"], json!({"petId": "path", "api_key": "header"}));
    assert_eq!(get["input_schema"]["required"], json!(["petId"]));
    for (input, is_good) in [
        (json!({"petId": 5}), true),
        (json!({"petId": 5, "api_key": "k"}), true),
        (json!({"petId": "5"}), false),
        (json!({"petId": 0}), false),
        (json!({}), false),
        (json!({"petId": 5, "colour": 1}), false),
    ] {
        assert_eq!(fits(&get, "input_schema", input.clone()), is_good, "{input}");
    }
    let tags = json!({"tags": {"in": "query", "explode": false}});
    assert_eq!(metadata("findPetsByTags")["parameters"], tags);
    assert_eq!(metadata("loginUser")["parameters"], json!({"username": "query", "session": "cookie"}));
    let status = &metadata("findPetsByStatus")["input_schema"]["properties"]["status"];
    assert_eq!(status["description"], "the state to look for");
}

#[test]
fn bodies_and_answers_follow_the_dialect_and_recursion() {
    let add = metadata("addPet");
    for (body, is_good) in [
        (json!({"name": "a"}), true),
        (json!({"name": "a", "status": null, "category": null}), true),
        (json!({"name": "a", "parents": [{"name": "b", "parents": [{"name": "c"}]}]}), true),
        (json!({"name": "a", "parents": [{"name": "b", "parents": [{"name": 5}]}]}), false),
        (json!({"name": "a", "category": {"within": {"within": {"name": 5}}}}), false),
        (json!({"name": "a", "status": "eaten"}), false),
        (json!({"id": 1}), false),
    ] {
        assert_eq!(fits(&add, "input_schema", json!({"body": body})), is_good, "{body}");
    }
    assert!(!fits(&add, "input_schema", json!({})));
    assert!(!fits(&add, "output_schema", json!({"name": "a"})), "an answer has an id");
    assert!(fits(&add, "output_schema", json!({"id": 1, "name": "a"})));
    let update = metadata("updatePet");
    assert!(fits(&update, "output_schema", Value::Null) && !fits(&update, "output_schema", json!({})));
    let pet = &add["input_schema"]["$defs"]["Pet"];
    assert_eq!(pet["properties"]["id"]["examples"], json!([10]));
    assert_eq!(pet["properties"]["id"]["format"], "int64");
    assert!(pet.get("xml").is_none() && pet["properties"]["name"].get("pattern").is_none(), "{pet}");

    let user = metadata("createUser");
    assert!(fits(&user, "input_schema", json!({"body": {"username": "u", "password": "p"}})));
    assert!(!fits(&user, "input_schema", json!({"body": {"username": "u"}})));
    assert!(fits(&user, "output_schema", json!({"username": "u", "id": 1})));
    let order = metadata("placeOrder");
    assert!(fits(&order, "input_schema", json!({"body": {"quantity": 100}})));
    assert!(!fits(&order, "input_schema", json!({"body": {"quantity": 101}})));
    for name in ["deletePet", "findPetsByTags", "loginUser"] {
        assert!(metadata(name).get("output_schema").is_none(), "{name}");
    }
}

#[test]
fn what_cannot_be_sent_or_read_is_registered_without_a_runtime() {
    let upload = metadata("uploadFile");
    assert_eq!(upload["unsupported"], "its body is application/octet-stream");
    assert!(upload.get("runtime").is_none() && upload.get("protocol").is_none(), "{upload}");
    let matrix = json!({"name": "m", "in": "query", "style": "matrix"});
    let xml = json!({"name": "m", "in": "query", "content": {"application/xml": {}}});
    let image = json!({"200": {"content": {"image/png": {}}}});
    for (operation, why) in [
        (json!({"parameters": [matrix]}), "its query parameter \"m\" has the style \"matrix\""),
        (json!({"parameters": [xml]}), "its query parameter \"m\" is application/xml"),
        (json!({"responses": image}), "its answer is image/png"),
        (json!({"requestBody": {"content": {"multipart/form-data": {}}}}), "its body is multipart/form-data"),
    ] {
        let found = one(&small(operation, json!({})).to_string(), "get_a");
        assert_eq!(found["function_metadata"]["unsupported"], why);
    }
}

#[test]
fn a_document_of_3_1_in_yaml_is_read_too() {
    let mut names: Vec<String> = read(NOTES, &PLACE).into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["head_notes", "notes_list", "notes_read", "notes_read_2", "post_notes"]);
    let read = one(NOTES, "notes_read");
    assert_eq!(read["function_id"], "notes_read", "2024-05 is no semantic version");
    let told = &read["function_metadata"];
    let parameters = json!({
        "id": "path", "query_id": {"in": "query", "name": "id"}, "query_body": {"in": "query", "name": "body"},
        "sort": {"in": "query", "style": "deepObject", "explode": true},
        "where": {"in": "query", "style": "json"},
    });
    assert_eq!(
        (&told["parameters"], &told["url"]),
        (&parameters, &json!("http://shop.example.org/notes/{id}"))
    );
    for (input, is_good) in [
        (json!({"id": null, "query_id": 4, "query_body": [], "where": ["not", ["not", "x"]]}), true),
        (json!({"id": "a", "query_id": 3}), false),
        (json!({"id": "a", "where": ["not", ["not", 5]]}), false),
        (json!({"id": "a", "where": ["no", "x"]}), false),
    ] {
        assert_eq!(fits(told, "input_schema", input.clone()), is_good, "{input}");
    }
    for (output, is_good) in [
        (json!({"text": "a", "replies": [{"replies": []}]}), true),
        (json!("no"), true),
        (json!({"replies": [{"replies": [{"text": 1}]}]}), false),
        (json!(false), false),
    ] {
        assert_eq!(fits(told, "output_schema", output.clone()), is_good, "{output}");
    }
}

#[test]
fn an_operation_id_that_cannot_be_an_id_gives_way_to_one_that_can() {
    let paths = json!({
        "/a": {
            "get": {"operationId": "list"}, "put": {"operationId": "a list"}, "post": {"operationId": "list:all"},
            "patch": {"operationId": "list/all"}, "delete": {"operationId": "///"},
            "head": {"operationId": "x".repeat(300)}, "options": {"operationId": "refresh"},
        },
        "/a/{b}.{c}/é": {
            "parameters": [{"name": "b", "in": "path"}, {"name": "c", "in": "path"}], "get": {},
        },
    });
    for (version, suffix) in
        [("v2.0.0-rc.1", ":v2.0.0-rc.1"), ("1.0", ""), ("2023-01-15", ""), ("latest", "")]
    {
        let document = json!({"openapi": "3.1.0", "info": {"version": version}, "paths": paths}).to_string();
        let found = read(&document, &PLACE);
        let mut names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let long = "x".repeat(256 - 8 - suffix.len());
        let (made, second) = ("get_a_by_b_by_c_é", "list_all_2");
        assert_eq!(names, ["a list", "delete_a", made, "list", "list_all", second, "options_a", &long]);
        for (name, definition) in &found {
            assert_eq!(definition["function_id"], format!("{name}{suffix}"));
        }
    }
}

#[test]
fn a_bad_document_is_refused_by_its_place() {
    let with = |operation: Value| small(operation, json!({"Loop": {"$ref": "#/components/schemas/Loop"}}));
    let parameter = |parameter: Value| with(json!({"parameters": [parameter]}));
    let schema = |schema: Value| parameter(json!({"name": "p", "in": "query", "schema": schema}));
    let (at, in_schema) = ("#/paths/~1a/get/parameters/0", "#/paths/~1a/get/parameters/0/schema");
    let server = |url: &str| with(json!({"servers": [{"url": url}]}));
    let on_path = |path: &str| json!({"openapi": "3.0.0", "info": {}, "paths": {path: {"get": {}}}});
    let twice = json!({"get": {"operationId": "x"}, "put": {"operationId": "x"}});
    for (document, place, why) in [
        (json!("hello"), "#", "is a string, not an object"),
        (json!({"swagger": "2.0"}), "#", "Swagger 2.0"),
        (json!({}), "#", "`openapi` is missing"),
        (json!({"openapi": 3.0}), "#/openapi", "is a number, not a string"),
        (json!({"openapi": "3.10.0"}), "#", "3.0 and 3.1 are understood"),
        (json!({"openapi": "3.0.0"}), "#", "`info` is missing"),
        (json!({"openapi": "3.0.0", "info": {}, "paths": []}), "#/paths", "is an array, not an object"),
        (json!({"openapi": "3.0.0", "info": {}, "paths": {"/a": twice}}), "#/paths/~1a/put", "\"x\" too"),
        (on_path("a"), "#/paths/a", "is no path"),
        (on_path("/a?b=c"), "#/paths/~1a?b=c", "is no path"),
        (on_path("/a/{b"), "#/paths/~1a~1{b", "a brace that stands alone"),
        (on_path("/a/{b}"), "#/paths/~1a~1{b}/get", "{b}, which is no parameter"),
        (with(json!([])), "#/paths/~1a/get", "is an array, not an object"),
        (with(json!({"operationId": 5})), "#/paths/~1a/get/operationId", "is a number, not a string"),
        (with(json!({"tags": [5]})), "#/paths/~1a/get/tags/0", "is no string"),
        (with(json!({"deprecated": "yes"})), "#/paths/~1a/get/deprecated", "is a string, not a boolean"),
        (with(json!({"parameters": {}})), "#/paths/~1a/get/parameters", "is an object, not an array"),
        (parameter(json!({"in": "query"})), at, "`name` is missing"),
        (parameter(json!({"name": "p"})), at, "`in` is missing"),
        (parameter(json!({"name": "p", "in": "body"})), at, "`in` is \"body\""),
        (parameter(json!({"name": "p", "in": "path"})), at, "has no {p}"),
        (parameter(json!({"$ref": "other.json#/p"})), at, "\"other.json#/p\" leads out of the document"),
        (parameter(json!({"$ref": "#/components/parameters/p"})), at, "leads nowhere"),
        (schema(json!({"$ref": "https://example.org/s"})), in_schema, "leads out of the document"),
        (
            schema(json!({"items": {"$ref": "#/x"}})),
            "#/paths/~1a/get/parameters/0/schema/items",
            "leads nowhere",
        ),
        (schema(json!({"$ref": "#/components/schemas/Loop"})), in_schema, "in a circle"),
        (
            schema(json!({"required": true})),
            "#/paths/~1a/get/parameters/0/schema/required",
            "is a boolean, not an array",
        ),
        (
            schema(json!({"nullable": 1})),
            "#/paths/~1a/get/parameters/0/schema/nullable",
            "is a number, not a boolean",
        ),
        (schema(json!([])), in_schema, "is an array, not an object"),
        (
            schema(json!({"type": "file"})),
            "#/paths/~1a/get",
            "function_metadata.input_schema: not a JSON Schema",
        ),
        (with(json!({"requestBody": {"content": []}})), "#/paths/~1a/get/requestBody/content", "is an array"),
        (
            with(json!({"responses": {"200": 5}})),
            "#/paths/~1a/get/responses/200",
            "is a number, not an object",
        ),
        (server("ftp://h/"), "#/paths/~1a/get/servers/0", "no address of http"),
        (server("http://[/"), "#/paths/~1a/get/servers/0", "is no address"),
        (server("http://{h}/"), "#/paths/~1a/get/servers/0", "{h}, which is no variable"),
        (server("http://h/?a=b"), "#/paths/~1a/get/servers/0", "a part behind its path"),
    ] {
        let problem = match functions(&document.to_string(), &PLACE) {
            Ok(_) => panic!("{document} is read"),
            Err(problem) => problem,
        };
        let start = format!("gave an OpenAPI document that cannot be used: {place}");
        assert!(problem.starts_with(&start) && problem.contains(why), "{document}: {problem}");
    }
    let prefixed = functions(PETSTORE, &Place { prefix: "a/b", ..PLACE }).expect_err("no id has a slash");
    assert!(prefixed.contains("no id can begin with the prefix \"a/b\""), "{prefixed}");
}

#[test]
fn sizes_and_numbers_are_bounded() {
    let many: serde_json::Map<String, Value> =
        (0..=MAX_OPERATIONS).map(|number| (format!("/{number}"), json!({"get": {}}))).collect();
    let document = json!({"openapi": "3.0.0", "info": {}, "paths": many}).to_string();
    assert!(functions(&document, &PLACE).expect_err("too many").contains("more than 10000 operations"));

    // Each level is small, and names the next twice; together they are larger than a function may be.
    let levels = 3_000;
    let level = |number: usize| {
        let next = json!({"$ref": format!("#/components/schemas/level{}", (number + 1) % levels)});
        json!({"type": "object", "description": "x".repeat(100), "properties": {"a": next, "b": next}})
    };
    let schemas: serde_json::Map<String, Value> =
        (0..levels).map(|number| (format!("level{number}"), level(number))).collect();
    let content =
        json!({"content": {"application/json": {"schema": {"$ref": "#/components/schemas/level0"}}}});
    let document = small(json!({"responses": {"200": content}}), schemas.clone().into()).to_string();
    let told = one(&document, "get_a")["function_metadata"].clone();
    assert_eq!((&told["runtime"], told.get("output_schema")), (&json!("http"), None));
    let document = small(json!({"requestBody": content}), schemas.into()).to_string();
    let told = one(&document, "get_a")["function_metadata"].clone();
    assert_eq!(told["unsupported"], "the schema of its input is larger than 262144 bytes");
    assert_eq!((told.get("runtime"), told.get("input_schema")), (None, None));
    let operation = json!({"servers": [{"url": format!("http://h/{}", "x".repeat(300_000))}]});
    let problem = functions(&small(operation, json!({})).to_string(), &PLACE).expect_err("too large");
    assert!(problem.contains("#/paths/~1a/get: its metadata is larger than"), "{}", &problem[..200]);
}
