//! Where an engine may be.

use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};

/// How long the engine may take to say that it is there.
const PING: Duration = Duration::from_secs(1);

/// How long one request may take, in seconds; what is bounded tighter by its execution says so.
const REQUEST_SECONDS: u64 = 60;

/// Whether an engine is there, and answers soon.
pub async fn answers(docker: &Docker) -> bool {
    matches!(tokio::time::timeout(PING, docker.ping()).await, Ok(Ok(_)))
}

/// A way to an engine; that it can be made tells nothing of the engine.
pub fn connect(place: &str) -> Option<Docker> {
    let connected = match place.strip_prefix("unix://") {
        Some(path) => Docker::connect_with_unix(path, REQUEST_SECONDS, API_DEFAULT_VERSION),
        None => Docker::connect_with_http(place, REQUEST_SECONDS, API_DEFAULT_VERSION),
    };
    connected.ok()
}

/// Where an engine may be: as the settings say, or as the environment says, or the usual sockets that are there.
pub fn places(socket: &str) -> Vec<String> {
    if socket != "auto" {
        return vec![socket.to_owned()];
    }
    let told = ["DOCKER_HOST", "CONTAINER_HOST"].iter().filter_map(|name| std::env::var(name).ok());
    match told.into_iter().find(|place| !place.is_empty()) {
        Some(place) => vec![place],
        None => {
            let there = usual_sockets().into_iter().filter(|path| std::fs::exists(path).unwrap_or(false));
            there.map(|path| format!("unix://{path}")).collect()
        }
    }
}

/// Where Docker and Podman listen, for all or for one user.
pub fn usual_sockets() -> Vec<String> {
    let own =
        std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(|_| format!("/run/user/{}", nix::unistd::getuid()));
    vec![
        "/var/run/docker.sock".into(),
        format!("{own}/docker.sock"),
        format!("{own}/podman/podman.sock"),
        "/run/podman/podman.sock".into(),
    ]
}
