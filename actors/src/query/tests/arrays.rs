//! Arrays as values: as a whole, by element, several conditions on one, arrays in arrays, values more than once.

use super::check;

#[test]
fn arrays_match_by_element_by_place_and_whole() {
    check(
        r##"
        a | "x" | {"a": ["y", "x"]} | yes
        a | "x" | {"a": [["x"]]} | no
        a | ["x"] | {"a": [["x"]]} | yes
        a | ["x", "y"] | {"a": ["x", "y"]} | yes
        a | ["x", "y"] | {"a": ["y", "x"]} | no
        a | ["x"] | {"a": ["x", "y"]} | no
        a | [] | {"a": []} | yes
        a | {"$ne": "x"} | {"a": ["x", "y"]} | no
        a.b | 2 | {"a": [{"b": 1}, {"b": 2}]} | yes
        a.b | 2 | {"a": [{"b": [1, 2]}]} | yes
        a.b | 2 | {"a": [[{"b": 2}]]} | no
        a.b.c | 3 | {"a": [{"b": [{"c": 3}]}]} | yes
        a.0 | "x" | {"a": ["x", "y"]} | yes
        a.1 | "x" | {"a": ["x", "y"]} | no
        a.01 | "y" | {"a": ["x", "y"]} | no
        a.0 | "x" | {"a": {"0": "x"}} | yes
        a.0 | "x" | {"a": [1, {"0": "x"}]} | yes
        a.0 | 1 | {"a": [[1, 2]]} | no
        a.0 | [1, 2] | {"a": [[1, 2]]} | yes
        a.0.1 | 2 | {"a": [[1, 2]]} | yes
        a.0.b | 2 | {"a": [[{"b": 2}]]} | yes
        a.1.b | 2 | {"a": [{"b": 1}, {"b": 2}]} | yes
        a.0.b | 2 | {"a": [{"b": 1}, {"b": 2}]} | no
        a.0.b | null | {"a": [5]} | no
        a.0.b | null | {"a": [{"b": 5}]} | yes
        a.99999999999999999999 | 1 | {"a": [1]} | no
        "##,
    );
}

#[test]
fn a_whole_array_is_equal_in_its_order() {
    check(
        r##"
        tags | ["red", "blank"] | {"tags": ["red", "blank"]} | yes
        tags | ["red", "blank"] | {"tags": ["blank", "red"]} | no
        tags | ["red", "blank"] | {"tags": ["red", "blank", "plain"]} | no
        tags | ["red", "blank"] | {"tags": ["red"]} | no
        tags | ["red", "blank"] | {"tags": "red"} | no
        tags | ["red"] | {"tags": "red"} | no
        tags | ["red"] | {"tags": ["red"]} | yes
        tags | {"$eq": ["A", "B"]} | {"tags": ["A", "B"]} | yes
        tags | {"$eq": ["A", "B"]} | {"tags": ["A", "B", "C"]} | no
        tags | {"$eq": ["A", "B"]} | {"tags": ["B", "A"]} | no
        tags | {"$eq": ["A", "B"]} | {"tags": [["A", "B"], "C"]} | yes
        tags | {"$eq": ["A", "B"]} | {"tags": [[["A", "B"]]]} | no
        tags | {"$eq": ["A", "B"]} | {"tags": "A"} | no
        tags | {"$eq": ["A", "B"]} | {} | no
        tags | [1, 2] | {"tags": [1.0, 2.0]} | yes
        tags | [1, 2] | {"tags": ["1", "2"]} | no
        tags | [] | {"tags": []} | yes
        tags | [] | {"tags": [[]]} | yes
        tags | [] | {"tags": ["red"]} | no
        tags | [] | {"tags": null} | no
        tags | [] | {} | no
        tags | [null] | {"tags": [null]} | yes
        tags | [null] | {"tags": []} | no
        tags | [{"n": 1}] | {"tags": [{"n": 1}]} | yes
        tags | [{"n": 1}] | {"tags": [{"n": 1, "m": 2}]} | no
        "##,
    );
}

#[test]
fn an_element_is_enough() {
    check(
        r##"
        tags | "red" | {"tags": ["blank", "red"]} | yes
        tags | "red" | {"tags": ["red"]} | yes
        tags | "red" | {"tags": "red"} | yes
        tags | "red" | {"tags": ["blue"]} | no
        tags | "red" | {"tags": []} | no
        tags | "red" | {"tags": {"0": "red"}} | no
        tags | {"$eq": "B"} | {"tags": ["A", "B"]} | yes
        tags | {"$eq": "B"} | {"tags": [["A", "B"], "C"]} | no
        tags | {"$eq": "C"} | {"tags": [["A", "B"], "C"]} | yes
        dims | {"$gt": 25} | {"dims": [14, 30]} | yes
        dims | {"$gt": 25} | {"dims": [14, 21]} | no
        dims | {"$gt": 25} | {"dims": 30} | yes
        dims | {"$gt": 25} | {"dims": []} | no
        dims | {"$gt": 25} | {"dims": ["30", 10]} | no
        dims | {"$gt": 25} | {"dims": [[30]]} | no
        "##,
    );
}

#[test]
fn each_of_several_conditions_may_hold_for_another_element() {
    check(
        r##"
        dims | {"$gt": 15, "$lt": 20} | {"dims": [16]} | yes
        dims | {"$gt": 15, "$lt": 20} | {"dims": [14, 21]} | yes
        dims | {"$gt": 15, "$lt": 20} | {"dims": [10, 16.5]} | yes
        dims | {"$gt": 15, "$lt": 20} | {"dims": [21, 22]} | no
        dims | {"$gt": 15, "$lt": 20} | {"dims": [10, 15]} | no
        dims | {"$gt": 15, "$lt": 20} | {"dims": 21} | no
        dims | {"$gt": 15, "$lt": 20} | {"dims": []} | no
        dims | {"$elemMatch": {"$gt": 15, "$lt": 20}} | {"dims": [14, 21]} | no
        dims | {"$elemMatch": {"$gt": 15, "$lt": 20}} | {"dims": [14, 16, 21]} | yes
        dims | {"$gte": 5, "$ne": 7} | {"dims": [5, 7]} | no
        dims | {"$gte": 5, "$ne": 7} | {"dims": [5, 8]} | yes
        dims | {"$in": [1, 2], "$nin": [3]} | {"dims": [1, 3]} | no
        dims | {"$in": [1, 2], "$nin": [3]} | {"dims": [1, 4]} | yes
        dims | {"$size": 2, "$gt": 10} | {"dims": [1, 11]} | yes
        dims | {"$size": 2, "$gt": 10} | {"dims": [1, 2, 11]} | no
        stock.qty | {"$gt": 10, "$lte": 20} | {"stock": [{"qty": 5}, {"qty": 35}]} | yes
        stock.qty | {"$gt": 10, "$lte": 20} | {"stock": [{"qty": 15}]} | yes
        stock.qty | {"$gt": 10, "$lte": 20} | {"stock": [{"qty": 40}, {"qty": 35}]} | no
        stock | {"$elemMatch": {"qty": {"$gt": 10, "$lte": 20}}} | {"stock": [{"qty": 5}, {"qty": 35}]} | no
        "##,
    );
}

#[test]
fn an_array_in_an_array_is_one_element() {
    check(
        r##"
        grid | [1, 2] | {"grid": [[1, 2], [3, 4]]} | yes
        grid | [3, 4] | {"grid": [[1, 2], [3, 4]]} | yes
        grid | [2, 1] | {"grid": [[1, 2], [3, 4]]} | no
        grid | [[1, 2], [3, 4]] | {"grid": [[1, 2], [3, 4]]} | yes
        grid | [[3, 4], [1, 2]] | {"grid": [[1, 2], [3, 4]]} | no
        grid | 1 | {"grid": [[1, 2], [3, 4]]} | no
        grid | 1 | {"grid": [[1, 2], 1]} | yes
        grid | {"$in": [[3, 4], 9]} | {"grid": [[1, 2], [3, 4]]} | yes
        grid | {"$in": [1, 2]} | {"grid": [[1, 2], [3, 4]]} | no
        grid | {"$nin": [1, 2]} | {"grid": [[1, 2], [3, 4]]} | yes
        grid | {"$ne": [1, 2]} | {"grid": [[1, 2], [3, 4]]} | no
        grid | {"$ne": 1} | {"grid": [[1, 2], [3, 4]]} | yes
        grid | [[1]] | {"grid": [[[1]]]} | yes
        grid | [1] | {"grid": [[[1]]]} | no
        grid | [] | {"grid": [[], [1]]} | yes
        "##,
    );
}

#[test]
fn values_may_stand_more_than_once() {
    check(
        r##"
        tags | "x" | {"tags": ["x", "x"]} | yes
        tags | ["x", "x"] | {"tags": ["x", "x"]} | yes
        tags | ["x", "x"] | {"tags": ["x"]} | no
        tags | ["x"] | {"tags": ["x", "x"]} | no
        tags | {"$size": 2} | {"tags": ["x", "x"]} | yes
        tags | {"$in": ["x", "x"]} | {"tags": ["x"]} | yes
        tags | {"$nin": ["x", "x"]} | {"tags": ["y", "y"]} | yes
        tags | {"$all": ["x", "x"]} | {"tags": ["x"]} | yes
        tags | {"$all": ["x", "x"]} | {"tags": "x"} | yes
        tags | {"$all": [1, 1.0]} | {"tags": [1]} | yes
        tags | {"$all": ["x", "y", "x"]} | {"tags": ["y", "x"]} | yes
        tags | {"$all": ["x", "y"]} | {"tags": ["x", "x", "x"]} | no
        "##,
    );
}
