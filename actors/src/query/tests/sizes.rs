//! `$size` and `$exists`.

use super::check;

#[test]
fn an_array_has_so_many_elements() {
    check(
        r##"
        a | {"$size": 2} | {"a": [1, 2]} | yes
        a | {"$size": 2.0} | {"a": [[1], [2]]} | yes
        a | {"$size": 1} | {"a": [[1, 2]]} | yes
        a | {"$size": 2} | {"a": [[1, 2]]} | no
        a | {"$size": 0} | {"a": []} | yes
        a | {"$size": 0} | {} | no
        a | {"$size": 1} | {"a": "x"} | no
        a.b | {"$size": 1} | {"a": [{"b": [1]}, {"b": 2}]} | yes
        colors | {"$size": 2} | {"colors": ["red", "green"]} | yes
        colors | {"$size": 2} | {"colors": ["apple", "lime"]} | yes
        colors | {"$size": 2} | {"colors": "orange"} | no
        colors | {"$size": 2} | {"colors": ["red", "green", "blue"]} | no
        colors | {"$size": 2} | {"colors": ["red"]} | no
        colors | {"$size": 2} | {"colors": "ab"} | no
        colors | {"$size": 2} | {"colors": {"0": 1, "1": 2}} | no
        colors | {"$size": 2} | {"colors": 2} | no
        colors | {"$size": 1} | {"colors": [null]} | yes
        colors | {"$size": 1} | {"colors": [[]]} | yes
        colors | {"$size": 1} | {"colors": null} | no
        colors | {"$size": 0} | {"colors": [[]]} | no
        colors | {"$size": 3} | {"colors": [1, 1, 1]} | yes
        shop.colors | {"$size": 2} | {"shop": {"colors": [1, 2]}} | yes
        shop.colors | {"$size": 2} | {"shop": [{"colors": [1]}, {"colors": [1, 2]}]} | yes
        shop.colors | {"$size": 2} | {"shop": [{"colors": [1]}, {"colors": [2]}]} | no
        grid.0 | {"$size": 3} | {"grid": [[1, 2, 3], [4]]} | yes
        grid.1 | {"$size": 3} | {"grid": [[1, 2, 3], [4]]} | no
        colors | {"$not": {"$size": 2}} | {"colors": [1]} | yes
        colors | {"$not": {"$size": 2}} | {"colors": [1, 2]} | no
        colors | {"$not": {"$size": 2}} | {"colors": "red"} | yes
        colors | {"$not": {"$size": 0}} | {} | yes
        colors | {"$exists": true, "$not": {"$size": 0}} | {"colors": []} | no
        colors | {"$exists": true, "$not": {"$size": 0}} | {"colors": [1]} | yes
        "##,
    );
}

#[test]
fn a_field_is_there_whatever_its_value() {
    check(
        r##"
        docs | {"$exists": true} | {"docs": "a page"} | yes
        docs | {"$exists": true} | {"docs": ""} | yes
        docs | {"$exists": true} | {"docs": 0} | yes
        docs | {"$exists": true} | {"docs": false} | yes
        docs | {"$exists": true} | {"docs": null} | yes
        docs | {"$exists": true} | {"docs": {}} | yes
        docs | {"$exists": true} | {"docs": [null]} | yes
        docs | {"$exists": true} | {"doc": 1} | no
        docs | {"$exists": false} | {"doc": 1} | yes
        docs | {"$exists": false} | {"docs": ""} | no
        docs | {"$exists": false} | {"docs": []} | no
        docs.url | {"$exists": true} | {"docs": {"url": null}} | yes
        docs.url | {"$exists": true} | {"docs": {}} | no
        docs.url | {"$exists": true} | {"docs": "url"} | no
        docs.url | {"$exists": true} | {"docs": ["url"]} | no
        docs.url | {"$exists": true} | {"docs": [{"url": 1}, 2]} | yes
        docs.url | {"$exists": true} | {"docs": [[{"url": 1}]]} | no
        docs.url | {"$exists": false} | {} | yes
        docs.url | {"$exists": false} | {"docs": {"url": 1}} | no
        docs.url | {"$exists": false} | {"docs": [{"url": 1}, {}]} | no
        docs.0 | {"$exists": true} | {"docs": ["a"]} | yes
        docs.0 | {"$exists": true} | {"docs": []} | no
        docs.1 | {"$exists": true} | {"docs": ["a"]} | no
        docs.1 | {"$exists": false} | {"docs": ["a"]} | yes
        docs.0 | {"$exists": true} | {"docs": "a"} | no
        docs | {"$exists": true, "$gt": 1} | {"docs": 2} | yes
        docs | {"$exists": false, "$gt": 1} | {"docs": 2} | no
        docs | {"$not": {"$exists": true}} | {} | yes
        docs | {"$not": {"$exists": false}} | {"docs": null} | yes
        docs | {"$not": {"$exists": false}} | {} | no
        "##,
    );
}
