//! The command line is a surface that people and scripts rely on: a change of it should be seen.

use clap::{FromArgMatches, Parser};
use forebay_core::Overlap;

use crate::args::{Called, Cli, Schedules, SchedulesCommand, Submit, command};

#[test]
fn the_declarations_fit_together() {
    command().debug_assert();
}

#[test]
fn help_texts() {
    // What load() does for the help, and a fixed width.
    let mut command = command().term_width(100).mut_subcommands(|sub| {
        let sub = sub.mut_args(|arg| arg.hide_env_values(true)).term_width(100);
        sub.mut_subcommands(|below| below.term_width(100))
    });
    command.build();
    insta::assert_snapshot!("forebay", command.render_help());
    for sub in command.get_subcommands_mut() {
        let name = sub.get_name().to_owned();
        insta::assert_snapshot!(name.as_str(), sub.render_help());
        for below in sub.get_subcommands_mut() {
            let name = format!("{name}_{}", below.get_name());
            insta::assert_snapshot!(name, below.render_help());
        }
    }
}

fn schedules(line: &str) -> Schedules {
    let matches = command().try_get_matches_from(line.split(' ')).unwrap();
    match Cli::from_arg_matches(&matches).unwrap().command {
        Called::Schedules(schedules) => schedules,
        other => panic!("{other:?}"),
    }
}

#[test]
fn schedules_take_what_all_client_commands_take_before_and_after_a_command_of_their_own() {
    assert!(schedules("forebay schedules").command.is_none());
    for line in [
        "forebay schedules --json",
        "forebay schedules --json list",
        "forebay schedules list --json",
        "forebay schedules delete a b --json",
    ] {
        assert!(schedules(line).common.json, "{line}");
    }
    let elsewhere = schedules("forebay schedules get nightly --url http://elsewhere:1");
    assert_eq!(elsewhere.common.client.url.as_str(), "http://elsewhere:1/");
}

#[test]
fn a_schedule_is_put_as_a_task_is_submitted() {
    let put = schedules("forebay schedules put n @hourly k -5 --overlap queue --catch-up 1h --tag a --tag b");
    let Some(SchedulesCommand::Put(put)) = put.command else {
        panic!("{put:?}")
    };
    assert_eq!((put.payload.as_deref(), put.tag.len()), (Some("-5"), 2));
    assert_eq!(put.overlap, Some(Overlap::Queue));
    assert!(refused("forebay schedules put n c k --overlap never").contains("skip, queue or allow"));
    assert!(refused("forebay schedules put n c").contains("KIND"));
    assert!(refused("forebay schedules get n --upcoming 101").contains("0..=100"));
}

fn refused(line: &str) -> String {
    Cli::try_parse_from(line.split(' ')).unwrap_err().to_string()
}

#[test]
fn a_file_excludes_what_describes_one_task() {
    assert!(Cli::try_parse_from(["forebay", "submit", "--file", "f", "--ids", "i"]).is_ok());
    assert!(refused("forebay submit echo --file f").contains("cannot be used with"));
    assert!(refused("forebay submit --file f --tag a").contains("cannot be used with"));
    assert!(refused("forebay submit --file f --unique").contains("cannot be used with"));
    assert!(refused("forebay submit --file f --limit-key a").contains("cannot be used with"));
    assert!(refused("forebay submit").contains("KIND"));
}

fn submit(line: &str) -> Box<Submit> {
    let cli = Cli::try_parse_from(line.split(' ')).unwrap();
    match cli.command {
        Called::Submit(submit) => submit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn terms_are_said_part_by_part() {
    let plain = submit("forebay submit k");
    assert_eq!((plain.task_terms.unique(), plain.run_terms.retry()), (None, None));
    let all = submit(
        "forebay submit k --expires-in 1m --unique-key u --unique-window 1h --on-conflict replace --after a,b \
         --after c --on-dependency-failure run --retry-delays 1s,500ms --limit-key l --notify n --notify m",
    );
    let unique = all.task_terms.unique().unwrap();
    assert_eq!(
        (
            unique.key.as_deref(),
            unique.window_seconds,
            unique.on_conflict.as_deref()
        ),
        (Some("u"), Some(3_600.0), Some("replace"))
    );
    assert_eq!(all.task_terms.after, ["a", "b", "c"]);
    assert_eq!(all.run_terms.retry().unwrap().delays_seconds, [1.0, 0.5]);
    assert_eq!(all.run_terms.notify, ["n", "m"]);
    let by_payload = submit("forebay submit k --unique").task_terms.unique();
    assert_eq!(by_payload.unwrap().key, None);
    assert!(refused("forebay submit k --retry-delays 1s --retry-cap 1m").contains("cannot be used with"));
    assert!(refused("forebay submit k --on-dependency-failure run").contains("--after"));
    assert!(refused("forebay submit k --on-conflict ignore").contains("return, reject, replace"));
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
