//! Renders the declarations as the table of docs/configuration.md.

use std::fmt::Write;

use clap::{Args, Command};

use super::args::{AllArgs, DEV_DEFAULTS};

/// All settings as Markdown, one table for each concern.
#[must_use]
pub fn table() -> String {
    let command = AllArgs::augment_args(Command::new("forebay"));
    let mut text = String::new();
    let mut heading = "";
    for arg in command.get_arguments() {
        let concern = arg.get_help_heading().unwrap_or("Other");
        if concern != heading {
            heading = concern;
            // Writing to a String can't fail.
            let _ = write!(
                text,
                "\n## {heading}\n\n| variable | flag | default | what it does |\n|---|---|---|---|\n"
            );
        }
        let variable = arg.get_env().unwrap_or_default().to_string_lossy();
        let flag = arg.get_long().unwrap_or_default();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(
            text,
            "| `{variable}` | `--{flag}` | {} | {help} |",
            default_of(arg)
        );
    }
    text
}

fn default_of(arg: &clap::Arg) -> String {
    let general = match arg.get_default_values().first() {
        Some(value) => format!("`{}`", value.to_string_lossy()),
        None if arg.is_required_set() => "required".to_owned(),
        None => "not set".to_owned(),
    };
    match DEV_DEFAULTS.iter().find(|(id, _)| arg.get_id() == *id) {
        Some((_, dev)) => format!("{general}; in `dev` `{dev}`"),
        None => general,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    const BEGIN: &str =
        "<!-- settings: made from the declarations in crates/runtime/src/config/args.rs -->\n";
    /// What settings of one command begin with.
    const OF_COMMANDS: [&str; 2] = ["worker_", "scaler_"];
    const END: &str = "<!-- end of settings -->";

    /// To bring the page up to date: `FOREBAY_TEST_UPDATE=1 cargo test -p forebay-runtime configuration_page`.
    #[test]
    fn the_configuration_page_lists_what_is_declared() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let current = format!("{before}{BEGIN}{}\n{END}{after}", table());
        if std::env::var_os("FOREBAY_TEST_UPDATE").is_some() {
            std::fs::write(PAGE, &current).unwrap();
        }
        let page = std::fs::read_to_string(PAGE).unwrap();
        assert!(
            page == current,
            "docs/configuration.md is out of date; the command above this test updates it"
        );
    }

    #[test]
    fn every_setting_has_a_flag_a_variable_and_a_line_that_says_what_it_does() {
        let command = AllArgs::augment_args(Command::new("forebay"));
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            // Some are a command's own: there the flag need not name it again.
            let own = OF_COMMANDS.iter().find_map(|command| id.strip_prefix(command));
            let flags = [Some(id), own].map(|flag| flag.map(|flag| flag.replace('_', "-")));
            assert!(flags.contains(&arg.get_long().map(str::to_owned)), "{id}'s flag");
            let variable = format!("FOREBAY_{}", id.to_uppercase());
            assert_eq!(
                arg.get_env().and_then(std::ffi::OsStr::to_str),
                Some(variable.as_str())
            );
            assert!(
                arg.get_help().is_some_and(|help| help.to_string().len() > 10),
                "{id} says nothing"
            );
        }
    }
}
