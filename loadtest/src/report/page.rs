//! The frame of the page: its style, and a script that shows values where the pointer is.

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A page with everything in it.
pub(super) fn frame(title: &str, body: &str) -> String {
    let title = super::chart::escape(title);
    format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><style>
{STYLE}</style></head><body><main>
{body}
</main><script>
{SCRIPT}</script></body></html>
"#
    )
}
