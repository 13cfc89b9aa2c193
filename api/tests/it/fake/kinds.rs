//! Schemas of kinds as they are kept.

use std::ops::Bound;

use async_trait::async_trait;
use forebay_core::{Json, KIND_SCHEMAS_MAX, Kind, KindSchema, SchemaMode};
use forebay_store::{Kinds, PutSchema, Result};

use super::Fake;

#[async_trait]
impl Kinds for Fake {
    async fn put_schema(&self, kind: &Kind, mode: SchemaMode, schema: &Json) -> Result<PutSchema> {
        let mut inner = self.store("put a schema").await?;
        let counting = inner.schemas.values().filter(|(_, counts)| *counts).count();
        let (versions, counts) = inner.schemas.entry(kind.clone()).or_default();
        match versions.last() {
            Some(last) if *counts && last.mode == mode && last.schema == *schema => {
                return Ok(PutSchema::Same(last.clone()));
            }
            _ if !*counts && counting >= KIND_SCHEMAS_MAX => return Ok(PutSchema::TooMany),
            _ => {}
        }
        let put = KindSchema {
            kind: kind.clone(),
            version: versions.last().map_or(1, |last| last.version + 1),
            mode,
            schema: schema.clone(),
            created_at: "2026-03-01T12:00:00Z".parse().unwrap(),
        };
        versions.push(put.clone());
        *counts = true;
        Ok(PutSchema::New(put))
    }

    async fn schema(&self, kind: &Kind, version: Option<u32>) -> Result<Option<KindSchema>> {
        let inner = self.store("read a schema").await?;
        let Some((versions, counts)) = inner.schemas.get(kind) else {
            return Ok(None);
        };
        Ok(match version {
            Some(version) => versions.iter().find(|kept| kept.version == version).cloned(),
            None => versions.last().filter(|_| *counts).cloned(),
        })
    }

    async fn schemas(&self, page_size: usize, after: Option<&Kind>) -> Result<Vec<KindSchema>> {
        let inner = self.store("list schemas").await?;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = inner.schemas.range((after, Bound::Unbounded));
        let current = page.filter_map(|(_, (versions, counts))| versions.last().filter(|_| *counts));
        Ok(current.take(page_size).cloned().collect())
    }

    async fn schema_versions(&self) -> Result<Vec<(Kind, u32)>> {
        let all = self.schemas(usize::MAX, None).await?;
        Ok(all
            .into_iter()
            .map(|schema| (schema.kind, schema.version))
            .collect())
    }

    async fn delete_schema(&self, kind: &Kind) -> Result<bool> {
        let mut inner = self.store("delete a schema").await?;
        let found = inner.schemas.get_mut(kind);
        Ok(found.is_some_and(|(_, counts)| std::mem::take(counts)))
    }
}
