//! What service and launcher say to each other: each message is its length (four bytes, little-endian) and JSON.
//! The descriptors of [`Request::Start`] travel with its first byte.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::settings::Containment;

/// The largest message: the kernel takes arguments and environment of 2 MiB, and JSON may write a byte as six.
const MAX_BYTES: usize = 16 << 20;

/// What the service asks for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// The first request: how programs are to be kept together, and apart from everything else.
    Contain(Wanted),
    /// Start a program. Its standard input, output and error come along, and maybe a channel as descriptors 3
    /// and 4.
    Start(Start),
    /// Watch the program, which runs already, from now on.
    Watch(Limits),
    /// Watch it no longer.
    Rest,
    /// Tell whether the program is alone; end everything where it is not.
    Sweep,
    /// End everything.
    Kill,
}

/// What a launcher is to be.
#[derive(Debug, Serialize, Deserialize)]
pub enum Wanted {
    /// One that keeps programs together in this way, and lets them see the machine.
    Together(Containment),
    /// A jail.
    Jail(Plan),
}

/// What a jail is made of.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Folders and files of the machine that are shown read-only, where they are, besides those that every program needs.
    pub readable: Vec<String>,
    /// The service's own folders, of which a start may show parts.
    pub kept: Vec<String>,
    /// The working folder, which is given to the user of the programs.
    pub folder: String,
    /// How much /tmp may hold, and /dev/shm.
    pub tmp_bytes: u64,
    /// Whether programs have the machine's network.
    pub network: bool,
}

/// A folder of the service that a program is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Where it is on the machine.
    pub from: String,
    /// Where the program sees it.
    pub at: String,
}

/// A program and how it is started.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// Its absolute path.
    pub program: String,
    /// Its arguments, without the name.
    pub args: Vec<String>,
    /// Its whole environment, `NAME=value` each.
    pub env: Vec<String>,
    /// Its working folder.
    pub folder: String,
    /// What it is shown, in a jail.
    pub shown: Vec<Shown>,
    /// What the kernel itself holds it to; nothing where it is not bounded at all.
    pub bounds: Option<Bounds>,
    /// What it is watched for; nothing for a program that waits for work.
    pub limits: Option<Limits>,
}

/// What the kernel itself holds a program to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Bounds {
    /// How many files a process may have open.
    pub files: u64,
    /// How large a file may be.
    pub file_bytes: u64,
    /// How many processes and threads there may be, where the kernel can count them for a program.
    pub processes: u64,
}

/// What a program may use, with all that it started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Processor time, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Processes and threads at one time.
    pub processes: u64,
    /// Open files of one process.
    pub files: u64,
    /// Bytes in the folder below.
    pub disk_bytes: u64,
    /// The working folder.
    pub folder: Option<String>,
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exceeded {
    /// Memory.
    Memory,
    /// Processor time.
    Cpu,
    /// Processes.
    Processes,
    /// Open files.
    Files,
    /// What was written into the working folder.
    Disk,
}

/// What the launcher answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Programs are kept together in this way.
    Contained(Containment),
    /// What was asked for last could not be done, for this reason; a program that is started is told when it ends.
    Failed(String),
    /// The program is alone.
    Swept,
    /// The program ended, and what it left too.
    Exited(Exit),
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit status.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The limit for which it was ended.
    pub exceeded: Option<Exceeded>,
    /// The processor time that it used, with all that it waited for.
    pub cpu_ms: u64,
    /// Whether nothing is left of it.
    pub is_clean: bool,
}

/// A message as it goes over the socket.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).expect("a message is plain data");
    let length = u32::try_from(bytes.len() - 4).expect("messages are far below 4 GiB");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Takes the first message from what was received; nothing while it is incomplete.
///
/// # Errors
/// What was received is no message.
pub fn decode<T: DeserializeOwned>(received: &mut Vec<u8>) -> Result<Option<T>, String> {
    let Some((length, rest)) = received.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_BYTES {
        return Err(format!("a message of {length} bytes"));
    }
    let Some(text) = rest.get(..length) else { return Ok(None) };
    let message = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    received.drain(..4 + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in_and_only_when_they_are_whole() {
        let bytes = [encode(&Request::Sweep), encode(&Request::Kill)].concat();
        let mut received = Vec::new();
        let mut seen = Vec::new();
        for byte in bytes {
            received.push(byte);
            if let Some(request) = decode::<Request>(&mut received).expect("valid") {
                seen.push(format!("{request:?}"));
            }
        }
        assert_eq!(seen, ["Sweep", "Kill"]);
        assert!(received.is_empty());
        assert!(decode::<Request>(&mut vec![255; 8]).is_err());
        assert!(decode::<Request>(&mut b"\x02\0\0\0{}".to_vec()).is_err());
    }
}
