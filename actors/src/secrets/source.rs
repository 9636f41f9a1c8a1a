//! Where the value of a secret is: in the service's own environment, in a file, or in what a command prints.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use zeroize::Zeroizing;

use super::secret::{MAX_BYTES, Secret};
use crate::group::Group;
use crate::settings::SecretSettings;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One of the three.
#[derive(Debug)]
pub enum Place {
    /// A variable of the service's environment.
    Env(String),
    /// A file, which may change.
    File(PathBuf),
    /// A program and its arguments; no shell is between.
    Command(Vec<String>),
}

impl Place {
    /// The one that the settings name.
    pub fn of(settings: &SecretSettings) -> Self {
        match (&settings.env, &settings.file) {
            (Some(name), _) => Self::Env(name.clone()),
            (_, Some(path)) => Self::File(path.clone()),
            _ => Self::Command(settings.command.clone()),
        }
    }

    /// Reads the value. What a command runs gets the service's environment without the variables that are `hidden`.
    ///
    /// # Errors
    /// What went wrong, to read on after the secret's name: no part of the value, no path, nothing that a command said.
    pub async fn read(&self, trim: bool, hidden: &BTreeSet<String>) -> Result<Secret, String> {
        let bytes = match self {
            Self::Env(name) => {
                let value = std::env::var_os(name).ok_or("has its value in a variable that is not set")?;
                Zeroizing::new(value.into_encoded_bytes())
            }
            Self::File(path) => file(path).await?,
            Self::Command(words) => tokio::time::timeout(PATIENCE, printed(words, hidden))
                .await
                .unwrap_or_else(|_| Err("has a command that took longer than 10 s".into()))?,
        };
        Ok(Secret::read(&bytes, trim)?)
    }
}

async fn file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let unreadable = |error: std::io::Error| format!("has a file that cannot be read: {}", error.kind());
    // To open a pipe would be to wait for whoever writes to it.
    if !tokio::fs::metadata(path).await.map_err(unreadable)?.is_file() {
        return Err("has a file that is no plain file".into());
    }
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    whole(file).await.map_err(unreadable)
}

async fn printed(words: &[String], hidden: &BTreeSet<String>) -> Result<Zeroizing<Vec<u8>>, String> {
    let failed = |error: std::io::Error| format!("has a command that cannot be run: {}", error.kind());
    let (program, args) = words.split_first().ok_or("has a command without a program")?;
    let mut command = Command::new(program);
    command.args(args).process_group(0).kill_on_drop(true);
    for name in hidden {
        command.env_remove(name);
    }
    // What it says of an error may be the value.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    let _group = Group::of(&child);
    let stdout = child.stdout.take().ok_or("has a command that cannot be read")?;
    let bytes = whole(stdout).await.map_err(failed)?;
    let status = child.wait().await.map_err(failed)?;
    if status.success() { Ok(bytes) } else { Err(format!("has a command that ended with {status}")) }
}

/// All that there is; one byte more than a value may have tells that there is more.
async fn whole(from: impl AsyncRead + Unpin) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let most = MAX_BYTES + 1;
    // It does not grow, which would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 32));
    from.take(most as u64).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(place: Place) -> Result<String, String> {
        place.read(true, &BTreeSet::new()).await.map(|secret| secret.expose().to_owned())
    }

    fn command(words: &[&str]) -> Place {
        Place::Command(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[tokio::test]
    async fn a_value_comes_from_a_variable_a_file_or_a_command() {
        let name = env!("CARGO_PKG_NAME");
        assert_eq!(read(Place::Env("CARGO_PKG_NAME".into())).await.as_deref(), Ok(name));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        std::fs::write(&file, "first\n").expect("written");
        assert_eq!(read(Place::File(file.clone())).await.as_deref(), Ok("first"));
        std::fs::write(&file, "second\n").expect("written");
        assert_eq!(read(Place::File(file)).await.as_deref(), Ok("second"));
        assert_eq!(read(command(&["printf", "%s\n", "a b;c"])).await.as_deref(), Ok("a b;c"));
    }

    #[tokio::test]
    async fn a_command_does_not_get_what_other_secrets_are_in() {
        let place = command(&["sh", "-c", "echo got=$CARGO_PKG_NAME=$CARGO_PKG_VERSION"]);
        let hidden = ["CARGO_PKG_NAME".to_owned()].into();
        let told = place.read(true, &hidden).await.expect("a value");
        assert_eq!(told.expose(), concat!("got==", env!("CARGO_PKG_VERSION")));
    }

    #[tokio::test]
    async fn why_there_is_no_value_is_said_without_a_word_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let large = folder.path().join("large");
        std::fs::write(&large, vec![b'x'; MAX_BYTES + 1]).expect("written");
        for (place, why) in [
            (Place::Env("NO_SUCH_VARIABLE".into()), "not set"),
            (Place::File(folder.path().join("none")), "cannot be read: entity not found"),
            (Place::File(folder.path().to_owned()), "no plain file"),
            (Place::File("/dev/zero".into()), "no plain file"),
            (Place::File(large), "larger than 65536 bytes"),
            (command(&["/no/such/program"]), "cannot be run: entity not found"),
            (command(&["sh", "-c", "echo canary; echo canary >&2; exit 3"]), "ended with exit status: 3"),
            (command(&["cat", "/dev/zero"]), "signal"),
            (command(&["true"]), "shorter than 4 bytes"),
        ] {
            let told = read(place).await.expect_err(why);
            assert!(told.contains(why), "{told}");
            assert!(!told.contains("canary") && !told.contains('/'), "{told}");
        }
    }
}
