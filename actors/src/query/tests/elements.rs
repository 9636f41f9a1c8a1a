//! `$elemMatch`: one element that is all that is asked, a plain value or an object.

use super::{check, check_filter};

#[test]
fn one_element_has_to_be_all_that_is_asked() {
    check(
        r##"
        a | {"$elemMatch": {"$gt": 1, "$lt": 3}} | {"a": [0, 2]} | yes
        a | {"$elemMatch": {"$gt": 1, "$lt": 3}} | {"a": [0, 4]} | no
        a | {"$gt": 1, "$lt": 3} | {"a": [0, 4]} | yes
        a | {"$elemMatch": {"$gt": 1}} | {"a": 2} | no
        a | {"$elemMatch": {"$gt": 1}} | {"a": [[2]]} | no
        a | {"$elemMatch": {"$elemMatch": {"$gt": 1}}} | {"a": [[2]]} | yes
        a | {"$elemMatch": {"b": 1, "c": 2}} | {"a": [{"b": 1}, {"c": 2}]} | no
        a | {"$elemMatch": {"b": 1, "c": 2}} | {"a": [{"b": 1, "c": 2}]} | yes
        a | {"$elemMatch": {"b.c": {"$in": [1, 2]}}} | {"a": [{"b": [{"c": 2}]}]} | yes
        a | {"$elemMatch": {"b": null}} | {"a": [{}]} | yes
        a | {"$elemMatch": {"b": null}} | {"a": [1]} | no
        a | {"$elemMatch": {"$or": [{"b": 1}, {"c": 1}]}} | {"a": [{"c": 1}]} | yes
        a | {"$elemMatch": {"$nor": [{"b": 1}]}} | {"a": [{"b": 1}]} | no
        a | {"$elemMatch": {"0": 1}} | {"a": [[1]]} | yes
        a | {"$elemMatch": {"b": 1}} | {"a": [[{"b": 1}]]} | no
        a | {"$elemMatch": {"$ne": 1}} | {"a": [1]} | no
        a | {"$elemMatch": {"$ne": 1}} | {"a": [1, 2]} | yes
        a | {"$elemMatch": {"$exists": true}} | {"a": []} | no
        a | {"$not": {"$elemMatch": {"$gt": 1}}} | {"a": [1]} | yes
        a.b | {"$elemMatch": {"$eq": 1}} | {"a": [{"b": [1]}, {"b": [2]}]} | yes
        "##,
    );
}

#[test]
fn a_plain_element_is_tested_by_operators() {
    check(
        r##"
        results | {"$elemMatch": {"$gte": 80, "$lt": 85}} | {"results": [82, 85, 88]} | yes
        results | {"$elemMatch": {"$gte": 80, "$lt": 85}} | {"results": [75, 88, 89]} | no
        results | {"$elemMatch": {"$gte": 80, "$lt": 85}} | {"results": [79, 85]} | no
        results | {"$elemMatch": {"$gte": 80, "$lt": 85}} | {"results": 82} | no
        results | {"$elemMatch": {"$gte": 80, "$lt": 85}} | {"results": []} | no
        results | {"$elemMatch": {"$gte": 80, "$lt": 85}} | {} | no
        results | {"$elemMatch": {"$gte": 80, "$lt": 85}} | {"results": ["82"]} | no
        results | {"$elemMatch": {"$gte": 80, "$lt": 85}} | {"results": [[82]]} | no
        results | {"$elemMatch": {"$gte": 80, "$lt": 85}} | {"results": {"0": 82}} | no
        results | {"$elemMatch": {"$eq": "x"}} | {"results": ["x"]} | yes
        results | {"$elemMatch": {"$eq": "x"}} | {"results": "x"} | no
        results | {"$elemMatch": {"$in": [1, 2]}} | {"results": [3, 2]} | yes
        results | {"$elemMatch": {"$nin": [1, 2]}} | {"results": [1, 2]} | no
        results | {"$elemMatch": {"$nin": [1, 2]}} | {"results": [1, 3]} | yes
        results | {"$elemMatch": {"$not": {"$gt": 5}}} | {"results": [9, 4]} | yes
        results | {"$elemMatch": {"$not": {"$gt": 5}}} | {"results": [9, 6]} | no
        results | {"$elemMatch": {"$gt": 1, "$ne": 3}} | {"results": [1, 3]} | no
        results | {"$elemMatch": {"$gt": 1, "$ne": 3}} | {"results": [3, 4]} | yes
        results | {"$elemMatch": {"$regex": "^x", "$ne": "x"}} | {"results": ["x", "y"]} | no
        results | {"$elemMatch": {"$regex": "^x", "$ne": "x"}} | {"results": ["xy"]} | yes
        results | {"$elemMatch": {"$type": "string"}} | {"results": [1, "a"]} | yes
        results | {"$elemMatch": {"$type": "string"}} | {"results": [1]} | no
        results | {"$elemMatch": {"$exists": true}} | {"results": [null]} | yes
        results | {"$elemMatch": {"$eq": [1, 2]}} | {"results": [[1, 2]]} | yes
        results | {"$elemMatch": {"$eq": [1, 2]}} | {"results": [1, 2]} | no
        results | {"$elemMatch": {"$size": 2}} | {"results": [[1, 2]]} | yes
        results | {"$elemMatch": {"$size": 2}} | {"results": [1, 2]} | no
        results | {"$elemMatch": {"$elemMatch": {"$gt": 5, "$lt": 7}}} | {"results": [[1], [6]]} | yes
        results | {"$elemMatch": {"$elemMatch": {"$gt": 5, "$lt": 7}}} | {"results": [[1, 9]]} | no
        results | {"$not": {"$elemMatch": {"$gte": 80}}} | {"results": [70, 90]} | no
        results | {"$not": {"$elemMatch": {"$gte": 80}}} | {"results": [70]} | yes
        results | {"$not": {"$elemMatch": {"$gte": 80}}} | {"results": 90} | yes
        results | {"$not": {"$elemMatch": {"$gte": 80}}} | {} | yes
        run.results | {"$elemMatch": {"$gt": 1, "$lt": 3}} | {"run": {"results": [2]}} | yes
        run.results | {"$elemMatch": {"$gt": 1, "$lt": 3}} | {"run": [{"results": [0]}, {"results": [2]}]} | yes
        run.results | {"$elemMatch": {"$gt": 1, "$lt": 3}} | {"run": [{"results": [0, 4]}]} | no
        "##,
    );
}

#[test]
fn an_element_that_is_an_object_is_tested_by_a_filter() {
    check(
        r##"
        marks | {"$elemMatch": {"by": "ann"}} | {"marks": [{"by": "ann", "n": 5}]} | yes
        marks | {"$elemMatch": {"by": "ann"}} | {"marks": ["ann"]} | no
        marks | {"$elemMatch": {"by": {"$ne": "ann"}}} | {"marks": [{"by": "ann"}, {"by": "bob"}]} | yes
        marks | {"$elemMatch": {"by": {"$ne": "ann"}}} | {"marks": [{"by": "ann"}]} | no
        marks | {"$elemMatch": {"by": {"$ne": "ann"}}} | {"marks": [{"n": 1}]} | yes
        marks | {"$elemMatch": {"by": {"$ne": "ann"}}} | {"marks": []} | no
        marks.by | {"$ne": "ann"} | {"marks": [{"by": "ann"}, {"by": "bob"}]} | no
        marks | {"$elemMatch": {"n": {"$gt": 5, "$lt": 8}}} | {"marks": [{"n": 5}, {"n": 8}]} | no
        marks | {"$elemMatch": {"n": {"$gt": 5, "$lt": 8}}} | {"marks": [{"n": 6}]} | yes
        marks | {"$elemMatch": {"n": {"$gt": 5, "$lt": 8}}} | {"marks": [{"n": [8, 9]}]} | no
        marks | {"$elemMatch": {"n": {"$gt": 5, "$lt": 8}}} | {"marks": [{"n": [4, 9]}]} | yes
        marks | {"$elemMatch": {"by.team": "ops"}} | {"marks": [{"by": {"team": "ops"}}]} | yes
        marks | {"$elemMatch": {"by.team": "ops"}} | {"marks": [{"by": [{"team": "dev"}, {"team": "ops"}]}]} | yes
        marks | {"$elemMatch": {"by": {"team": "ops"}}} | {"marks": [{"by": {"team": "ops", "n": 1}}]} | no
        marks | {"$elemMatch": {"n": {"$exists": false}}} | {"marks": [{"n": 1}, {"by": "ann"}]} | yes
        marks | {"$elemMatch": {"n": {"$exists": false}}} | {"marks": [{"n": 1}]} | no
        marks | {"$elemMatch": {"on": {"$all": [1, 2]}}} | {"marks": [{"on": [1]}, {"on": [2]}]} | no
        marks | {"$elemMatch": {"on": {"$all": [1, 2]}}} | {"marks": [{"on": [2, 1]}]} | yes
        marks | {"$elemMatch": {"$and": [{"n": {"$gt": 1}}, {"n": {"$lt": 3}}]}} | {"marks": [{"n": 2}]} | yes
        marks | {"$elemMatch": {"$or": [{"n": 1}, {"m": 1}], "k": 2}} | {"marks": [{"m": 1, "k": 2}]} | yes
        marks | {"$elemMatch": {"$or": [{"n": 1}, {"m": 1}], "k": 2}} | {"marks": [{"m": 1}, {"k": 2}]} | no
        marks | {"$elemMatch": {"$nor": [{"n": 1}, {"m": 1}]}} | {"marks": [{"n": 1}, {"k": 1}]} | yes
        marks | {"$elemMatch": {}} | {"marks": [{"n": 1}]} | yes
        marks | {"$elemMatch": {}} | {"marks": [1]} | no
        marks | {"$elemMatch": {}} | {"marks": []} | no
        marks | {"$not": {"$elemMatch": {"n": 1}}} | {"marks": [{"n": 2}]} | yes
        marks | {"$not": {"$elemMatch": {"n": 1}}} | {"marks": [{"n": 2}, {"n": 1}]} | no
        marks | {"$elemMatch": {"n": 1}, "$size": 2} | {"marks": [{"n": 1}, {"n": 2}]} | yes
        marks | {"$elemMatch": {"n": 1}, "$size": 2} | {"marks": [{"n": 1}]} | no
        "##,
    );
    check_filter(
        r##"{"@marks": {"$elemMatch": {"by": "ann", "n": {"$gte": 8}}}}"##,
        r##"
        {"marks": [{"by": "bob", "n": 10}, {"by": "ann", "n": 8}]} | yes
        {"marks": [{"by": "bob", "n": 10}, {"by": "ann", "n": 5}]} | no
        {"marks": {"by": "ann", "n": 9}} | no
        "##,
    );
    check_filter(
        r##"{"@marks": {"$elemMatch": {"on": {"$elemMatch": {"n": 1, "m": 2}}}}}"##,
        r##"
        {"marks": [{"on": [{"n": 1, "m": 2}]}]} | yes
        {"marks": [{"on": [{"n": 1}, {"m": 2}]}]} | no
        {"marks": [{"on": [{"n": 1}]}, {"on": [{"m": 2}]}]} | no
        "##,
    );
    check_filter(
        r##"{"@year.marks": {"$elemMatch": {"n": 1, "m": 1}}}"##,
        r##"
        {"year": [{"marks": [{"n": 1}]}, {"marks": [{"n": 1, "m": 1}]}]} | yes
        "##,
    );
}
