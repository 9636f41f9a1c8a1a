//! Runs a program that makes something: its group of processes ends with it, and of what it prints the end is kept.

use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::Command;

use crate::group::Group;

/// How much is kept of the end of what a program printed.
const TAIL: usize = 2_048;

/// How a program ended, and the end of what it printed.
pub struct Ended {
    pub status: ExitStatus,
    pub tail: String,
}

/// Runs a program to its end, and ends what it leaves in its group; also when this is dropped.
pub async fn run(mut command: Command) -> io::Result<Ended> {
    let (output, input) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
    let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
    let group = Group::of(&child);
    // It holds this side's ends of the pipe, which would not end.
    drop(command);
    let mut output = pipe::Receiver::from_owned_fd(output.into())?;
    let (mut tail, mut buffer, mut is_open) = (VecDeque::new(), [0; 4 * 1024], true);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            read = output.read(&mut buffer), if is_open => match read {
                Ok(read) if read > 0 => keep_tail(&mut tail, &buffer[..read]),
                _ => is_open = false,
            },
        }
    };
    drop(group);
    // All that it printed is in the pipe by now.
    while let Ok(read @ 1..) = output.try_read(&mut buffer) {
        keep_tail(&mut tail, &buffer[..read]);
    }
    let tail = String::from_utf8_lossy(tail.make_contiguous()).trim().to_owned();
    Ok(Ended { status, tail })
}

fn keep_tail(tail: &mut VecDeque<u8>, read: &[u8]) {
    tail.extend(read);
    tail.drain(..tail.len().saturating_sub(TAIL));
}
