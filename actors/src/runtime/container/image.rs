//! The image of a container: whether the engine has it, and fetching it, once however many want it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptions;
use futures_util::future::{BoxFuture, Shared};
use futures_util::{FutureExt, TryStreamExt};

use super::engine::Engine;
use crate::execution::Outcome;
use crate::spec::Pull;

/// How much of an engine's own words an outcome repeats.
const MAX_WORDS: usize = 500;

/// What the engine knows of an image.
#[derive(Debug)]
pub struct Image {
    /// The name that tells this very image.
    pub id: String,
    /// What it runs.
    pub entrypoint: Vec<String>,
    /// With which arguments.
    pub cmd: Vec<String>,
    /// Folders that an engine would make writable.
    pub volumes: Vec<String>,
    /// Whether an engine would run something in it from time to time to see whether it is well.
    pub has_check: bool,
}

/// The images that are being fetched, by name.
#[derive(Clone, Debug, Default)]
pub struct Pulls(Arc<Mutex<HashMap<String, Pulling>>>);

type Pulling = Shared<BoxFuture<'static, Result<(), Outcome>>>;

impl Engine {
    /// The image of that name, fetched when the policy says so.
    ///
    /// # Errors
    /// The outcome: there is no such image, it could not be fetched, the engine cannot be reached.
    pub async fn image(&self, docker: &Docker, name: &str, pull: Pull) -> Result<Image, Outcome> {
        let name = full_name(name)?;
        if pull == Pull::Always {
            self.pull(docker, &name).await?;
        }
        if let Some(image) = self.inspect(docker, &name).await? {
            return Ok(image);
        }
        let absent = |why: &str| Outcome::failed("not_startable", format!("the image {name:?} {why}"));
        if pull == Pull::Never {
            return Err(absent("is not on the engine, and `pull` is \"never\""));
        }
        self.pull(docker, &name).await?;
        self.inspect(docker, &name).await?.ok_or_else(|| absent("was pulled, and is not on the engine"))
    }

    async fn inspect(&self, docker: &Docker, name: &str) -> Result<Option<Image>, Outcome> {
        match docker.inspect_image(name).await {
            Ok(found) => Ok(Some(Image::read(found, name))),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(self.failed(&error, "could not look up the image")),
        }
    }

    /// Fetches an image, or waits for who already does.
    async fn pull(&self, docker: &Docker, name: &str) -> Result<(), Outcome> {
        let pulling = {
            let mut pulls = self.pulls().0.lock().unwrap_or_else(PoisonError::into_inner);
            match pulls.get(name) {
                Some(pulling) => pulling.clone(),
                None => {
                    let pulling = self.clone().fetch(docker.clone(), name.to_owned()).boxed().shared();
                    pulls.insert(name.to_owned(), pulling.clone());
                    // It goes on when whoever wanted it has gone: the next one finds the image there.
                    tokio::spawn(pulling.clone());
                    pulling
                }
            }
        };
        pulling.await
    }

    async fn fetch(self, docker: Docker, name: String) -> Result<(), Outcome> {
        let limit = self.pull_timeout();
        tracing::info!(image = name, "pulling");
        let options = CreateImageOptions { from_image: Some(name.clone()), ..CreateImageOptions::default() };
        // The answer's head may come as late as its end.
        let docker = docker.with_timeout(limit + Duration::from_secs(1));
        let progress = docker.create_image(Some(options), None, None);
        let pulled = tokio::time::timeout(limit, progress.try_for_each(|_| async { Ok(()) })).await;
        self.pulls().0.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        let failed = |why: String| {
            tracing::warn!(image = name, why, "an image could not be pulled");
            Outcome::failed("not_startable", format!("the image {name:?} could not be pulled: {why}"))
        };
        match pulled {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Error::DockerStreamError { error })) => Err(failed(shortened(&error))),
            Ok(Err(Error::DockerResponseServerError { message, .. })) => Err(failed(shortened(&message))),
            Ok(Err(error)) => Err(self.failed(&error, "could not pull the image")),
            Err(_) => Err(failed(format!("it took more than {} ms", limit.as_millis()))),
        }
    }
}

impl Image {
    fn read(found: ImageInspect, name: &str) -> Self {
        let config = found.config.unwrap_or_default();
        Self {
            id: found.id.unwrap_or_else(|| name.to_owned()),
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            volumes: config.volumes.unwrap_or_default(),
            has_check: config.healthcheck.is_some(),
        }
    }
}

/// The name with its tag: without one, pulling would fetch all tags. It becomes part of an address, hence the check.
fn full_name(name: &str) -> Result<String, Outcome> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "./:_-@".contains(c);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(is_plain)
        && !name.split('/').any(|part| part.is_empty() || part == "." || part == "..");
    if !is_name {
        return Err(Outcome::failed("not_startable", format!("{name:?} is no name of an image")));
    }
    let last = name.rsplit('/').next().unwrap_or(name);
    Ok(if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") })
}

/// An engine's own words, without paths of its machine.
fn shortened(words: &str) -> String {
    let is_path = |word: &str| word.trim_start_matches(['"', '\'', '(']).starts_with('/');
    let words: Vec<_> = words.split_whitespace().map(|word| if is_path(word) { "…" } else { word }).collect();
    words.join(" ").chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gets_its_tag_and_never_leaves_its_place_in_an_address() {
        for (name, full) in [
            ("busybox", "busybox:latest"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("docker.io/library/busybox:1.36", "docker.io/library/busybox:1.36"),
            ("a@sha256:00", "a@sha256:00"),
        ] {
            assert_eq!(full_name(name).expect(name), full);
        }
        for bad in ["", "a/../../containers/b", "/a", "a b", "a?x", "a#x", "a//b", "./a", "a%2fb", "-a"] {
            assert!(full_name(bad).is_err(), "{bad}");
        }
    }
}
