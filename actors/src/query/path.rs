//! Where a dotted path leads in a document: what it finds there, and whether it finds nothing.

use serde_json::{Map, Value};

/// A field, and where to go from it. An empty one stays where it is.
#[derive(Clone, Debug)]
pub struct Path(pub Vec<Segment>);

/// One part of a path.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The key that it follows.
    pub name: String,
    /// The same as a place in an array, when written the way a place is.
    index: Option<usize>,
}

/// A value on the way, and whether an array gave it by its place: then it is not opened as an array at the end, and
/// nothing is missing where it cannot be entered.
pub type Step<'a> = (&'a Value, bool);

impl Path {
    /// Whether it is this field and goes no further.
    pub fn is(&self, field: &str) -> bool {
        matches!(self.0.as_slice(), [only] if only.name == field)
    }

    /// Whether the test holds for anything that the path leads to, an array's elements and the array as a whole; `None` is
    /// where it leads to nothing.
    pub fn any(&self, from: Step<'_>, mut test: impl FnMut(Option<&Value>) -> bool) -> bool {
        let (here, missing) = self.walk(from);
        (missing && test(None))
            || here.into_iter().any(|(value, indexed)| {
                let items = value.as_array().filter(|_| !indexed);
                items.into_iter().flatten().any(|item| test(Some(item))) || test(Some(value))
            })
    }

    /// Whether the test holds for anything that the path leads to, each as a whole.
    pub fn any_whole(&self, from: Step<'_>, mut test: impl FnMut(&Value) -> bool) -> bool {
        self.walk(from).0.into_iter().any(|(value, _)| test(value))
    }

    /// What it leads to, and whether it leads to nothing somewhere.
    ///
    /// Goes breadth first, so its stack does not grow with the document. A value reached on two ways (by place, and
    /// as a key of digits) is kept once, or their number could double with each segment.
    fn walk<'a>(&self, from: Step<'a>) -> (Vec<Step<'a>>, bool) {
        let mut missing = false;
        let mut here = vec![from];
        for segment in &self.0 {
            let mut next = Vec::new();
            for step in here {
                missing |= segment.follow(step, &mut next);
            }
            if segment.index.is_some() {
                next.sort_by_key(|step| std::ptr::from_ref(step.0));
                next.dedup_by_key(|step| std::ptr::from_ref(step.0));
            }
            here = next;
        }
        (here, missing)
    }
}

impl Segment {
    /// Only digits without a leading zero name a place.
    pub fn new(name: &str) -> Self {
        let digits = name.bytes().all(|byte| byte.is_ascii_digit());
        let plain = digits && (name == "0" || !name.starts_with('0'));
        Self { name: name.to_owned(), index: plain.then(|| name.parse().ok()).flatten() }
    }

    /// Adds what this segment leads to, and tells whether it is missing somewhere.
    fn follow<'a>(&self, (value, indexed): Step<'a>, next: &mut Vec<Step<'a>>) -> bool {
        let mut enter = |map: &'a Map<String, Value>| {
            let found = map.get(&self.name);
            next.extend(found.map(|value| (value, false)));
            found.is_none()
        };
        match value {
            Value::Object(map) => enter(map),
            Value::Array(items) => {
                let mut missing = false;
                for map in items.iter().filter_map(Value::as_object) {
                    missing |= enter(map);
                }
                let found = self.index.and_then(|index| items.get(index));
                next.extend(found.map(|value| (value, true)));
                missing
            }
            _ => !indexed,
        }
    }
}
