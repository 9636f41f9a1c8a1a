//! `$type`, by name and by number.

use super::check;

#[test]
fn a_type_has_a_name_and_a_number() {
    check(
        r##"
        zip | {"$type": "string"} | {"zip": "94025"} | yes
        zip | {"$type": 2} | {"zip": "94025"} | yes
        zip | {"$type": "string"} | {"zip": 94025} | no
        zip | {"$type": 2} | {"zip": null} | no
        zip | {"$type": "string"} | {} | no
        zip | {"$type": "string"} | {"zip": ""} | yes
        zip | {"$type": "object"} | {"zip": {}} | yes
        zip | {"$type": 3} | {"zip": {"n": 1}} | yes
        zip | {"$type": "object"} | {"zip": []} | no
        zip | {"$type": "array"} | {"zip": []} | yes
        zip | {"$type": 4} | {"zip": [1]} | yes
        zip | {"$type": "array"} | {"zip": {"0": 1}} | no
        zip | {"$type": "bool"} | {"zip": false} | yes
        zip | {"$type": 8} | {"zip": true} | yes
        zip | {"$type": "bool"} | {"zip": 0} | no
        zip | {"$type": "bool"} | {"zip": "true"} | no
        zip | {"$type": "null"} | {"zip": null} | yes
        zip | {"$type": 10} | {"zip": null} | yes
        zip | {"$type": 10} | {"zip": 0} | no
        zip | {"$type": "null"} | {} | no
        zip.plus | {"$type": "string"} | {"zip": {"plus": "1"}} | yes
        zip.plus | {"$type": "string"} | {"zip": "1"} | no
        "##,
    );
}

#[test]
fn numbers_have_three_types_and_one_in_common() {
    check(
        r##"
        n | {"$type": "number"} | {"n": 1} | yes
        n | {"$type": "number"} | {"n": 1.5} | yes
        n | {"$type": "number"} | {"n": 9223372036854775807} | yes
        n | {"$type": "number"} | {"n": "1"} | no
        n | {"$type": "number"} | {"n": true} | no
        n | {"$type": "number"} | {"n": null} | no
        n | {"$type": "number"} | {} | no
        n | {"$type": "int"} | {"n": 0} | yes
        n | {"$type": 16} | {"n": -2147483648} | yes
        n | {"$type": "int"} | {"n": 2147483647} | yes
        n | {"$type": "int"} | {"n": 2147483648} | no
        n | {"$type": "int"} | {"n": 0.5} | no
        n | {"$type": "long"} | {"n": 2147483648} | yes
        n | {"$type": 18} | {"n": -2147483649} | yes
        n | {"$type": "long"} | {"n": 1} | no
        n | {"$type": "double"} | {"n": 0.5} | yes
        n | {"$type": 1} | {"n": 2.0} | yes
        n | {"$type": "double"} | {"n": 1} | no
        n | {"$type": "double"} | {"n": 1e300} | yes
        n | {"$type": ["int", "long"]} | {"n": 0.5} | no
        "##,
    );
}

#[test]
fn an_array_has_the_types_of_its_elements_and_its_own() {
    check(
        r##"
        a | {"$type": "string"} | {"a": "x"} | yes
        a | {"$type": 2} | {"a": [1, "x"]} | yes
        a | {"$type": "array"} | {"a": []} | yes
        a | {"$type": ["null", "object"]} | {"a": null} | yes
        a | {"$type": "null"} | {} | no
        a | {"$type": "number"} | {"a": 1.5} | yes
        a | {"$type": "int"} | {"a": 2147483647} | yes
        a | {"$type": "long"} | {"a": 2147483648} | yes
        a | {"$type": "double"} | {"a": 1} | no
        a | {"$type": "double"} | {"a": 0.5} | yes
        zip | {"$type": "string"} | {"zip": ["9402", 1]} | yes
        zip | {"$type": "string"} | {"zip": [1, 2]} | no
        zip | {"$type": "string"} | {"zip": []} | no
        zip | {"$type": "string"} | {"zip": [["9402"]]} | no
        zip | {"$type": "array"} | {"zip": ["9402", 1]} | yes
        zip | {"$type": "array"} | {"zip": [[1]]} | yes
        zip | {"$type": "array"} | {"zip": "9402"} | no
        zip | {"$type": "number"} | {"zip": ["9402", 1]} | yes
        zip | {"$type": "object"} | {"zip": [1, {}]} | yes
        zip | {"$type": "null"} | {"zip": [1, null]} | yes
        zip | {"$type": "bool"} | {"zip": [true]} | yes
        zip.0 | {"$type": "array"} | {"zip": [[1], 2]} | yes
        zip.0 | {"$type": "array"} | {"zip": [1, 2]} | no
        zip.1 | {"$type": "number"} | {"zip": ["9402", 1]} | yes
        zips.code | {"$type": "string"} | {"zips": [{"code": 1}, {"code": "2"}]} | yes
        zip | {"$elemMatch": {"$type": "array"}} | {"zip": [1, 2]} | no
        zip | {"$elemMatch": {"$type": "array"}} | {"zip": [[1], 2]} | yes
        "##,
    );
}

#[test]
fn one_of_several_types_is_enough() {
    check(
        r##"
        avg | {"$type": ["string", "double"]} | {"avg": "93"} | yes
        avg | {"$type": ["string", "double"]} | {"avg": 93.5} | yes
        avg | {"$type": ["string", "double"]} | {"avg": 93} | no
        avg | {"$type": [2, 1]} | {"avg": 93.5} | yes
        avg | {"$type": [2, "bool"]} | {"avg": true} | yes
        avg | {"$type": [2, "bool"]} | {"avg": {}} | no
        avg | {"$type": ["number", "null"]} | {"avg": null} | yes
        avg | {"$type": ["number", "null"]} | {} | no
        avg | {"$type": ["array"]} | {"avg": []} | yes
        avg | {"$type": ["string", "string"]} | {"avg": "x"} | yes
        avg | {"$not": {"$type": "string"}} | {"avg": "x"} | no
        avg | {"$not": {"$type": "string"}} | {"avg": 1} | yes
        avg | {"$not": {"$type": "string"}} | {} | yes
        avg | {"$not": {"$type": "string"}} | {"avg": [1, "x"]} | no
        avg | {"$type": "number", "$gt": 90} | {"avg": 93} | yes
        avg | {"$type": "number", "$gt": 90} | {"avg": 80} | no
        "##,
    );
}
