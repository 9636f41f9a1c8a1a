//! Versions in ids: what `name:version` denotes, and which stored id a request resolves to. Pure, no store.
//!
//! A version is semantic, with an optional `v` before it and possibly shortened: `v1.2` is `1.2.0`. The tag
//! `-stable` marks a release, so it ranks with the plain one and above every other pre-release. Ids themselves are
//! compared byte for byte: `add:1.0.0` and `add:v1.0.0` are two ids, and neither is ever given for the other.

use std::cmp::Ordering;

use semver::{Prerelease, VersionReq};

const STABLE: &str = "stable";
const LATEST: &str = "latest";

/// A semantic version, ordered as a request prefers them: by its three numbers; then releases, `-stable` among them,
/// above pre-releases; then plain above `-stable`, and pre-releases and builds as `semver` orders them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(semver::Version);

impl Version {
    /// Reads a version with or without `v`; numbers left out are zero.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (numbers, tags) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
        let left_out = match numbers.split('.').count() {
            1 => ".0.0",
            2 => ".0",
            _ => "",
        };
        let whole = format!("{numbers}{left_out}{tags}");
        semver::Version::parse(&whole).ok().map(Self)
    }

    /// Whether this is a plain version or one tagged `-stable`.
    pub fn is_release(&self) -> bool {
        self.0.pre.is_empty() || self.is_stable()
    }

    fn is_stable(&self) -> bool {
        self.0.pre.as_str() == STABLE
    }

    fn fits(&self, range: &VersionReq) -> bool {
        let mut version = self.0.clone();
        if self.is_stable() {
            version.pre = Prerelease::EMPTY;
        }
        range.matches(&version)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let numbers = |version: &Self| (version.0.major, version.0.minor, version.0.patch);
        let releases = self.is_release().cmp(&other.is_release());
        // A plain version is above any tag for semver too, and between `-stable` and another tag
        // the line before has decided.
        numbers(self).cmp(&numbers(other)).then(releases).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The name and the version of an id that carries one: what is before and after its last `:`.
pub fn split(id: &str) -> Option<(&str, Version)> {
    let (name, version) = parts(id)?;
    Some((name, Version::parse(version)?))
}

/// How an id that is not stored is to be resolved among the versions of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The highest version: a bare name, or `name:latest`.
    Latest {
        /// The name, without a version.
        name: &'a str,
    },
    /// The highest version in a range: `name:^1.2`, `name:>=1,<2`, `name:1`.
    Range {
        /// The name, without a version.
        name: &'a str,
        /// The range, in which `-stable` stands for the release.
        req: VersionReq,
    },
}

impl<'a> Request<'a> {
    /// The name whose versions are the candidates.
    pub fn name(&self) -> &'a str {
        match self {
            Self::Latest { name } | Self::Range { name, .. } => name,
        }
    }
}

/// Reads an id that is not stored as a request for a version; `None` when it names exactly one version, which then
/// does not exist. What follows the last `:` without being a version or a range is a part of a bare name.
pub fn parse_request(id: &str) -> Option<Request<'_>> {
    if let Some((name, version)) = parts(id) {
        if version == LATEST {
            return Some(Request::Latest { name });
        }
        if Version::parse(version).is_some() && !is_shortened(version) {
            return None;
        }
        if let Some(req) = parse_range(version) {
            return Some(Request::Range { name, req });
        }
    }
    (!id.is_empty()).then_some(Request::Latest { name: id })
}

/// The highest of the stored ids that a request allows; ids of another name or without a version are passed over. The
/// highest at all is a release where there is any. Of ids with the same version the greater text wins.
pub fn pick<'a>(request: &Request<'_>, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let fitting = candidates.filter_map(|id| {
        let (name, version) = split(id)?;
        let preferred = match request {
            Request::Latest { .. } => version.is_release(),
            Request::Range { req, .. } => version.fits(req),
        };
        let admitted = preferred || matches!(request, Request::Latest { .. });
        (name == request.name() && admitted).then_some((preferred, version, id))
    });
    fitting.max().map(|(_, _, id)| id)
}

/// The ids that carry a version, the highest first.
pub fn descending(ids: Vec<String>) -> Vec<String> {
    let mut versions: Vec<(Version, String)> =
        ids.into_iter().filter_map(|id| Some((split(&id)?.1, id))).collect();
    versions.sort_by(|left, right| right.cmp(left));
    versions.into_iter().map(|(_, id)| id).collect()
}

fn parts(id: &str) -> Option<(&str, &str)> {
    id.rsplit_once(':').filter(|(name, _)| !name.is_empty())
}

/// Whether a version is only numbers and not all three: then it may as well mean a range.
fn is_shortened(version: &str) -> bool {
    !version.contains(['-', '+']) && version.split('.').count() < 3
}

/// Reads a range as Cargo writes them, each version in it with an optional `v`. A bare `x` is no range: it is more
/// likely a part of a name.
fn parse_range(text: &str) -> Option<VersionReq> {
    if !text.contains(|c: char| c.is_ascii_digit() || c == '*') {
        return None;
    }
    let comparators: Vec<_> = text.split(',').map(without_v).collect();
    let mut range = VersionReq::parse(&comparators.join(",")).ok()?;
    for comparator in &mut range.comparators {
        if comparator.pre.as_str() == STABLE {
            comparator.pre = Prerelease::EMPTY;
        }
    }
    Some(range)
}

fn without_v(comparator: &str) -> String {
    let version = comparator.trim_start_matches(['^', '~', '=', '<', '>', ' ']);
    let operator = &comparator[..comparator.len() - version.len()];
    format!("{operator}{}", version.strip_prefix('v').unwrap_or(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_splits_at_its_last_colon_when_a_version_follows() {
        let rows = [
            ("add:1.2.3", Some(("add", "1.2.3"))),
            ("add:v1.2.3", Some(("add", "1.2.3"))),
            ("add:v1", Some(("add", "1.0.0"))),
            ("add:1.2", Some(("add", "1.2.0"))),
            ("add:v1.2-rc.1", Some(("add", "1.2.0-rc.1"))),
            ("weather_lookup:v1.0.0-stable", Some(("weather_lookup", "1.0.0-stable"))),
            ("add:1.0.0+build.5", Some(("add", "1.0.0+build.5"))),
            ("org:add:v2.0.0", Some(("org:add", "2.0.0"))),
            ("añadir:0.1.0", Some(("añadir", "0.1.0"))),
            ("add", None),
            ("add:", None),
            (":1.0.0", None),
            ("add:latest", None),
            ("add:^1.2", None),
            ("add:1.x", None),
            ("add:vv1.0.0", None),
            ("add:V1.0.0", None),
            ("add:01.0.0", None),
            ("add:1.0.0.0", None),
            ("add:1..0", None),
            ("add:1.0.0-", None),
            ("add: 1.0.0", None),
            ("add:99999999999999999999.0.0", None),
        ];
        for (id, expected) in rows {
            let found = split(id).map(|(name, version)| (name, version.0.to_string()));
            let expected = expected.map(|(name, version)| (name, version.to_owned()));
            assert_eq!(found, expected, "{id}");
        }
    }

    #[test]
    fn versions_ascend_with_stable_beside_the_release() {
        let ascending = [
            "0.9.9",
            "1.0.0-alpha",
            "1.0.0-alpha.2",
            "1.0.0-alpha.10",
            "1.0.0-beta",
            "1.0.0-zeta",
            "1.0.0-stable",
            "1.0.0",
            "1.0.1-alpha",
            "1.0.1-stable",
            "1.2.0",
            "1.10.0",
            "2.0.0-rc.1",
            "10.0.0",
        ];
        let versions = ascending.map(|text| Version::parse(text).expect(text));
        for (low, left) in versions.iter().enumerate() {
            for (high, right) in versions.iter().enumerate() {
                assert_eq!(left.cmp(right), low.cmp(&high), "{left:?} and {right:?}");
            }
        }
    }

    #[test]
    fn a_request_is_read_from_an_id() {
        let latest = |name| Some(Request::Latest { name });
        let range = |name, text| {
            let req = VersionReq::parse(text).expect(text);
            Some(Request::Range { name, req })
        };
        let rows = [
            ("add", latest("add")),
            ("add:latest", latest("add")),
            ("org:add:latest", latest("org:add")),
            ("org:add", latest("org:add")),
            ("add:x", latest("add:x")),
            ("add:", latest("add:")),
            ("add:LATEST", latest("add:LATEST")),
            (":1.0.0", latest(":1.0.0")),
            ("add:^1.2", range("add", "^1.2")),
            ("add:^v1.2", range("add", "^1.2")),
            ("add:~1", range("add", "~1")),
            ("add:>=1,<2", range("add", ">=1, <2")),
            ("add:>= v1, < v2", range("add", ">=1, <2")),
            ("add:1.x", range("add", "1.x")),
            ("add:v1.*", range("add", "1.*")),
            ("add:*", range("add", "*")),
            ("add:1", range("add", "^1")),
            ("add:v1", range("add", "^1")),
            ("add:v1.2", range("add", "^1.2")),
            ("add:=1.0.0", range("add", "=1.0.0")),
            ("add:^1.2.0-stable", range("add", "^1.2.0")),
            ("org:add:^1", range("org:add", "^1")),
            ("add:v1.0.0", None),
            ("add:1.0.0", None),
            ("add:v1.0.0-stable", None),
            ("add:v1-stable", None),
            ("add:1.0.0+build", None),
            ("", None),
        ];
        for (id, expected) in rows {
            assert_eq!(parse_request(id), expected, "{id}");
        }
    }

    #[test]
    fn the_highest_fitting_version_is_picked() {
        let stored = [
            "add:v0.9.0",
            "add:v1.0.0-stable",
            "add:1.2.0",
            "add:v1.2.0-stable",
            "add:v1.10.0-stable",
            "add:v1.11.0-rc.1",
            "add:v2.0.0-beta",
            "add:v2.0.0-beta.2",
            "add:unversioned",
            "add",
            "sub:v9.0.0",
            "new:v1.0.0-alpha",
            "new:v1.0.0-beta",
            "new:v0.9.0-rc.1",
            "twin:1.0.0",
            "twin:v1.0.0",
            "twin:v1",
            "org:add:v3.0.0",
        ];
        let rows = [
            ("add", Some("add:v1.10.0-stable")),
            ("add:latest", Some("add:v1.10.0-stable")),
            ("add:*", Some("add:v1.10.0-stable")),
            ("add:1", Some("add:v1.10.0-stable")),
            ("add:v1.2", Some("add:v1.10.0-stable")),
            ("add:~1.2", Some("add:1.2.0")),
            ("add:=1.2", Some("add:1.2.0")),
            ("add:1.2.x", Some("add:1.2.0")),
            ("add:<1.2.0", Some("add:v1.0.0-stable")),
            ("add:<=1.0.0", Some("add:v1.0.0-stable")),
            ("add:=1.0.0", Some("add:v1.0.0-stable")),
            ("add:=1.0.0-stable", Some("add:v1.0.0-stable")),
            ("add:>1.2.0-stable,<1.10", None),
            ("add:^0.9", Some("add:v0.9.0")),
            ("add:>=1.5,<2", Some("add:v1.10.0-stable")),
            ("add:^1.11", None),
            ("add:^1.11.0-rc.0", Some("add:v1.11.0-rc.1")),
            ("add:^2", None),
            ("add:^2.0.0-beta", Some("add:v2.0.0-beta.2")),
            ("add:=2.0.0-beta", Some("add:v2.0.0-beta")),
            ("add:v1.2.0", None),
            ("add:1.0.0", None),
            ("add:unknown", None),
            ("sub", Some("sub:v9.0.0")),
            ("new", Some("new:v1.0.0-beta")),
            ("new:*", None),
            ("twin", Some("twin:v1.0.0")),
            ("org:add", Some("org:add:v3.0.0")),
            ("org", None),
            ("", None),
        ];
        for (id, expected) in rows {
            let picked = parse_request(id).and_then(|request| pick(&request, stored.iter().copied()));
            assert_eq!(picked, expected, "{id}");
        }
    }

    #[test]
    fn a_release_is_latest_even_below_a_newer_pre_release() {
        let request = parse_request("add").expect("a bare name");
        let stored = ["add:v2.0.0-rc.1", "add:v1.0.0"];
        assert_eq!(pick(&request, stored.into_iter()), Some("add:v1.0.0"));
    }
}
