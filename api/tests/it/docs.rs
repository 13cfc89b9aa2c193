//! The pages.

use forebay_api::error::Code;

use crate::door::Door;

#[tokio::test]
async fn the_page_needs_no_other_host_and_its_policy_lets_it_work() {
    let door = Door::new();
    let page = door.get("/docs").await;
    assert_eq!(
        (page.status.as_u16(), page.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    let outside = [
        "http://",
        "https://",
        "src=",
        "@import",
        "url(",
        "innerHTML",
        "onclick",
    ];
    assert!(
        outside.iter().all(|word| !page.text.contains(word)),
        "reaches outside"
    );
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    for (open, close, directive) in [
        ("<style>", "</style>", "style-src"),
        ("<script>", "</script>", "script-src"),
    ] {
        let inside = page.text.split_once(open).unwrap().1.split_once(close).unwrap().0;
        let digest = <sha2::Sha256 as sha2::Digest>::digest(inside);
        let hash = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, digest);
        assert!(
            policy.contains(&format!("{directive} 'sha256-{hash}'")),
            "{directive} does not fit in {policy}"
        );
        assert!(!inside.contains("*/*"), "a placeholder is left");
    }
}

#[tokio::test]
async fn every_code_has_a_page_and_every_page_a_code() {
    let door = Door::new();
    for code in Code::ALL {
        let name = code.as_str();
        let row = code.row();
        assert!(
            row.page.starts_with(&format!("# `{name}`\n")),
            "the page of {name} has another title"
        );
        for needed in [
            "## What it means",
            "## What to do",
            &format!("HTTP {}", row.status),
        ] {
            assert!(row.page.contains(needed), "the page of {name} lacks {needed:?}");
        }
        let grpc = grpc_name(row.grpc);
        assert!(
            row.page.contains(&format!("gRPC `{grpc}`")),
            "the page of {name} does not say {grpc}"
        );
        let shown = door.get(&format!("/docs/errors/{name}")).await;
        assert_eq!(shown.status, 200);
        assert!(
            shown.text.contains(&format!("<h1><code>{name}</code></h1>")),
            "{}",
            shown.text
        );
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for file in files {
        let name = file.strip_suffix(".md").unwrap();
        assert!(Code::parse(name).is_some(), "{file} is the page of no code");
    }
    assert_eq!(door.get("/docs/errors/nonsense").await.code(), "unknown_path");
}

fn grpc_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
