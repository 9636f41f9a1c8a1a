//! One order of all JSON values, by which a filter compares them and searches its lists.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

/// Where in a sorted list a value is; what is missing is `null`.
pub fn position(list: &[Value], found: Option<&Value>) -> Option<usize> {
    let value = found.unwrap_or(&Value::Null);
    list.binary_search_by(|entry| compare(entry, value)).ok()
}

/// One order of all values, MongoDB's: by type, then by worth; arrays by their first difference, else the longer one is
/// the greater. Equal are those that a filter holds for equal.
///
/// The order among objects is our own, as MongoDB's goes by the order of their keys. It serves the search in a sorted list
/// only: no filter asks whether an object is above or below.
pub fn compare(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare_numbers(left, right),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Array(left), Value::Array(right)) => {
            let pairs = left.iter().zip(right);
            let items = first_difference(pairs.map(|(left, right)| compare(left, right)));
            items.then_with(|| left.len().cmp(&right.len()))
        }
        (Value::Object(left), Value::Object(right)) => left.len().cmp(&right.len()).then_with(|| {
            let pairs = sorted(left).into_iter().zip(sorted(right));
            first_difference(pairs.map(|(left, right)| {
                let keys = left.0.cmp(right.0);
                keys.then_with(|| compare(left.1, right.1))
            }))
        }),
        _ => rank(left).cmp(&rank(right)),
    }
}

fn first_difference(mut orders: impl Iterator<Item = Ordering>) -> Ordering {
    orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// The entries by key: whether a map keeps them so is a feature that any crate of the build can change.
fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

/// The order of the types.
pub fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Number(_) => 1,
        Value::String(_) => 2,
        Value::Object(_) => 3,
        Value::Array(_) => 4,
        Value::Bool(_) => 5,
    }
}

fn compare_numbers(left: &Number, right: &Number) -> Ordering {
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (Some(left), None) => compare_mixed(left, float(right)),
        (None, Some(right)) => compare_mixed(right, float(left)).reverse(),
        (None, None) => float(left).total_cmp(&float(right)),
    }
}

/// Exact, where a conversion of the integer to a float would round it. A float beyond all integers saturates in the
/// cast, and compares right.
fn compare_mixed(integer: i128, float: f64) -> Ordering {
    integer.cmp(&(float as i128)).then_with(|| 0.0_f64.total_cmp(&(float.fract() + 0.0)))
}

fn integer(number: &Number) -> Option<i128> {
    let signed = number.as_i64().map(i128::from);
    signed.or_else(|| number.as_u64().map(i128::from))
}

/// Adding zero makes `-0.0` the same as `0.0`.
fn float(number: &Number) -> f64 {
    let float = number.as_f64();
    float.expect("a JSON number is an integer of 64 bits or a finite float") + 0.0
}

#[cfg(test)]
mod tests {
    use crate::query::tests::check;

    #[test]
    fn values_are_equal_by_type_and_worth() {
        check(
            r##"
            a | "x" | {"a": "x"} | yes
            a | "x" | {"a": "X"} | no
            a | "1" | {"a": 1} | no
            a | 1 | {"a": 1.0} | yes
            a | 0 | {"a": -0.0} | yes
            a | 0.0 | {"a": -0.0} | yes
            a | 1 | {"a": true} | no
            a | false | {"a": 0} | no
            a | 9007199254740993 | {"a": 9007199254740992.0} | no
            a | 9007199254740992 | {"a": 9007199254740992.0} | yes
            a | 18446744073709551615 | {"a": 18446744073709551615} | yes
            a | 18446744073709551615 | {"a": 18446744073709551616.0} | no
            a | {"b": 1, "c": [2]} | {"a": {"c": [2.0], "b": 1}} | yes
            a | {"b": 1} | {"a": {"b": 1, "c": 2}} | no
            a | {"b": 1} | {"a": {"c": 1}} | no
            a | {} | {"a": {}} | yes
            a | {} | {"a": {"b": 1}} | no
            a | {"$eq": {"$ref": "#/x"}} | {"a": {"$ref": "#/x"}} | yes
            a | {"$eq": "x"} | {"a": "x"} | yes
            a | {"$ne": "x"} | {"a": "x"} | no
            a | {"$ne": "x"} | {"a": "y"} | yes
            "##,
        );
    }

    #[test]
    fn order_stays_within_a_type() {
        check(
            r##"
            a | {"$gt": 1} | {"a": 1.5} | yes
            a | {"$gt": 1} | {"a": 1.0} | no
            a | {"$gte": 1} | {"a": 1.0} | yes
            a | {"$lt": -1} | {"a": -1.5} | yes
            a | {"$lt": 0} | {"a": -0.5} | yes
            a | {"$gt": 0} | {"a": -0.0} | no
            a | {"$gt": 9007199254740992.0} | {"a": 9007199254740993} | yes
            a | {"$lt": 9007199254740993} | {"a": 9007199254740992.0} | yes
            a | {"$lt": 1e300} | {"a": 18446744073709551615} | yes
            a | {"$gt": -1e300} | {"a": -9223372036854775808} | yes
            a | {"$gt": 9223372036854775807} | {"a": 18446744073709551615} | yes
            a | {"$gt": 1} | {"a": "2"} | no
            a | {"$lt": "b"} | {"a": "a"} | yes
            a | {"$lt": "a"} | {"a": "Z"} | yes
            a | {"$gt": "z"} | {"a": "é"} | yes
            a | {"$lt": "b"} | {"a": 1} | no
            a | {"$gt": false} | {"a": true} | yes
            a | {"$gte": 0} | {"a": null} | no
            a | {"$gt": 1, "$lt": 3} | {"a": 2} | yes
            a | {"$gt": 1, "$lt": 3} | {"a": 3} | no
            a | {"$gt": 5, "$lt": 3} | {"a": [1, 9]} | yes
            a | {"$lte": 3} | {"a": [9, 3]} | yes
            a | {"$lt": 3} | {"a": [[1]]} | no
            "##,
        );
    }
}
