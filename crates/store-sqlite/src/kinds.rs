//! The schemas of kinds.

use async_trait::async_trait;
use forebay_core::{Json, KIND_SCHEMAS_MAX, Kind, KindSchema, SCHEMA_VERSIONS_MAX, SchemaMode};
use forebay_store::{Kinds, PutSchema, Result, StoreError};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use crate::{
    SqliteStore,
    dispatch::bounded,
    error::failed,
    row::{Fields, micros_of},
};

const KIND: &str = include_str!("../queries/kind.sql");
const COUNT: &str = include_str!("../queries/kinds_count.sql");
const ADD: &str = include_str!("../queries/kind_schema_add.sql");
const ADVANCE: &str = include_str!("../queries/kind_advance.sql");
const FORGET: &str = include_str!("../queries/kind_schemas_forget.sql");
const ONE: &str = include_str!("../queries/kind_schema.sql");
const LIST: &str = include_str!("../queries/kind_schemas_list.sql");
const VERSIONS: &str = include_str!("../queries/kinds_versions.sql");
const CLEAR: &str = include_str!("../queries/kind_clear.sql");

#[async_trait]
impl Kinds for SqliteStore {
    async fn put_schema(&self, kind: &Kind, mode: SchemaMode, schema: &Json) -> Result<PutSchema> {
        const DOING: &str = "put a schema";
        let mut tx = self.begin(DOING).await?;
        let (latest, has_schema) = latest(&mut tx, DOING, kind).await?;
        if has_schema {
            let same = one(&mut tx, DOING, kind, latest).await?;
            if let Some(same) = same.filter(|same| same.mode == mode && same.schema == *schema) {
                tx.commit().await?;
                return Ok(PutSchema::Same(same));
            }
        } else if is_full(&mut tx, DOING).await? {
            tx.commit().await?;
            return Ok(PutSchema::TooMany);
        }
        let put = KindSchema {
            kind: kind.clone(),
            version: latest.saturating_add(1),
            mode,
            schema: schema.clone(),
            created_at: self.clock_now(),
        };
        add(&mut tx, DOING, &put).await?;
        tx.commit().await?;
        Ok(PutSchema::New(put))
    }

    async fn schema(&self, kind: &Kind, version: Option<u32>) -> Result<Option<KindSchema>> {
        const DOING: &str = "read a schema";
        let mut reader = self.reader(DOING).await?;
        let version = match version {
            Some(version) => version,
            None => match latest(&mut reader, DOING, kind).await? {
                (latest, true) => latest,
                (_, false) => return Ok(None),
            },
        };
        one(&mut reader, DOING, kind, version).await
    }

    async fn schemas(&self, page_size: usize, after: Option<&Kind>) -> Result<Vec<KindSchema>> {
        const DOING: &str = "list schemas";
        let found = sqlx::query(LIST)
            .bind(after.map_or("", Kind::as_str))
            .bind(bounded(page_size))
            .fetch_all(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        found.iter().map(kind_schema).collect()
    }

    async fn schema_versions(&self) -> Result<Vec<(Kind, u32)>> {
        const DOING: &str = "look which schemas count";
        let found = sqlx::query(VERSIONS)
            .fetch_all(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        let version = |row: &SqliteRow| {
            let fields = Fields(row);
            Ok((fields.text("kind")?, fields.get("version")?))
        };
        found.iter().map(version).collect()
    }

    async fn delete_schema(&self, kind: &Kind) -> Result<bool> {
        const DOING: &str = "delete a schema";
        let mut tx = self.begin(DOING).await?;
        let cleared = sqlx::query(CLEAR)
            .bind(kind.as_str())
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        tx.commit().await?;
        Ok(cleared.rows_affected() > 0)
    }
}

/// The latest version that was given to a kind, and whether it counts.
async fn latest(connection: &mut SqliteConnection, doing: &'static str, kind: &Kind) -> Result<(u32, bool)> {
    let found = sqlx::query(KIND)
        .bind(kind.as_str())
        .fetch_optional(connection)
        .await
        .map_err(failed(doing))?;
    match &found {
        Some(row) => Ok((Fields(row).get("version")?, Fields(row).get("has_schema")?)),
        None => Ok((0, false)),
    }
}

async fn is_full(connection: &mut SqliteConnection, doing: &'static str) -> Result<bool> {
    let kinds: i64 = sqlx::query_scalar(COUNT)
        .fetch_one(connection)
        .await
        .map_err(failed(doing))?;
    Ok(usize::try_from(kinds).unwrap_or(0) >= KIND_SCHEMAS_MAX)
}

async fn add(tx: &mut SqliteConnection, doing: &'static str, put: &KindSchema) -> Result<()> {
    let adding = sqlx::query(ADD)
        .bind(put.kind.as_str())
        .bind(put.version)
        .bind(put.mode.as_str())
        .bind(put.schema.as_str())
        .bind(micros_of(put.created_at));
    let advancing = sqlx::query(ADVANCE).bind(put.kind.as_str()).bind(put.version);
    let forgetting = sqlx::query(FORGET)
        .bind(put.kind.as_str())
        .bind(put.version.saturating_sub(SCHEMA_VERSIONS_MAX));
    for statement in [adding, advancing, forgetting] {
        statement.execute(&mut *tx).await.map_err(failed(doing))?;
    }
    Ok(())
}

async fn one(
    connection: &mut SqliteConnection,
    doing: &'static str,
    kind: &Kind,
    version: u32,
) -> Result<Option<KindSchema>> {
    let found = sqlx::query(ONE)
        .bind(kind.as_str())
        .bind(version)
        .fetch_optional(connection)
        .await
        .map_err(failed(doing))?;
    found.as_ref().map(kind_schema).transpose()
}

fn kind_schema(row: &SqliteRow) -> Result<KindSchema> {
    let fields = Fields(row);
    let schema = fields.json("schema")?;
    Ok(KindSchema {
        kind: fields.text("kind")?,
        version: fields.get("version")?,
        mode: fields.text("mode")?,
        schema: schema.ok_or_else(|| StoreError::Corrupt("a schema is null".to_owned()))?,
        created_at: fields.time("created_at")?,
    })
}
