//! Workers ask for no schemas.

use async_trait::async_trait;
use forebay_core::{Json, Kind, KindSchema, SchemaMode};
use forebay_store::{Kinds, PutSchema, Result, StoreError};

use super::MemoryStore;

#[async_trait]
impl Kinds for MemoryStore {
    async fn put_schema(&self, _: &Kind, _: SchemaMode, _: &Json) -> Result<PutSchema> {
        Err(StoreError::Refused {
            doing: "put a schema",
            source: "there are none here".into(),
        })
    }

    async fn schema(&self, _: &Kind, _: Option<u32>) -> Result<Option<KindSchema>> {
        Ok(None)
    }

    async fn schemas(&self, _: usize, _: Option<&Kind>) -> Result<Vec<KindSchema>> {
        Ok(Vec::new())
    }

    async fn schema_versions(&self) -> Result<Vec<(Kind, u32)>> {
        Ok(Vec::new())
    }

    async fn delete_schema(&self, _: &Kind) -> Result<bool> {
        Ok(false)
    }
}
