//! A cluster of PostgreSQL of the test's own, on a socket in its folder, with the settings of a new one but for 512 MB of
//! shared buffers; how it is asked, and how it is timed by its own `pgbench`, over one connection.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use serde_json::Value;
use tempfile::TempDir;

use super::table::{TURN, Timing, WARM_UP};
use crate::service::PATIENCE;

/// Where Debian puts the programs of each version.
const INSTALLED: &str = "/usr/lib/postgresql";

/// `nobody`, since its programs refuse root.
const NOBODY: u32 = 65_534;

/// Serves until standard input ends, which it does when the test has ended, however it did.
const SERVE: &str = r#"
"$@" >> server.log 2>&1 &
server=$!
read -r _
kill -INT $server
wait $server
"#;

/// Its programs.
pub struct Installed(PathBuf);

impl Installed {
    /// The newest version that is installed; none where there is none, which is told.
    pub fn find() -> Option<Self> {
        let versions = fs::read_dir(INSTALLED).into_iter().flatten().filter_map(Result::ok);
        let folders = versions.map(|version| version.path().join("bin"));
        let newest =
            folders.filter(|folder| folder.join("initdb").exists()).max_by_key(|folder| version(folder));
        if newest.is_none() {
            println!(
                "SKIPPED: there is no PostgreSQL to measure beside (install with `apt-get install postgresql`)"
            );
        }
        newest.map(Self)
    }

    fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A program that is not to run as root.
    fn unprivileged(&self, name: &str) -> Vec<PathBuf> {
        let mut words = Vec::new();
        if geteuid().is_root() {
            let nobody = NOBODY.to_string();
            let words_of = ["setpriv", "--reuid", &nobody, "--regid", &nobody, "--clear-groups"];
            words.extend(words_of.map(PathBuf::from));
        }
        words.push(self.program(name));
        words
    }
}

/// The version that a folder of programs belongs to.
fn version(folder: &Path) -> Option<u32> {
    folder.parent()?.file_name()?.to_str()?.parse().ok()
}

/// The running server. Dropping it ends it and waits until it has.
struct Server {
    script: Child,
    lifeline: Option<ChildStdin>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.script.wait();
    }
}

/// A folder with a server; the server goes first.
pub struct Cluster<'a> {
    installed: &'a Installed,
    server: Option<Server>,
    pub folder: TempDir,
}

impl<'a> Cluster<'a> {
    pub fn new(installed: &'a Installed) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if geteuid().is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let cluster = Self { installed, server: None, folder };
        let mut initdb = cluster.run(&installed.unprivileged("initdb"));
        let data = cluster.folder.path().join("data");
        initdb.args(["-U", "postgres", "-A", "trust", "--encoding=UTF8", "--locale=C", "-D"]).arg(data);
        succeed(&mut initdb);
        cluster
    }

    /// A program in the folder, that knows where the server is.
    fn run(&self, words: &[PathBuf]) -> Command {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("PGHOST", self.folder.path()).env("PGUSER", "postgres").env("PGDATABASE", "postgres");
        command
    }

    /// Starts it, once more where it runs: how long it took until it took connections.
    pub fn start(&mut self) -> Duration {
        self.server = None;
        let start = Instant::now();
        let mut words = vec!["sh".into(), "-c".into(), SERVE.into(), "sh".into()];
        words.extend(self.installed.unprivileged("postgres"));
        let mut command = self.run(&words);
        command.args(["-D", "data", "-c", "listen_addresses=", "-c", "shared_buffers=512MB", "-k"]);
        let mut script = command.arg(self.folder.path()).stdin(Stdio::piped()).spawn().unwrap();
        let lifeline = script.stdin.take();
        self.server = Some(Server { script, lifeline });
        let mut is_ready = self.run(&[self.installed.program("pg_isready")]);
        is_ready.arg("-q");
        while !is_ready.status().unwrap().success() {
            let log = || fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "the server does not start: {}", log());
            std::thread::sleep(Duration::from_millis(2));
        }
        start.elapsed()
    }

    /// What a statement gives, without decoration.
    pub fn sql(&self, statement: &str) -> String {
        let mut psql = self.run(&[self.installed.program("psql")]);
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement]);
        succeed(&mut psql).trim_end().to_owned()
    }

    /// What a statement gives, a definition a row.
    pub fn definitions(&self, statement: &str) -> Vec<Value> {
        self.sql(statement).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The memory of all its processes, in KiB, and the shared buffers that are in use, which none of them needs to have
    /// in its own table of pages.
    pub fn resident_kib(&self) -> u64 {
        self.sql("create extension if not exists pg_buffercache");
        let used = "select count(*) * 8 from pg_buffercache where relfilenode is not null";
        let buffers: u64 = self.sql(used).parse().unwrap();
        let pid = fs::read_to_string(self.folder.path().join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().to_owned();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let processes = children.split_whitespace().chain([pid.as_str()]);
        let kib = |process: &str| -> u64 {
            // One that has ended meanwhile holds nothing.
            let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
            let own = rollup.lines().filter_map(|line| line.strip_prefix("Pss_")?.split_once(':'));
            let own = own.filter(|(name, _)| matches!(*name, "Anon" | "File"));
            own.map(|(_, kib)| kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap()).sum()
        };
        buffers + processes.map(kib).sum::<u64>()
    }

    /// Lets scripts take turns at random. `protocol` is pgbench's: in a simple one variables are put into strings too.
    pub fn bench(&self, scripts: &[String], protocol: &str) -> Timing {
        let folder = tempfile::tempdir().unwrap();
        let mut pgbench = self.run(&[self.installed.program("pgbench")]);
        pgbench.current_dir(folder.path()).args(["-n", "-l", "--log-prefix=log", "-M", protocol, "-T"]);
        pgbench.arg((WARM_UP + TURN).as_secs().to_string());
        for (number, script) in scripts.iter().enumerate() {
            let name = format!("{number}.sql");
            fs::write(folder.path().join(&name), script).unwrap();
            pgbench.args(["-f", &name]);
        }
        succeed(&mut pgbench);
        let mut files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let log = files.find(|file| file.file_name().unwrap().to_str().unwrap().starts_with("log.")).unwrap();
        timing(&fs::read_to_string(log).unwrap())
    }
}

/// What a program printed, which has to succeed.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Of a log of pgbench: a line a transaction, with its microseconds third, and when it ended fifth and sixth. What ended
/// in the time for warming up does not count.
fn timing(log: &str) -> Timing {
    let lines = log.lines().map(|line| {
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let micros = |index: usize| Duration::from_micros(numbers[index]);
        (Duration::from_secs(numbers[4]) + micros(5), micros(2))
    });
    let lines: Vec<(Duration, Duration)> = lines.collect();
    let (first, took) = lines[0];
    let counts = |ended: Duration| ended - (first - took) > WARM_UP;
    Timing::new(lines.iter().filter(|(ended, _)| counts(*ended)).map(|(_, took)| *took).collect())
}
