//! An answer that comes as lines of JSON, for as long as it takes.

use anyhow::{Context, Result, anyhow, bail};
use reqwest::Response;

use super::cause;

/// The lines of an answer, as they come.
pub struct Lines {
    response: Response,
    base: String,
    /// What came and was not taken yet, from `begin` on.
    bytes: Vec<u8>,
    begin: usize,
}

impl Lines {
    /// Of an answer from the service at `base`.
    pub fn new(response: Response, base: String) -> Self {
        Self { response, base, bytes: Vec::new(), begin: 0 }
    }

    /// The next line, without its line break; nothing at the end.
    ///
    /// # Errors
    /// The connection ended before the answer did.
    pub async fn next(&mut self) -> Result<Option<String>> {
        let mut searched = self.begin;
        loop {
            if let Some(length) = self.bytes[searched..].iter().position(|byte| *byte == b'\n') {
                let end = searched + length;
                let line = std::str::from_utf8(&self.bytes[self.begin..end]);
                let line = line.context("the service answered with something else than text")?.to_owned();
                self.begin = end + 1;
                return Ok(Some(line));
            }
            self.bytes.drain(..self.begin);
            self.begin = 0;
            searched = self.bytes.len();
            match self.chunk().await? {
                Some(chunk) => self.bytes.extend_from_slice(&chunk),
                None if self.bytes.is_empty() => return Ok(None),
                None => bail!("the answer ended within a line"),
            }
        }
    }

    /// Hands on the whole answer as it comes, until `take` wants no more of it.
    ///
    /// # Errors
    /// The connection ended before the answer did, or the service ended it within a line; whatever `take` says.
    pub async fn copy(
        &mut self,
        not_whole: &str,
        mut take: impl FnMut(&[u8]) -> Result<bool>,
    ) -> Result<bool> {
        let mut last = b'\n';
        while let Some(chunk) = self.chunk().await.with_context(|| not_whole.to_owned())? {
            last = chunk.last().copied().unwrap_or(last);
            if !take(&chunk)? {
                return Ok(false);
            }
        }
        if last != b'\n' {
            return Err(anyhow!("the service ended it within a line").context(not_whole.to_owned()));
        }
        Ok(true)
    }

    /// The next part of the answer as it comes, whole lines or not; nothing at the end. What a `next` before has
    /// read and not given stays with it.
    ///
    /// # Errors
    /// The connection ended before the answer did.
    async fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let chunk = self.response.chunk().await.map_err(|error| {
            anyhow!("the connection to {} ended before the answer did: {}", self.base, cause(&error))
        })?;
        Ok(chunk.map(Vec::from))
    }
}
