//! The schemas of kinds.

use async_trait::async_trait;
use forebay_core::{Json, Kind, KindSchema, SchemaMode};

use crate::Result;

/// What became of a schema that was put.
#[derive(Debug, Clone, PartialEq)]
pub enum PutSchema {
    /// It is the next version.
    New(KindSchema),
    /// It was the latest version already.
    Same(KindSchema),
    /// As many kinds as may have schemas have one.
    TooMany,
}

/// What payloads of a kind must look like, in versions.
#[async_trait]
pub trait Kinds: Send + Sync + 'static {
    /// Registers a schema as the next version of its kind's, which is the one that counts from then on. To put the
    /// latest again changes nothing. The oldest versions are forgotten.
    async fn put_schema(&self, kind: &Kind, mode: SchemaMode, schema: &Json) -> Result<PutSchema>;

    /// The version that counts, or the one that is asked for, also where none counts any more.
    async fn schema(&self, kind: &Kind, version: Option<u32>) -> Result<Option<KindSchema>>;

    /// The versions that count, by kind.
    async fn schemas(&self, page_size: usize, after: Option<&Kind>) -> Result<Vec<KindSchema>>;

    /// Which versions count, of all kinds: cheap, for those who ask every second.
    async fn schema_versions(&self) -> Result<Vec<(Kind, u32)>>;

    /// Lets payloads of the kind look as they like. Whether there was a schema that counted.
    async fn delete_schema(&self, kind: &Kind) -> Result<bool>;
}
