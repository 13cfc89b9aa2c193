//! What the parts can do by themselves, measured in the same run: the figures to hold Forebay's against.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::stack::Stack;

/// How long each limit is measured.
const WINDOW: Duration = Duration::from_secs(2);

/// Rows a second that one connection inserts into a plain table, 1,000 a statement, each statement synced.
pub(crate) async fn postgres_rows_per_second(stack: &Stack) -> Result<f64> {
    let (client, connection) = tokio_postgres::connect(&stack.postgres.url(), tokio_postgres::NoTls).await?;
    let driver = tokio::spawn(connection);
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS bench_limit (id uuid PRIMARY KEY, kind text, payload text)",
        )
        .await?;
    let insert = client
        .prepare(
            "INSERT INTO bench_limit SELECT gen_random_uuid(), 'echo', repeat('x', 256) FROM generate_series(1, 1000)",
        )
        .await?;
    let began = Instant::now();
    let mut rows = 0;
    while began.elapsed() < WINDOW {
        rows += client.execute(&insert, &[]).await?;
    }
    let seconds = began.elapsed().as_secs_f64();
    client.batch_execute("DROP TABLE bench_limit").await?;
    driver.abort();
    Ok(rows as f64 / seconds)
}

/// Requests a second of a bare HTTP route that reads a JSON body of the same size and answers 202, 32 clients.
pub(crate) async fn http_requests_per_second() -> Result<f64> {
    let route = axum::Router::new().route(
        "/v1/tasks",
        axum::routing::post(|body: String| async move {
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(&body);
            if parsed.is_ok() {
                axum::http::StatusCode::ACCEPTED
            } else {
                axum::http::StatusCode::BAD_REQUEST
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let server = tokio::spawn(async move { axum::serve(listener, route).await });
    let singles = crate::load::singles(&url, 32, 40_000).await?;
    server.abort();
    Ok(singles.per_second)
}
