//! One container on the engine, from its creation to its removal. Who drops it has it removed.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::container::AttachContainerResults;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerStateStatusEnum as Status, HealthConfig, HostConfig, HostConfigLogConfig,
    ResourcesUlimits,
};
use bollard::query_parameters::{AttachContainerOptions, CreateContainerOptions};
use futures_util::StreamExt;
use nix::sys::resource::{Resource, getrlimit};
use tokio::runtime::Handle;
use tokio::time::Instant;
use uuid::Uuid;

use super::engine::{Engine, LABEL};
use super::image::Image;
use crate::execution::Outcome;
use crate::runtime::bounds::Bounds;
use crate::spec::Network;

/// Nobody.
const USER: &str = "65534:65534";

/// Docker takes no less.
const MIN_MEMORY: u64 = 6 << 20;

/// As many processes as one user may have on any machine that is not told otherwise. What bounds a container is its
/// control group; an engine that is not told sets what it may not set where it lacks the privilege.
const USER_PROCESSES: u64 = 32_768;

/// How long a container may take to end once its output has.
const END: Duration = Duration::from_secs(10);

/// The pauses between two looks at whether it has: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// A container that is removed when this is dropped, if it was not removed before.
#[derive(Debug)]
pub struct Instance {
    engine: Engine,
    docker: Docker,
    name: String,
    is_gone: bool,
}

/// What the engine tells of a container that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// The exit status of its first process.
    pub status: i64,
    /// Whether the kernel ended something in it for its memory.
    pub is_out_of_memory: bool,
    /// How long it ran, where the engine tells.
    pub ran: Option<Duration>,
}

impl Instance {
    /// Makes a container; nothing runs in it yet.
    pub async fn create(engine: Engine, docker: Docker, body: ContainerCreateBody) -> Result<Self, Outcome> {
        let name = format!("{LABEL}-{}", Uuid::now_v7());
        let options =
            CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
        let making = engine.making().await?;
        let created = docker.create_container(Some(options), body).await;
        drop(making);
        let mut instance = Self { engine, docker, name, is_gone: false };
        match created {
            Ok(_) => Ok(instance),
            Err(error) => {
                // Where the engine said no there is nothing to remove.
                instance.is_gone = matches!(error, Error::DockerResponseServerError { .. });
                Err(instance.engine.failed(&error, "could not make the container"))
            }
        }
    }

    /// Connects to its standard output and error, and to its standard input where it is to be fed.
    pub async fn attach(&self, is_fed: bool) -> Result<AttachContainerResults, Outcome> {
        let options = AttachContainerOptions {
            stream: true,
            stdin: is_fed,
            stdout: true,
            stderr: true,
            ..AttachContainerOptions::default()
        };
        let attached = self.docker.attach_container(&self.name, Some(options)).await;
        attached.map_err(|error| self.engine.failed(&error, "could not connect to the container"))
    }

    /// Starts what it runs.
    pub async fn start(&self) -> Result<(), Outcome> {
        let started = self.docker.start_container(&self.name, None).await;
        started.map_err(|error| self.engine.failed(&error, "could not start the container"))
    }

    /// How it ended; it must be about to.
    pub async fn exit(&self) -> Result<Exit, Outcome> {
        let deadline = Instant::now() + END;
        let (mut pause, longest) = PAUSES;
        loop {
            match self.docker.inspect_container(&self.name, None).await {
                Ok(found) => {
                    let state = found.state.unwrap_or_default();
                    if matches!(state.status, Some(Status::EXITED | Status::DEAD)) {
                        return Ok(Exit {
                            status: state.exit_code.unwrap_or_default(),
                            is_out_of_memory: state.oom_killed.unwrap_or_default(),
                            ran: between(state.started_at.as_deref(), state.finished_at.as_deref()),
                        });
                    }
                }
                // Podman tells of a container that has just ended with a word that bollard does not know.
                Err(Error::JsonDataError { .. }) => {}
                Err(Error::DockerResponseServerError { status_code: 404, .. }) => {
                    return Err(Outcome::failed(
                        "container_ended",
                        "the container was removed by somebody else",
                    ));
                }
                // It is being removed.
                Err(Error::DockerResponseServerError { .. }) => {}
                Err(error) => {
                    return Err(self.engine.failed(&error, "could not tell how the container ended"));
                }
            }
            if Instant::now() >= deadline {
                let message = "the connection to the container broke while it ran";
                return Err(Outcome::failed("engine_unavailable", message));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Ends and removes it, reading on meanwhile: as long as nobody takes what a container printed, Podman does not
    /// see its end, and waits for seconds.
    pub async fn remove(mut self, mut stream: AttachContainerResults) {
        let discard = async {
            while let Some(Ok(_)) = stream.output.next().await {}
            std::future::pending().await
        };
        tokio::select! {
            () = self.engine.remove(&self.docker, &self.name) => {}
            () = discard => {}
        }
        self.is_gone = true;
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Without a runtime the service is ending; the next one removes what is left.
        if !self.is_gone
            && let Ok(runtime) = Handle::try_current()
        {
            let (engine, docker, name) = (self.engine.clone(), self.docker.clone(), self.name.clone());
            runtime.spawn(async move { engine.remove(&docker, &name).await });
        }
    }
}

/// How much time there is between these two moments (RFC 3339).
fn between(from: Option<&str>, to: Option<&str>) -> Option<Duration> {
    let moment = |text: &str| chrono::DateTime::parse_from_rfc3339(text).ok();
    (moment(to?)? - moment(from?)?).to_std().ok()
}

/// What a container is allowed.
pub fn host(
    engine: &Engine,
    image: &Image,
    network: &Network,
    bounds: &Bounds,
) -> Result<HostConfig, Outcome> {
    let memory = signed(bounds.memory_bytes.max(MIN_MEMORY));
    let files = bounds.files.min(own_limit(Resource::RLIMIT_NOFILE));
    let processes = USER_PROCESSES.min(own_limit(Resource::RLIMIT_NPROC));
    Ok(HostConfig {
        memory: Some(memory),
        memory_swap: Some(memory),
        pids_limit: Some(signed(bounds.processes)),
        ulimits: Some(vec![ulimit("nofile", files, files), ulimit("nproc", processes, processes)]),
        // A warm container's shell is its first process.
        init: Some(false),
        readonly_rootfs: Some(true),
        tmpfs: Some(file_systems(engine, image)),
        shm_size: Some(signed(engine.tmpfs_mb() << 20)),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges".into()]),
        network_mode: network_mode(network)?,
        // What it prints comes over the connection; the engine need not keep it.
        log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
        ..HostConfig::default()
    })
}

/// What is made and run.
pub fn body(
    engine: &Engine,
    image: &Image,
    argv: Vec<String>,
    is_fed: bool,
    host: HostConfig,
) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(image.id.clone()),
        // The image's own command is part of `argv` where it counts.
        entrypoint: Some(argv),
        user: Some(USER.into()),
        attach_stdin: Some(is_fed),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(is_fed),
        stdin_once: Some(is_fed),
        labels: Some([(LABEL.to_owned(), engine.service().to_owned())].into()),
        // Nobody asks for its health. Podman takes no "none" where there is nothing to switch off.
        healthcheck: image
            .has_check
            .then(|| HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

/// A limit as `ulimit` sets it: when it warns, and where it ends.
pub fn ulimit(name: &str, soft: u64, hard: u64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.into()), soft: Some(signed(soft)), hard: Some(signed(hard)) }
}

/// `/tmp` and the folders that the image declares as volumes can be written. Podman would make two more writable.
fn file_systems(engine: &Engine, image: &Image) -> HashMap<String, String> {
    let small = format!("rw,exec,nosuid,nodev,mode=1777,size={}m", engine.tmpfs_mb());
    let closed = ["/run", "/var/tmp"].into_iter().chain(image.volumes.iter().map(String::as_str));
    let closed = closed.map(|path| (path.to_owned(), "ro,nosuid,nodev,noexec".to_owned()));
    let open = writable(image).map(|path| (path, small.clone()));
    closed.chain(open).collect()
}

/// The folders of file systems of its own that a container can write. Their names need no quoting in a shell.
pub fn writable(image: &Image) -> impl Iterator<Item = String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let volumes = image.volumes.iter().filter(move |path| path.chars().all(is_plain));
    std::iter::once("/tmp".to_owned()).chain(volumes.cloned())
}

fn network_mode(network: &Network) -> Result<Option<String>, Outcome> {
    match network {
        Network::None => Ok(Some("none".into())),
        Network::Default => Ok(None),
        // The network of the machine itself, or of any other container, is not for a definition to take.
        Network::Named(name) if name == "host" || name.contains([':', '/']) => {
            Err(Outcome::failed("not_startable", format!("a container may not use the network {name:?}")))
        }
        Network::Named(name) => Ok(Some(name.clone())),
    }
}

/// No container can get more than the engine has, which is taken to be what this process has.
fn own_limit(resource: Resource) -> u64 {
    getrlimit(resource).map_or(u64::MAX, |(_, hard)| hard)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_tell_moments_in_any_offset() {
        let ran = |from, to| between(Some(from), Some(to)).map(|ran| ran.as_millis());
        assert_eq!(ran("2026-11-27T01:09:10.5Z", "2026-11-27T01:09:13.123456789Z"), Some(2_623));
        assert_eq!(ran("2026-11-27T01:09:10.5+02:00", "2026-11-26T23:09:11.5Z"), Some(1_000));
        assert_eq!(ran("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"), Some(0));
        assert_eq!(ran("2026-11-27T01:09:10Z", "2026-11-27T01:09:09Z"), None);
        assert_eq!((ran("", "x"), between(None, None)), (None, None));
    }
}
