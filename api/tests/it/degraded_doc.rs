//! docs/degradation.md promises nothing that no test has seen.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

/// The folders with tests in them.
const FOLDERS: [&str; 7] = ["api", "chaos", "cli", "crates", "proto", "scaler", "worker"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every function as `folder/…/file.rs name`.
fn functions(root: &Path) -> HashSet<(String, String)> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        sources(&root.join(folder), &mut files);
    }
    let mut functions = HashSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        for line in text.lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let line = line.strip_prefix("async ").unwrap_or(line);
            if let Some(rest) = line.strip_prefix("fn ") {
                let function = rest.split(['(', '<']).next().unwrap_or_default();
                functions.insert((name.clone(), function.to_owned()));
            }
        }
    }
    functions
}

/// The tests that a line names, as `file.rs::name` in backticks.
fn named(line: &str) -> Vec<(&str, &str)> {
    line.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split_once(".rs::"))
        .collect()
}

#[test]
fn every_row_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("docs/degradation.md")).unwrap();
    let functions = functions(root);
    let (mut rows, mut missing) = (0, Vec::new());
    for line in text.lines() {
        for (file, test) in named(line) {
            if !functions.contains(&(format!("{file}.rs"), test.to_owned())) {
                missing.push(format!("{file}.rs::{test}"));
            }
        }
        // The last column of the matrix says what proves the row.
        let is_row = line.starts_with("| **");
        rows += usize::from(is_row);
        assert!(
            !is_row || !named(line).is_empty(),
            "no test backs this row: {line}"
        );
    }
    assert!(rows >= 14, "only {rows} rows were understood");
    assert!(
        missing.is_empty(),
        "docs/degradation.md names tests that do not exist: {missing:#?}"
    );
}
