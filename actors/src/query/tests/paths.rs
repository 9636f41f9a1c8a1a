//! Dotted paths: into objects, into arrays of objects, and to places in arrays.

use super::{check, check_filters};

#[test]
fn a_path_goes_into_objects() {
    check(
        r##"
        limits.cpu | 2 | {"limits": {"cpu": 2, "mem": 4}} | yes
        limits.cpu | 2 | {"limits": {"cpu": 4, "mem": 2}} | no
        limits.cpu | 2 | {"limits": {"mem": 2}} | no
        limits.cpu | 2 | {"cpu": 2} | no
        limits.cpu | 2 | {"limits.cpu": 2} | no
        limits.cpu | {"$lt": 15} | {"limits": {"cpu": 2}} | yes
        limits.cpu | {"$lt": 15} | {"limits": {"cpu": "2"}} | no
        limits.cpu.max | 2 | {"limits": {"cpu": {"max": 2}}} | yes
        limits.cpu.max | 2 | {"limits": {"max": 2}} | no
        limits.cpu.max.hard | {"$exists": true} | {"limits": {"cpu": {"max": {"hard": null}}}} | yes
        limits.cpu | [1, 2] | {"limits": {"cpu": [1, 2]}} | yes
        limits.cpu | 1 | {"limits": {"cpu": [1, 2]}} | yes
        limits.CPU | 2 | {"limits": {"cpu": 2}} | no
        a.b | {"c": 1} | {"a": {"b": {"c": 1}}} | yes
        a.b.c | 1 | {"a": {"b": {"c": 1}}} | yes
        "##,
    );
    check_filters(
        r##"
        {"@limits.cpu": 2, "@limits.mem": {"$gte": 4}} | {"limits": {"cpu": 2, "mem": 4}} | yes
        {"@limits.cpu": 2, "@limits.mem": {"$gte": 4}} | {"limits": {"cpu": 2, "mem": 3}} | no
        {"@size.h": {"$lt": 15}, "@size.unit": "in", "@at": "D"} | {"size": {"h": 8, "unit": "in"}, "at": "D"} | yes
        {"@size.h": {"$lt": 15}, "@size.unit": "in", "@at": "D"} | {"size": {"h": 8, "unit": "in"}, "at": "A"} | no
        {"@size.h": {"$lt": 15}, "@size.unit": "in", "@at": "D"} | {"size": {"h": 15, "unit": "in"}, "at": "D"} | no
        "##,
    );
}

#[test]
fn a_path_goes_into_the_objects_of_an_array() {
    check(
        r##"
        stock | {"at": "A", "qty": 5} | {"stock": [{"at": "A", "qty": 5}, {"at": "C", "qty": 15}]} | yes
        stock | {"at": "A", "qty": 5} | {"stock": [{"at": "A", "qty": 15}, {"at": "C", "qty": 5}]} | no
        stock.qty | {"$lte": 20} | {"stock": [{"at": "A", "qty": 60}, {"at": "B", "qty": 15}]} | yes
        stock.qty | {"$lte": 20} | {"stock": [{"at": "A", "qty": 60}]} | no
        stock.qty | {"$lte": 20} | {"stock": [{"at": "A"}]} | no
        stock.qty | {"$lte": 20} | {"stock": []} | no
        stock.qty | {"$lte": 20} | {"stock": [5]} | no
        stock.qty | {"$lte": 20} | {"stock": {"qty": 5}} | yes
        stock.qty | 5 | {"stock": [1, "x", null, {"qty": 5}]} | yes
        stock.qty | 5 | {"stock": [{"qty": [5, 6]}]} | yes
        stock.qty | [5, 6] | {"stock": [{"qty": [5, 6]}]} | yes
        stock.qty | [5, 6] | {"stock": [{"qty": 5}, {"qty": 6}]} | no
        stock.qty | 5 | {"stock": [[{"qty": 5}]]} | no
        stock.at.name | "A" | {"stock": [{"at": {"name": "A"}}]} | yes
        stock.at.name | "A" | {"stock": [{"at": [{"name": "B"}, {"name": "A"}]}]} | yes
        stock.at.name | "A" | {"stock": [{"at": [[{"name": "A"}]]}]} | no
        stock.at.name | "A" | {"stock": [{"at": "A"}]} | no
        stock | {"$elemMatch": {"qty": 5, "at": "A"}} | {"stock": [{"qty": 5, "at": "A"}]} | yes
        stock | {"$elemMatch": {"qty": 5, "at": "A"}} | {"stock": [{"qty": 5, "at": "C"}, {"qty": 15, "at": "A"}]} | no
        "##,
    );
    check_filters(
        r##"
        {"@stock.qty": 5, "@stock.at": "A"} | {"stock": [{"at": "A", "qty": 5}]} | yes
        {"@stock.qty": 5, "@stock.at": "A"} | {"stock": [{"at": "A"}, {"qty": 5}]} | yes
        {"@stock.qty": 5, "@stock.at": "A"} | {"stock": [{"at": "B", "qty": 15}, {"at": "C", "qty": 5}]} | no
        {"@stock.qty": {"$gt": 10}, "@stock.at": {"$ne": "C"}} | {"stock": [{"at": "A", "qty": 15}]} | yes
        {"@stock.qty": {"$gt": 10}, "@stock.at": {"$ne": "C"}} | {"stock": [{"at": "A", "qty": 15}, {"at": "C"}]} | no
        "##,
    );
}

#[test]
fn digits_are_a_place_in_an_array_or_a_key() {
    check(
        r##"
        dims.1 | {"$gt": 25} | {"dims": [14, 30]} | yes
        dims.1 | {"$gt": 25} | {"dims": [30, 14]} | no
        dims.1 | {"$gt": 25} | {"dims": [30]} | no
        dims.1 | {"$gt": 25} | {"dims": 30} | no
        dims.0 | 14 | {"dims": [14, 21]} | yes
        dims.0 | 21 | {"dims": [14, 21]} | no
        dims.0 | 14 | {"dims": {"0": 14}} | yes
        dims.0 | {"h": 1} | {"dims": [{"h": 1}, {"h": 2}]} | yes
        dims.1 | {"h": 1} | {"dims": [{"h": 1}, {"h": 2}]} | no
        dims.1 | {"$ne": 21} | {"dims": [14, 21]} | no
        dims.1 | {"$ne": 21} | {"dims": [21, 14]} | yes
        dims.1 | {"$ne": 21} | {"dims": [21]} | yes
        dims.1 | {"$in": [20, 21]} | {"dims": [14, 21]} | yes
        dims.10 | 1 | {"dims": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]} | yes
        stock.0.qty | {"$lte": 20} | {"stock": [{"qty": 15}, {"qty": 60}]} | yes
        stock.0.qty | {"$lte": 20} | {"stock": [{"qty": 60}, {"qty": 15}]} | no
        stock.1.qty | {"$lte": 20} | {"stock": [{"qty": 60}, {"qty": 15}]} | yes
        stock.2.qty | {"$exists": false} | {"stock": [{"qty": 60}, {"qty": 15}]} | yes
        stock.0.qty | {"$lte": 20} | {"stock": {"0": {"qty": 15}}} | yes
        stock.qty.0 | 1 | {"stock": [{"qty": [1, 2]}, {"qty": [3]}]} | yes
        stock.qty.0 | 3 | {"stock": [{"qty": [1, 2]}, {"qty": [3]}]} | yes
        stock.qty.0 | 2 | {"stock": [{"qty": [1, 2]}, {"qty": [3]}]} | no
        grid.1.0 | 3 | {"grid": [[1, 2], [3, 4]]} | yes
        grid.1.0 | 4 | {"grid": [[1, 2], [3, 4]]} | no
        grid.1 | [3, 4] | {"grid": [[1, 2], [3, 4]]} | yes
        grid.0 | {"$elemMatch": {"$gt": 1}} | {"grid": [[1, 2], [0]]} | yes
        grid.1 | {"$elemMatch": {"$gt": 1}} | {"grid": [[1, 2], [0]]} | no
        "##,
    );
}
