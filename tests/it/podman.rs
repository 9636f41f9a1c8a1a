//! An engine for containers: Podman's service on a socket of its own, with storage and an image of its own, shared by
//! all tests of this process. Where a machine has no Podman, tests that need it skip themselves and say so.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::service::{PATIENCE, Service, eventually};

/// The image that containers of tests run: a shell and the usual commands.
pub const IMAGE: &str = "localhost/org-executor-test:latest";

/// What the engine needs to be told on a machine where it may not raise limits, and that has old control groups.
const CONTAINERS_CONF: &str = r#"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
netns = "none"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
"#;

/// Makes the image and runs one container of it. `$1` is the folder.
const PREPARE: &str = r#"
set -e
cd "$1"
mkdir -p root/bin root/tmp root/etc root/proc root/dev root/sys
cp "$(command -v busybox)" root/bin/busybox
for name in $(busybox --list); do [ -e "root/bin/$name" ] || ln -s busybox "root/bin/$name"; done
chmod 1777 root/tmp
echo 'nobody:x:65534:65534:nobody:/:/bin/false' > root/etc/passwd
tar -C root -c . | podman import -q -c 'CMD ["cat"]' - "$2" > imported
rm -rf root
podman run --rm "$2" true
"#;

/// Serves until standard input ends, which it does when the tests have ended, however they did; then nothing is left.
const SERVE: &str = r#"
podman system service --time=0 "unix://$1/podman.sock" 2> "$1/service.log" &
service=$!
read -r _
podman rm -a -f -t 0 > "$1/removed" 2>&1
kill $service
wait
umount "$1/graph/overlay" "$1/graph" 2> "$1/unmounted"
rm -rf "$1"
"#;

/// The shared engine.
pub struct Podman {
    folder: PathBuf,
    /// Its end is the end of the engine.
    _lifeline: ChildStdin,
}

/// A second service on the same storage, on a socket of its own. Dropping it kills it.
pub struct OwnService(Child);

static SHARED: OnceLock<Result<Podman, String>> = OnceLock::new();

/// The shared engine; none where there can be none, which is told on stderr.
pub async fn podman() -> Option<&'static Podman> {
    let started = tokio::task::spawn_blocking(|| SHARED.get_or_init(Podman::start)).await.unwrap();
    match started {
        Ok(podman) => {
            eventually("the engine listens", PATIENCE, || podman.folder.join("podman.sock").exists()).await;
            Some(podman)
        }
        Err(reason) => {
            eprintln!("SKIPPED: {reason} (install with tests/set-up)");
            None
        }
    }
}

impl Podman {
    /// Its socket, as the configuration names it.
    pub fn socket(&self) -> String {
        address(&self.folder.join("podman.sock"))
    }

    /// Serves the same storage at another socket.
    pub async fn serve(&self, socket: &Path) -> OwnService {
        let _ = std::fs::remove_file(socket);
        let mut command = podman_in(&self.folder, "podman");
        command.args(["system", "service", "--time=0", &address(socket)]);
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the other engine listens", PATIENCE, || socket.exists()).await;
        OwnService(child)
    }

    /// The containers of this service, running or not.
    pub fn containers(&self, service: &Service) -> Vec<String> {
        let name = std::fs::read_to_string(service.path("data/instance")).unwrap();
        let name = name.split(' ').next().unwrap();
        let label = format!("label=org-executor={name}");
        let mut command = podman_in(&self.folder, "podman");
        let output = command.args(["ps", "-a", "-q", "--no-trunc", "--filter", &label]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    fn start() -> Result<Self, String> {
        let lacking = ["podman", "runc", "busybox"].into_iter().find(|name| !is_there(name));
        if let Some(program) = lacking {
            return Err(format!("there is no {program} on this machine"));
        }
        if !nix::unistd::geteuid().is_root() {
            return Err("containers of the tests need root".into());
        }
        // Not every file system can carry the first.
        let mut why = String::new();
        for driver in ["overlay", "vfs"] {
            let folder = tempfile::tempdir().unwrap();
            match Self::prepare(folder.path(), driver) {
                Ok(()) => return Ok(Self::serving(folder)),
                Err(said) => why = said,
            }
        }
        Err(format!("podman cannot run a container here: {why}"))
    }

    /// Makes the image, and sees that it runs.
    fn prepare(folder: &Path, driver: &str) -> Result<(), String> {
        let storage = format!(
            "[storage]\ndriver = \"{driver}\"\ngraphroot = \"{0}/graph\"\nrunroot = \"{0}/run\"\n",
            folder.display()
        );
        std::fs::write(folder.join("containers.conf"), CONTAINERS_CONF).unwrap();
        std::fs::write(folder.join("storage.conf"), storage).unwrap();
        let mut prepare = podman_in(folder, "sh");
        prepare.args(["-c", PREPARE, "prepare"]).arg(folder).arg(IMAGE);
        let prepared = prepare.stdin(Stdio::null()).output().unwrap();
        if prepared.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&prepared.stderr).trim().to_owned())
    }

    #[expect(
        clippy::zombie_processes,
        reason = "it ends after the tests, when nobody is left to wait for it"
    )]
    fn serving(folder: TempDir) -> Self {
        // From here on the engine's keeper removes it.
        let folder = folder.keep();
        let mut keeper = podman_in(&folder, "sh");
        keeper.args(["-c", SERVE, "serve"]).arg(&folder);
        // What ends the tests from a terminal must not end it.
        keeper.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut keeper = keeper.spawn().unwrap();
        Self { _lifeline: keeper.stdin.take().unwrap(), folder }
    }
}

impl Drop for OwnService {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A socket's address, as engines and the configuration write it.
pub fn address(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

fn podman_in(folder: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("CONTAINERS_CONF", folder.join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", folder.join("storage.conf"))
        // The keeper of a container writes a file where it was started when one had too little memory.
        .current_dir(folder);
    command
}

/// Whether it is on the PATH; a busybox must be one that needs no libraries beside it.
fn is_there(program: &str) -> bool {
    let script = "path=$(command -v \"$1\") && { [ \"$1\" != busybox ] || ! ldd \"$path\"; }";
    let mut command = Command::new("sh");
    command.args(["-c", script, "look", program]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}
