//! `$regex` and `$options`.

use super::check;

#[test]
fn a_pattern_is_found_anywhere_unless_anchored() {
    check(
        r##"
        a | {"$regex": "^x"} | {"a": "xy"} | yes
        a | {"$regex": "1"} | {"a": 1} | no
        a | {"$regex": "x"} | {} | no
        sku | {"$regex": "789"} | {"sku": "abc789"} | yes
        sku | {"$regex": "789"} | {"sku": "abc78"} | no
        sku | {"$regex": "789$"} | {"sku": "abc789"} | yes
        sku | {"$regex": "789$"} | {"sku": "xyz789a"} | no
        sku | {"$regex": "^abc"} | {"sku": "abc123"} | yes
        sku | {"$regex": "^abc"} | {"sku": "xabc123"} | no
        sku | {"$regex": "^abc$"} | {"sku": "abc"} | yes
        sku | {"$regex": "^abc$"} | {"sku": "abcd"} | no
        sku | {"$regex": "^$"} | {"sku": ""} | yes
        sku | {"$regex": ""} | {"sku": "anything"} | yes
        sku | {"$regex": "a.c"} | {"sku": "abc"} | yes
        sku | {"$regex": "a.c"} | {"sku": "ac"} | no
        sku | {"$regex": "a\\.c"} | {"sku": "abc"} | no
        sku | {"$regex": "a\\.c"} | {"sku": "a.c"} | yes
        sku | {"$regex": "acme.*corp"} | {"sku": "acme big corp"} | yes
        sku | {"$regex": "^(abc|xyz)[0-9]{3}$"} | {"sku": "xyz123"} | yes
        sku | {"$regex": "^(abc|xyz)[0-9]{3}$"} | {"sku": "xyz12"} | no
        sku | {"$regex": "^[^0-9]+$"} | {"sku": "abc"} | yes
        sku | {"$regex": "^[^0-9]+$"} | {"sku": "ab1"} | no
        sku | {"$regex": "\\bcorp\\b"} | {"sku": "the corp, inc"} | yes
        sku | {"$regex": "\\bcorp\\b"} | {"sku": "corporate"} | no
        sku | {"$regex": "^\\d+$"} | {"sku": "123"} | yes
        sku | {"$regex": "^a?b*$"} | {"sku": "bbb"} | yes
        sku | {"$regex": "^.$"} | {"sku": "é"} | yes
        name.last | {"$regex": "^M"} | {"name": {"last": "McCarthy"}} | yes
        name.last | {"$regex": "^M"} | {"name": "M"} | no
        "##,
    );
}

#[test]
fn a_pattern_matches_texts_only() {
    check(
        r##"
        sku | {"$regex": "1"} | {"sku": 1} | no
        sku | {"$regex": "true"} | {"sku": true} | no
        sku | {"$regex": "null"} | {"sku": null} | no
        sku | {"$regex": "a"} | {"sku": {"a": "a"}} | no
        sku | {"$regex": ""} | {"sku": []} | no
        sku | {"$regex": "^a"} | {"sku": ["b", "ab"]} | yes
        sku | {"$regex": "^a"} | {"sku": ["b", "ba"]} | no
        sku | {"$regex": "^a"} | {"sku": [1, null, "a"]} | yes
        sku | {"$regex": "^a"} | {"sku": [["a"]]} | no
        sku.0 | {"$regex": "^a"} | {"sku": ["a", "b"]} | yes
        sku.1 | {"$regex": "^a"} | {"sku": ["a", "b"]} | no
        parts.sku | {"$regex": "^a"} | {"parts": [{"sku": "b"}, {"sku": "a"}]} | yes
        sku | {"$regex": "^a", "$ne": "abc"} | {"sku": "abc"} | no
        sku | {"$regex": "^a", "$ne": "abc"} | {"sku": "abd"} | yes
        sku | {"$regex": "acme", "$nin": ["acme inc"]} | {"sku": "acme inc"} | no
        sku | {"$regex": "acme", "$nin": ["acme inc"]} | {"sku": "acme ltd"} | yes
        sku | {"$regex": "^a", "$exists": true} | {} | no
        "##,
    );
}

#[test]
fn options_change_how_a_pattern_is_read() {
    check(
        r##"
        a | {"$regex": "X", "$options": "i"} | {"a": ["a", "yx"]} | yes
        a | {"$regex": "x.y", "$options": "s"} | {"a": "x\ny"} | yes
        a | {"$regex": "^y", "$options": "m"} | {"a": "x\ny"} | yes
        a | {"$regex": "x # all of it", "$options": "x"} | {"a": "x"} | yes
        sku | {"$regex": "^ABC", "$options": "i"} | {"sku": "abc123"} | yes
        sku | {"$regex": "^ABC"} | {"sku": "abc123"} | no
        sku | {"$regex": "^ABC", "$options": ""} | {"sku": "abc123"} | no
        sku | {"$regex": "(?i)a(?-i)cme"} | {"sku": "Acme"} | yes
        sku | {"$regex": "(?i)a(?-i)cme"} | {"sku": "aCme"} | no
        text | {"$regex": "^S"} | {"text": "First line\nSecond line"} | no
        text | {"$regex": "^S", "$options": "m"} | {"text": "First line\nSecond line"} | yes
        text | {"$regex": "^S", "$options": "m"} | {"text": "Single line"} | yes
        text | {"$regex": "^S", "$options": "m"} | {"text": "a S\nb S"} | no
        text | {"$regex": "line$", "$options": "m"} | {"text": "one line\nmore"} | yes
        text | {"$regex": "line$"} | {"text": "one line\nmore"} | no
        text | {"$regex": "S", "$options": "m"} | {"text": "a S"} | yes
        text | {"$regex": "m.*line"} | {"text": "many\nline"} | no
        text | {"$regex": "m.*line", "$options": "s"} | {"text": "many\nline"} | yes
        text | {"$regex": "M.*LINE", "$options": "si"} | {"text": "many\nline"} | yes
        text | {"$regex": "m.*LINE", "$options": "s"} | {"text": "many\nline"} | no
        text | {"$regex": "a b", "$options": "x"} | {"text": "ab"} | yes
        text | {"$regex": "a b", "$options": "x"} | {"text": "a b"} | no
        text | {"$regex": "a\\ b", "$options": "x"} | {"text": "a b"} | yes
        text | {"$regex": "a b"} | {"text": "a b"} | yes
        text | {"$regex": "abc #category code\n123 #number", "$options": "x"} | {"text": "abc123"} | yes
        text | {"$regex": "abc \\# 1", "$options": "x"} | {"text": "abc#1"} | yes
        text | {"$regex": "^b #line\n c", "$options": "xm"} | {"text": "a\nbc"} | yes
        text | {"$regex": "^é$", "$options": "u"} | {"text": "é"} | yes
        "##,
    );
}

#[test]
fn a_pattern_is_denied_for_all_that_it_does_not_match() {
    check(
        r##"
        sku | {"$not": {"$regex": "^p"}} | {"sku": "abc"} | yes
        sku | {"$not": {"$regex": "^p"}} | {"sku": "pqr"} | no
        sku | {"$not": {"$regex": "^p"}} | {"sku": "Pqr"} | yes
        sku | {"$not": {"$regex": "^p", "$options": "i"}} | {"sku": "Pqr"} | no
        sku | {"$not": {"$regex": "^p"}} | {"sku": 5} | yes
        sku | {"$not": {"$regex": "^p"}} | {"sku": null} | yes
        sku | {"$not": {"$regex": "^p"}} | {} | yes
        sku | {"$not": {"$regex": "^p"}} | {"sku": ["a", "p"]} | no
        sku | {"$not": {"$regex": "^p"}} | {"sku": ["a", "b"]} | yes
        sku | {"$not": {"$regex": "^p"}, "$exists": true} | {} | no
        sku | {"$not": {"$regex": "^p"}, "$regex": "x"} | {"sku": "ax"} | yes
        "##,
    );
}
