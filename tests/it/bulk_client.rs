//! The client commands about many definitions and their revisions, through the built binary: `import`, `export`, and
//! what goes back to an earlier revision.

use std::fs;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::client::{Said, client, client_with};
use crate::program::{function, shell, tool};
use crate::service::{Launch, Service};

/// Writes a file into the service's folder, which is where the client runs.
fn put(service: &Service, name: &str, text: &str) {
    let path = service.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn read(service: &Service, name: &str) -> String {
    fs::read_to_string(service.path(name)).unwrap()
}

/// The documents that a command with `--json` printed, one a line.
fn documents(said: &Said) -> Vec<Value> {
    said.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// A tool with this description.
fn described(id: &str, description: &str) -> Value {
    let mut tool = tool(id, shell("printf 1"));
    tool["tool_description"] = description.into();
    tool
}

/// So many tools, a line each.
fn many(count: usize) -> String {
    let lines = (0..count).map(|number| format!("{}\n", described(&format!("many-{number:05}"), "of many")));
    lines.collect()
}

#[tokio::test]
async fn a_folder_with_both_kinds_is_imported_and_what_is_broken_is_told_by_file_and_line() {
    let service = Launch::new().memory().start().await;
    let pretty = serde_json::to_string_pretty(&described("a", "one")).unwrap();
    put(&service, "many/a.json", &pretty);
    put(&service, "many/b.json", "{\"tool_id\":");
    let lines =
        format!("{}\n\n{{\"tool_id\":\"bad\",\"colour\":1}}\nno json\n", function("c", shell("printf 2")));
    put(&service, "many/inner/c.jsonl", &lines);
    put(&service, "many/notes.txt", "not read");

    let said = client(&service, "import many").await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(1), ""), "{said:?}");
    let printed: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(printed.len(), 6, "{said:?}");
    assert_eq!(printed[0], "created        tool a");
    assert!(printed[1].starts_with("failed         many/b.json: it is not JSON: EOF"), "{said:?}");
    assert_eq!(printed[2], "created        function c");
    assert!(
        printed[3].starts_with("failed         tool bad in many/inner/c.jsonl:3: unknown field"),
        "{said:?}"
    );
    assert_eq!(printed[4], "failed         many/inner/c.jsonl:4: a definition is a JSON object");
    assert_eq!(printed[5], "2 created, 0 existed already, 3 failed");

    let again = client(&service, "--json import many").await;
    let told = documents(&again);
    assert_eq!((again.code, told.len()), (Some(1), 6), "{again:?}");
    assert_eq!(told[0], json!({"result": "exists", "kind": "tool", "id": "a"}));
    assert_eq!(
        (&told[3]["result"], &told[3]["id"], &told[3]["file"], &told[3]["line"], &told[3]["code"]),
        (&json!("failed"), &json!("bad"), &json!("many/inner/c.jsonl"), &json!(3), &json!("invalid"))
    );
    assert_eq!(
        told[5],
        json!({"created": 0, "updated": 0, "unchanged": 0, "exists": 2, "failed": 3, "dry_run": false})
    );
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_replace_writes_what_differs() {
    let service = Launch::new().memory().start().await;
    put(&service, "t.json", &json!([described("a", "one"), described("b", "one")]).to_string());
    let dry = client(&service, "import t.json --dry-run").await;
    assert_eq!(
        dry.printed(),
        "created        tool a\ncreated        tool b\n\
         nothing is written, it would be: 2 created, 0 existed already, 0 failed\n"
    );
    assert_eq!(client(&service, "tool get a").await.code, Some(1));
    assert!(
        client(&service, "import t.json")
            .await
            .printed()
            .ends_with("2 created, 0 existed already, 0 failed\n")
    );

    put(&service, "t.json", &json!([described("a", "one"), described("b", "two")]).to_string());
    assert!(
        client(&service, "import t.json")
            .await
            .printed()
            .ends_with("0 created, 2 existed already, 0 failed\n")
    );
    let would = client(&service, "import t.json --replace --dry-run").await;
    would.assert_has_line("updated        tool b");
    assert_eq!(client(&service, "--json tool get b").await.json()["tool_description"], "one");
    assert_eq!(
        client(&service, "import t.json --replace").await.printed(),
        "unchanged      tool a\nupdated        tool b\n0 created, 1 updated, 1 unchanged, 0 failed\n"
    );
    assert_eq!(client(&service, "--json tool get b").await.json()["tool_description"], "two");
}

#[tokio::test]
async fn stdin_is_imported_as_lines_or_as_one_document() {
    let service = Launch::new().memory().start().await;
    let lines = format!("{}\n{}\n", described("a", "x"), function("b", shell("printf 2")));
    assert_eq!(
        client_with(&service, "import -", &lines).await.printed(),
        "created        tool a\ncreated        function b\n2 created, 0 existed already, 0 failed\n"
    );
    let document = serde_json::to_string_pretty(&json!([described("c", "x")])).unwrap();
    let said = client_with(&service, "import -", &document).await;
    said.assert_has_line("created        tool c");
    let broken = client_with(&service, "import -", "{").await;
    assert_eq!(broken.code, Some(1), "{broken:?}");
    assert!(broken.stdout.starts_with("failed         stdin: it is not JSON"), "{broken:?}");
    let nothing = client_with(&service, "import -", "").await;
    assert_eq!(nothing.printed(), "0 created, 0 existed already, 0 failed\n");
}

#[tokio::test]
async fn of_two_thousand_lines_only_what_failed_is_listed() {
    let service = Launch::new().memory().start().await;
    let mut lines = many(2_000);
    lines.push_str("{\"tool_id\":\"broken\",\"tool_metadata\":7}\n");
    put(&service, "many.jsonl", &lines);
    let said = client(&service, "import many.jsonl").await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(1), ""), "{said:?}");
    let printed: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(printed.len(), 2, "{said:?}");
    assert!(printed[0].starts_with("failed         tool broken in many.jsonl:2001: "), "{said:?}");
    assert_eq!(printed[1], "2000 created, 0 existed already, 1 failed");
    let told = documents(&client(&service, "--json import many.jsonl").await);
    assert_eq!((told.len(), &told[2_001]["exists"]), (2_002, &json!(2_000)));
    assert_eq!(documents(&client(&service, "--json tool get many-01999").await)[0]["tool_id"], "many-01999");
}

#[tokio::test]
async fn what_is_exported_is_imported_elsewhere_byte_for_byte() {
    let (one, other) = (Launch::new().memory().start().await, Launch::new().memory().start().await);
    let mut lines = many(1_200);
    lines.push_str(
        "{\"function_id\":\"f:1.0.0\",\"function_metadata\":{\"n\":18446744073709551616,\"x\":0.10}}\n",
    );
    put(&one, "many.jsonl", &lines);
    client(&one, "import many.jsonl").await.printed();
    let exported = client(&one, "export").await;
    assert!(exported.printed().lines().count() > 1_200);
    assert!(exported.stdout.contains("18446744073709551616"));
    let brought = client_with(&other, "import - --replace", &exported.stdout).await;
    assert!(brought.printed().contains("1201 created"), "{brought:?}");
    assert_eq!(client(&other, "export").await.stdout, exported.stdout);

    let said = client(&other, "export --output all.jsonl").await;
    let count = exported.stdout.lines().count();
    assert_eq!(said.printed(), format!("{count} exported to all.jsonl\n"));
    assert_eq!(read(&other, "all.jsonl"), exported.stdout);
    let said = client(&other, "--json function export --search f:1.0.0 --output f.jsonl").await.json();
    assert_eq!(said["file"], "f.jsonl");
    let tagged = client(&other, "tool export --tag test").await;
    assert_eq!(tagged.printed().lines().count(), 1_200);
    let refused = client(&other, "tool export --filter {\"colour\":1} --output no.jsonl").await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
    assert!(!other.path("no.jsonl").exists());
}

#[tokio::test]
async fn a_definition_goes_back_to_an_earlier_revision() {
    let service = Launch::new().memory().start().await;
    for description in ["one", "two"] {
        let text = described("a", description).to_string();
        client_with(&service, "import - --replace", &text).await.printed();
    }
    let first = client(&service, "--json tool get a --revision 1").await.json();
    assert_eq!(first["tool_description"], "one");
    assert_eq!(client(&service, "tool rollback a 1").await.printed(), "Tool rolled back to revision 1\n");
    assert_eq!(client(&service, "--json tool get a").await.json(), first);

    let table = client(&service, "tool revisions a").await;
    let rows: Vec<Vec<&str>> =
        table.printed().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["REVISION", "WRITTEN", "IN", "FORCE"]);
    let rows: Vec<_> = rows[1..].iter().map(|row| (row[0], row[2], row.get(3).copied())).collect();
    assert_eq!(rows, [("3", "ago", Some("yes")), ("2", "ago", None), ("1", "ago", None)]);
    let told = client(&service, "--json tool revisions a").await.json();
    assert_eq!((told.as_array().unwrap().len(), &told[0]["in_force"]), (3, &json!(true)));
    for line in ["tool rollback a 9", "tool get a --revision 9", "tool revisions b"] {
        let unknown = client(&service, line).await;
        assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(1), ""), "{line}: {unknown:?}");
        assert!(unknown.stderr.contains("(not_found)"), "{line}: {unknown:?}");
    }
}

#[tokio::test]
async fn what_came_from_no_source_is_not_refreshed_and_an_unknown_source_lists_nothing() {
    let service = Launch::new().memory().start().await;
    service.create(&described("a", "x")).await;
    let refresh = client(&service, "tool refresh a").await;
    assert_eq!((refresh.code, refresh.stdout.as_str()), (Some(1), ""), "{refresh:?}");
    assert!(refresh.stderr.contains("(conflict)"), "{refresh:?}");
    let unknown = client(&service, "import --source nowhere").await;
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(1), ""), "{unknown:?}");
    assert!(unknown.stderr.contains("(not_found)"), "{unknown:?}");
}

#[tokio::test]
async fn definitions_are_searched_for_and_sorted_and_a_name_shows_its_versions() {
    let service = Launch::new().memory().start().await;
    let lines = [
        described("zebra", "striped and fast"),
        described("apple", "round"),
        function("f:v1.0.0", shell("printf 1")),
        function("f:v1.2.0", shell("printf 1")),
    ];
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    client_with(&service, "import -", &lines).await.printed();
    let ids = async |line: &str| -> Vec<String> {
        let told = client(&service, line).await.json();
        told.as_array().unwrap().iter().map(|told| told["tool_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("--json tool list --search striped").await, ["zebra"]);
    assert_eq!(ids("--json tool list --tag test --sort -id").await, ["zebra", "apple"]);
    assert_eq!(client(&service, "tool list --sort relevance").await.code, Some(1));
    let table = client(&service, "function versions f").await;
    let rows: Vec<Vec<&str>> =
        table.printed().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [vec!["ID", "VERSION", "LATEST"], vec!["f:v1.2.0", "v1.2.0", "yes"], vec!["f:v1.0.0", "v1.0.0"]]
    );
}

/// Answers one request with this much of a body, and breaks off.
async fn breaks_off(chunk: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).await.unwrap() > 2 {
            line.clear();
        }
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = format!("{head}{:x}\r\n{chunk}\r\n", chunk.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        // What is not read would make the end a reset, which takes the answer with it.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_an_error_and_never_looks_whole() {
    let service = Launch::new().memory().start().await;
    let url = breaks_off("{\"tool_id\":\"a\"}\n").await;
    let export = client(&service, &format!("tool export --output all.jsonl --url {url}")).await;
    assert_eq!((export.code, export.stdout.as_str()), (Some(2), ""), "{export:?}");
    assert!(export.stderr.contains("the export is not whole"), "{export:?}");
    let left = fs::read_dir(service.folder().path()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.starts_with("all.jsonl")), "{left:?}");

    let url = breaks_off("{\"line\":1,\"id\":\"many-00000\",\"result\":\"created\"}\n").await;
    let import = client_with(&service, &format!("import - --url {url}"), &many(3)).await;
    assert_eq!(
        (import.code, import.stdout.as_str()),
        (Some(2), "created        tool many-00000\n"),
        "{import:?}"
    );
    assert!(import.stderr.contains("the import is not whole"), "{import:?}");
    let none = client_with(&service, "import - --url http://127.0.0.1:1", &many(1)).await;
    assert_eq!((none.code, none.stdout.as_str()), (Some(2), ""), "{none:?}");
    assert!(none.stderr.contains("no service at http://127.0.0.1:1"), "{none:?}");
}
