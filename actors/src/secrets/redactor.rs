//! Finds the secrets of an execution in what comes out of it, and puts their names in their place. Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Match, MatchKind};
use serde_json::value::RawValue;

use super::forms;
use crate::json;

/// How much of a form at the end of a text is enough: texts are cut, in the middle of a secret too.
const MIN_CUT: usize = 4;

/// What this service puts where it cuts a text that goes on behind it.
const ELLIPSIS: &str = "…";

/// Finds all forms of some secrets at once.
#[derive(Debug)]
pub struct Redactor(Box<Forms>);

struct Forms {
    matcher: AhoCorasick,
    /// Each form, and which mark takes its place.
    forms: Vec<(String, usize)>,
    /// `[redacted:NAME]`.
    marks: Vec<String>,
    longest: usize,
    /// Finds what all forms begin with.
    beginnings: AhoCorasick,
}

impl std::fmt::Debug for Forms {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Forms").field("marks", &self.marks).finish_non_exhaustive()
    }
}

impl Redactor {
    /// For these names and values; none where there is no value.
    ///
    /// # Errors
    /// The forms of the values are more than can be looked for.
    pub fn new<'a>(
        secrets: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Option<Self>, aho_corasick::BuildError> {
        let (mut all, mut marks) = (Vec::new(), Vec::new());
        for (name, value) in secrets {
            all.extend(forms::of(value).into_iter().map(|form| (form, marks.len())));
            marks.push(format!("[redacted:{name}]"));
        }
        if all.is_empty() {
            return Ok(None);
        }
        let matcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            // Faster kinds take many times the room.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(all.iter().map(|(form, _)| form))?;
        let longest = all.iter().map(|(form, _)| form.len()).max().unwrap_or_default();
        let begun: BTreeSet<&[u8]> =
            all.iter().filter_map(|(form, _)| form.as_bytes().get(..MIN_CUT)).collect();
        let beginnings = AhoCorasick::builder().kind(Some(AhoCorasickKind::ContiguousNFA)).build(begun)?;
        Ok(Some(Self(Box::new(Forms { matcher, forms: all, marks, longest, beginnings }))))
    }

    /// The text without the secrets.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut matches = self.0.matcher.find_iter(text).peekable();
        if matches.peek().is_none() {
            return Cow::Borrowed(text);
        }
        let (mut out, mut end) = (String::with_capacity(text.len()), 0);
        for found in matches {
            // Forms are text, so that they are found between characters only.
            out.push_str(&text[end..found.start()]);
            out.push_str(self.mark(&found));
            end = found.end();
        }
        out.push_str(&text[end..]);
        Cow::Owned(out)
    }

    /// The same of a text that may have been cut, at its end or where an ellipsis tells it: the beginning of a secret there goes
    /// too.
    pub fn cut<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.text(text) {
            Cow::Borrowed(text) => self.without_begun(text, true),
            Cow::Owned(text) => Cow::Owned(self.without_begun(&text, true).into_owned()),
        }
    }

    /// A text in which none stands as a whole, without those that are begun before an ellipsis, or before its end.
    fn without_begun<'t>(&self, text: &'t str, is_cut: bool) -> Cow<'t, str> {
        // Only so far before a place where it may be cut.
        let cuts: Vec<usize> = text.match_indices(ELLIPSIS).map(|(at, _)| at).collect();
        let mut next = 0;
        let (mut out, mut done) = (String::new(), 0);
        for hit in self.0.beginnings.find_overlapping_iter(text) {
            while cuts.get(next).is_some_and(|cut| *cut < hit.end()) {
                next += 1;
            }
            let cut = cuts.get(next).copied().or(is_cut.then_some(text.len()));
            if hit.start() < done || cut.is_none_or(|cut| cut - hit.start() >= self.0.longest) {
                continue;
            }
            let Some((end, mark)) = self.begun(text, hit.start(), is_cut) else { continue };
            out.push_str(&text[done..hit.start()]);
            out.push_str(&self.0.marks[mark]);
            done = end;
        }
        if done == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(&text[done..]);
        Cow::Owned(out)
    }

    /// Where the text was cut in a secret that begins here, and which one that is; the last such place.
    fn begun(&self, text: &str, start: usize, is_cut: bool) -> Option<(usize, usize)> {
        let window = text.floor_char_boundary(text.len().min(start + self.0.longest + ELLIPSIS.len()));
        let ellipses = text[start..window].match_indices(ELLIPSIS).map(|(at, _)| start + at);
        let ends = ellipses.chain((is_cut && window == text.len()).then_some(text.len()));
        let begun = |end: usize| {
            let piece = &text.as_bytes()[start..end];
            let is_begun = |form: &str| form.len() > piece.len() && form.as_bytes().starts_with(piece);
            let found = self.0.forms.iter().find(|(form, _)| is_begun(form));
            found.filter(|_| piece.len() >= MIN_CUT).map(|(_, mark)| (end, *mark))
        };
        ends.filter_map(begun).last()
    }

    /// The same of one JSON document, which stays one: what is found in a string is replaced within it, however it is
    /// escaped; a number in which a secret stands becomes a string.
    pub fn document(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let length = match first {
                '"' => string_end(rest),
                '[' | ']' | '{' | '}' | ':' | ',' | ' ' | '\t' | '\r' | '\n' => 1,
                _ => rest.find([',', ']', '}', ' ', '\t', '\r', '\n']).unwrap_or(rest.len()),
            };
            let (token, after) = rest.split_at(length);
            if first == '"' {
                out.push_str(&self.string(token));
            } else if length > 1 {
                let found = self.0.matcher.find(token);
                out.push_str(
                    &found.map_or(Cow::Borrowed(token), |found| json::quote(self.mark(&found)).into()),
                );
            } else {
                out.push_str(token);
            }
            rest = after;
        }
        // A secret that is JSON itself stands over several tokens.
        match self.0.matcher.find(&out) {
            Some(found) => json::quote(self.mark(&found)),
            None => out,
        }
    }

    /// A line of a log: where it is a JSON document, as progress is, as one.
    pub fn line<'t>(&self, line: &'t str) -> Cow<'t, str> {
        let is_document =
            line.starts_with(['{', '[', '"']) && serde_json::from_str::<&RawValue>(line).is_ok();
        let line = if is_document { Cow::Owned(self.document(line)) } else { self.text(line) };
        match self.without_begun(&line, false) {
            Cow::Borrowed(_) => line,
            Cow::Owned(line) => Cow::Owned(line),
        }
    }

    /// For what comes in pieces.
    pub fn stream(&self) -> Stream<'_> {
        Stream { redactor: self, held: Vec::new() }
    }

    /// A string literal.
    fn string<'t>(&self, literal: &'t str) -> Cow<'t, str> {
        let inside = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default();
        if !inside.contains('\\') {
            return match self.text(inside) {
                Cow::Borrowed(_) => Cow::Borrowed(literal),
                Cow::Owned(text) => Cow::Owned(json::quote(&text)),
            };
        }
        match serde_json::from_str::<String>(literal) {
            Ok(meant) => match self.text(&meant) {
                Cow::Borrowed(_) => Cow::Borrowed(literal),
                Cow::Owned(text) => Cow::Owned(json::quote(&text)),
            },
            // With half a surrogate pair it is no text, and is not taken apart.
            Err(_) => match self.0.matcher.find(inside) {
                Some(found) => Cow::Owned(json::quote(self.mark(&found))),
                None => Cow::Borrowed(literal),
            },
        }
    }

    fn mark(&self, found: &Match) -> &str {
        let (_, mark) = &self.0.forms[found.pattern().as_usize()];
        &self.0.marks[*mark]
    }
}

/// Where the string literal ends that a text begins with.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    });
    end.map_or(text.len(), |end| end + 2)
}

/// What is printed, with secrets taken out wherever it was cut. Of a line that is still open the end is held back, as
/// long as a secret may go on in it.
#[derive(Debug)]
pub struct Stream<'a> {
    redactor: &'a Redactor,
    held: Vec<u8>,
}

impl Stream<'_> {
    /// Takes what was printed, and gives what of all that can be passed on.
    pub fn push(&mut self, printed: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(printed);
        // No form goes over the end of a line.
        let closed = self.held.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
        let settled = closed.max(self.held.len().saturating_sub(self.redactor.0.longest - 1));
        self.pass(settled)
    }

    /// What is held back, now that nothing more comes.
    pub fn finish(&mut self) -> Vec<u8> {
        self.pass(self.held.len())
    }

    /// What `finish` would give, while it may go on.
    pub fn peek(&self) -> Vec<u8> {
        Stream { redactor: self.redactor, held: self.held.clone() }.finish()
    }

    /// Passes on what is before this place. All forms that begin there are whole.
    fn pass(&mut self, settled: usize) -> Vec<u8> {
        let (mut out, mut end) = (Vec::with_capacity(settled), 0);
        let matches = self.redactor.0.matcher.find_iter(&self.held);
        for found in matches.take_while(|found| found.start() < settled) {
            out.extend_from_slice(&self.held[end..found.start()]);
            out.extend_from_slice(self.redactor.mark(&found).as_bytes());
            end = found.end();
        }
        let settled = settled.max(end);
        out.extend_from_slice(&self.held[end..settled]);
        self.held.drain(..settled);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "cänary/\"7-token";
    const KEY: &str = "-----BEGIN-----\nMIIB1234\n-----END-----\n";

    fn redactor() -> Redactor {
        let secrets = [("token", TOKEN), ("key", KEY), ("pin", "48151623")];
        Redactor::new(secrets.into_iter()).expect("built").expect("some")
    }

    fn streamed(redactor: &Redactor, pieces: &[&[u8]]) -> Vec<u8> {
        let mut stream = redactor.stream();
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| stream.push(piece)).collect();
        out.extend(stream.finish());
        out
    }

    #[test]
    fn every_form_is_found_wherever_what_is_printed_is_cut() {
        let redactor = redactor();
        for form in forms::of(TOKEN) {
            let text = format!("before {form} after\nnext");
            let whole = redactor.text(&text).into_owned();
            assert_eq!(whole, "before [redacted:token] after\nnext", "{form}");
            let bytes = text.as_bytes();
            for cut in 0..=bytes.len() {
                let told = streamed(&redactor, &[&bytes[..cut], &bytes[cut..]]);
                assert_eq!(String::from_utf8_lossy(&told), whole, "{form} cut at {cut}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(String::from_utf8_lossy(&streamed(&redactor, &single)), whole, "{form}");
        }
    }

    #[test]
    fn a_value_of_several_lines_is_found_line_by_line() {
        let redactor = redactor();
        let text = format!("a\n{KEY}b\n");
        for cut in 0..=text.len() {
            let told = streamed(&redactor, &[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]);
            let marks = "[redacted:key]\n".repeat(3);
            assert_eq!(String::from_utf8_lossy(&told), format!("a\n{marks}b\n"));
        }
    }

    #[test]
    fn only_the_end_of_an_open_line_is_held_back() {
        let redactor = redactor();
        let longest = redactor.0.longest;
        let mut stream = redactor.stream();
        assert_eq!(stream.push(b"a line\n"), b"a line\n");
        assert_eq!(stream.push(&[b'x'; 1_000]).len(), 1_000 - (longest - 1));
        assert_eq!(stream.peek(), vec![b'x'; longest - 1]);
        assert_eq!(stream.push(b"\n").len(), longest);
        assert_eq!(stream.finish(), b"");
    }

    #[test]
    fn the_beginning_of_a_secret_at_the_end_of_a_cut_text_goes_too() {
        let redactor = redactor();
        for length in 5..TOKEN.len() {
            let cut = format!("{TOKEN} and {}", &TOKEN[..TOKEN.floor_char_boundary(length)]);
            assert_eq!(redactor.cut(&cut), "[redacted:token] and [redacted:token]", "{length}");
        }
        assert_eq!(redactor.cut("nothing of it: cä"), "nothing of it: cä");
        // An ellipsis tells of a cut wherever it stands.
        let begun = &TOKEN[..TOKEN.floor_char_boundary(8)];
        let text = format!("{TOKEN}… and {begun}…: {begun}");
        let told = format!("[redacted:token]… and [redacted:token]…: {begun}");
        assert_eq!(redactor.line(&text), told);
        assert_eq!(redactor.line(&json::quote(&text)), json::quote(&told));
        assert_eq!(redactor.cut(&text), "[redacted:token]… and [redacted:token]…: [redacted:token]");
        assert_eq!(redactor.cut("nothing… of it…"), "nothing… of it…");
        // Also where it has one itself.
        let odd = Redactor::new([("odd", "abcd…efgh…ijklmnop")].into_iter()).expect("few").expect("one");
        for text in ["abcd…efgh…ijklmno", "abcd…efgh…", "abcd…", "abcd…efgh…ijklmnop"] {
            let told = odd.cut(text).into_owned();
            assert!(["[redacted:odd]", "[redacted:odd]…"].contains(&told.as_str()), "{text}: {told}");
        }
        let begun = format!("{}{}", "…".repeat(100_000), "abcd".repeat(100_000));
        assert_eq!(odd.cut(&begun).len(), begun.len() - 4 + "[redacted:odd]".len());
        assert_eq!(redactor.cut(TOKEN), "[redacted:token]");
        assert_eq!(redactor.cut(""), "");
    }

    #[test]
    fn a_document_stays_one_however_a_secret_is_written_in_it() {
        let redactor = redactor();
        let escaped: String = TOKEN.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        for (text, told) in [
            (
                r#"{"a":[1.50,true,null],"b\n":"\ud83d\ude00"}"#,
                r#"{"a":[1.50,true,null],"b\n":"\ud83d\ude00"}"#,
            ),
            (&format!("[{}]", json::quote(TOKEN)), r#"["[redacted:token]"]"#),
            (&format!("{{\"{escaped}\": \"x{escaped}y\"}}"), r#"{"[redacted:token]": "x[redacted:token]y"}"#),
            (&json::quote(KEY), r#""[redacted:key]\n[redacted:key]\n[redacted:key]\n""#),
            (
                r#"[48151623,-148151623.5e1,"48151623"]"#,
                r#"["[redacted:pin]","[redacted:pin]","[redacted:pin]"]"#,
            ),
            (r#""\ud800 48151623 \"""#, r#""[redacted:pin]""#),
            (r#""\ud800""#, r#""\ud800""#),
            ("48151623", r#""[redacted:pin]""#),
        ] {
            let redacted = redactor.document(text);
            assert_eq!(redacted, told);
            assert!(serde_json::from_str::<&RawValue>(&redacted).is_ok(), "{redacted}");
        }
    }

    #[test]
    fn a_secret_that_is_json_itself_is_found_over_several_tokens() {
        let secrets = [("account", r#"{"id":"x","key":[1,2]}"#)];
        let redactor = Redactor::new(secrets.into_iter()).expect("built").expect("some");
        assert_eq!(redactor.document(r#"[{"id":"x","key":[1,2]}]"#), r#""[redacted:account]""#);
    }

    #[test]
    fn progress_is_read_as_the_document_that_it_is() {
        let escaped: String = "48151623".bytes().map(|byte| format!("\\u{byte:04x}")).collect();
        let line = format!(r#"{{"progress":0.5,"message":"{escaped}"}}"#);
        assert_eq!(redactor().line(&line), r#"{"progress":0.5,"message":"[redacted:pin]"}"#);
        assert_eq!(redactor().line("{48151623"), "{[redacted:pin]");
        assert_eq!(redactor().line("plain"), "plain");
    }

    #[test]
    fn without_secrets_there_is_nothing_to_look_for() {
        assert!(Redactor::new(std::iter::empty()).expect("built").is_none());
    }
}
