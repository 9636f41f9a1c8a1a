//! The forms in which a value may stand in what a program says: as it is, and as programs write it into JSON, base64,
//! addresses and hexadecimal. Pure.
//!
//! No form has an end of line in it, so that a line that has ended can be let go: of a value of several lines each line
//! is a form by itself.

use std::collections::BTreeSet;
use std::fmt::Write;

use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD, Engine};

use crate::json;

/// The shortest line that is looked for: anything shorter stands in too many texts by chance.
const MIN_BYTES: usize = 4;

/// Of what is longer only the forms are looked for that programs write most, since each takes room and time.
const MAX_FULL: usize = 1_024;

/// The lengths at which programs break lines of base64 (RFC 2045, RFC 7468), and the shortest such line that is looked for.
const WRAPPED: [usize; 2] = [76, 64];
const MIN_WRAPPED: usize = 16;

/// What encoders of addresses leave as it is besides letters and digits: RFC 3986, with the slash, with the colon,
/// JavaScript's `encodeURIComponent` and `encodeURI`.
const UNESCAPED: [&str; 5] = ["-._~", "-._~/", "-._~:", "-._~!*'()", "-._~!*'();/?:@&=+$,#"];

/// The same for forms, where a space becomes a plus (URL Standard).
const UNESCAPED_IN_FORMS: &str = "*-._";

/// Whether a value has anything by which it can be told from other text.
pub fn is_recognisable(value: &str) -> bool {
    lines(value).next().is_some()
}

/// All forms of a value.
pub fn of(value: &str) -> BTreeSet<String> {
    let value = value.trim();
    let mut forms = BTreeSet::new();
    for line in lines(value) {
        forms.insert(line.to_owned());
        forms.extend(in_json(line));
    }
    forms.extend(in_json(value));
    in_base64(value, &mut forms);
    if value.len() <= MAX_FULL {
        forms.extend(
            UNESCAPED.iter().flat_map(|kept| [percent(value, kept, true), percent(value, kept, false)]),
        );
        forms
            .extend([true, false].map(|upper| percent(value, UNESCAPED_IN_FORMS, upper).replace("%20", "+")));
        forms.extend([hexadecimal(value, true), hexadecimal(value, false)]);
    }
    forms.retain(|form| form.len() >= MIN_BYTES && !form.contains(['\n', '\r']));
    forms
}

/// The lines that are long enough, without the white space around them.
fn lines(value: &str) -> impl Iterator<Item = &str> {
    value.split(['\n', '\r']).map(str::trim).filter(|line| line.len() >= MIN_BYTES)
}

/// As the inside of a JSON string: as most write it, with a slash escaped, in ASCII only, safe for HTML, and within
/// another JSON string.
fn in_json(text: &str) -> Vec<String> {
    let inside = |text: &str| {
        let quoted = json::quote(text);
        quoted[1..quoted.len() - 1].to_owned()
    };
    let plain = inside(text);
    if text.len() > MAX_FULL {
        return vec![ascii(&plain, |_| false), plain];
    }
    let mut forms =
        vec![plain.replace('/', "\\/"), ascii(&plain, |_| false), ascii(&plain, |c| "<>&".contains(c))];
    forms.push(inside(&forms[1]));
    forms.push(inside(&plain));
    forms.push(plain);
    forms
}

/// With `\uXXXX` for what is no ASCII, and for what is chosen.
fn ascii(text: &str, escapes: impl Fn(char) -> bool) -> String {
    let mut out = String::new();
    for character in text.chars() {
        if character.is_ascii() && !escapes(character) {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// Whole, with and without what fills it up; what is the same of it wherever it stands in a longer text; and its lines
/// where it is broken into such.
fn in_base64(value: &str, forms: &mut BTreeSet<String>) {
    for alphabet in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
        let whole = alphabet.encode(value);
        let padded = format!("{whole}{}", &"==="[..(4 - whole.len() % 4) % 4]);
        if value.len() <= MAX_FULL {
            for before in 0..3 {
                let shifted = alphabet.encode([&[0; 2][..before], value.as_bytes()].concat());
                // Those characters of which all six bits are the value's.
                let (first, end) = ((8 * before).div_ceil(6), 8 * (before + value.len()) / 6);
                forms.insert(shifted[first..end].to_owned());
            }
        }
        // The last line as it stands alone, and where something follows the value.
        let certain = &whole[..8 * value.len() / 6];
        for length in WRAPPED {
            for text in [&padded, certain].into_iter().filter(|text| text.len() > length) {
                let lines =
                    text.as_bytes().chunks(length).map(|line| String::from_utf8_lossy(line).into_owned());
                forms.extend(lines.filter(|line| line.len() >= MIN_WRAPPED));
            }
        }
        forms.extend([whole, padded]);
    }
}

fn percent(text: &str, kept: &str, upper: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = if upper { write!(out, "%{byte:02X}") } else { write!(out, "%{byte:02x}") };
        }
    }
    out
}

fn hexadecimal(text: &str, upper: bool) -> String {
    text.bytes().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (text, whole) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(BASE64_STANDARD_NO_PAD.encode(text), whole);
        }
        assert_eq!(BASE64_URL_SAFE_NO_PAD.encode("ü?>~"), "w7w_Pn4");
    }

    #[test]
    fn a_value_has_all_the_forms_in_which_programs_write_it() {
        let forms = of("pä\"s/w &<\n");
        for form in [
            "pä\"s/w &<",
            r#"pä\"s/w &<"#,
            r#"pä\"s\/w &<"#,
            r#"p\u00e4\"s/w &<"#,
            r#"p\u00e4\"s/w \u0026\u003c"#,
            r#"pä\\\"s/w &<"#,
            "p%C3%A4%22s%2Fw%20%26%3C",
            "p%c3%a4%22s%2fw%20%26%3c",
            "p%C3%A4%22s/w%20%26%3C",
            "p%C3%A4%22s%2Fw+%26%3C",
            "cMOkInMvdyAmPA==",
            "cMOkInMvdyAmPA",
            "70c3a422732f7720263c",
            "70C3A422732F7720263C",
        ] {
            assert!(forms.contains(form), "{form}");
        }
        assert!(forms.iter().all(|form| form.len() >= MIN_BYTES));
    }

    #[test]
    fn a_value_is_in_the_base64_of_any_text_around_it() {
        let forms = of("canary-0123456789");
        for before in 0..7 {
            for after in 0..4 {
                let text = format!("{}canary-0123456789{}", "x".repeat(before), "y".repeat(after));
                let encoded = BASE64_STANDARD_NO_PAD.encode(text);
                assert!(forms.iter().any(|form| encoded.contains(form)), "{before} {after}");
            }
        }
    }

    #[test]
    fn each_line_is_a_form_and_none_has_an_end_of_line() {
        let key = format!(
            "-----BEGIN KEY-----\n{}\r\n{}\nab\n-----END KEY-----\n",
            "A1b2".repeat(16),
            "C3d4".repeat(16)
        );
        let forms = of(&key);
        assert!(forms.contains("-----BEGIN KEY-----") && forms.contains(&"C3d4".repeat(16)));
        assert!(forms.contains(&key.trim().replace('\r', "\\r").replace('\n', "\\n")));
        assert!(!forms.contains("ab"));
        assert!(forms.iter().all(|form| !form.contains(['\n', '\r'])));
        let encoded = BASE64_STANDARD_NO_PAD.encode(key.trim());
        assert!(forms.contains(&encoded[..76]) && forms.contains(&encoded[64..128]));
    }

    #[test]
    fn the_forms_of_the_largest_value_stay_within_bounds() {
        let forms = of(&"a/b \"ä".repeat(9_000));
        let bytes: usize = forms.iter().map(String::len).sum();
        assert!(forms.len() < 10_000 && bytes < 2 << 20, "{} {bytes}", forms.len());
    }
}
