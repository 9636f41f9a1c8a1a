//! What a run prints besides its output: each line goes to whoever listens, the last bytes are kept for the outcome.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::Context;
use crate::execution::Job;
use crate::log::{Kept, LogRing};

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
}

impl<'a> Lines<'a> {
    /// The log of this job; lines are split only where somebody listens.
    pub fn of(job: &'a Job, context: &Context) -> Self {
        Self { kept: Some(&job.kept), ..Self::new(job.log.as_deref(), context.limits.log_line_bytes) }
    }

    /// With this ring, and as much of a line.
    pub fn new(ring: Option<&'a LogRing>, line_bytes: usize) -> Self {
        Self { ring, kept: None, line_bytes, line: Vec::new(), tail: VecDeque::new() }
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
        if !self.line.is_empty() {
            self.push();
        }
    }

    /// The end of what was printed, without white space around it.
    pub fn tail(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    fn push(&mut self) {
        if let Some(ring) = self.ring {
            ring.push(String::from_utf8_lossy(&self.line).trim_end_matches(['\n', '\r']).to_owned());
        }
        self.line.clear();
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
