//! The schemas of kinds.

use async_trait::async_trait;
use deadpool_postgres::{Client, GenericClient};
use forebay_core::{Json, KIND_SCHEMAS_MAX, Kind, KindSchema, SCHEMA_VERSIONS_MAX, SchemaMode};
use forebay_store::{Kinds, PutSchema, Result};
use tokio_postgres::Row;

use crate::{
    PostgresStore, error,
    hot::{Params, bounded, column, query},
    values::{Instant, count, int, word},
};

#[async_trait]
impl Kinds for PostgresStore {
    async fn put_schema(&self, kind: &Kind, mode: SchemaMode, schema: &Json) -> Result<PutSchema> {
        const DOING: &str = "put a schema";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, put(connection.client(), DOING, kind, mode, schema)).await;
        connection.settle(outcome)
    }

    async fn schema(&self, kind: &Kind, version: Option<u32>) -> Result<Option<KindSchema>> {
        const DOING: &str = "read a schema";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, get(connection.client(), DOING, kind, version)).await;
        connection.settle(outcome)
    }

    async fn schemas(&self, page_size: usize, after: Option<&Kind>) -> Result<Vec<KindSchema>> {
        const DOING: &str = "list schemas";
        let sql = include_str!("../queries/kind_schemas_list.sql");
        let limit = i64::try_from(page_size).unwrap_or(i64::MAX);
        let after = after.map_or("", Kind::as_str);
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, query(connection.client(), DOING, sql, &[&after, &limit])).await;
        let found = connection.settle(outcome)?;
        found.iter().map(kind_schema).collect()
    }

    async fn schema_versions(&self) -> Result<Vec<(Kind, u32)>> {
        const DOING: &str = "look which schemas count";
        let sql = include_str!("../queries/kinds_versions.sql");
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, query(connection.client(), DOING, sql, &[])).await;
        let found = connection.settle(outcome)?;
        let version = |row: &Row| Ok((word(column(row, "kind")?)?, count(column(row, "version")?)?));
        found.iter().map(version).collect()
    }

    async fn delete_schema(&self, kind: &Kind) -> Result<bool> {
        const DOING: &str = "delete a schema";
        let sql = include_str!("../queries/kinds_clear.sql");
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, query(connection.client(), DOING, sql, &[&kind.as_str()])).await;
        connection.settle(outcome).map(|rows| !rows.is_empty())
    }
}

async fn put(
    client: &mut Client,
    doing: &'static str,
    kind: &Kind,
    mode: SchemaMode,
    schema: &Json,
) -> Result<PutSchema> {
    let transaction = client.transaction().await.map_err(|e| error::hot(doing, e))?;
    let held = query(
        &transaction,
        doing,
        include_str!("../queries/kinds_hold.sql"),
        &[&kind.as_str()],
    )
    .await?;
    let held = held
        .first()
        .ok_or_else(|| error::corrupt("a kind that was held is not there"))?;
    let latest: i32 = column(held, "version")?;
    if column(held, "has_schema")? {
        let same = get(&transaction, doing, kind, Some(count(latest)?)).await?;
        if let Some(same) = same.filter(|same| same.mode == mode && same.schema == *schema) {
            return Ok(PutSchema::Same(same));
        }
    } else if is_full(&transaction, doing).await? {
        return Ok(PutSchema::TooMany);
    }
    let version = latest.saturating_add(1);
    let params: Params<'_> = &[&kind.as_str(), &version, &mode.as_str(), &schema.as_str()];
    let added = query(
        &transaction,
        doing,
        include_str!("../queries/kind_schemas_add.sql"),
        params,
    )
    .await?;
    let params: Params<'_> = &[&kind.as_str(), &version, &int(SCHEMA_VERSIONS_MAX)];
    query(
        &transaction,
        doing,
        include_str!("../queries/kinds_advance.sql"),
        params,
    )
    .await?;
    transaction.commit().await.map_err(|e| error::hot(doing, e))?;
    let added = added
        .first()
        .ok_or_else(|| error::corrupt("a schema that was added is not there"))?;
    Ok(PutSchema::New(kind_schema(added)?))
}

async fn is_full(client: &impl GenericClient, doing: &'static str) -> Result<bool> {
    let counted = query(client, doing, include_str!("../queries/kinds_count.sql"), &[]).await?;
    let kinds = counted
        .first()
        .map(|row| column::<i64>(row, "kinds"))
        .transpose()?;
    Ok(kinds.and_then(|kinds| usize::try_from(kinds).ok()).unwrap_or(0) >= KIND_SCHEMAS_MAX)
}

async fn get(
    client: &impl GenericClient,
    doing: &'static str,
    kind: &Kind,
    version: Option<u32>,
) -> Result<Option<KindSchema>> {
    let found = match version {
        Some(version) => {
            let sql = include_str!("../queries/kind_schemas_get.sql");
            query(client, doing, sql, &[&kind.as_str(), &int(version)]).await?
        }
        None => {
            let sql = include_str!("../queries/kind_schemas_current.sql");
            query(client, doing, sql, &[&kind.as_str()]).await?
        }
    };
    found.first().map(kind_schema).transpose()
}

fn kind_schema(row: &Row) -> Result<KindSchema> {
    let schema: &str = column(row, "schema")?;
    Ok(KindSchema {
        kind: word(column(row, "kind")?)?,
        version: count(column(row, "version")?)?,
        mode: word(column(row, "mode")?)?,
        schema: Json::parse(schema.as_bytes()).map_err(|e| error::corrupt(format!("a schema: {e}")))?,
        created_at: column::<Instant>(row, "created_at")?.0,
    })
}
