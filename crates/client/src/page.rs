//! Lists that are fetched page by page, and returned as a whole.

use reqwest::Method;
use serde::de::DeserializeOwned;

use crate::{Client, Result};

/// How many are fetched at once.
const PAGE_SIZE: usize = 200;

impl Client {
    /// The first `limit` of a list; `parts` says what a page holds, and the token of the next one.
    pub(crate) async fn pages<P: DeserializeOwned, T>(
        &self,
        path: &[&str],
        limit: usize,
        parts: impl Fn(P) -> (Vec<T>, Option<String>),
    ) -> Result<Vec<T>> {
        let (mut all, mut token): (Vec<T>, Option<String>) = (Vec::new(), None);
        loop {
            let size = limit.saturating_sub(all.len()).clamp(1, PAGE_SIZE);
            let mut url = self.path(path);
            url.query_pairs_mut().append_pair("page_size", &size.to_string());
            if let Some(token) = &token {
                url.query_pairs_mut().append_pair("page_token", token);
            }
            let (items, next) = parts(self.json_again(self.at(Method::GET, url)).await?);
            all.extend(items);
            token = next.filter(|token| !token.is_empty());
            if token.is_none() || all.len() >= limit {
                all.truncate(limit);
                return Ok(all);
            }
        }
    }
}
