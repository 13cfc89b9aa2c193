//! Answers that come line by line.

use bytes::BytesMut;
use futures::{Stream, stream};
use reqwest::Response;
use serde::de::DeserializeOwned;
use url::Url;

use crate::{Error, Result, error::shown};

/// The longest line that is read.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Cuts an answer's body into lines.
pub(crate) struct Lines {
    answer: Response,
    base: Url,
    held: BytesMut,
    /// Up to where `held` is known to have no line end.
    searched: usize,
    ended: bool,
}

impl Lines {
    pub(crate) fn new(answer: Response, base: Url) -> Self {
        Self {
            answer,
            base,
            held: BytesMut::new(),
            searched: 0,
            ended: false,
        }
    }

    /// The next line, without its end; `None` once the answer is complete.
    pub(crate) async fn next(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(end) = self.held[self.searched..].iter().position(|&byte| byte == b'\n') {
                let line = self.held.split_to(self.searched + end + 1);
                self.searched = 0;
                return Ok(Some(text(&line)));
            }
            self.searched = self.held.len();
            if self.ended {
                let rest = self.held.split();
                self.searched = 0;
                return Ok((!rest.is_empty()).then(|| text(&rest)));
            }
            if self.held.len() > LINE_BYTES_MAX {
                let answer = format!("a line of over {LINE_BYTES_MAX} bytes");
                return Err(Error::Unexpected {
                    url: shown(&self.base),
                    answer,
                });
            }
            match self.answer.chunk().await {
                Ok(Some(chunk)) => self.held.extend_from_slice(&chunk),
                Ok(None) => self.ended = true,
                Err(error) => return Err(Error::unreachable(&error, &self.base)),
            }
        }
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .trim_end_matches(['\n', '\r'])
        .to_owned()
}

/// An NDJSON answer. Ends after the first error.
pub(crate) fn json_lines<T: DeserializeOwned + Send + 'static>(
    answer: Response,
    base: Url,
) -> impl Stream<Item = Result<T>> + Send + 'static {
    stream::try_unfold(Lines::new(answer, base), |mut lines| async move {
        while let Some(line) = lines.next().await? {
            if line.is_empty() {
                continue;
            }
            let item = serde_json::from_str(&line).map_err(|error| Error::Unexpected {
                url: shown(&lines.base),
                answer: format!("a line that makes no sense ({error})"),
            })?;
            return Ok(Some((item, lines)));
        }
        Ok(None)
    })
}
