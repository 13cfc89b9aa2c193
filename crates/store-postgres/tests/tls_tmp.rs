//! temporary
#[tokio::test]
async fn tls() {
    use forebay_store::{Admin, Dispatch};
    for url in std::env::var("TLS_URLS").unwrap().split(' ') {
        let r = forebay_store_postgres::PostgresStore::connect(&forebay_store_postgres::PostgresOptions::new(url)).await;
        match r { Ok(s) => { eprintln!("{url}: hot {:?} reads {:?}", s.now().await.is_ok(), s.check().await.map_err(|e| format!("{e:?}").chars().take(200).collect::<String>())); }
            Err(e) => eprintln!("{url}: {:.300}", format!("{e:?}")) }
    }
}
