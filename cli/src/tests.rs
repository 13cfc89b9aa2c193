//! The command line is a surface that people and scripts rely on: a change of it should be seen.

use clap::Parser;

use crate::args::{Called, Cli, command};

#[test]
fn the_declarations_fit_together() {
    command().debug_assert();
}

#[test]
fn help_texts() {
    // What load() does for the help, and a fixed width.
    let mut command = command()
        .term_width(100)
        .mut_subcommands(|sub| sub.mut_args(|arg| arg.hide_env_values(true)).term_width(100));
    command.build();
    insta::assert_snapshot!("forebay", command.render_help());
    for sub in command.get_subcommands_mut() {
        let name = sub.get_name().to_owned();
        insta::assert_snapshot!(name, sub.render_help());
    }
}

fn refused(line: &str) -> String {
    Cli::try_parse_from(line.split(' ')).unwrap_err().to_string()
}

#[test]
fn a_file_excludes_what_describes_one_task() {
    assert!(Cli::try_parse_from(["forebay", "submit", "--file", "f", "--ids", "i"]).is_ok());
    assert!(refused("forebay submit echo --file f").contains("cannot be used with"));
    assert!(refused("forebay submit --file f --tag a").contains("cannot be used with"));
    assert!(refused("forebay submit").contains("KIND"));
}

#[test]
fn a_payload_may_be_a_negative_number_and_tags_repeat() {
    let cli = Cli::try_parse_from(["forebay", "submit", "k", "-5", "--tag", "a", "--tag", "b"]).unwrap();
    let Called::Submit(submit) = cli.command else {
        panic!("{cli:?}")
    };
    assert_eq!((submit.payload.as_deref(), submit.tag.len()), (Some("-5"), 2));
}

#[test]
fn what_is_allowed_is_said() {
    assert!(refused("forebay submit k --priority urgent").contains("high, default, low"));
    assert!(refused("forebay submit k --delay 5").contains("500ms, 30s, 5m"));
    assert!(refused("forebay submit k --run-at tomorrow").contains("RFC 3339 time, such as 2030"));
    assert!(refused("forebay list --state broken").contains("succeeded"));
    assert!(
        refused("forebay submit k --delay 5m --run-at 2030-01-01T00:00:00Z").contains("cannot be used with")
    );
}
