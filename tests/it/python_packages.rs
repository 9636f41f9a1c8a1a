//! What a handler's requirements.txt names is there when it runs. Nothing here asks the network.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::program::{in_catalog, put_source, python, tool};
use crate::service::{Launch, Service, eventually};

/// Makes a wheel by hand, of one module, in the folder that pip looks through for this source.
const WHEEL: &str = r#"
import base64, hashlib, os, zipfile

files = {
    "orgtest.py": "VALUE = 42\n",
    "orgtest-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: orgtest\nVersion: 1.0\n",
    "orgtest-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
os.makedirs("package/wheels", exist_ok=True)
with zipfile.ZipFile("package/wheels/orgtest-1.0-py3-none-any.whl", "w") as wheel:
    record = "orgtest-1.0.dist-info/RECORD,,\n"
    for name, text in files.items():
        wheel.writestr(name, text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text)}\n"
    wheel.writestr("orgtest-1.0.dist-info/RECORD", record)
"#;

/// A service whose pip stays offline; none where this machine cannot make environments.
async fn offline() -> Option<Service> {
    let probe = Command::new("python3").args(["-c", "import ensurepip, venv"]).output().unwrap();
    if !probe.status.success() {
        let said = String::from_utf8_lossy(&probe.stderr);
        eprintln!("SKIPPED: `python3 -m venv` does not work here: {}", said.trim());
        return None;
    }
    Some(Launch::new().set("PYTHON__PIP_ARGS", r#"["--no-index"]"#).start().await)
}

/// A handler in a folder with these requirements.
fn with_requirements(service: &Service, requirements: &str) -> Value {
    put_source(
        service,
        "package/main.py",
        "import orgtest\n\ndef handler(input):\n    return orgtest.VALUE\n",
    );
    put_source(service, "package/requirements.txt", requirements);
    let mut metadata = python("package");
    metadata["entrypoint"] = json!("main.py");
    // Making an environment takes seconds.
    metadata["limits"] = json!({ "timeout_ms": 60_000 });
    metadata
}

#[tokio::test]
async fn an_environment_is_made_once_for_all_that_need_it() {
    let Some(service) = offline().await else { return };
    let metadata = with_requirements(&service, "orgtest==1.0\n");
    in_catalog(&service, WHEEL);
    service.create(&tool("one", metadata.clone())).await;
    service.create(&tool("other", metadata)).await;
    let run = async |id: &'static str| service.run("tool", id, json!({})).await.output().clone();
    let outputs = tokio::join!(run("one"), run("other"), run("one"));
    assert_eq!(outputs, (json!(42), json!(42), json!(42)));
    let said = "a Python environment was made";
    eventually("it is said", Duration::from_secs(2), || service.log().contains(said)).await;
    assert_eq!(service.log().matches(said).count(), 1);
}

#[tokio::test]
async fn what_cannot_be_installed_is_named_and_leaves_nothing() {
    let Some(service) = offline().await else { return };
    let metadata = with_requirements(&service, "no-such-package-here==1.0\n");
    service.create(&tool("wanting", metadata)).await;
    let talk = service.run("tool", "wanting", json!({})).await;
    let (error, code) = talk.error();
    assert_eq!(code, "not_startable", "{error}");
    assert!(error.contains("no-such-package-here"), "{error}");
    let left = std::fs::read_dir(service.path("data/python/environments")).unwrap().count();
    assert_eq!(left, 0);
}
