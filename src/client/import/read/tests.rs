use std::io::Cursor;

use super::*;

/// What is found: the id or the reason, with the line and the bytes of each.
#[derive(Debug, PartialEq)]
struct Seen(String, Option<u64>, u64);

fn seen(id: &str, line: impl Into<Option<u64>>, bytes: u64) -> Seen {
    Seen(id.to_owned(), line.into(), bytes)
}

/// Reads with `read`, as an input does.
fn found(read: impl FnOnce(&mut Reader<&mut dyn FnMut(Found) -> Result<(), Closed>>)) -> Vec<Found> {
    let mut all = Vec::new();
    let mut give = |found| {
        all.push(found);
        Ok(())
    };
    read(&mut Reader::new(&mut give));
    all
}

fn short(found: &[Found]) -> Vec<Seen> {
    let short = |found: &Found| match found {
        Found::Definition(item) => Seen(item.id.clone(), item.place.line, item.place.bytes),
        Found::Wrong(place, reason) => Seen(reason.clone(), place.line, place.bytes),
    };
    found.iter().map(short).collect()
}

fn lines(bytes: &[u8]) -> Vec<Found> {
    found(|reader| assert!(reader.lines(Cursor::new(bytes)).is_ok()))
}

fn either(text: &str) -> Vec<Found> {
    found(|reader| assert!(reader.either(Cursor::new(text)).is_ok()))
}

#[test]
fn each_line_is_a_definition_of_its_kind_as_it_is_written() {
    let text = "\u{feff}{\"tool_id\": \"a\", \"n\": 1e400}\r\n\n  {\"function_id\":\"b\"}";
    let found = lines(text.as_bytes());
    let Found::Definition(first) = &found[0] else { panic!("{found:?}") };
    assert_eq!((first.kind, first.text.as_str()), (Kind::Tool, "{\"tool_id\": \"a\", \"n\": 1e400}"));
    let Found::Definition(second) = &found[1] else { panic!("{found:?}") };
    assert_eq!((second.kind, second.text.as_str()), (Kind::Function, "{\"function_id\":\"b\"}"));
    let numbers = [first, second].map(|item| (item.place.line, item.place.number));
    assert_eq!(numbers, [(Some(1), 1), (Some(3), 2)]);
    assert_eq!(first.place.bytes + second.place.bytes, text.len() as u64);
}

#[test]
fn a_broken_line_is_told_and_the_next_is_read() {
    let found = lines(b"{\"tool_id\":\"a\"}\n{\"tool_id\":\n\xff\n{}\n{\"tool_id\":\"b\"}\n");
    assert_eq!(
        short(&found),
        [
            seen("a", 1, 16),
            seen("not JSON: EOF while parsing a value at column 11", 2, 12),
            seen("the line is not UTF-8", 3, 2),
            seen("it has neither a tool_id nor a function_id", 4, 3),
            seen("b", 5, 16),
        ]
    );
}

#[test]
fn a_document_is_one_object_or_an_array_or_several_and_each_knows_its_line() {
    let text = "\n{\n  \"tool_id\": \"a\",\n  \"tool_description\": \"x  y\"\n}\n[\n  {\"tool_id\":\"b\"}, 7,\n  {\"function_id\":\"c\"}\n]\n";
    let all = found(|reader| assert!(reader.document(text.as_bytes()).is_ok()));
    let Found::Definition(first) = &all[0] else { panic!("{all:?}") };
    assert_eq!(first.text, "{\"tool_id\":\"a\",\"tool_description\":\"x  y\"}");
    let places: Vec<_> = short(&all).into_iter().map(|Seen(id, line, _)| (id, line)).collect();
    let expected = [("a", 2), ("b", 7), ("a definition is a JSON object", 7), ("c", 8)];
    assert_eq!(places, expected.map(|(id, line)| (id.to_owned(), Some(line))));
}

#[test]
fn stdin_is_lines_where_the_first_is_a_whole_object() {
    let ids = |text: &str| short(&either(text)).into_iter().map(|Seen(id, line, _)| (id, line)).collect();
    let all: Vec<_> = ids("\n{\"tool_id\":\"a\"}\n{\"tool_id\n");
    assert_eq!(all[0], ("a".to_owned(), Some(2)));
    assert_eq!(all[1].1, Some(3));
    let whole: Vec<_> = ids("[{\"tool_id\":\"a\"},\n{\"tool_id\":\"b\"}]");
    assert_eq!(whole, [("a".to_owned(), Some(1)), ("b".to_owned(), Some(2))]);
    let spread: Vec<_> = ids("{\n\"tool_id\":\"a\"\n}");
    assert_eq!(spread, [("a".to_owned(), Some(1))]);
    assert!(either("").is_empty() && either(" \n\n").is_empty());
}

#[test]
fn a_folder_is_read_through_and_through_and_what_is_broken_costs_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("a.json", "{\"tool_id\":\"a\"}");
    write("b.json", "{\"tool_id\":");
    write("c/d.ndjson", "{\"tool_id\":\"d1\"}\n{\"tool_id\":\"d2\"}\n");
    write("c/e.jsonl", "{\"function_id\":\"e\"}\n\n");
    write("f.txt", "{\"tool_id\":\"f\"}");
    let inputs = inputs(folder.path()).unwrap();
    let total: Option<u64> = inputs.iter().map(Input::bytes).sum();
    assert_eq!((inputs.len(), total), (4, Some(81)));
    let all = found(|reader| inputs.iter().for_each(|input| assert!(reader.read(input).is_ok())));
    assert_eq!(
        short(&all),
        [
            seen("a", 1, 15),
            seen("it is not JSON: EOF while parsing a value at line 1 column 11", None, 11),
            seen("d1", 1, 17),
            seen("d2", 2, 17),
            seen("e", 1, 20),
        ]
    );
    let file = folder.path().join("f.txt");
    assert_eq!(super::inputs(&file).unwrap(), [Input::File { path: file, bytes: 15 }]);
    assert!(super::inputs(&folder.path().join("none")).is_err());
    assert_eq!(super::inputs(Path::new("-")).unwrap(), [Input::Stdin]);
}

#[test]
fn nothing_more_is_read_once_nobody_takes_it() {
    let mut given = 0;
    let mut reader = Reader::new(|_| {
        given += 1;
        Err(Closed)
    });
    let text = "{\"tool_id\":\"a\"}\n{\"tool_id\":\"b\"}\n";
    assert!(matches!(reader.lines(Cursor::new(text)), Err(Stop::Closed)));
    assert_eq!(given, 1);
}
