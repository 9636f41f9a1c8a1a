//! `$all`, of values and of elements.

use super::{check, check_filter};

#[test]
fn an_array_has_each_of_a_list() {
    check(
        r##"
        a | {"$all": ["x", "y"]} | {"a": ["y", "z", "x"]} | yes
        a | {"$all": ["x", "x"]} | {"a": ["x"]} | yes
        a | {"$all": ["x", "y"]} | {"a": ["x", "x"]} | no
        a | {"$all": ["x"]} | {"a": "x"} | yes
        a | {"$all": ["x", "y"]} | {"a": "x"} | no
        a | {"$all": [["x", "y"], "x"]} | {"a": ["x", "y"]} | yes
        a | {"$all": []} | {"a": []} | no
        a.b | {"$all": [1, 2]} | {"a": [{"b": 1}, {"b": 2}]} | yes
        tags | {"$all": ["school", "book"]} | {"tags": ["book", "school", "home"]} | yes
        tags | {"$all": ["school", "book"]} | {"tags": ["school", "book"]} | yes
        tags | {"$all": ["school", "book"]} | {"tags": ["school"]} | no
        tags | {"$all": ["school", "book"]} | {"tags": []} | no
        tags | {"$all": ["school", "book"]} | {} | no
        tags | {"$all": ["school"]} | {"tags": ["book", "school"]} | yes
        tags | {"$all": []} | {"tags": ["school"]} | no
        tags | {"$all": []} | {} | no
        qty | {"$all": [50]} | {"qty": 50} | yes
        qty | {"$all": [50]} | {"qty": [50]} | yes
        qty | {"$all": [50]} | {"qty": [50.0, 1]} | yes
        qty | {"$all": [50]} | {"qty": "50"} | no
        qty | {"$all": [1, "1"]} | {"qty": [1, 2]} | no
        qty | {"$all": [1, "1"]} | {"qty": ["1", 1]} | yes
        qty | {"$all": [null]} | {"qty": [null]} | yes
        qty | {"$all": [{"n": 1}, {"n": 2}]} | {"qty": [{"n": 2}, {"n": 1}]} | yes
        qty | {"$all": [{"n": 1}]} | {"qty": [{"n": 1, "m": 2}]} | no
        qty | {"$all": [{"n": 1}]} | {"qty": {"n": 1}} | yes
        stock.at | {"$all": ["A", "B"]} | {"stock": [{"at": "B"}, {"at": ["A", "C"]}]} | yes
        stock.at | {"$all": ["A", "B"]} | {"stock": [{"at": "B"}, {"at": "C"}]} | no
        stock.at | {"$all": ["A", "B"]} | {"stock": {"at": ["A", "B"]}} | yes
        tags | {"$all": ["a"], "$size": 1} | {"tags": ["a"]} | yes
        tags | {"$all": ["a"], "$size": 1} | {"tags": ["a", "b"]} | no
        tags | {"$not": {"$all": ["a", "b"]}} | {"tags": ["a"]} | yes
        tags | {"$not": {"$all": ["a", "b"]}} | {"tags": ["b", "a"]} | no
        "##,
    );
}

#[test]
fn an_array_in_the_list_is_the_whole_array_or_an_element() {
    check(
        r##"
        tags | {"$all": [["ssl", "auth"]]} | {"tags": [["ssl", "auth"], "tls"]} | yes
        tags | {"$all": [["ssl", "auth"]]} | {"tags": ["ssl", "auth"]} | yes
        tags | {"$all": [["ssl", "auth"]]} | {"tags": ["ssl", "auth", "tls"]} | no
        tags | {"$all": [["ssl", "auth"]]} | {"tags": ["auth", "ssl"]} | no
        tags | {"$all": [["ssl", "auth"]]} | {"tags": [["auth", "ssl"]]} | no
        tags | {"$all": [["ssl"], ["auth"]]} | {"tags": [["auth"], ["ssl"]]} | yes
        tags | {"$all": [["ssl"], ["auth"]]} | {"tags": ["ssl", "auth"]} | no
        tags | {"$all": [["ssl"], "ssl"]} | {"tags": ["ssl"]} | yes
        tags | {"$all": [["ssl"], "tls"]} | {"tags": [["ssl"], "tls"]} | yes
        tags | {"$all": ["ssl"]} | {"tags": [["ssl"]]} | no
        tags | {"$all": [[]]} | {"tags": []} | yes
        tags | {"$all": [[]]} | {"tags": [[], 1]} | yes
        tags | {"$all": [[]]} | {"tags": [1]} | no
        "##,
    );
}

#[test]
fn each_element_that_is_asked_for_may_be_another() {
    check(
        r##"
        a | {"$all": [{"$elemMatch": {"$gt": 1}}, {"$elemMatch": {"$lt": 0}}]} | {"a": [-1, 2]} | yes
        a | {"$all": [{"$elemMatch": {"$gt": 1}}, {"$elemMatch": {"$lt": 0}}]} | {"a": [1, 2]} | no
        a | {"$all": [{"$elemMatch": {"$gt": 1, "$lt": 3}}]} | {"a": [0, 4]} | no
        a | {"$all": [{"$elemMatch": {"$gt": 1, "$lt": 3}}]} | {"a": [2]} | yes
        a | {"$all": [{"$elemMatch": {"$gt": 1}}]} | {"a": 2} | no
        a | {"$all": [{"$elemMatch": {"$gt": 1}}, {"$elemMatch": {"$lt": 3}}]} | {"a": [2]} | yes
        parts | {"$all": [{"$elemMatch": {"size": "M"}}]} | {"parts": {"size": "M"}} | no
        parts | {"$all": [{"$elemMatch": {"size": "M"}}]} | {} | no
        shop.a | {"$all": [{"$elemMatch": {"n": 1}}, {"$elemMatch": {"n": 2}}]} | {"shop": {"a": [{"n": 2}, {"n": 1}]}} | yes
        "##,
    );
    check_filter(
        r##"{"@parts": {"$all": [{"$elemMatch": {"size": "M", "n": {"$gt": 50}}}]}}"##,
        r##"
        {"parts": [{"size": "M", "n": 60}]} | yes
        {"parts": [{"size": "M", "n": 9}, {"n": 60}]} | no
        {"parts": [{"size": "S", "n": 9}, {"size": "M", "n": 51}]} | yes
        "##,
    );
    check_filter(
        r##"{"@parts": {"$all": [{"$elemMatch": {"size": "M"}}, {"$elemMatch": {"hue": "red"}}]}}"##,
        r##"
        {"parts": [{"size": "M"}, {"hue": "red"}]} | yes
        {"parts": [{"size": "M", "hue": "red"}]} | yes
        {"parts": [{"size": "M"}, {"hue": "blue"}]} | no
        "##,
    );
}
