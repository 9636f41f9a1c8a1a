//! The store as a whole: real files, and a real server on the loopback.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

mod archives;

/// A root with sources, and a store; both are gone when this is.
struct House {
    folder: tempfile::TempDir,
    settings: ArtifactSettings,
    store: Artifacts,
}

impl House {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut ArtifactSettings)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("root")).expect("made");
        let mut settings = ArtifactSettings {
            roots: Vec::new(),
            cache_mb: 64,
            max_mb: 1,
            fetch_timeout_ms: 5_000,
            allow_private: true,
        };
        change(&mut settings);
        let store = Self::open(&settings, folder.path());
        Self { folder, settings, store }
    }

    fn open(settings: &ArtifactSettings, folder: &Path) -> Artifacts {
        let roots = vec![folder.join("missing"), folder.join("root")];
        let egress = Egress::new(Vec::new()).expect("a client");
        Artifacts::open(settings, folder.join("data/artifacts"), roots, egress).expect("opened")
    }

    /// As after a restart.
    fn reopen(&mut self) {
        self.store = Self::open(&self.settings, self.folder.path());
    }

    fn source(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.source(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, content).expect("written");
    }

    /// What is in the store's folder.
    fn stored(&self) -> HashSet<String> {
        let entries = fs::read_dir(self.folder.path().join("data/artifacts")).expect("there");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect()
    }

    async fn pin(&self, source: &str) -> Result<Pin, Problem> {
        self.store.pin(source, None).await
    }
}

/// A server that gives each request's path to `answer`. Its address, and how many requests it got.
async fn serve(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let (requests, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
    let counted = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            tokio::spawn(async move {
                let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
                while !request.windows(4).any(|four| four == b"\r\n\r\n") {
                    match stream.read(&mut buffer).await {
                        Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
                        _ => return,
                    }
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                let path = text.split(' ').nth(1).unwrap_or_default();
                let answer = answer(path);
                if answer.is_empty() {
                    // It never comes.
                    return std::future::pending().await;
                }
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (address, requests)
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o7777
}

/// The SHA-256 of "abc", from FIPS 180-2, appendix B.1.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[tokio::test]
async fn what_runs_is_what_was_pinned_whatever_becomes_of_the_original() {
    let house = House::new();
    house.write("a.sh", "abc");
    let absolute = house.source("a.sh").canonicalize().expect("there").display().to_string();
    for source in ["a.sh", "./a.sh", "file://a.sh", &absolute, &format!("file://{absolute}")] {
        assert_eq!(house.pin(source).await.expect("pinned").as_str(), ABC, "{source}");
    }
    let pin = house.store.pin("a.sh", Some(ABC)).await.expect("the same");
    fs::remove_file(house.source("a.sh")).expect("removed");
    let lease = house.store.lease("a.sh", &pin).await.expect("kept");
    let file = lease.file(None).expect("a file");
    assert_eq!(fs::read(&file).expect("readable"), b"abc");
    assert!(file.ends_with("a.sh") && file.starts_with(lease.folder()), "{}", file.display());
    assert_eq!((mode(&file), mode(lease.folder())), (0o444, 0o755));
    assert_eq!(lease.file(Some("a.sh")).as_ref(), Ok(&file));
    assert!(lease.file(Some("b.sh")).expect_err("absent").contains("has no \"b.sh\""));
    assert_eq!(house.stored().len(), 1);
}

#[tokio::test]
async fn the_same_bytes_keep_the_ending_that_each_source_gives_them() {
    let house = House::new();
    house.write("a.sh", "abc");
    house.write("b.py", "abc");
    house.write("tool", "abc");
    fs::set_permissions(house.source("tool"), fs::Permissions::from_mode(0o4755)).expect("set");
    for name in ["a.sh", "b.py", "tool"] {
        let pin = house.pin(name).await.expect("pinned");
        let lease = house.store.lease(name, &pin).await.expect("kept");
        assert!(lease.file(None).expect("a file").ends_with(name));
    }
    let tool = house.store.lease("tool", &Pin::parse(ABC).expect("a pin")).await.expect("kept");
    assert_eq!(mode(&tool.file(None).expect("a file")), 0o555);
}

#[tokio::test]
async fn nothing_outside_the_roots_is_taken() {
    let house = House::new();
    fs::write(house.folder.path().join("outside.sh"), "abc").expect("written");
    symlink("../outside.sh", house.source("link.sh")).expect("linked");
    symlink(house.folder.path(), house.source("out")).expect("linked");
    for source in
        ["none.sh", "../outside.sh", "link.sh", "out/outside.sh", "/etc/passwd", "file:///etc/passwd"]
    {
        assert_eq!(house.pin(source).await, Err(Problem::NotAllowed), "{source}");
    }
    assert!(house.stored().is_empty());
}

#[tokio::test]
async fn a_folder_is_pinned_by_all_that_it_holds() {
    let house = House::new();
    house.write("tool/main.sh", "echo");
    house.write("tool/inner/data", "x");
    symlink("inner/data", house.source("tool/link")).expect("linked");
    let first = house.pin("tool").await.expect("pinned");
    assert_eq!(house.pin("tool").await, Ok(first.clone()));
    let lease = house.store.lease("tool", &first).await.expect("kept");
    let file = lease.file(Some("main.sh")).expect("a file");
    assert!(lease.file(Some("link")).expect("a file").ends_with("inner/data"));
    for (entrypoint, told) in [
        (None, "is a folder, and no `entrypoint`"),
        (Some("inner"), "is a folder"),
        (Some("none"), "has no"),
        (Some("../../x"), "has no"),
        (Some("inner/../main.sh"), "has no"),
        (Some("/etc/passwd"), "has no"),
    ] {
        let sentence = lease.file(entrypoint).expect_err(told);
        assert!(sentence.contains(told), "{sentence}");
    }

    house.write("tool/inner/data", "y");
    let second = house.pin("tool").await.expect("pinned");
    fs::set_permissions(house.source("tool/main.sh"), fs::Permissions::from_mode(0o755)).expect("set");
    let third = house.pin("tool").await.expect("pinned");
    fs::rename(house.source("tool/inner/data"), house.source("tool/inner/date")).expect("renamed");
    fs::remove_file(house.source("tool/link")).expect("removed");
    let fourth = house.pin("tool").await.expect("pinned");
    assert_eq!(HashSet::from([first, second, third, fourth]).len(), 4);
    assert_eq!(fs::read(file).expect("kept"), b"echo");

    symlink("../../outside", house.source("tool/link")).expect("linked");
    let refused = house.pin("tool").await.expect_err("it leads out");
    assert!(refused.to_string().contains("\"link\" is a link that leads out"), "{refused}");
    fs::remove_file(house.source("tool/link")).expect("removed");
    nix::unistd::mkfifo(&house.source("tool/pipe"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    let refused = house.pin("tool").await.expect_err("a pipe");
    assert!(refused.to_string().contains("neither a file nor"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_callers_share_one_fetch() {
    let house = Arc::new(House::new());
    let (address, requests) = serve(|_| ok(b"abc")).await;
    let source = format!("{address}/tools/a%20b.py?raw=1");
    let callers = (0..50).map(|_| {
        let (house, source) = (house.clone(), source.clone());
        tokio::spawn(async move { house.pin(&source).await })
    });
    for caller in callers.collect::<Vec<_>>() {
        assert_eq!(caller.await.expect("no panic").expect("pinned").as_str(), ABC);
    }
    assert_eq!(requests.load(Ordering::SeqCst), 1);

    let pin = house.store.pin(&source, Some(&ABC.to_uppercase())).await.expect("it is kept");
    let lease = house.store.lease(&source, &pin).await.expect("it is kept");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    assert!(lease.file(None).expect("a file").ends_with("a_20b.py"));
    assert_eq!(mode(&lease.file(None).expect("a file")), 0o555);
}

#[tokio::test]
async fn a_fetch_goes_on_when_who_began_it_is_gone() {
    let house = House::new();
    let (address, requests) = serve(|_| ok(b"abc")).await;
    let first = house.pin(&address);
    assert!(tokio::time::timeout(Duration::ZERO, first).await.is_err(), "dropped before it was done");
    assert_eq!(house.pin(&address).await.expect("pinned").as_str(), ABC);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn something_else_than_what_was_registered_is_not_kept() {
    let house = House::new();
    house.write("a.sh", "abd");
    house.write("folder/a.sh", "abc");
    let (address, _) = serve(|_| ok(b"abd")).await;
    for source in ["a.sh", "folder", &format!("{address}/a.zip")] {
        let problem = house.store.pin(source, Some(ABC)).await.expect_err("another hash");
        assert!(matches!(&problem, Problem::Mismatch { found } if found.as_str() != ABC), "{problem}");
        assert!(
            problem.to_string().contains("not what was registered: its SHA-256 is ") && problem.is_for_good()
        );
    }
    assert!(house.stored().is_empty());
    let problem = house.store.pin("a.sh", Some("no hash")).await.expect_err("no hash");
    assert!(matches!(problem, Problem::Mismatch { .. }));
}

#[tokio::test]
async fn a_source_that_is_too_large_is_not_kept_however_it_tells_its_size() {
    let house = House::new();
    house.write("large", vec![0; (1 << 20) + 1]);
    house.write("just", vec![0; 1 << 20]);
    let (address, _) = serve(|path| match path {
        "/told" => b"HTTP/1.1 200 OK\r\ncontent-length: 1048577\r\n\r\n".into(),
        _ => {
            let chunk = [b"10000\r\n".as_slice(), &[0; 0x10000], b"\r\n"].concat();
            [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".as_slice(), &chunk.repeat(17)].concat()
        }
    })
    .await;
    assert!(house.pin("just").await.is_ok());
    for source in ["large", &format!("{address}/told"), &format!("{address}/chunked")] {
        assert_eq!(house.pin(source).await, Err(Problem::TooLarge(1)), "{source}");
    }
    assert_eq!(house.stored().len(), 1);
}

#[tokio::test]
async fn what_an_address_answers_is_told() {
    let house = House::with(|settings| settings.fetch_timeout_ms = 200);
    let (address, requests) = serve(|path| {
        let moved = |to: &str| format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
        match path {
            "/ok" => ok(b"abc"),
            "/moved" => moved("/ok").into(),
            "/again" => moved("/again").into(),
            "/file" => moved("file:///etc/passwd").into(),
            "/short" => b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".into(),
            "/late" => Vec::new(),
            "/busy" => b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".into(),
            _ => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into(),
        }
    })
    .await;
    for (path, sentence, is_for_good) in [
        ("none", "answered with status 404", true),
        ("busy", "answered with status 503", false),
        ("again", "redirects more than 5 times", true),
        ("file", "neither http nor https", true),
        ("short", "broke off its answer", false),
        ("late", "took longer than 200 ms", false),
    ] {
        let problem = house.pin(&format!("{address}/{path}")).await.expect_err(path);
        assert!(problem.to_string().contains(sentence), "{problem}");
        assert_eq!(problem.is_for_good(), is_for_good, "{path}");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 1 + 1 + 6 + 1 + 1 + 1);
    assert!(house.stored().is_empty());
    assert_eq!(house.pin(&format!("{address}/moved")).await.expect("pinned").as_str(), ABC);
    let nobody = house.pin("http://127.0.0.1:1/x").await.expect_err("nobody listens");
    assert!(matches!(nobody, Problem::Unreachable(_)) && !nobody.is_for_good());
    for (source, sentence) in [("ftp://x/y", "neither http"), ("http://", "no valid address")] {
        assert!(house.pin(source).await.expect_err(source).to_string().contains(sentence));
    }
}

#[tokio::test]
async fn a_private_address_is_not_asked_unless_allowed() {
    let house = House::with(|settings| settings.allow_private = false);
    let (address, requests) = serve(|_| ok(b"abc")).await;
    let port = address.rsplit_once(':').expect("a port").1;
    for host in ["127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]", "169.254.169.254"] {
        let problem = house.pin(&format!("http://{host}:{port}/a")).await.expect_err(host);
        assert!(problem.to_string().contains("private address") && problem.is_for_good(), "{problem}");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_was_not_used_for_longest_goes_first_and_what_is_leased_stays() {
    let house = House::with(|settings| settings.cache_mb = 1);
    let mut pins = Vec::new();
    for name in ["a", "b", "c", "d"] {
        house.write(name, name.repeat(400 << 10));
    }
    let keeps = |name: &str, pin: &Pin| house.stored().contains(&format!("{}-{name}", pin.as_str()));
    for name in ["a", "b"] {
        pins.push(house.pin(name).await.expect("pinned"));
    }
    drop(house.store.lease("a", &pins[0]).await.expect("kept"));
    pins.push(house.pin("c").await.expect("pinned"));
    assert!(keeps("a", &pins[0]) && !keeps("b", &pins[1]) && keeps("c", &pins[2]));

    let leased = house.store.lease("a", &pins[0]).await.expect("kept");
    pins.push(house.pin("d").await.expect("pinned"));
    drop(house.store.lease("b", &pins[1]).await.expect("it comes again"));
    assert!(keeps("a", &pins[0]) && !keeps("c", &pins[2]), "{:?}", house.stored());
    assert!(leased.clone().file(None).expect("a file").exists());

    // Larger than the whole budget together with what is leased: it can be used, as long as it is.
    house.write("b", vec![1; 1 << 20]);
    let large = house.pin("b").await.expect("pinned");
    let large = house.store.lease("b", &large).await.expect("kept");
    assert!(large.file(None).expect("a file").exists() && leased.file(None).expect("a file").exists());
    drop((large, leased));
    house.pin("c").await.expect("pinned");
    assert_eq!(house.stored().len(), 1, "{:?}", house.stored());
}

#[tokio::test]
async fn an_evicted_source_that_was_changed_is_not_taken_for_the_old_one() {
    let house = House::with(|settings| settings.cache_mb = 0);
    house.write("a", "abc");
    house.write("b", "b");
    let pin = house.pin("a").await.expect("pinned");
    house.pin("b").await.expect("pinned");
    assert!(house.store.lease("a", &pin).await.is_ok(), "it comes again");
    house.write("a", "abd");
    house.pin("b").await.expect("pinned");
    let problem = house.store.lease("a", &pin).await.expect_err("changed");
    assert!(matches!(problem, Problem::Mismatch { .. }));
}

#[tokio::test]
async fn a_restart_finds_what_was_kept_and_removes_what_was_not_complete() {
    let mut house = House::new();
    house.write("a.sh", "abc");
    house.write("tool/a.sh", "abc");
    let (file, tool) = (house.pin("a.sh").await.expect("pinned"), house.pin("tool").await.expect("pinned"));
    let folder = house.folder.path().join("data/artifacts");
    fs::create_dir_all(folder.join(".incoming-1/tree/x")).expect("made");
    fs::create_dir_all(folder.join(format!("{ABC}.zip/tree"))).expect("made");
    fs::create_dir_all(folder.join("lost+found")).expect("made");
    fs::remove_dir_all(house.source("")).expect("removed");
    house.reopen();
    assert_eq!(house.stored().len(), 3);
    let lease = house.store.lease("a.sh", &file).await.expect("kept");
    assert_eq!(fs::read(lease.file(None).expect("a file")).expect("readable"), b"abc");
    let lease = house.store.lease("tool", &tool).await.expect("kept");
    assert!(lease.file(Some("a.sh")).is_ok());
    assert_eq!(house.pin("a.sh").await, Err(Problem::NotAllowed));
}

#[tokio::test]
async fn what_was_tampered_with_is_noticed_at_the_first_lease_and_comes_again() {
    let mut house = House::new();
    house.write("a.sh", "abc");
    house.write("tool/a.sh", "abc");
    let (file, tool) = (house.pin("a.sh").await.expect("pinned"), house.pin("tool").await.expect("pinned"));
    for (source, pin) in [("a.sh", &file), ("tool", &tool)] {
        let kept = house.store.lease(source, pin).await.expect("kept").folder().join("a.sh");
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o644)).expect("set");
        fs::write(&kept, "abd").expect("written");
        house.reopen();
        let lease = house.store.lease(source, pin).await.expect("it comes again");
        assert_eq!(fs::read(lease.folder().join("a.sh")).expect("readable"), b"abc", "{source}");
        let folder = lease.folder().to_owned();
        drop(lease);
        fs::set_permissions(folder.join("a.sh"), fs::Permissions::from_mode(0o666)).expect("set");
        fs::remove_file(folder.join("a.sh")).expect("removed");
        house.write("a.sh", "changed");
        house.write("tool/a.sh", "changed");
        house.reopen();
        let problem = house.store.lease(source, pin).await.expect_err("changed");
        assert!(matches!(problem, Problem::Mismatch { .. }), "{problem}");
        assert!(!house.stored().iter().any(|name| name.starts_with(pin.as_str())));
        house.write("a.sh", "abc");
        house.write("tool/a.sh", "abc");
    }
}

#[tokio::test]
async fn what_programs_left_beside_themselves_is_gone_after_a_restart() {
    let mut house = House::new();
    house.write("a.py", "abc");
    house.write("tool/inner/a.py", "abc");
    for (source, inner) in [("a.py", "."), ("tool", "inner")] {
        let pin = house.pin(source).await.expect("pinned");
        let folder = house.store.lease(source, &pin).await.expect("kept").folder().join(inner);
        fs::create_dir(folder.join("__pycache__")).expect("made");
        fs::write(folder.join("__pycache__/a.pyc"), "x").expect("written");
        fs::write(folder.join("log"), "x").expect("written");
        house.reopen();
        // The original is not needed for that.
        fs::remove_dir_all(house.source(source))
            .or_else(|_| fs::remove_file(house.source(source)))
            .expect("removed");
        let lease = house.store.lease(source, &pin).await.expect("kept");
        let left = fs::read_dir(lease.folder().join(inner)).expect("there");
        let left: Vec<_> = left.map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(left, ["a.py"], "{source}");
    }
}

#[tokio::test]
async fn a_lease_of_what_is_there_costs_microseconds() {
    let house = House::new();
    house.write("a.sh", "abc");
    let pin = house.pin("a.sh").await.expect("pinned");
    let begun = std::time::Instant::now();
    for _ in 0..1_000 {
        drop(house.store.lease("a.sh", &pin).await.expect("kept"));
    }
    // It takes a few; a busy machine may be slow.
    let each = begun.elapsed() / 1_000;
    assert!(each < Duration::from_micros(200), "{each:?}");
}

#[test]
fn a_pin_is_read_only_from_its_own_digits() {
    assert_eq!(serde_json::to_string(&Pin::parse(ABC)).expect("text"), format!("{ABC:?}"));
    assert!(serde_json::from_str::<Pin>(&format!("{ABC:?}")).is_ok());
    for text in ["", "../..", &ABC.to_uppercase(), &ABC[1..], &format!("{ABC}0")] {
        assert!(serde_json::from_str::<Pin>(&format!("{text:?}")).is_err(), "{text}");
    }
}

#[test]
fn a_name_becomes_plain_and_keeps_its_ending() {
    let name = |name: &str| match Shape::of_name(name) {
        Shape::File(name) => name,
        shape => format!("{shape:?}"),
    };
    for (given, plain) in [
        ("a.PY", "a.PY"),
        ("", "file"),
        ("..", "_."),
        ("-rf x", "_rf_x"),
        ("ä;b.sh", "__b.sh"),
        ("x.ZIP", "Zip"),
        ("x.tar.gz", "TarGz"),
        ("x.tgz", "TarGz"),
        ("ä.tar", "_.tar"),
    ] {
        assert_eq!(name(given), plain);
    }
    assert!(name(&format!("{}.py", "x".repeat(300))).ends_with("xxx.py"));
    assert_eq!(name(&"x".repeat(300)).len(), 100);
}
