//! The shell commands of a page of docs/, run in their order.

use std::{path::Path, process::Command};

use crate::support::{Dev, Ended, stdout};

/// The commands of a page, block by block.
pub(crate) fn examples(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page)).unwrap();
    let blocks = text.split("\n```sh\n").skip(1);
    blocks
        .map(|block| block.split("\n```").next().unwrap().to_owned())
        .collect()
}

/// Runs commands as a person would who reads the page. Returns what they say.
pub(crate) fn run(dev: &Dev, folder: &Path, commands: &str) -> String {
    let binaries = Path::new(env!("CARGO_BIN_EXE_forebay")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOREBAY_") {
            shell.env_remove(name);
        }
    }
    let commands = commands.replace("http://127.0.0.1:8080", &dev.url);
    let output = shell
        .args(["-euc", &commands])
        .current_dir(folder)
        .env("PATH", path)
        .env("FOREBAY_URL", &dev.url)
        .ended();
    assert!(output.status.success(), "{commands}\n{output:?}");
    stdout(&output)
}

/// Runs each block of a page, which has to say, among others, these words. Returns all that is said.
pub(crate) fn says(dev: &Dev, folder: &Path, page: &str, expected: &[&str]) -> Vec<String> {
    says_after(dev, folder, page, expected, |_| {})
}

/// As [`says`], with something to be done after each block.
pub(crate) fn says_after(
    dev: &Dev,
    folder: &Path,
    page: &str,
    expected: &[&str],
    after: impl Fn(&str),
) -> Vec<String> {
    let blocks = examples(page);
    assert_eq!(blocks.len(), expected.len(), "{blocks:?}");
    let pairs = blocks.iter().zip(expected);
    pairs
        .map(|(block, expected)| {
            let said = run(dev, folder, block);
            let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains(expected), "{expected:?} is not in {words}");
            after(block);
            said
        })
        .collect()
}
