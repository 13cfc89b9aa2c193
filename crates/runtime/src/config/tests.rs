use std::ffi::OsString;

use clap::{Args, Command, FromArgMatches, Parser, Subcommand};

use super::{
    args::{AdminArgs, DatabaseArgs, HttpArgs, WorkerArgs, with_dev_defaults},
    *,
};

#[derive(Debug, Parser)]
struct Cli {
    #[arg(long, global = true, env = "FOREBAY_CONFIG")]
    config: Option<String>,
    #[command(subcommand)]
    command: Called,
}

#[derive(Debug, Subcommand)]
enum Called {
    Api(Api),
    Worker(WorkerArgs),
    Dev(Dev),
}

#[derive(Debug, Args)]
struct Api {
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Debug, Args)]
struct Dev {
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

fn command() -> Command {
    <Cli as clap::CommandFactory>::command().mut_subcommand("dev", with_dev_defaults)
}

/// Loads with a file of this text; an empty text means no file.
fn loaded(argv: &[&str], env: &[(&str, &str)], file: &str) -> Result<(Called, Loaded), LoadError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.toml");
    let mut argv: Vec<OsString> = std::iter::once("forebay")
        .chain(argv.iter().copied())
        .map(Into::into)
        .collect();
    if !file.is_empty() {
        std::fs::write(&path, file).unwrap();
        argv.extend(["--config".into(), path.into()]);
    }
    let env = env.iter().map(|(name, value)| (name.into(), value.into()));
    let loaded = load(&command(), argv, env)?;
    Ok((Cli::from_arg_matches(&loaded.matches).unwrap().command, loaded))
}

fn problems(argv: &[&str], env: &[(&str, &str)], file: &str) -> Vec<String> {
    match loaded(argv, env, file) {
        Err(LoadError::Problems(lines)) => lines,
        other => panic!("expected problems, got {other:?}"),
    }
}

const DB: (&str, &str) = ("FOREBAY_DATABASE_URL", "postgres://u:geheim@h/d");

fn http_addr(argv: &[&str], env: &[(&str, &str)], file: &str) -> (String, Source) {
    let (called, loaded) = loaded(argv, env, file).unwrap();
    let parsed = match called {
        Called::Api(api) => api.http.http_addr.to_string(),
        Called::Dev(dev) => dev.http.http_addr.to_string(),
        Called::Worker(_) => panic!("not an address"),
    };
    let setting = loaded
        .settings
        .iter()
        .find(|setting| setting.key == "http_addr")
        .unwrap();
    assert_eq!(setting.value.as_deref(), Some(parsed.as_str()));
    (parsed, setting.source.clone())
}

#[test]
fn flags_go_over_variables_over_the_file_over_defaults() {
    let file = "http_addr = '127.0.0.1:3'";
    let env = [DB, ("FOREBAY_HTTP_ADDR", "127.0.0.1:2")];
    let flag = ["api", "--http-addr", "127.0.0.1:1"];
    assert_eq!(
        http_addr(&flag, &env, file),
        ("127.0.0.1:1".into(), Source::Flag("--http-addr".into()))
    );
    let (value, source) = http_addr(&["api"], &env, file);
    assert_eq!(
        (value.as_str(), source),
        ("127.0.0.1:2", Source::Variable("FOREBAY_HTTP_ADDR".into()))
    );
    let (value, source) = http_addr(&["api"], &[DB], file);
    assert_eq!(value, "127.0.0.1:3");
    assert!(matches!(source, Source::File(path) if path.ends_with("f.toml")));
    assert_eq!(
        http_addr(&["api"], &[DB], ""),
        ("0.0.0.0:8080".into(), Source::Default)
    );
}

#[test]
fn dev_has_defaults_of_its_own_and_they_are_still_the_last_word() {
    assert_eq!(http_addr(&["dev"], &[], "").0, "127.0.0.1:8080");
    assert_eq!(
        http_addr(&["dev"], &[], "http_addr = '127.0.0.1:3'").0,
        "127.0.0.1:3"
    );
}

#[test]
fn an_empty_variable_is_not_set() {
    assert_eq!(
        http_addr(&["dev"], &[("FOREBAY_HTTP_ADDR", "")], "").1,
        Source::Default
    );
}

#[test]
fn everything_wrong_is_said_at_once_and_names_its_source() {
    let env = [
        ("FOREBAY_HTTP_ADR", "x"),
        ("FOREBAY_CONCURRENCY", "many"),
        ("FOREBAY_LEASE", "30"),
    ];
    let lines = problems(
        &["api", "--http-addr", "nowhere"],
        &env,
        "databse_url = 'x'\nlease = '1 day'\nqueues = ['a', 'B']",
    );
    let has = |parts: &[&str]| {
        lines
            .iter()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    };
    assert!(
        has(&["FOREBAY_HTTP_ADR", "no setting", "FOREBAY_HTTP_ADDR"]),
        "{lines:#?}"
    );
    assert!(
        has(&[
            "FOREBAY_CONCURRENCY in the environment",
            "\"many\": must be a whole number"
        ]),
        "{lines:#?}"
    );
    assert!(
        has(&["FOREBAY_LEASE in the environment", "500ms, 30s"]),
        "{lines:#?}"
    );
    assert!(
        has(&["--http-addr is \"nowhere\"", "must be ADDRESS:PORT"]),
        "{lines:#?}"
    );
    assert!(
        has(&["databse_url in", "f.toml", "did you mean database_url?"]),
        "{lines:#?}"
    );
    assert!(has(&["lease in", "f.toml", "\"1 day\""]), "{lines:#?}");
    assert!(has(&["queues in", "\"B\"", "must match"]), "{lines:#?}");
    assert!(has(&["FOREBAY_DATABASE_URL is not set"]), "{lines:#?}");
    assert_eq!(lines.len(), 8, "{lines:#?}");
    assert!(lines.iter().all(|line| !line.contains('\n')));
}

#[test]
fn the_queue_of_deliveries_is_not_for_workers() {
    let text = format!("default,{}", forebay_core::WEBHOOK_QUEUE);
    let lines = problems(&["worker", "--queues", &text], &[], "");
    assert!(
        lines.iter().any(|line| line.contains("Forebay's own")),
        "{lines:#?}"
    );
}

#[test]
fn a_broken_file_is_one_line_with_its_number() {
    let lines = problems(&["dev"], &[], "http_addr = '127.0.0.1:1'\nname = \n");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("f.toml, line 2"), "{lines:?}");
    assert!(!lines[0].contains('\n'));
    let lines = problems(&["dev", "--config", "/nowhere/f.toml"], &[], "");
    assert!(
        lines[0].contains("cannot read the configuration file /nowhere/f.toml"),
        "{lines:?}"
    );
}

#[test]
fn lists_and_numbers_of_the_file_are_typed() {
    let (called, _) = loaded(
        &["worker"],
        &[],
        "queues = ['a', 'b']\nconcurrency = 3\nlease = '10s'",
    )
    .unwrap();
    let Called::Worker(worker) = called else {
        panic!("{called:?}")
    };
    assert_eq!(worker.queues.0, ["a".parse().unwrap(), "b".parse().unwrap()]);
    assert_eq!((worker.concurrency, worker.lease.lease.as_secs()), (3, 10));
}

#[test]
fn handler_tables_are_kept_as_they_are() {
    let (_, loaded) = loaded(&["dev"], &[], "[[handler]]\nkind = 'a'\n[[handler]]\nkind = 'b'").unwrap();
    let kinds: Vec<_> = loaded
        .handlers
        .iter()
        .map(|table| table["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["a", "b"]);
    assert!(problems(&["dev"], &[], "[handler]\nkind = 'a'")[0].contains("[[handler]]"));
}

#[test]
fn a_secret_may_come_from_a_file_and_never_shows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("url");
    std::fs::write(&path, "postgres://u:geheim@h/d\n").unwrap();
    let twin = ("FOREBAY_DATABASE_URL_FILE", path.to_str().unwrap());
    let (called, loaded) = loaded(&["api"], &[twin], "").unwrap();
    let Called::Api(api) = &called else {
        panic!("{called:?}")
    };
    let values::DatabaseUrl::Postgres(url) = &api.database.database_url else {
        panic!("not Postgres")
    };
    assert_eq!(url.expose(), "postgres://u:geheim@h/d");
    assert!(!format!("{called:?} {:?}", loaded.settings).contains("geheim"));
    assert!(problems(&["api"], &[twin, DB], "")[0].contains("both set"));
    let lost = ("FOREBAY_DATABASE_URL_FILE", "/nowhere");
    assert_eq!(problems(&["api"], &[lost], "").len(), 1);
    let bad = problems(&["api"], &[("FOREBAY_DATABASE_URL", "mysql://u:geheim@h/d")], "");
    assert!(
        bad[0].contains("mysql://u:****@h/d") && !bad[0].contains("geheim"),
        "{bad:?}"
    );
}

#[test]
fn what_others_put_into_the_environment_is_left_alone() {
    let env = [
        ("FOREBAY_SERVICE_HOST", "10.0.0.1"),
        ("FOREBAY_API_SERVICE_PORT_HTTP", "80"),
        ("FOREBAY_PORT", "tcp://10.0.0.1:80"),
        ("FOREBAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("FOREBAY_TASK_ID", "x"),
        ("FOREBAY_QUEUE", "x"),
        ("FOREBAY_TEST_REQUIRE", "postgres"),
        ("FOREBAY_GRPC_URL", "http://127.0.0.1:50051"),
    ];
    assert!(loaded(&["dev"], &env, "").is_ok());
    assert_eq!(problems(&["dev"], &[("FOREBAY_PORT", "8080")], "").len(), 1);
    let typo = problems(&["dev"], &[("FOREBAY_QUEUE", "x")], "");
    assert!(typo[0].contains("did you mean FOREBAY_QUEUES?"), "{typo:?}");
}

#[test]
fn a_mistake_on_the_command_line_is_claps() {
    assert!(matches!(
        loaded(&["dev", "--no-such"], &[], ""),
        Err(LoadError::Usage(_))
    ));
    assert!(matches!(
        loaded(&["dev", "--help"], &[], ""),
        Err(LoadError::Usage(_))
    ));
}
