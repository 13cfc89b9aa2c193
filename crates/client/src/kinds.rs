//! The schemas of kinds: what payloads must look like.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Client, Result};

/// A schema to put.
#[derive(Debug, Clone, Serialize)]
pub struct NewKindSchema {
    /// A JSON Schema of draft 2020-12, or of draft 7 where it says so.
    pub schema: Box<RawValue>,
    /// What becomes of a task whose payload does not fit: `enforce` or `warn`; `enforce` unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// A version of what payloads of a kind must look like, as the server shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct KindSchema {
    pub kind: String,
    pub version: u32,
    pub mode: String,
    pub created_at: String,
    /// Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
struct Page {
    kinds: Vec<KindSchema>,
    #[serde(default)]
    next_page_token: Option<String>,
}

impl Client {
    /// Registers a schema as the next version of its kind's; to put the latest again changes nothing, so it is tried a few
    /// times where the server can't be reached. It counts a second or two later.
    ///
    /// # Errors
    /// Where the server refused it or can't be reached.
    pub async fn put_schema(&self, kind: &str, schema: &NewKindSchema) -> Result<KindSchema> {
        let url = self.path(&["kinds", kind, "schema"]);
        self.json_again(self.at(Method::PUT, url).json(schema)).await
    }

    /// Reads the version that counts, or the one that is asked for.
    ///
    /// # Errors
    /// Where there is none, or the server can't be reached.
    pub async fn schema(&self, kind: &str, version: Option<u32>) -> Result<KindSchema> {
        let mut url = self.path(&["kinds", kind, "schema"]);
        if let Some(version) = version {
            url.query_pairs_mut().append_pair("version", &version.to_string());
        }
        self.json_again(self.at(Method::GET, url)).await
    }

    /// All kinds that have schemas, by name, without the schemas themselves.
    ///
    /// # Errors
    /// Where the server can't be reached.
    pub async fn kinds(&self) -> Result<Vec<KindSchema>> {
        self.pages(&["kinds"], usize::MAX, |page: Page| {
            (page.kinds, page.next_page_token)
        })
        .await
    }

    /// Lets payloads of a kind look as they like.
    ///
    /// # Errors
    /// Where it has no schema, or the server can't be reached.
    pub async fn delete_schema(&self, kind: &str) -> Result<()> {
        let url = self.path(&["kinds", kind, "schema"]);
        self.answer(self.at(Method::DELETE, url)).await.map(drop)
    }
}
