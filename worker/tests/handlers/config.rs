use std::{path::Path, time::Duration};

use forebay_core::RetryPolicy;
use forebay_worker::handlers::{
    HandlerSettings, Handlers,
    config::{ConfigProblem, HandlerConfig},
};
use serde::Deserialize;

use super::execution;

#[derive(Deserialize)]
struct File {
    handler: Vec<HandlerConfig>,
}

fn tables(text: &str) -> Result<Vec<HandlerConfig>, toml::de::Error> {
    toml::from_str::<File>(text).map(|file| file.handler)
}

fn load(text: &str) -> Result<Handlers, Vec<ConfigProblem>> {
    let env = |name: &str| (name == "BILLING_SECRET").then(|| "hush".to_owned());
    Handlers::from_config(tables(text).unwrap(), Path::new("/etc/forebay"), env)
}

#[test]
fn takes_the_tables_of_the_manual() {
    let handlers = load(
        r#"
        [[handler]]
        kind = "thumbnail"
        command = ["python3", "thumb.py"]
        timeout_seconds = 60
        max_attempts = 5
        concurrency = 4
        retry = { base_seconds = 0.5, factor = 3, cap_seconds = 60 }
        env = { SIZE = "large" }
        cwd = "thumbs"

        [[handler]]
        kind = "invoice.created"
        http = { url = "https://billing.internal/hooks", secret_env = "BILLING_SECRET", allow_private = ["10.0.0.0/8"] }
        "#,
    )
    .unwrap();
    let kinds: Vec<&str> = handlers.kinds().map(|kind| kind.as_str()).collect();
    assert_eq!(kinds, ["invoice.created", "thumbnail"]);
    let (_, settings) = handlers.handler(&"thumbnail".parse().unwrap()).unwrap();
    assert_eq!(settings.timeout, Duration::from_secs(60));
    assert_eq!(settings.concurrency, Some(4));
    let expected = RetryPolicy {
        base: Duration::from_millis(500),
        factor: 3.0,
        cap: Duration::from_secs(60),
        attempts_max: 5,
    };
    assert_eq!(settings.retry, expected);
    let (_, settings) = handlers.handler(&"invoice.created".parse().unwrap()).unwrap();
    assert_eq!(settings, HandlerSettings::default());
}

#[tokio::test]
async fn a_command_runs_in_the_folder_of_its_file_with_its_variables() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let text = r#"
        [[handler]]
        kind = "here"
        command = ["sh", "-c", "printf '\"%s %s\"' \"$(pwd -P)\" $SIZE"]
        env = { SIZE = "large" }
        [[handler]]
        kind = "below"
        command = ["sh", "-c", "printf '\"%s %s\"' \"$(pwd -P)\" ${SIZE-unset}"]
        cwd = "sub"
    "#;
    let handlers = Handlers::from_config(tables(text).unwrap(), folder.path(), |_| None).unwrap();
    let here = folder.path().canonicalize().unwrap();
    for (kind, expected) in [
        ("here", format!("{} large", here.display())),
        ("below", format!("{}/sub unset", here.display())),
    ] {
        let (handler, _) = handlers.handler(&kind.parse().unwrap()).unwrap();
        let result = handler.run(execution("1")).await.unwrap();
        assert_eq!(serde_json::from_str::<String>(result.as_str()).unwrap(), expected);
    }
}

#[tokio::test]
async fn a_file_called_by_its_name_alone_is_in_this_folder() {
    let tables = tables("[[handler]]\nkind = 'a'\ncommand = ['true']").unwrap();
    let handlers = Handlers::from_config(tables, Path::new(""), |_| None).unwrap();
    let (handler, _) = handlers.handler(&"a".parse().unwrap()).unwrap();
    assert_eq!(handler.run(execution("1")).await.unwrap().as_str(), "null");
}

#[test]
fn an_unknown_key_is_no_silent_default() {
    for table in [
        "kind = 'a'\ncommand = ['x']\ntimeout = 5",
        "kind = 'a'\nhttp = { url = 'https://example.com', secret = 'x' }",
        "kind = 'a'\ncommand = ['x']\nretry = { base = 1 }",
        "command = ['x']",
        "kind = 'a'\ncommand = 'x'",
    ] {
        assert!(
            tables(&format!("[[handler]]\n{table}")).is_err(),
            "{table} was taken"
        );
    }
}

#[test]
fn every_problem_is_said_at_once() {
    let problems = load(
        r#"
        [[handler]]
        kind = "A b"
        command = []
        timeout_seconds = 0
        max_attempts = 0
        concurrency = -1
        retry = { base_seconds = -1, factor = 0.5, cap_seconds = 1e9 }
        env = { "A=B" = "x" }

        [[handler]]
        kind = "both"
        command = ["true"]
        http = { url = "https://example.com" }

        [[handler]]
        kind = ""

        [[handler]]
        kind = "hook"
        http = { url = "http://127.0.0.1", secret_env = "MISSING" }
        cwd = "x"
        env = { A = "hush" }

        [[handler]]
        kind = "nan"
        command = ["true"]
        timeout_seconds = nan

        [[handler]]
        kind = "forebay.webhook"
        command = ["true"]

        [[handler]]
        kind = "twice"
        command = ["true"]

        [[handler]]
        kind = "twice"
        command = ["true"]
        "#,
    )
    .unwrap_err();
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(!lines.join("\n").contains("hush"));
    insta::assert_snapshot!(lines.join("\n"), @r#"
    handler "A b": kind must match [a-z0-9][a-z0-9._-]{0,63}: it starts with a lower-case letter or digit, and has at most 64 characters
    handler "A b": timeout_seconds must be from 0.001 to 604800, which is a week
    handler "A b": max_attempts must be from 1 to 1000
    handler "A b": concurrency must be from 1 to 10000
    handler "A b": retry.factor must be from 1 to 100
    handler "A b": retry.base_seconds must be from 0 to 604800, which is a week
    handler "A b": retry.cap_seconds must be from 0 to 604800, which is a week
    handler "A b": env can't hold "A=B": no environment variable can be called that or have that value
    handler "A b": command must be a program and its arguments, like ["python3", "thumb.py"]
    handler "both": http must not be given together with command
    handler number 3: kind must match [a-z0-9][a-z0-9._-]{0,63}: it starts with a lower-case letter or digit, and has at most 64 characters
    handler number 3: command or http must be given
    handler "hook": env is for commands only
    handler "hook": cwd is for commands only
    handler "hook": http.secret_env names MISSING, and the environment has no such variable
    handler "hook": http.url is refused: the address 127.0.0.1 is not public (loopback); where it is meant, name it or its network in allow_private
    handler "nan": timeout_seconds must be from 0.001 to 604800, which is a week
    handler "forebay.webhook": kind must not begin with forebay.: such kinds are Forebay's own
    handler "twice": kind is taken: another handler has it
    "#);
}

#[tokio::test]
async fn secrets_of_the_file_are_masked() {
    let tables = tables("[[handler]]\nkind = 'a'\ncommand = ['x']\nenv = { TOKEN = 'hush' }").unwrap();
    assert!(!format!("{tables:?}").contains("hush"));
}

#[test]
fn own_handlers_go_before_the_built_in_ones() {
    let handlers = load("[[handler]]\nkind = 'echo'\ncommand = ['cat']")
        .unwrap()
        .with_builtin();
    let kinds: Vec<&str> = handlers.kinds().map(|kind| kind.as_str()).collect();
    assert_eq!(kinds, ["cpu", "echo", "fail", "sleep"]);
}
