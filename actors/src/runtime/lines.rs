//! What a run prints besides its output: each line goes to whoever listens, the last bytes are kept for the outcome.
//! Secrets are taken out first, so that nothing is cut in the middle of one.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::Context;
use crate::execution::Job;
use crate::log::{Kept, LogRing};
use crate::secrets::{Redactor, Stream};

/// How much of the end an outcome repeats.
const TAIL: usize = 2_048;

/// The log of one run.
#[derive(Debug)]
pub struct Lines<'a> {
    ring: Option<&'a LogRing>,
    kept: Option<&'a Kept>,
    line_bytes: usize,
    line: Vec<u8>,
    tail: VecDeque<u8>,
    secrets: Option<Secrets<'a>>,
}

/// What takes secrets out.
#[derive(Debug)]
struct Secrets<'a> {
    redactor: &'a Redactor,
    stream: Stream<'a>,
}

impl<'a> Lines<'a> {
    /// The log of this job; lines are split only where somebody listens.
    pub fn of(job: &'a Job, context: &Context) -> Self {
        let secrets = job.secrets.redactor().map(|redactor| Secrets { redactor, stream: redactor.stream() });
        let mut lines = Self::new(job.log.as_deref(), context.limits.log_line_bytes);
        (lines.kept, lines.secrets) = (Some(&*job.kept), secrets);
        lines
    }

    /// With this ring, and as much of a line.
    pub fn new(ring: Option<&'a LogRing>, line_bytes: usize) -> Self {
        Self { ring, kept: None, line_bytes, line: Vec::new(), tail: VecDeque::new(), secrets: None }
    }

    /// Reads to the end.
    pub async fn follow(&mut self, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 8 * 1024];
        loop {
            match stream.read(&mut buffer).await {
                // A pipe that errs has ended.
                Ok(0) | Err(_) => break,
                Ok(read) => self.write(&buffer[..read]),
            }
        }
        self.finish();
    }

    /// Takes what was printed.
    pub fn write(&mut self, printed: &[u8]) {
        match self.secrets.as_mut().map(|secrets| secrets.stream.push(printed)) {
            Some(passed) => self.take(&passed),
            None => self.take(printed),
        }
    }

    /// Takes a line that may have been cut before.
    pub fn tell(&mut self, line: &str) {
        let line = match &self.secrets {
            Some(secrets) => secrets.redactor.cut(line),
            None => line.into(),
        };
        self.write(line.as_bytes());
        self.write(b"\n");
    }

    fn take(&mut self, printed: &[u8]) {
        keep_tail(&mut self.tail, printed);
        if let Some(kept) = self.kept {
            kept.write(printed);
        }
        if self.ring.is_none() {
            return;
        }
        for piece in printed.split_inclusive(|byte| *byte == b'\n') {
            let room = self.line_bytes.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.push();
            }
        }
    }

    /// Nothing more comes: what stands without an end of line is a line.
    pub fn finish(&mut self) {
        self.let_go();
        if !self.line.is_empty() {
            self.push();
        }
    }

    /// The end of what was printed, without white space around it.
    pub fn tail(&self) -> String {
        let mut bytes: Vec<u8> = self.tail.iter().copied().collect();
        if let Some(secrets) = &self.secrets {
            bytes.extend(secrets.stream.peek());
            bytes.drain(..bytes.len().saturating_sub(TAIL));
        }
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    fn push(&mut self) {
        if let Some(ring) = self.ring {
            let line = String::from_utf8_lossy(&self.line);
            let line = line.trim_end_matches(['\n', '\r']);
            ring.push(match &self.secrets {
                Some(secrets) => secrets.redactor.line(line).into_owned(),
                None => line.to_owned(),
            });
        }
        self.line.clear();
    }

    /// What is held back, since a secret might have gone on in it.
    fn let_go(&mut self) {
        if let Some(held) = self.secrets.as_mut().map(|secrets| secrets.stream.finish()) {
            self.take(&held);
        }
    }
}

impl Drop for Lines<'_> {
    fn drop(&mut self) {
        // A run that is broken off has printed what is held back all the same.
        self.let_go();
    }
}

fn keep_tail(tail: &mut VecDeque<u8>, read: &[u8]) {
    let read = &read[read.len().saturating_sub(TAIL)..];
    let surplus = (tail.len() + read.len()).saturating_sub(TAIL);
    tail.drain(..surplus.min(tail.len()));
    tail.extend(read);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_split_capped_and_their_end_is_kept() {
        let ring = LogRing::new(10);
        let mut lines = Lines::new(Some(&ring), 4);
        lines.follow(&b"ab\r\nabcdefg\n\nlast"[..]).await;
        assert_eq!(ring.take().lines, ["ab", "abcd", "", "last"]);
        assert_eq!(lines.tail(), "ab\r\nabcdefg\n\nlast");
    }

    #[test]
    fn secrets_are_taken_out_before_anything_is_cut_or_kept() {
        let redactor = Redactor::new([("token", "canary-0123456789")].into_iter());
        let redactor = redactor.expect("built").expect("some");
        let (ring, kept) = (LogRing::new(10), Kept::default());
        let lines = || {
            let mut lines = Lines::new(Some(&ring), 12);
            lines.kept = Some(&kept);
            lines.secrets = Some(Secrets { redactor: &redactor, stream: redactor.stream() });
            lines
        };
        let mut told = lines();
        told.write(b"my canary-01");
        told.write(b"23456789\nand canary-0");
        assert_eq!(ring.take().lines, ["my [redacted"]);
        assert_eq!(told.tail(), "my [redacted:token]\nand canary-0");
        told.write(b"123456789");
        assert_eq!(told.tail(), "my [redacted:token]\nand [redacted:token]");
        drop(told);
        assert_eq!(kept.text().as_deref(), Some("my [redacted:token]\nand [redacted:token]"));
        let mut told = lines();
        told.tell("cut: canary-0");
        assert_eq!(ring.take().lines, ["cut: [redact"]);
    }

    #[test]
    fn the_tail_is_the_end_and_bounded() {
        let mut tail = VecDeque::new();
        keep_tail(&mut tail, &[1; TAIL - 1]);
        keep_tail(&mut tail, &[2; 3]);
        assert_eq!(
            (tail.len(), tail.back(), tail.iter().filter(|byte| **byte == 2).count()),
            (TAIL, Some(&2), 3)
        );
        keep_tail(&mut tail, &[3; TAIL * 2]);
        assert!(tail.len() == TAIL && tail.iter().all(|byte| *byte == 3));
    }
}
