//! A service that an OpenAPI document describes: its operations register, and run through the seed's WebSocket.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::server::{Answer, Asked, Server, decoded};
use crate::service::{Launch, Service};
use crate::socket::Talk;

/// The public petstore's paths and operations, in our words.
const DOCUMENT: &str = include_str!("openapi/petstore.json");

/// What the shop has, by number.
type Pets = BTreeMap<u64, Value>;

/// A shop that keeps what it is given, with its document beside it.
async fn petstore() -> Server {
    let pets = Mutex::new(Pets::new());
    Server::start(move |asked| {
        let Some(path) = asked.path.strip_prefix("/api/v3/") else {
            return match asked.path.as_str() {
                "/openapi.json" => Answer::Text(200, DOCUMENT.to_owned()),
                _ => not_found(),
            };
        };
        answer(&mut pets.lock().unwrap(), asked, path)
    })
    .await
}

fn not_found() -> Answer {
    Answer::Json(404, json!({ "message": "nothing is there" }))
}

fn answer(pets: &mut Pets, asked: &Asked, path: &str) -> Answer {
    let parts: Vec<&str> = path.split('/').collect();
    match (asked.method.as_str(), parts.as_slice()) {
        ("POST", ["pet"]) => {
            let number = pets.len() as u64 + 1;
            keep(pets, number, asked)
        }
        ("PUT", ["pet"]) => {
            let pet: Value = serde_json::from_str(&asked.body).unwrap();
            match pet["id"].as_u64().filter(|number| pets.contains_key(number)) {
                Some(number) => keep(pets, number, asked),
                None => not_found(),
            }
        }
        ("GET", ["pet", "findByStatus"]) => {
            let wanted = pairs(&asked.query);
            let fits =
                |pet: &&Value| wanted.iter().any(|(name, value)| name == "status" && pet["status"] == *value);
            Answer::Json(200, pets.values().filter(fits).cloned().collect())
        }
        ("GET", ["pet", number]) => {
            let pet = number.parse().ok().and_then(|number: u64| pets.get(&number));
            pet.map_or_else(not_found, |pet| Answer::Json(200, pet.clone()))
        }
        ("DELETE", ["pet", number]) => {
            let pet = number.parse().ok().and_then(|number: u64| pets.remove(&number));
            pet.map_or_else(not_found, |_| Answer::Text(204, String::new()))
        }
        ("GET", ["store", "inventory"]) => {
            let mut counts = BTreeMap::new();
            for pet in pets.values() {
                *counts.entry(pet["status"].as_str().unwrap_or("unknown")).or_insert(0) += 1;
            }
            Answer::Json(200, json!(counts))
        }
        ("POST", ["store", "order"]) => {
            let mut order: Value = serde_json::from_str(&asked.body).unwrap();
            order["complete"] = json!(false);
            Answer::Json(200, order)
        }
        ("POST", ["user"]) => {
            let mut user = json!({});
            for (name, value) in pairs(&asked.body).into_iter().filter(|(name, _)| name != "password") {
                user[name] = value.into();
            }
            Answer::Json(201, user)
        }
        ("GET", ["user", "login"]) => Answer::Text(200, "session 7".to_owned()),
        ("GET", ["user", name @ ..]) => Answer::Json(200, json!({ "username": name.join("/") })),
        _ => not_found(),
    }
}

fn keep(pets: &mut Pets, number: u64, asked: &Asked) -> Answer {
    let mut pet: Value = serde_json::from_str(&asked.body).unwrap();
    pet["id"] = json!(number);
    pets.insert(number, pet.clone());
    Answer::Json(200, pet)
}

/// The parts of a query or a form.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

/// A service whose one source is this document.
async fn with_document(url: &str, more: &str) -> Service {
    let sources = format!(r#"[{{name = "petstore", openapi = "{url}", allow_private = true{more}}}]"#);
    Launch::new().set("SOURCES", sources).start().await
}

/// A shop, and a service that has registered these operations.
async fn with_operations(names: &[&str]) -> (Service, Server) {
    let shop = petstore().await;
    let service = with_document(&shop.url("/openapi.json"), ", prefix = \"\"").await;
    for name in names {
        register(&service, name, 201).await;
    }
    (service, shop)
}

async fn register(service: &Service, name: &str, expected: u16) -> Value {
    let (status, told) = service.rest("POST", &format!("/function/register/{name}"), "").await;
    assert_eq!(status, expected, "{name}: {told}");
    told
}

async fn call(service: &Service, name: &str, input: Value) -> Talk {
    service.run("function", name, input).await
}

/// How many requests the shop's operations have had.
fn calls(shop: &Server) -> usize {
    shop.asked().iter().filter(|asked| asked.path.starts_with("/api/")).count()
}

#[tokio::test]
async fn an_operation_registers_with_the_documents_version() {
    let (service, shop) = with_operations(&[]).await;
    let told = register(&service, "getPetById", 201).await;
    let definition = &told["data"];
    assert_eq!(definition["function_id"], "getPetById:1.0.27");
    assert_eq!(definition["function_description"], "One animal by its number");
    assert_eq!(definition["function_search_tags"], json!(["pet", "openapi", "petstore"]));
    let metadata = &definition["function_metadata"];
    assert_eq!(metadata["url"], shop.url("/api/v3/pet/{petId}"));
    assert_eq!((&metadata["method"], &metadata["runtime"]), (&json!("GET"), &json!("http")));
    assert_eq!(metadata["parameters"], json!({ "petId": "path" }));
    let (status, stored) = service.rest("GET", "/function/getPetById:1.0.27", "").await;
    assert_eq!((status, &stored["data"]), (200, definition));

    register(&service, "getPetById", 409).await;
    register(&service, "noSuchOperation", 404).await;
    assert_eq!(calls(&shop), 0, "{:?}", shop.asked());
}

#[tokio::test]
async fn an_animal_comes_is_found_and_goes() {
    let names = ["addPet", "updatePet", "getPetById", "findPetsByStatus", "deletePet", "getInventory"];
    let (service, shop) = with_operations(&names).await;
    let rex = json!({ "name": "Rex", "photoUrls": [], "status": "available", "weight": 1.50, "young": [] });
    let talk = call(&service, "addPet", json!({ "body": rex })).await;
    let mut kept = rex.clone();
    kept["id"] = json!(1);
    assert_eq!(*talk.output(), kept);
    let mia = json!({ "name": "Mia", "photoUrls": ["a&b"], "status": "sold", "weight": null });
    call(&service, "addPet:1.0.27", json!({ "body": mia })).await.output();

    let talk = call(&service, "getPetById", json!({ "petId": 1 })).await;
    assert_eq!(*talk.output(), kept);
    let found = |wanted: Value| call(&service, "findPetsByStatus", json!({ "status": wanted }));
    assert_eq!(*found(json!(["available"])).await.output(), json!([kept]));
    assert_eq!(found(json!(["available", "sold"])).await.output().as_array().unwrap().len(), 2);
    assert_eq!(*found(json!(["pending"])).await.output(), json!([]));

    kept["status"] = json!("pending");
    let talk = call(&service, "updatePet", json!({ "body": kept })).await;
    assert_eq!(*talk.output(), kept);
    let talk = call(&service, "getInventory", json!({})).await;
    assert_eq!(*talk.output(), json!({ "pending": 1, "sold": 1 }));

    let talk = call(&service, "deletePet", json!({ "petId": 1, "api_key": "k e y" })).await;
    assert_eq!(*talk.output(), Value::Null);
    let asked = shop.asked().pop().unwrap();
    assert_eq!((asked.method.as_str(), asked.body.as_str()), ("DELETE", ""));
    assert!(asked.headers.contains("api_key: k e y\r\n"), "{asked:?}");
    assert!(!asked.headers.contains("content-type"), "{asked:?}");
    for name in ["getPetById", "deletePet"] {
        let talk = call(&service, name, json!({ "petId": 1 })).await;
        let (error, code) = talk.error();
        assert!(code == "http_status" && error.contains("404"), "{error}");
    }
}

#[tokio::test]
async fn bodies_forms_and_texts_go_as_the_document_says() {
    let (service, shop) = with_operations(&["placeOrder", "createUser", "loginUser", "addPet"]).await;
    let talk = call(&service, "placeOrder", json!({ "body": { "petId": 1, "quantity": 2 } })).await;
    assert_eq!(*talk.output(), json!({ "petId": 1, "quantity": 2, "complete": false }));

    let user = json!({ "username": "a b", "password": "p&q=r", "email": "ä@example.org" });
    let talk = call(&service, "createUser", json!({ "body": user })).await;
    assert_eq!(*talk.output(), json!({ "username": "a b", "email": "ä@example.org" }));
    let asked = shop.asked().pop().unwrap();
    assert!(asked.headers.contains("content-type: application/x-www-form-urlencoded\r\n"), "{asked:?}");
    assert!(pairs(&asked.body).contains(&("password".to_owned(), "p&q=r".to_owned())), "{asked:?}");

    let talk = call(&service, "loginUser", json!({ "username": "a", "password": "?&" })).await;
    assert_eq!(*talk.output(), json!({ "text": "session 7" }));
    let (_, stored) = service.rest("GET", "/function/loginUser:1.0.27", "").await;
    assert!(stored["data"]["function_metadata"]["deprecated"].is_string(), "{stored}");

    // A number goes out with the text that came in.
    let input = r#"{"body":{"name":"Rex","photoUrls":[],"weight":1.50,"note":18446744073709551616}}"#;
    let text = format!(r#"{{"function_id":"addPet","input_data":{input}}}"#);
    service.talk("/function", &text).await.output();
    let body = shop.asked().pop().unwrap().body;
    assert!(body.contains("1.50") && body.contains("18446744073709551616"), "{body}");
}

#[tokio::test]
async fn an_input_that_does_not_fit_is_refused_before_anything_is_sent() {
    let names = ["addPet", "getPetById", "findPetsByStatus", "deletePet", "loginUser", "getInventory"];
    let (service, shop) = with_operations(&names).await;
    let pet = |key: &str, value: Value| {
        let mut pet = json!({ "name": "Rex", "photoUrls": [] });
        pet[key] = value;
        json!({ "body": pet })
    };
    for (name, input, place) in [
        ("getPetById", json!({}), "petId"),
        ("getPetById", json!({ "petId": "1" }), "/petId: "),
        ("getPetById", json!({ "petId": 0 }), "/petId: "),
        ("getPetById", json!({ "petId": 1.5 }), "/petId: "),
        ("getPetById", json!({ "petId": null }), "/petId: "),
        ("getPetById", json!({ "petId": 1, "colour": "red" }), "colour"),
        ("getPetById", json!({ "petId": 1, "body": {} }), "body"),
        ("deletePet", json!({ "petId": 1, "api_key": 5 }), "/api_key: "),
        ("findPetsByStatus", json!({}), "status"),
        ("findPetsByStatus", json!({ "status": [] }), "/status: "),
        ("findPetsByStatus", json!({ "status": "sold" }), "/status: "),
        ("findPetsByStatus", json!({ "status": ["sold", "eaten"] }), "/status/1: "),
        ("addPet", json!({}), "body"),
        ("addPet", json!({ "body": null }), "/body: "),
        ("addPet", json!({ "body": { "name": "Rex" } }), "photoUrls"),
        ("addPet", pet("name", json!("")), "/body/name: "),
        ("addPet", pet("status", json!("eaten")), "/body/status: "),
        ("addPet", pet("weight", json!(0)), "/body/weight: "),
        ("addPet", pet("young", json!([{ "name": "Tim", "photoUrls": [5] }])), "/body/young/0/photoUrls/0: "),
        ("loginUser", json!({ "username": "a" }), "password"),
        ("getInventory", json!({ "a": 1 }), "a"),
    ] {
        let talk = call(&service, name, input.clone()).await;
        let (error, code) = talk.refusal();
        assert_eq!(code, "unprocessable", "{name} {input}: {error}");
        assert!(error.contains(place), "{name} {input}: {error}");
    }
    assert_eq!(calls(&shop), 0, "{:?}", shop.asked());
}

#[tokio::test]
async fn no_value_leads_to_another_path() {
    let (service, shop) = with_operations(&["getUserByName"]).await;
    for name in ["../pet/1", "a/../../b", "//evil.example", "%2e%2e", "a?b=c#d", "\\..\\x", "é ;,"] {
        let talk = call(&service, "getUserByName", json!({ "username": name })).await;
        assert_eq!(talk.output()["username"], name);
        let asked = shop.asked().pop().unwrap();
        assert_eq!((asked.path, asked.query), (format!("/api/v3/user/{name}"), String::new()));
    }
    let before = calls(&shop);
    for name in ["", ".", ".."] {
        let talk = call(&service, "getUserByName", json!({ "username": name })).await;
        assert_eq!(talk.error().1, "invalid_input", "{name:?}");
    }
    assert_eq!(calls(&shop), before);
}

#[tokio::test]
async fn what_cannot_be_sent_registers_and_says_why_it_does_not_run() {
    let (service, _shop) = with_operations(&[]).await;
    let told = register(&service, "uploadFile", 201).await;
    assert_eq!(told["data"]["function_metadata"]["unsupported"], "its body is application/octet-stream");
    let talk = call(&service, "uploadFile", json!({ "petId": 1, "body": "x" })).await;
    assert!(talk.refusal().0.contains("no runtime: its body is application/octet-stream"), "{talk:?}");
}

#[tokio::test]
async fn a_prefix_and_another_address_are_taken_from_the_source() {
    let shop = petstore().await;
    let document = Server::start(|_| Answer::Text(200, DOCUMENT.to_owned())).await;
    let more = format!(r#", prefix = "shop.", base_url = "{}""#, shop.url("/api/v3"));
    let service = with_document(&document.url("/"), &more).await;
    let told = register(&service, "shop.getInventory", 201).await;
    assert_eq!(told["data"]["function_id"], "shop.getInventory:1.0.27");
    assert_eq!(*call(&service, "shop.getInventory", json!({})).await.output(), json!({}));
    register(&service, "getInventory", 404).await;
}

#[tokio::test]
async fn a_document_in_yaml_is_read_and_a_bad_one_is_told_by_its_place() {
    let yaml =
        "openapi: 3.1.0\ninfo: {title: T, version: v2.0.0}\npaths:\n  /ping:\n    get: {operationId: ping}\n";
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/ping" => Answer::Json(200, json!("pong")),
        _ => Answer::Text(200, yaml.to_owned()),
    })
    .await;
    let service = with_document(&server.url("/openapi.yaml"), "").await;
    let told = register(&service, "ping", 201).await;
    assert_eq!(told["data"]["function_id"], "ping:v2.0.0");
    assert_eq!(*call(&service, "ping", json!({})).await.output(), json!("pong"));

    let lost = DOCUMENT.replace("#/components/schemas/Status", "#/components/schemas/State");
    let outside = DOCUMENT.replace("#/components/schemas/Status", "https://example.org/status");
    for (document, why) in [
        (lost, "\"#/components/schemas/State\" leads nowhere"),
        (outside, "\"https://example.org/status\" leads out of the document"),
        (r#"{"swagger": "2.0", "paths": {}}"#.to_owned(), "Swagger 2.0"),
        ("<html>".to_owned(), "is a string, not an object"),
    ] {
        let server = Server::start(move |_| Answer::Text(200, document.clone())).await;
        let service = with_document(&server.url("/"), "").await;
        let told = register(&service, "getPetById", 502).await;
        let error = told["error"].as_str().unwrap();
        assert!(error.contains("\"petstore\" gave an OpenAPI document") && error.contains(why), "{error}");
    }
}

/// A service whose source is a document that the test changes.
async fn with_changing(document: Value) -> (Service, Server, Arc<Mutex<Value>>) {
    let now = Arc::new(Mutex::new(document));
    let said = now.clone();
    let server = Server::start(move |_| Answer::Json(200, said.lock().unwrap().clone())).await;
    (with_document(&server.url("/"), "").await, server, now)
}

#[tokio::test]
async fn a_name_that_was_made_of_a_path_never_comes_to_mean_another_one() {
    let operation = || json!({ "delete": { "responses": {} } });
    let document = json!({
        "openapi": "3.1.0", "info": { "title": "T", "version": "first" }, "servers": [{ "url": "http://127.0.0.1:1" }],
        "paths": { "/a/b": operation(), "/a_b": operation() }
    });
    let (service, _server, now) = with_changing(document).await;
    let import = service.client().post(service.url("/functions/import/petstore")).send().await.unwrap();
    assert!(import.text().await.unwrap().contains("\"created\":2"));
    let url = async |id: &str| {
        let (_, told) = service.rest("GET", &format!("/function/{id}"), "").await;
        told["data"]["function_metadata"]["url"].as_str().unwrap().to_owned()
    };
    assert_eq!(url("delete_a_b").await, "http://127.0.0.1:1/a/b");
    assert_eq!(url("delete_a_b_2").await, "http://127.0.0.1:1/a_b");
    let (status, told) = service.rest("POST", "/function/refresh/delete_a_b", "").await;
    assert_eq!((status, &told["data"]["changed"]), (200, &json!(false)), "{told}");
    now.lock().unwrap()["paths"].as_object_mut().unwrap().remove("/a/b");
    let (status, told) = service.rest("POST", "/function/refresh/delete_a_b", "").await;
    assert_eq!((status, &told["code"]), (404, &json!("not_found")), "{told}");
    assert_eq!(url("delete_a_b").await, "http://127.0.0.1:1/a/b");
    // One with a version stays that version.
    now.lock().unwrap()["info"]["version"] = json!("1.0.0");
    assert_eq!(register(&service, "delete_a_b", 201).await["data"]["function_id"], "delete_a_b:1.0.0");
    now.lock().unwrap()["info"]["version"] = json!("2.0.0");
    assert_eq!(service.rest("POST", "/function/refresh/delete_a_b:1.0.0", "").await.0, 404);
}

#[tokio::test]
async fn a_function_whose_document_gets_a_version_stays_what_it_is() {
    let document = json!({
        "openapi": "3.1.0", "info": { "title": "T", "version": "first" }, "servers": [{ "url": "http://127.0.0.1:1" }],
        "paths": { "/a": { "get": { "operationId": "vop", "summary": "one", "responses": {} } } }
    });
    let (service, _server, now) = with_changing(document).await;
    assert_eq!(register(&service, "vop", 201).await["data"]["function_id"], "vop");
    now.lock().unwrap()["info"]["version"] = json!("1.0.0");
    let refresh = async || {
        let (status, told) = service.rest("POST", "/function/refresh/vop", "").await;
        assert_eq!((status, &told["data"]["id"]), (200, &json!("vop")), "{told}");
        told["data"]["changed"].as_bool().unwrap()
    };
    refresh().await;
    assert!(!refresh().await);
    now.lock().unwrap()["paths"]["/a"]["get"]["summary"] = json!("two");
    assert!(refresh().await);
    assert!(!refresh().await);
}
