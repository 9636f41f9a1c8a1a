//! `$and`, `$or`, `$nor` and `$not`.

use serde_json::json;

use super::{check, check_filter, check_filters, is_yes, lines, read, tool};

#[test]
fn what_is_denied_holds_for_what_is_missing() {
    check(
        r##"
        a | {"$not": {"$gt": 1}} | {} | yes
        a | {"$not": {"$gt": 1}} | {"a": 1} | yes
        a | {"$not": {"$gt": 1}} | {"a": [0, 2]} | no
        a | {"$not": {"$gt": 1, "$lt": 3}} | {"a": 5} | yes
        a | {"$not": {"$gt": 1, "$lt": 3}} | {"a": 2} | no
        a | {"$not": {"$not": {"$eq": 1}}} | {"a": 1} | yes
        a | {"$not": {"$regex": "x"}} | {"a": 1} | yes
        a | {"$not": {"$exists": true}} | {} | yes
        a | {"$not": {"$size": 1}, "$exists": true} | {"a": [1]} | no
        price | {"$not": {"$gt": 1.99}} | {"price": 1.99} | yes
        price | {"$not": {"$gt": 1.99}} | {"price": 2} | no
        price | {"$not": {"$gt": 1.99}} | {} | yes
        price | {"$not": {"$gt": 1.99}} | {"price": "9"} | yes
        price | {"$not": {"$gt": 1.99}} | {"price": null} | yes
        price | {"$lte": 1.99} | {"price": "9"} | no
        price | {"$not": {"$eq": 5}} | {"price": 5} | no
        price | {"$not": {"$eq": 5}} | {"price": [4, 5]} | no
        price | {"$not": {"$ne": 5}} | {"price": 5} | yes
        price | {"$not": {"$ne": 5}} | {"price": 4} | no
        price | {"$not": {"$ne": 5}} | {} | no
        price | {"$not": {"$in": [1, 2]}} | {"price": 3} | yes
        price | {"$not": {"$in": [1, 2]}} | {"price": [3, 2]} | no
        price | {"$not": {"$nin": [1, 2]}} | {"price": 2} | yes
        price | {"$not": {"$in": []}} | {"price": 2} | yes
        price | {"$not": {"$gt": 5, "$lt": 9}} | {"price": [4, 10]} | no
        price | {"$not": {"$gt": 5, "$lt": 9}} | {"price": [9, 10]} | yes
        price | {"$not": {"$not": {"$gt": 5}}} | {} | no
        price | {"$not": {"$not": {"$gt": 5}}} | {"price": [1, 6]} | yes
        price | {"$not": {"$gt": 5}, "$lt": 3} | {"price": 2} | yes
        price | {"$not": {"$gt": 5}, "$lt": 3} | {} | no
        shop.price | {"$not": {"$gt": 5}} | {"shop": [{"price": 1}, {"price": 6}]} | no
        shop.price | {"$not": {"$gt": 5}} | {"shop": [{"price": 1}, {}]} | yes
        "##,
    );
}

#[test]
fn all_that_stands_side_by_side_must_hold() {
    check_filters(
        r##"
        {"@price": 5, "@sale": true} | {"price": 5, "sale": true} | yes
        {"@price": 5, "@sale": true} | {"price": 5, "sale": false} | no
        {"@price": 5, "@sale": true} | {"price": 5} | no
        {"@price": {"$ne": 1.99, "$exists": true}} | {"price": 2} | yes
        {"@price": {"$ne": 1.99, "$exists": true}} | {"price": 1.99} | no
        {"@price": {"$ne": 1.99, "$exists": true}} | {} | no
        {"$and": [{"@price": {"$ne": 1.99}}, {"@price": {"$exists": true}}]} | {"price": null} | yes
        {"$and": [{"@price": {"$ne": 1.99}}, {"@price": {"$exists": true}}]} | {} | no
        {"$and": [{"@tags": "a"}, {"@tags": "b"}]} | {"tags": ["b", "a"]} | yes
        {"$and": [{"@tags": "a"}, {"@tags": "b"}]} | {"tags": ["a"]} | no
        {"$and": [{"@n": {"$gt": 1}}, {"@n": {"$gt": 5}}]} | {"n": 3} | no
        {"$and": [{"@n": {"$gt": 1}}, {"@n": {"$gt": 5}}]} | {"n": 6} | yes
        {"$and": [{"@n": 1}]} | {"n": 1} | yes
        {"$and": [{}]} | {"n": 1} | yes
        {"$and": [{"@n": 1}, {}]} | {"n": 2} | no
        {"$and": [{"@n": {"$ne": 1}}], "@m": 2} | {"n": 2, "m": 2} | yes
        {"$and": [{"@n": {"$ne": 1}}], "@m": 2} | {"n": 1, "m": 2} | no
        {"$and": [{"@n": {"$regex": "^a"}}, {"@n": {"$regex": "z$"}}]} | {"n": "abz"} | yes
        {"$and": [{"@n": {"$regex": "^a"}}, {"@n": {"$regex": "z$"}}]} | {"n": "az!"} | no
        {"$and": [{"@n": {"$regex": "^a"}}, {"@n": {"$regex": "z$"}}]} | {"n": ["a", "z"]} | yes
        "##,
    );
}

#[test]
fn one_of_several_filters_is_enough() {
    check_filters(
        r##"
        {"$or": [{"@qty": {"$lt": 20}}, {"@price": 10}]} | {"qty": 10, "price": 1} | yes
        {"$or": [{"@qty": {"$lt": 20}}, {"@price": 10}]} | {"qty": 30, "price": 10} | yes
        {"$or": [{"@qty": {"$lt": 20}}, {"@price": 10}]} | {"qty": 10, "price": 10} | yes
        {"$or": [{"@qty": {"$lt": 20}}, {"@price": 10}]} | {"qty": 30, "price": 1} | no
        {"$or": [{"@qty": {"$lt": 20}}, {"@price": 10}]} | {"price": 10} | yes
        {"$or": [{"@qty": {"$lt": 20}}, {"@price": 10}]} | {} | no
        {"$or": [{"@qty": {"$exists": false}}, {"@qty": {"$gt": 5}}]} | {} | yes
        {"$or": [{"@qty": {"$exists": false}}, {"@qty": {"$gt": 5}}]} | {"qty": 5} | no
        {"$or": [{"@qty": {"$ne": 1}}, {"@qty": 1}]} | {"qty": 1} | yes
        {"$or": [{"@qty": 1}]} | {"qty": 1} | yes
        {"$or": [{"@qty": 1}, {}]} | {} | yes
        {"$or": [{"@qty": null}, {"@n": 1}]} | {} | yes
        {"$or": [{"@tags": "a", "@n": 1}, {"@tags": "b", "@n": 2}]} | {"tags": ["a", "b"], "n": 2} | yes
        {"$or": [{"@tags": "a", "@n": 1}, {"@tags": "b", "@n": 2}]} | {"tags": ["a"], "n": 2} | no
        "##,
    );
    check_filter(
        r##"{"@status": "A", "$or": [{"@qty": {"$lt": 30}}, {"@item": {"$regex": "^p"}}]}"##,
        r##"
        {"status": "A", "item": "paper", "qty": 99} | yes
        {"status": "A", "item": "tray", "qty": 9} | yes
        {"status": "A", "item": "tray", "qty": 99} | no
        {"status": "D", "item": "paper", "qty": 9} | no
        "##,
    );
}

#[test]
fn none_of_several_filters_may_hold() {
    check_filters(
        r##"
        {"$nor": [{"@price": 1.99}, {"@sale": true}]} | {"price": 2, "sale": false} | yes
        {"$nor": [{"@price": 1.99}, {"@sale": true}]} | {"price": 2} | yes
        {"$nor": [{"@price": 1.99}, {"@sale": true}]} | {"sale": false} | yes
        {"$nor": [{"@price": 1.99}, {"@sale": true}]} | {} | yes
        {"$nor": [{"@price": 1.99}, {"@sale": true}]} | {"price": 1.99} | no
        {"$nor": [{"@price": 1.99}, {"@sale": true}]} | {"price": 2, "sale": true} | no
        {"$nor": [{"@price": 1.99}, {"@qty": {"$lt": 20}}, {"@sale": true}]} | {"price": 2, "qty": 20} | yes
        {"$nor": [{"@price": 1.99}, {"@qty": {"$lt": 20}}, {"@sale": true}]} | {"price": 2, "qty": 19} | no
        {"$nor": [{"@price": 1.99}, {"@price": {"$exists": false}}]} | {"price": 2} | yes
        {"$nor": [{"@price": 1.99}, {"@price": {"$exists": false}}]} | {} | no
        {"$nor": [{"@price": 1.99}, {"@price": {"$exists": false}}]} | {"price": null} | yes
        {"$nor": [{"@price": 1.99, "@sale": true}]} | {"price": 1.99} | yes
        {"$nor": [{"@price": 1.99, "@sale": true}]} | {"price": 1.99, "sale": true} | no
        {"$nor": [{"@tags": "a"}]} | {"tags": ["b", "a"]} | no
        {"$nor": [{"@tags": {"$ne": "a"}}]} | {"tags": ["b", "a"]} | yes
        {"$nor": [{"@price": null}]} | {} | no
        {"$nor": [{}]} | {} | no
        {"$nor": [{"@price": {"$gt": 1}}, {"@price": {"$lt": 1}}]} | {"price": "x"} | yes
        {"$nor": [{"@price": {"$gt": 1}}, {"@price": {"$lt": 1}}]} | {"price": 2} | no
        "##,
    );
    let table = r##"
        {"$nor": [{"tool_id": "a"}, {"tool_id": "b"}]} | yes
        {"$nor": [{"tool_id": "a"}, {"tool_id": "t"}]} | no
        {"$nor": [{"tool_id": "t", "tool_description": "x"}]} | yes
        {"$nor": [{"tool_metadata.a": null}]} | no
        {"$nor": [{"$nor": [{"tool_id": "t"}]}], "tool_id": "t"} | yes
    "##;
    let document = json!({ "tool_id": "t" });
    for [body, expected] in lines(table) {
        assert_eq!(tool(&read(body)).matches(&document), is_yes(expected), "{body}");
    }
}

#[test]
fn logic_nests() {
    check_filters(
        r##"
        {"$or": [{"$and": [{"@a": 1}, {"@b": 2}]}, {"$and": [{"@a": 2}, {"@b": 1}]}]} | {"a": 2, "b": 1} | yes
        {"$or": [{"$and": [{"@a": 1}, {"@b": 2}]}, {"$and": [{"@a": 2}, {"@b": 1}]}]} | {"a": 1, "b": 1} | no
        {"$nor": [{"$and": [{"@a": 1}, {"@b": 2}]}]} | {"a": 1, "b": 1} | yes
        {"$nor": [{"$or": [{"@a": 1}, {"@b": 2}]}]} | {"a": 1, "b": 1} | no
        {"$nor": [{"$nor": [{"@a": 1}]}]} | {"a": 1} | yes
        {"$nor": [{"$nor": [{"@a": 1}]}]} | {"a": 2} | no
        {"$or": [{"$nor": [{"@a": 1}]}, {"@b": 2}]} | {"a": 1, "b": 2} | yes
        {"$or": [{"$nor": [{"@a": 1}]}, {"@b": 2}]} | {} | yes
        {"$or": [{"$nor": [{"@a": 1}]}, {"@b": 2}]} | {"a": 1} | no
        {"$and": [{"$and": [{"$and": [{"@a": 1}]}]}]} | {"a": 1} | yes
        {"$or": [{"@a": {"$not": {"$gt": 1}}}, {"@b": {"$in": [1, 2]}}]} | {"a": 5, "b": 2} | yes
        {"$or": [{"@a": {"$not": {"$gt": 1}}}, {"@b": {"$in": [1, 2]}}]} | {"a": 5, "b": 3} | no
        {"$or": [{"@a": {"$elemMatch": {"$gt": 1, "$lt": 3}}}, {"@b": {"$size": 1}}]} | {"a": [0, 4], "b": [1]} | yes
        {"$or": [{"@a": {"$elemMatch": {"$gt": 1, "$lt": 3}}}, {"@b": {"$size": 1}}]} | {"a": [0, 4], "b": []} | no
        "##,
    );
    check_filter(
        r##"{"$and": [{"$or": [{"@qty": {"$lt": 10}}, {"@qty": {"$gt": 50}}]}, {"$or": [{"@sale": true}, {"@price": {"$lt": 5}}]}]}"##,
        r##"
        {"qty": 60, "price": 4} | yes
        {"qty": 20, "price": 4} | no
        {"qty": 5, "price": 5} | no
        {"qty": 5, "sale": true, "price": 9} | yes
        {"sale": true, "price": 4} | no
        "##,
    );
}
