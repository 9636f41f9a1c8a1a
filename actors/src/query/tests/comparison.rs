//! `$gt`, `$gte`, `$lt` and `$lte`: numbers, strings and booleans, each within its type, and arrays.

use super::check;

#[test]
fn numbers_compare_by_worth() {
    check(
        r##"
        qty | {"$gt": 20} | {"qty": 25} | yes
        qty | {"$gt": 20} | {"qty": 20} | no
        qty | {"$gt": 20} | {"qty": 20.000001} | yes
        qty | {"$gt": 20} | {"qty": 10} | no
        qty | {"$gte": 20} | {"qty": 20} | yes
        qty | {"$gte": 20} | {"qty": 20.0} | yes
        qty | {"$gte": 20} | {"qty": 19.999} | no
        qty | {"$lt": 20} | {"qty": 19} | yes
        qty | {"$lt": 20} | {"qty": 20} | no
        qty | {"$lt": 20.5} | {"qty": 20} | yes
        qty | {"$lte": 20} | {"qty": 20} | yes
        qty | {"$lte": 20} | {"qty": 21} | no
        qty | {"$lt": 0} | {"qty": -3} | yes
        qty | {"$gt": -3} | {"qty": -2.5} | yes
        qty | {"$gt": 9} | {"qty": 10} | yes
        qty | {"$gte": 10, "$lte": 20} | {"qty": 10} | yes
        qty | {"$gte": 10, "$lte": 20} | {"qty": 20} | yes
        qty | {"$gte": 10, "$lte": 20} | {"qty": 21} | no
        qty | {"$gt": 10, "$lt": 10} | {"qty": 10} | no
        carrier.fee | {"$gt": 2} | {"carrier": {"fee": 3}} | yes
        carrier.fee | {"$gt": 2} | {"carrier": {"fee": 2}} | no
        carrier.fee | {"$gt": 2} | {"carrier": {"name": "post"}} | no
        carrier.fee | {"$lte": 5} | {"carrier": {"fee": 5}} | yes
        "##,
    );
}

#[test]
fn strings_compare_byte_by_byte() {
    check(
        r##"
        name | {"$gt": "apple"} | {"name": "banana"} | yes
        name | {"$gt": "apple"} | {"name": "apple"} | no
        name | {"$gt": "apple"} | {"name": "apples"} | yes
        name | {"$gt": "apple"} | {"name": "Banana"} | no
        name | {"$lt": "apple"} | {"name": "Zebra"} | yes
        name | {"$lt": "apple"} | {"name": ""} | yes
        name | {"$lt": "9"} | {"name": "10"} | yes
        name | {"$gte": ""} | {"name": ""} | yes
        name | {"$gte": ""} | {"name": "anything"} | yes
        name | {"$lte": "b"} | {"name": "b"} | yes
        name | {"$lte": "b"} | {"name": "ba"} | no
        name | {"$gte": "m", "$lt": "n"} | {"name": "mongo"} | yes
        name | {"$gte": "m", "$lt": "n"} | {"name": "nats"} | no
        name | {"$gt": "z"} | {"name": "ä"} | yes
        name | {"$gt": "a b"} | {"name": "a-b"} | yes
        "##,
    );
}

#[test]
fn a_comparison_stays_within_the_type_of_its_operand() {
    check(
        r##"
        qty | {"$lt": 5} | {"qty": "1"} | no
        qty | {"$lt": 5} | {"qty": null} | no
        qty | {"$lt": 5} | {"qty": false} | no
        qty | {"$lt": 5} | {"qty": []} | no
        qty | {"$gt": 5} | {"qty": "9"} | no
        qty | {"$gt": 5} | {"qty": true} | no
        qty | {"$gt": 5} | {"qty": {}} | no
        qty | {"$gt": 5} | {"qty": {"n": 9}} | no
        qty | {"$gt": 5} | {} | no
        qty | {"$gt": "5"} | {"qty": 9} | no
        qty | {"$gte": "5"} | {"qty": "5"} | yes
        qty | {"$gt": ""} | {"qty": true} | no
        qty | {"$gt": ""} | {"qty": ["a"]} | yes
        qty | {"$gt": ""} | {"qty": [1, true, null]} | no
        qty | {"$lt": true} | {"qty": false} | yes
        qty | {"$lt": true} | {"qty": 0} | no
        qty | {"$gt": false} | {"qty": 1} | no
        qty | {"$gte": true} | {"qty": true} | yes
        qty | {"$lte": false} | {"qty": false} | yes
        qty | {"$lte": false} | {"qty": true} | no
        qty | {"$lte": false} | {"qty": null} | no
        qty | {"$gt": 5} | {"qty": ["9", 6]} | yes
        qty | {"$gt": 5} | {"qty": ["9", 4]} | no
        qty | {"$gt": 1, "$lt": "z"} | {"qty": [2, "a"]} | yes
        qty | {"$gt": 1, "$lt": "z"} | {"qty": 2} | no
        "##,
    );
}

#[test]
fn arrays_compare_by_their_first_difference() {
    check(
        r##"
        version | {"$gt": [1, 2]} | {"version": [1, 3]} | yes
        version | {"$gt": [1, 2]} | {"version": [2]} | yes
        version | {"$gt": [1, 2]} | {"version": [1, 2]} | no
        version | {"$gt": [1, 2]} | {"version": [1, 1, 9]} | no
        version | {"$gt": [1, 2]} | {"version": [0, 9, 9, 9]} | no
        version | {"$gte": [1, 2]} | {"version": [1, 2]} | yes
        version | {"$gte": [1, 2]} | {"version": [1.0, 2.0]} | yes
        version | {"$gte": [1, 2]} | {"version": [1]} | no
        version | {"$lt": [1, 2]} | {"version": [1, 1]} | yes
        version | {"$lt": [1, 2]} | {"version": [1, 1, 9]} | yes
        version | {"$lt": [1, 2]} | {"version": [0, 99]} | yes
        version | {"$lt": [1, 2]} | {"version": [1, 2]} | no
        version | {"$lt": [1, 2]} | {"version": [10, 0]} | no
        version | {"$lte": [1, 2]} | {"version": [1, 2]} | yes
        version | {"$lte": [1, 2]} | {"version": [1, 2.5]} | no
        version | {"$gt": ["a", "b"]} | {"version": ["a", "c"]} | yes
        version | {"$gt": ["a", "b"]} | {"version": ["B", "z"]} | no
        version | {"$gt": [false]} | {"version": [true]} | yes
        version | {"$gte": [1, 2], "$lt": [2]} | {"version": [1, 9, 3]} | yes
        version | {"$gte": [1, 2], "$lt": [2]} | {"version": [2]} | no
        "##,
    );
}

#[test]
fn of_arrays_that_begin_alike_the_longer_is_above() {
    check(
        r##"
        version | {"$gt": [1, 2]} | {"version": [1, 2, 0]} | yes
        version | {"$gt": [1, 2]} | {"version": [1, 2, null]} | yes
        version | {"$lt": [1, 2]} | {"version": [1]} | yes
        version | {"$lt": [1, 2]} | {"version": []} | yes
        version | {"$lt": [1, 2, 0]} | {"version": [1, 2]} | yes
        version | {"$lte": [1, 2]} | {"version": [1, 2, -1]} | no
        version | {"$gt": []} | {"version": [null]} | yes
        version | {"$gt": []} | {"version": []} | no
        version | {"$gte": []} | {"version": []} | yes
        version | {"$lt": []} | {"version": []} | no
        version | {"$lte": []} | {"version": []} | yes
        version | {"$lte": []} | {"version": [0]} | no
        "##,
    );
}

#[test]
fn inside_arrays_types_have_an_order_too() {
    check(
        r##"
        row | {"$lt": [0]} | {"row": [null]} | yes
        row | {"$lt": [-1e300]} | {"row": [null]} | yes
        row | {"$lt": [""]} | {"row": [1e300]} | yes
        row | {"$gt": [1e300]} | {"row": [""]} | yes
        row | {"$lt": [""]} | {"row": [null]} | yes
        row | {"$gt": ["z"]} | {"row": [{}]} | yes
        row | {"$gt": [9]} | {"row": [{"n": 1}]} | yes
        row | {"$lt": [[]]} | {"row": [{"n": 1}]} | yes
        row | {"$lt": [true]} | {"row": [{"n": 1}]} | yes
        row | {"$gt": [[]]} | {"row": [{"n": 1}]} | no
        row | {"$lt": [[]]} | {"row": ["z"]} | yes
        row | {"$gt": ["z"]} | {"row": [[]]} | yes
        row | {"$gt": [1]} | {"row": [[0]]} | yes
        row | {"$lt": [false]} | {"row": [[9]]} | yes
        row | {"$gt": [[9]]} | {"row": [false]} | yes
        row | {"$gt": [1]} | {"row": [false]} | yes
        row | {"$gt": ["z"]} | {"row": [false]} | yes
        row | {"$lt": [false]} | {"row": [1]} | yes
        row | {"$gt": [1, "a"]} | {"row": [1, 2]} | no
        row | {"$lt": [1, "a"]} | {"row": [1, 2]} | yes
        row | {"$gt": [1, null]} | {"row": [1, 0]} | yes
        row | {"$lte": [1, null]} | {"row": [1]} | yes
        "##,
    );
}

#[test]
fn an_array_compares_with_arrays_whole_or_as_elements_only() {
    check(
        r##"
        row | {"$gt": [1]} | {"row": 2} | no
        row | {"$gte": [1]} | {"row": 1} | no
        row | {"$lt": [1]} | {"row": 0} | no
        row | {"$lt": [1]} | {"row": null} | no
        row | {"$lt": [1]} | {} | no
        row | {"$gt": [1]} | {"row": "z"} | no
        row | {"$gt": [1]} | {"row": true} | no
        row | {"$gt": [1]} | {"row": {"0": 2}} | no
        row | {"$gt": 1} | {"row": [[2]]} | no
        row | {"$lt": [3]} | {"row": [[1], [5]]} | yes
        row | {"$gt": [3]} | {"row": [[1], [5]]} | yes
        row | {"$lte": [1]} | {"row": [[1]]} | yes
        row | {"$lt": [1]} | {"row": [[1]]} | no
        row | {"$lt": [[1]]} | {"row": [[0]]} | yes
        row | {"$gt": [[1]]} | {"row": [[0]]} | no
        row | {"$gt": [[1], 2]} | {"row": [[1], 3]} | yes
        row | {"$lt": [2]} | {"row": [5, [1]]} | yes
        row | {"$lt": [2]} | {"row": [5, [3]]} | no
        row | {"$lt": [2]} | {"row": [5, [[1]]]} | no
        row.0 | {"$lt": [2]} | {"row": [[1], [3]]} | yes
        row.1 | {"$lt": [2]} | {"row": [[1], [3]]} | no
        row.0 | {"$lt": [[2]]} | {"row": [[[1]]]} | yes
        row.0 | {"$gt": [2]} | {"row": [[[1]]]} | yes
        row.0 | {"$lt": [2]} | {"row": [[[1]]]} | no
        rows.at | {"$gte": [2, 0]} | {"rows": [{"at": [1, 9]}, {"at": [2, 1]}]} | yes
        rows.at | {"$gte": [2, 0]} | {"rows": [{"at": [1, 9]}, {"at": 3}]} | no
        row | {"$not": {"$gt": [1]}} | {"row": [0, 5]} | yes
        row | {"$not": {"$gt": [1]}} | {"row": [2]} | no
        row | {"$not": {"$gt": [1]}} | {"row": 2} | yes
        row | {"$not": {"$gt": [1]}} | {} | yes
        row | {"$elemMatch": {"$gt": [1]}} | {"row": [[2]]} | yes
        row | {"$elemMatch": {"$gt": [1]}} | {"row": [2, 3]} | no
        row | {"$elemMatch": {"$gte": [1, 0], "$lt": [2]}} | {"row": [[0], [1, 5]]} | yes
        row | {"$elemMatch": {"$gte": [1, 0], "$lt": [2]}} | {"row": [[0], [2]]} | no
        "##,
    );
}
