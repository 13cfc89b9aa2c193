//! Schemas of kinds from outside: the examples of docs/schemas.md.

use tempfile::tempdir;

use crate::{page::says, support::Dev};

#[test]
fn the_examples_of_the_page_do_what_it_says() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let said = says(
        &dev,
        folder.path(),
        "docs/schemas.md",
        &[
            "thumbnail has version 1 of its schema (enforce)",
            "payload/width",
            "KIND VERSION MODE REGISTERED thumbnail 1 enforce ",
            "thumbnail has version 3 of its schema (enforce) thumbnail has no schema any more",
            "\"kind\":\"report\",\"version\":1,\"mode\":\"enforce\"",
        ],
    );
    assert!(
        said[2].contains(r#""additionalProperties": false"#),
        "as it was registered: {}",
        said[2]
    );
}
