//! `$eq`, a plain value in its place, `$ne`, and objects as values.

use super::check;

#[test]
fn a_plain_value_is_equal_by_type_and_worth() {
    check(
        r##"
        license | "MIT" | {"license": "MIT"} | yes
        license | {"$eq": "MIT"} | {"license": "MIT"} | yes
        license | "MIT" | {"license": "mit"} | no
        license | "MIT" | {"license": "MIT "} | no
        license | "MIT" | {"license": "MITX"} | no
        license | "" | {"license": ""} | yes
        license | "" | {"license": null} | no
        license | "" | {} | no
        license | "é" | {"license": "\u00e9"} | yes
        license | "e\u0301" | {"license": "\u00e9"} | no
        port | 80 | {"port": 80} | yes
        port | 80 | {"port": 80.0} | yes
        port | 80.0 | {"port": 80} | yes
        port | 80 | {"port": 8.0e1} | yes
        port | 80 | {"port": "80"} | no
        port | "80" | {"port": 80} | no
        port | 80 | {"port": 80.5} | no
        port | -1 | {"port": 1} | no
        share | 0.1 | {"share": 0.1} | yes
        share | 0.3 | {"share": 0.30000000000000004} | no
        ready | true | {"ready": true} | yes
        ready | true | {"ready": 1} | no
        ready | true | {"ready": "true"} | no
        ready | false | {"ready": false} | yes
        ready | false | {"ready": null} | no
        ready | false | {} | no
        ready | 0 | {"ready": false} | no
        "##,
    );
}

#[test]
fn not_equal_is_the_opposite_also_of_what_is_missing() {
    check(
        r##"
        stock | {"$ne": 20} | {"stock": 30} | yes
        stock | {"$ne": 20} | {"stock": 20} | no
        stock | {"$ne": 20} | {"stock": 20.0} | no
        stock | {"$ne": 20} | {"stock": "20"} | yes
        stock | {"$ne": 20} | {"stock": null} | yes
        stock | {"$ne": 20} | {} | yes
        stock | {"$ne": 20} | {"stock": []} | yes
        stock | {"$ne": 20} | {"stock": [10, 30]} | yes
        stock | {"$ne": 20} | {"stock": [10, 20]} | no
        stock | {"$ne": 20} | {"stock": [[20]]} | yes
        stock | {"$ne": [10, 20]} | {"stock": [10, 20]} | no
        stock | {"$ne": [10, 20]} | {"stock": [20, 10]} | yes
        stock | {"$ne": [10, 20]} | {"stock": [[10, 20], 5]} | no
        stock | {"$ne": [10, 20]} | {"stock": 10} | yes
        stock | {"$ne": []} | {"stock": []} | no
        stock | {"$ne": []} | {"stock": [1]} | yes
        carrier.fee | {"$ne": 1} | {"carrier": {"fee": 3}} | yes
        carrier.fee | {"$ne": 1} | {"carrier": {"fee": 1}} | no
        carrier.fee | {"$ne": 1} | {"carrier": {"name": "post"}} | yes
        carrier.fee | {"$ne": 1} | {} | yes
        carrier.fee | {"$ne": 1} | {"carrier": "post"} | yes
        carrier.fee | {"$ne": 1} | {"carrier": [{"fee": 1}, {"fee": 2}]} | no
        carrier.fee | {"$ne": 1} | {"carrier": [{"fee": 3}, {"fee": 2}]} | yes
        stock | {"$ne": null} | {"stock": 0} | yes
        stock | {"$ne": null} | {"stock": ""} | yes
        stock | {"$ne": null} | {"stock": null} | no
        stock | {"$ne": null} | {"stock": [null]} | no
        "##,
    );
}

#[test]
fn an_object_is_equal_with_the_same_keys_and_values_only() {
    check(
        r##"
        size | {"h": 14, "w": 21, "unit": "cm"} | {"size": {"h": 14, "w": 21, "unit": "cm"}} | yes
        size | {"$eq": {"h": 14, "w": 21}} | {"size": {"h": 14, "w": 21}} | yes
        size | {"h": 14} | {"size": {"h": 14, "w": 21}} | no
        size | {"h": 14, "w": 21} | {"size": {"h": 14}} | no
        size | {"h": 14, "w": 21} | {"size": {"h": 14, "w": 22}} | no
        size | {"h": 14, "w": 21} | {"size": {"h": 14, "d": 21}} | no
        size | {"h": 14} | {"size": {"h": 14.0}} | yes
        size | {"h": 14} | {"size": {"h": "14"}} | no
        size | {"h": null} | {"size": {"h": null}} | yes
        size | {"h": null} | {"size": {}} | no
        size | {} | {"size": {}} | yes
        size | {} | {"size": {"h": 14}} | no
        size | {} | {"size": []} | no
        size | {} | {"size": [{}]} | yes
        size | {} | {} | no
        size | {"h": [1, 2]} | {"size": {"h": [1, 2]}} | yes
        size | {"h": [1, 2]} | {"size": {"h": [2, 1]}} | no
        size | {"h": 1} | {"size": {"h": [1, 2]}} | no
        size | {"h": {"cm": 1}} | {"size": {"h": {"cm": 1}}} | yes
        size | {"h": {"cm": 1}} | {"size": {"h": {"cm": 1, "mm": 10}}} | no
        size | {"h": 14} | {"size": [{"h": 14}, {"h": 15}]} | yes
        size | {"h": 14} | {"size": [{"h": 14, "w": 1}]} | no
        size | {"h": 14} | {"size": [[{"h": 14}]]} | no
        size | {"$ne": {"h": 14}} | {"size": {"h": 14}} | no
        size | {"$ne": {"h": 14}} | {"size": {"h": 14, "w": 21}} | yes
        size | {"$ne": {"h": 14}} | {"size": [{"h": 14}]} | no
        size.h | 14 | {"size": {"h": 14, "w": 21, "unit": "cm"}} | yes
        size.unit | "in" | {"size": {"h": 14, "unit": "cm"}} | no
        size.box | {"w": 1} | {"size": {"box": {"w": 1}, "h": 2}} | yes
        size.box | {"w": 1} | {"size": {"box": {"w": 1, "h": 2}}} | no
        "##,
    );
}
