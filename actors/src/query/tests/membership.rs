//! `$in` and `$nin`.

use super::check;

#[test]
fn lists_ask_for_one_or_for_none() {
    check(
        r##"
        a | {"$in": ["x", 1]} | {"a": 1.0} | yes
        a | {"$in": ["x", 1]} | {"a": "y"} | no
        a | {"$in": ["x"]} | {"a": ["y", "x"]} | yes
        a | {"$in": [["x"]]} | {"a": ["x"]} | yes
        a | {"$in": [{"b": 1}, {"c": 1}]} | {"a": {"c": 1}} | yes
        a | {"$in": []} | {"a": 1} | no
        a | {"$nin": []} | {"a": 1} | yes
        a | {"$nin": ["x"]} | {"a": ["y", "x"]} | no
        a | {"$nin": ["x"]} | {"a": ["y"]} | yes
        "##,
    );
}

#[test]
fn one_of_a_list_is_equal_to_one_of_its_values() {
    check(
        r##"
        qty | {"$in": [5, 15]} | {"qty": 5} | yes
        qty | {"$in": [5, 15]} | {"qty": 15.0} | yes
        qty | {"$in": [5, 15]} | {"qty": 10} | no
        qty | {"$in": [5, 15]} | {"qty": "5"} | no
        qty | {"$in": [5, 15]} | {"qty": null} | no
        qty | {"$in": [5, 15]} | {} | no
        qty | {"$in": [5, "5", true]} | {"qty": true} | yes
        qty | {"$in": [5, "5", true]} | {"qty": "5"} | yes
        qty | {"$in": [1]} | {"qty": true} | no
        qty | {"$in": [9007199254740993]} | {"qty": 9007199254740992} | no
        qty | {"$in": [0]} | {"qty": -0.0} | yes
        qty | {"$in": [15, 5, 25, 10]} | {"qty": 25} | yes
        qty | {"$in": ["b", "a", "B"]} | {"qty": "A"} | no
        carrier.name | {"$in": ["post", "bike"]} | {"carrier": {"name": "bike"}} | yes
        carrier.name | {"$in": ["post", "bike"]} | {"carrier": "bike"} | no
        qty | {"$in": [{}]} | {"qty": {}} | yes
        qty | {"$in": [{"n": 1}]} | {"qty": {"n": 1, "m": 2}} | no
        "##,
    );
}

#[test]
fn one_of_a_list_may_be_an_element_or_the_whole_array() {
    check(
        r##"
        tags | {"$in": ["home", "school"]} | {"tags": ["school", "book"]} | yes
        tags | {"$in": ["home", "school"]} | {"tags": ["home", "school"]} | yes
        tags | {"$in": ["home", "school"]} | {"tags": ["office"]} | no
        tags | {"$in": ["home", "school"]} | {"tags": []} | no
        tags | {"$in": ["home", "school"]} | {"tags": [["home"]]} | no
        tags | {"$in": [["home"], "school"]} | {"tags": ["home"]} | yes
        tags | {"$in": [["home"], "school"]} | {"tags": "home"} | no
        tags | {"$in": [["home"], "school"]} | {"tags": [["home"], "x"]} | yes
        tags | {"$in": [["home"]]} | {"tags": ["home", "school"]} | no
        tags | {"$in": [["a", "b"]]} | {"tags": ["b", "a"]} | no
        tags | {"$in": [[]]} | {"tags": []} | yes
        tags | {"$in": [[]]} | {"tags": ["home"]} | no
        tags | {"$in": [[1, 2], [1], [2]]} | {"tags": [2]} | yes
        tags | {"$in": [[1, "a"], [[]], [true]]} | {"tags": [true]} | yes
        tags | {"$in": [null, "home"]} | {"tags": ["x", null]} | yes
        stock.at | {"$in": ["A", "B"]} | {"stock": [{"at": "C"}, {"at": "B"}]} | yes
        stock.at | {"$in": ["A", "B"]} | {"stock": [{"at": "C"}, {"at": ["D", "A"]}]} | yes
        stock.at | {"$in": ["A", "B"]} | {"stock": [{"at": "C"}]} | no
        stock | {"$in": [{"at": "A"}]} | {"stock": [{"at": "C"}, {"at": "A"}]} | yes
        "##,
    );
}

#[test]
fn none_of_a_list_holds_where_one_of_it_does_not() {
    check(
        r##"
        qty | {"$nin": [5, 15]} | {"qty": 20} | yes
        qty | {"$nin": [5, 15]} | {"qty": 5} | no
        qty | {"$nin": [5, 15]} | {"qty": 15.0} | no
        qty | {"$nin": [5, 15]} | {"qty": "5"} | yes
        qty | {"$nin": [5, 15]} | {"qty": null} | yes
        qty | {"$nin": [5, 15]} | {} | yes
        qty | {"$nin": []} | {} | yes
        tags | {"$nin": ["school"]} | {"tags": ["home", "school"]} | no
        tags | {"$nin": ["school"]} | {"tags": ["home"]} | yes
        tags | {"$nin": ["school"]} | {"tags": []} | yes
        tags | {"$nin": ["school"]} | {} | yes
        tags | {"$nin": ["school"]} | {"tags": [["school"]]} | yes
        tags | {"$nin": [["home"]]} | {"tags": ["home"]} | no
        tags | {"$nin": [["home"]]} | {"tags": ["home", "x"]} | yes
        tags | {"$nin": [[]]} | {"tags": []} | no
        stock.at | {"$nin": ["A"]} | {"stock": [{"at": "B"}, {"at": "A"}]} | no
        stock.at | {"$nin": ["A"]} | {"stock": [{"at": "B"}, {}]} | yes
        qty | {"$exists": true, "$nin": [5, 15]} | {"qty": 20} | yes
        qty | {"$exists": true, "$nin": [5, 15]} | {"qty": 5} | no
        qty | {"$exists": true, "$nin": [5, 15]} | {} | no
        qty | {"$exists": true, "$nin": [5, 15]} | {"qty": null} | yes
        "##,
    );
}
