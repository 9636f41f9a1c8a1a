//! One real environment, made offline; the rest with a script in the place of Python, which writes down what it is
//! asked.

use std::process::Command;

use super::*;

/// A folder with a source's requirements, and a place for environments.
struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(requirements: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("source")).expect("made");
        if let Some(text) = requirements {
            std::fs::write(folder.path().join("source/requirements.txt"), text).expect("written");
        }
        Self { folder }
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn environments(&self, interpreter: &str, again: Duration) -> Environments {
        self.limited(interpreter, again, 300_000)
    }

    fn limited(&self, interpreter: &str, again: Duration, install_timeout_ms: u64) -> Environments {
        let settings = PythonSettings {
            interpreter: interpreter.into(),
            max_runs: 1,
            pip_args: vec!["--no-index".into()],
            install_timeout_ms,
        };
        let path = std::env::var("PATH").expect("a PATH");
        let folder = self.folder.path().canonicalize().expect("there").join("data");
        let mut made = Environments::new(&settings, folder, &path, &["HOME".to_owned()].into());
        Arc::get_mut(&mut made.shared).expect("not shared yet").again = again;
        made
    }

    /// A script in the place of Python; `pip` is what it does to install.
    fn python(&self, pip: &str) -> String {
        let (log, text) = (self.folder.path().join("log"), self.folder.path().join("text"));
        let script = format!(
            "#!/bin/sh\n\
             cd {}\n\
             case \"$1 $2\" in\n\
             '-m venv') echo venv >> {log}; mkdir -p \"$3/bin\"; cp \"$0\" \"$3/bin/python\";;\n\
             '-m pip') echo pip >> {log}; {pip};;\n\
             *) echo a warning; echo \"python=3.12.1=$0\";;\n\
             esac\n",
            self.folder.path().display(),
            log = log.display(),
        );
        std::fs::write(&text, script).expect("written");
        let python = self.folder.path().join("python3");
        // A file that this process wrote may still be open in a child that another test is starting, and is not run.
        let copied = Command::new("install").args(["-m", "755"]).args([&text, &python]).status();
        assert!(copied.expect("installed").success());
        python.to_str().expect("text").to_owned()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default().replace('\n', " ")
    }

    /// The folders of environments.
    fn kept(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("data/environments"));
        let mut names: Vec<String> = entries
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }
}

/// Resolves once the process is gone, or dead and not waited for.
async fn gone(pid: &str) {
    let stat = format!("/proc/{}/stat", pid.trim());
    for _ in 0..2_000 {
        let state = std::fs::read_to_string(&stat).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the process {pid} is still there");
}

#[tokio::test]
async fn what_installs_packages_does_not_get_a_variable_that_holds_a_secret() {
    let lab = Lab::new(Some("wheeled\n"));
    let python = lab.python("echo \"home=$HOME path=${PATH:+there}\" >> log");
    lab.environments(&python, AGAIN).interpreter("pin", &lab.source()).await.expect("made");
    assert_eq!(lab.log(), "venv pip home= path=there ");
}

#[tokio::test]
async fn an_environment_has_what_its_requirements_name() {
    let lab = Lab::new(Some("# Offline.\nwheeled==1.0\n"));
    let wheels = lab.source().join("wheels");
    let make_wheel = r#"
import os, sys, zipfile
os.mkdir(sys.argv[1])
about = "wheeled-1.0.dist-info/"
with zipfile.ZipFile(os.path.join(sys.argv[1], "wheeled-1.0-py3-none-any.whl"), "w") as wheel:
    wheel.writestr("wheeled.py", "VALUE = 42\n")
    wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: wheeled\nVersion: 1.0\n")
    wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(about + "RECORD", "wheeled.py,,\n" + "".join(about + name + ",,\n" for name in ("METADATA", "WHEEL", "RECORD")))
"#;
    let environments = lab.environments("python3", AGAIN);
    let machine = environments.available().await.expect("an interpreter");
    assert!(machine.is_absolute());
    let made = Command::new(&machine).args(["-c", make_wheel]).arg(&wheels).status();
    assert!(made.expect("run").success());
    let python = environments.interpreter("pin", &lab.source()).await.expect("made");
    let ask = Command::new(&python).args(["-c", "import wheeled; print(wheeled.VALUE)"]).output();
    assert_eq!(String::from_utf8_lossy(&ask.expect("run").stdout), "42\n");
    assert!(python.starts_with(lab.folder.path().canonicalize().expect("there").join("data/environments")));

    std::fs::remove_dir_all(&wheels).expect("removed");
    std::fs::create_dir(&wheels).expect("made");
    let problem = environments.interpreter("other pin", &lab.source()).await.expect_err("no wheel");
    assert!(problem.contains("`pip install` ended with exit status: 1"), "{problem}");
    assert!(problem.contains("No matching distribution found for wheeled==1.0"), "{problem}");
    assert!(!problem.contains(&*lab.folder.path().to_string_lossy()), "{problem}");
    assert_eq!(lab.kept().len(), 1, "what failed is gone: {:?}", lab.kept());
}

#[tokio::test]
async fn a_source_without_requirements_has_the_interpreter_of_the_machine() {
    let lab = Lab::new(None);
    let environments = lab.environments("python3", AGAIN);
    let python = environments.interpreter("pin", &lab.source()).await.expect("an interpreter");
    assert_eq!(python, environments.available().await.expect("an interpreter"));
    // Known by its pin: nothing is looked at.
    std::fs::write(lab.source().join("requirements.txt"), "changed").expect("written");
    assert_eq!(environments.interpreter("pin", &lab.source()).await, Ok(python));
}

#[tokio::test]
async fn callers_share_one_making_and_sources_one_environment() {
    let lab = Lab::new(Some("a==1\n"));
    let environments = lab.environments(&lab.python("true"), AGAIN);
    let (source, other) = (lab.source(), lab.folder.path().join("other"));
    std::fs::create_dir(&other).expect("made");
    std::fs::write(other.join("requirements.txt"), "a==1\n").expect("written");
    let (one, two, three) = tokio::join!(
        environments.interpreter("one", &source),
        environments.interpreter("one", &source),
        environments.interpreter("two", &other),
    );
    let python = one.expect("made");
    assert_eq!((two.as_ref(), three.as_ref()), (Ok(&python), Ok(&python)));
    assert_eq!(environments.interpreter("three", &source).await.as_ref(), Ok(&python));
    // What comes from beside the requirements is told by the pin.
    std::fs::create_dir(other.join("wheels")).expect("made");
    let with_wheels = environments.interpreter("four", &other).await.expect("made");
    assert_ne!(with_wheels, python);
    assert_eq!(lab.log(), "venv pip venv pip ");
    // A later process finds it.
    let later = lab.environments(&lab.python("true"), AGAIN);
    assert_eq!(later.interpreter("one", &source).await, Ok(python));
    assert_eq!(lab.log(), "venv pip venv pip ");
}

#[tokio::test]
async fn a_making_goes_on_when_who_asked_is_gone() {
    let lab = Lab::new(Some("a==1\n"));
    let fifo = lab.folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("run").success());
    let environments = Arc::new(lab.environments(&lab.python("cat fifo"), AGAIN));
    let (asking, source) = (environments.clone(), lab.source());
    let asked = tokio::spawn(async move { asking.interpreter("pin", &source).await });
    // Opens once pip reads.
    let (opened, path) = (tokio::sync::oneshot::channel(), fifo.clone());
    let (told, open) = opened;
    std::thread::spawn(move || told.send(std::fs::File::create(path)));
    let writer = open.await.expect("sent").expect("opened");
    asked.abort();
    assert!(asked.await.expect_err("aborted").is_cancelled());
    drop(writer);
    environments.interpreter("pin", &lab.source()).await.expect("made");
    assert_eq!(lab.log(), "venv pip ");
}

#[tokio::test]
async fn a_making_that_failed_is_told_and_tried_again_only_later() {
    let lab = Lab::new(Some("a==1\n"));
    let python = lab.python("echo no such thing; exit 3");
    let environments = lab.environments(&python, AGAIN);
    let problem = environments.interpreter("pin", &lab.source()).await.expect_err("failed");
    assert_eq!(
        problem,
        "its environment cannot be made: `pip install` ended with exit status: 3: no such thing"
    );
    assert_eq!(environments.interpreter("pin", &lab.source()).await, Err(problem));
    assert_eq!((lab.log().as_str(), lab.kept().len()), ("venv pip ", 0));

    let environments = lab.environments(&python, Duration::ZERO);
    for _ in 0..2 {
        environments.interpreter("pin", &lab.source()).await.expect_err("failed");
    }
    assert_eq!(lab.log(), "venv pip venv pip venv pip ");
}

#[tokio::test]
async fn a_making_ends_at_its_time_limit_with_all_that_it_started() {
    let lab = Lab::new(Some("a==1\n"));
    let python = lab.python("sleep 1000 & echo $! > pid; wait");
    let environments = lab.limited(&python, AGAIN, 1_000);
    let problem = environments.interpreter("pin", &lab.source()).await.expect_err("too long");
    let limit = "its environment cannot be made: it took longer than 1000 ms, which is `install_timeout_ms`";
    assert_eq!((problem.as_str(), lab.kept().len()), (limit, 0));
    gone(&std::fs::read_to_string(lab.folder.path().join("pid")).expect("pip ran")).await;
}

#[tokio::test]
async fn a_making_ends_with_the_environments_and_what_it_left_is_made_anew() {
    let lab = Lab::new(Some("a==1\n"));
    let fifo = lab.folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("run").success());
    let environments = lab.environments(&lab.python("touch $0.left; echo $$ > fifo; exec sleep 1000"), AGAIN);
    let environments = Arc::new(environments);
    let (asking, source) = (Arc::downgrade(&environments), lab.source());
    let asked = tokio::spawn(async move {
        let asking = asking.upgrade().expect("there");
        asking.interpreter("pin", &source).await
    });
    let pid = tokio::task::spawn_blocking(move || std::fs::read_to_string(fifo)).await.expect("joined");
    asked.abort();
    assert!(asked.await.expect_err("aborted").is_cancelled());
    drop(environments);
    gone(&pid.expect("pip runs")).await;
    let left = lab.kept();
    assert_eq!(left.len(), 1);
    let home = lab.folder.path().join("data/environments").join(&left[0]);
    assert!(home.join("bin/python.left").exists() && !home.join(make::MARKER).exists());

    let environments = lab.environments(&lab.python("true"), AGAIN);
    environments.interpreter("pin", &lab.source()).await.expect("made");
    assert!(!home.join("bin/python.left").exists() && home.join(make::MARKER).exists());
}

#[tokio::test]
async fn an_interpreter_that_cannot_be_used_says_why() {
    let lab = Lab::new(None);
    let python = lab.python("true");
    let script = |answer: &str| {
        let text = lab.folder.path().join("text");
        std::fs::write(&text, format!("#!/bin/sh\n{answer}\n")).expect("written");
        let copied = Command::new("install").args(["-m", "755"]).arg(&text).arg(&python).status();
        assert!(copied.expect("installed").success());
    };
    let environments = lab.environments(&python, AGAIN);
    for (answer, why) in [
        ("echo python=2.7.18=/usr/bin/python2", "is Python 2.7.18, and 3.8 is the oldest that can be used"),
        ("echo python=3.7.16=/usr/bin/python3", "is Python 3.7.16"),
        ("echo hello; exit 4", "does not tell its version: exit status: 4"),
    ] {
        script(answer);
        let problem = environments.available().await.expect_err(why);
        assert!(problem.starts_with("the interpreter \"python3\"") && problem.contains(why), "{problem}");
    }
    // Asked again after each failure, and no more after the first success.
    script("echo python=3.8.0=/usr/bin/python3.8");
    assert_eq!(environments.available().await, Ok("/usr/bin/python3.8".into()));
    script("exit 1");
    assert_eq!(environments.available().await, Ok("/usr/bin/python3.8".into()));

    for absent in ["no-such-python", "/no/such/no-such-python"] {
        let problem = lab.environments(absent, AGAIN).available().await.expect_err("absent");
        assert_eq!(problem, "the interpreter \"no-such-python\" is not on this machine's PATH");
    }
}

#[tokio::test]
async fn what_was_not_used_for_longest_is_removed_unless_it_runs() {
    let lab = Lab::new(None);
    let environments = lab.environments("python3", AGAIN);
    let folder = lab.folder.path().canonicalize().expect("there").join("data/environments");
    for (age, key) in [(50, "oldest"), (40, "running"), (30, "old"), (20, "young"), (10, "youngest")] {
        std::fs::create_dir_all(folder.join(key)).expect("made");
        let marker = std::fs::File::create(folder.join(key).join(make::MARKER)).expect("made");
        marker.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("touched");
    }
    std::fs::create_dir_all(folder.join("unfinished/bin")).expect("made");
    std::fs::create_dir_all(folder.join("coming/bin")).expect("made");
    environments.shared.state().coming.insert("coming".into(), watch::channel(None).1);
    let program = folder.join("running/python");
    let mut running = {
        use std::os::unix::process::CommandExt;
        Command::new("sleep").arg0(&program).arg("1000").spawn().expect("started")
    };
    // The kernel tells that it was started a moment before it shows under which name.
    let command = format!("/proc/{}/cmdline", running.id());
    while std::fs::read(&command).expect("alive").is_empty() {
        tokio::task::yield_now().await;
    }
    let shared = environments.shared.clone();
    tokio::task::spawn_blocking(move || shared.prune(3)).await.expect("pruned");
    running.kill().expect("killed");
    running.wait().expect("waited for");
    assert_eq!(lab.kept(), ["coming", "running", "young", "youngest"]);
}

#[test]
fn requirements_that_name_files_are_told_from_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let machine = Machine { python: "/usr/bin/python3".into(), version: "3.11.2".into() };
    let key = |text: &str, pin: &str, pip_args: &[String]| {
        std::fs::write(folder.path().join("requirements.txt"), text).expect("written");
        Recipe::read(folder.path(), pin, &machine, pip_args).expect("read").expect("a recipe").key
    };
    for own in ["", "a==1\nb>=2 # why\n", "# -r other.txt\na\n", "a==1 \\\n    --hash=sha256:00\n"] {
        assert_eq!(key(own, "1", &[]), key(own, "2", &[]), "{own}");
    }
    for beyond in ["-r other.txt", "--find-links more", "a\n./local", "inner/local", "a @ file:x.whl"] {
        assert_ne!(key(beyond, "1", &[]), key(beyond, "2", &[]), "{beyond}");
    }
    assert_ne!(key("a", "1", &[]), key("b", "1", &[]));
    assert_ne!(key("a", "1", &[]), key("a", "1", &["--pre".into()]));
    assert_ne!(key("a", "1", &["b".into(), "c".into()]), key("a", "1", &["bc".into()]));
}
