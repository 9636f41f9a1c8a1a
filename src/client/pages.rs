//! Lists that the REST API gives page by page: how they are asked for, and how what was found is printed.

use anyhow::{Context, Result, anyhow, bail};
use reqwest::Method;
use serde_json::value::RawValue;

use super::service::{Answer, Service, encode};
use super::{Failure, json, note, print};

/// A list, and which part of it is asked for.
pub struct List {
    /// How it is asked for.
    pub method: Method,
    /// Where it is.
    pub path: String,
    /// What stands behind the path, besides `limit` and `cursor`.
    pub parameters: Vec<(&'static str, String)>,
    /// The JSON text of the filter, where the list takes one.
    pub body: Option<String>,
    /// How many are asked for at a time.
    pub page: u64,
}

/// What was found.
pub struct Found {
    /// The JSON text of each.
    items: Vec<Box<RawValue>>,
    /// Whether there are more than these.
    more: bool,
}

impl List {
    /// Follows the pages until there are none, or until one more than `limit` is there.
    pub async fn collect(&self, service: &Service, limit: Option<u64>) -> Result<Found, Failure> {
        let mut items: Vec<Box<RawValue>> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let left = limit.map_or(self.page, |limit| wanted(limit, items.len()));
            if left == 0 {
                break;
            }
            let path = self.address(left.min(self.page), cursor.as_deref());
            let answer = service.call(self.method.clone(), &path, self.body.clone()).await?;
            items.extend(page(&answer)?);
            if answer.next.is_some() && answer.next == cursor {
                return Err(anyhow!("the service gave the same page twice").into());
            }
            match answer.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        let most = limit.map_or(usize::MAX, |limit| limit.try_into().unwrap_or(usize::MAX));
        let more = items.len() > most;
        items.truncate(most);
        Ok(Found { items, more })
    }

    /// The path of a page, encoded.
    fn address(&self, limit: u64, cursor: Option<&str>) -> String {
        let mut address = format!("{}?limit={limit}", self.path);
        let given = self.parameters.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in given.chain(cursor.map(|cursor| ("cursor", cursor))) {
            address.push_str(&format!("&{name}={}", encode(value)));
        }
        address
    }
}

impl Found {
    /// Prints it: an array of JSON, or what `draw` makes of it. `what` is what there may be none of.
    pub fn print(
        &self,
        what: &str,
        json: bool,
        draw: impl FnOnce(&[Box<RawValue>]) -> Result<String>,
    ) -> Result<(), Failure> {
        match self.items.as_slice() {
            items if json => {
                let texts: Vec<String> = items.iter().map(|text| json::compact(text.get())).collect();
                print(&format!("[{}]", texts.join(",")))?;
            }
            [] => note(format_args!("no {what} found")),
            items => print(&draw(items)?)?,
        }
        if self.more {
            note("there are more: raise --limit to see them");
        }
        Ok(())
    }
}

/// How many are to be asked for: one more than the limit, which tells whether there are more.
fn wanted(limit: u64, found: usize) -> u64 {
    limit.saturating_add(1).saturating_sub(found as u64)
}

fn page(answer: &Answer) -> Result<Vec<Box<RawValue>>> {
    let Some(data) = &answer.data else {
        bail!("the service answered without a list");
    };
    serde_json::from_str(data.get()).context("the service answered with something else than a list")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_asked_for_with_all_that_was_given() {
        let mut list = List {
            method: Method::GET,
            path: "/executions".to_owned(),
            parameters: Vec::new(),
            body: None,
            page: 100,
        };
        assert_eq!(list.address(7, None), "/executions?limit=7");
        list.parameters = vec![("state", "failed".to_owned()), ("tool_id", "a&b c".to_owned())];
        assert_eq!(
            list.address(100, Some("n=1")),
            "/executions?limit=100&state=failed&tool_id=a%26b%20c&cursor=n%3D1"
        );
    }

    #[test]
    fn one_more_than_the_limit_is_asked_for() {
        assert_eq!((wanted(20, 0), wanted(20, 20), wanted(20, 21), wanted(20, 30)), (21, 1, 0, 0));
        assert_eq!(wanted(u64::MAX, 1), u64::MAX - 1);
    }

    #[test]
    fn a_page_is_a_list_and_nothing_else() {
        let answer = |text: &str| serde_json::from_str::<Answer>(text).unwrap();
        assert_eq!(page(&answer(r#"{"data":[{"n":0.10},null]}"#)).unwrap()[0].get(), r#"{"n":0.10}"#);
        for wrong in ["{}", r#"{"data":{}}"#, r#"{"data":null}"#] {
            assert!(page(&answer(wrong)).is_err(), "{wrong}");
        }
    }
}
