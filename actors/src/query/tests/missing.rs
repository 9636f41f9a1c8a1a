//! `null`, and fields that are not there.

use super::check;

#[test]
fn what_is_missing_equals_null() {
    check(
        r##"
        a | null | {} | yes
        a | null | {"a": null} | yes
        a | null | {"a": 0} | no
        a | null | {"a": []} | no
        a | null | {"a": [1, null]} | yes
        a.b | null | {} | yes
        a.b | null | {"a": 5} | yes
        a.b | null | {"a": {"b": {}}} | no
        a.b | null | {"a": []} | no
        a.b | null | {"a": [1, 2]} | no
        a.b | null | {"a": [{"b": 1}, {}]} | yes
        a.b | null | {"a": [{"b": 1}]} | no
        a | {"$ne": null} | {} | no
        a | {"$ne": 1} | {} | yes
        a | {"$nin": [1, 2]} | {} | yes
        a | {"$nin": [1, null]} | {} | no
        a | {"$in": [1, null]} | {} | yes
        a | {"$all": [null]} | {} | yes
        a | {"$gt": 0} | {} | no
        a | {"$exists": true} | {"a": null} | yes
        a | {"$exists": true} | {"a": []} | yes
        a | {"$exists": true} | {} | no
        a | {"$exists": false} | {} | yes
        a | {"$exists": false} | {"a": null} | no
        a.b | {"$exists": false} | {"a": []} | yes
        a.b | {"$exists": true} | {"a": [{}, {"b": 1}]} | yes
        "##,
    );
}

#[test]
fn null_is_told_from_missing_by_type_and_existence() {
    check(
        r##"
        owner | {"$eq": null} | {} | yes
        owner | {"$eq": null} | {"owner": null} | yes
        owner | {"$eq": null} | {"owner": ""} | no
        owner | {"$eq": null} | {"owner": false} | no
        owner | {"$eq": null} | {"owner": {}} | no
        owner | {"$eq": null} | {"owner": [[null]]} | no
        owner | {"$ne": null} | {"owner": "ops"} | yes
        owner | {"$ne": null} | {"owner": 0} | yes
        owner | {"$ne": null} | {"owner": []} | yes
        owner | {"$type": 10} | {"owner": null} | yes
        owner | {"$type": 10} | {} | no
        owner | {"$type": "null"} | {"owner": [1, null]} | yes
        owner | {"$exists": true, "$eq": null} | {"owner": null} | yes
        owner | {"$exists": true, "$eq": null} | {} | no
        owner | {"$exists": false, "$eq": null} | {} | yes
        owner | {"$exists": true, "$ne": null} | {"owner": null} | no
        owner | {"$exists": true, "$ne": null} | {"owner": 1} | yes
        owner | {"$not": {"$eq": null}} | {} | no
        owner | {"$not": {"$eq": null}} | {"owner": 1} | yes
        owner | {"$not": {"$ne": null}} | {} | yes
        owner | {"$in": [null]} | {"owner": null} | yes
        owner | {"$in": [null]} | {"owner": [null, 1]} | yes
        owner | {"$in": ["ops", null]} | {"owner": "dev"} | no
        owner | {"$nin": [null]} | {"owner": "dev"} | yes
        owner | {"$nin": [null]} | {"owner": null} | no
        owner | {"$nin": [null, "ops"]} | {"owner": ["dev"]} | yes
        owner | {"$elemMatch": {"$eq": null}} | {"owner": [null]} | yes
        owner | {"$elemMatch": {"$eq": null}} | {"owner": []} | no
        owner | {"$elemMatch": {"$eq": null}} | {} | no
        "##,
    );
}

#[test]
fn a_path_may_end_before_its_last_part() {
    check(
        r##"
        owner.team | null | {"owner": {}} | yes
        owner.team | null | {"owner": {"team": null}} | yes
        owner.team | null | {"owner": {"team": "ops"}} | no
        owner.team | null | {"owner": null} | yes
        owner.team | null | {"owner": "ops"} | yes
        owner.team | null | {"owner": true} | yes
        owner.team | {"$ne": null} | {"owner": {"team": "ops"}} | yes
        owner.team | {"$ne": null} | {"owner": "ops"} | no
        owner.team | {"$ne": null} | {"owner": [{"team": 1}, {"team": 2}]} | yes
        owner.team | {"$ne": null} | {"owner": [{"team": 1}, {}]} | no
        owner.team | {"$exists": false} | {"owner": "ops"} | yes
        owner.team | {"$exists": false} | {"owner": null} | yes
        owner.team | {"$exists": false} | {"owner": {"team": null}} | no
        owner.team | {"$exists": false} | {"owner": [{"team": 1}, {}]} | no
        owner.team | {"$exists": false} | {"owner": [{}, {"name": 1}]} | yes
        owner.team | {"$exists": false} | {"owner": [1, 2]} | yes
        owner.team.lead | null | {"owner": {"team": "ops"}} | yes
        owner.team.lead | null | {"owner": {"team": {"lead": "ann"}}} | no
        owner.team.lead | null | {"owner": [{"team": {"lead": "ann"}}, {"team": {}}]} | yes
        owner.team.lead | null | {"owner": [{"team": [{"lead": "ann"}]}]} | no
        owner.team.lead | null | {"owner": [{"team": [{"lead": "ann"}, {}]}]} | yes
        "##,
    );
}

#[test]
fn what_asks_for_more_than_null_does_not_hold_for_what_is_missing() {
    check(
        r##"
        n | {"$lt": 5} | {} | no
        n | {"$lt": 5} | {"n": null} | no
        n | {"$lte": ""} | {} | no
        n | {"$gte": false} | {} | no
        n | {"$gte": []} | {} | no
        n | {"$lte": [null]} | {} | no
        n | {"$gte": null} | {} | yes
        n | {"$gte": null} | {"n": null} | yes
        n | {"$gte": null} | {"n": 1} | no
        n | {"$lte": null} | {"n": [null]} | yes
        n | {"$lt": null} | {} | no
        n | {"$gt": null} | {"n": 1} | no
        n | {"$size": 0} | {"n": null} | no
        n | {"$regex": ""} | {} | no
        n | {"$regex": ""} | {"n": null} | no
        n | {"$type": ["null", "number"]} | {} | no
        n | {"$all": [null, 1]} | {} | no
        n | {"$all": [1]} | {} | no
        n | {"$elemMatch": {"$ne": 1}} | {} | no
        n | {"$in": []} | {} | no
        "##,
    );
}
