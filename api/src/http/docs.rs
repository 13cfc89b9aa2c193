//! The description of the API, for programs and for people. Served from the binary, with no host but this one.

use std::sync::LazyLock;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use crate::{
    OPENAPI,
    error::{ApiError, Code},
    http::params::CodeName,
};

const PAGE: &str = include_str!("../../assets/docs.html");
const STYLE: &str = include_str!("../../assets/docs.css");
const SCRIPT: &str = include_str!("../../assets/docs.js");

/// The page with its style and its script in it, and the policy that allows just these two.
static DOCS: LazyLock<(String, HeaderValue)> = LazyLock::new(|| {
    let page = PAGE.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT);
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    let policy =
        HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"));
    (page, policy)
});

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

fn html(page: String) -> Response {
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, DOCS.1.clone()),
    ];
    (StatusCode::OK, headers, page).into_response()
}

/// `GET /openapi.json`
pub(crate) async fn openapi() -> Response {
    let kind = HeaderValue::from_static("application/json");
    (StatusCode::OK, [(header::CONTENT_TYPE, kind)], OPENAPI).into_response()
}

/// `GET /docs`
pub(crate) async fn page() -> Response {
    html(DOCS.0.clone())
}

/// `GET /docs/errors/{code}`
pub(crate) async fn error_page(CodeName(name): CodeName) -> Result<Response, ApiError> {
    let code =
        Code::parse(&name).ok_or_else(|| ApiError::new(Code::UnknownPath, "there is no such error code"))?;
    let row = code.row();
    let body = render(row.page);
    Ok(html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{} · Forebay</title>\n<style>{STYLE}</style></head>\n\
         <body><main class=\"page\">\n<p class=\"crumbs\"><a href=\"/docs\">Forebay API</a> · errors</p>\n{body}</main></body>\n</html>\n",
        row.code
    )))
}

/// Turns the little Markdown that the pages use into HTML: headings, lists, paragraphs, `code`.
fn render(markdown: &str) -> String {
    let mut html = String::new();
    for block in markdown
        .split("\n\n")
        .map(str::trim)
        .filter(|block| !block.is_empty())
    {
        if let Some(title) = block.strip_prefix("## ") {
            html += &format!("<h2>{}</h2>\n", inline(title));
        } else if let Some(title) = block.strip_prefix("# ") {
            html += &format!("<h1>{}</h1>\n", inline(title));
        } else if block.starts_with("- ") {
            let items: String = block
                .split("\n- ")
                .map(|item| format!("<li>{}</li>", inline(item.trim_start_matches("- "))))
                .collect();
            html += &format!("<ul>{items}</ul>\n");
        } else {
            html += &format!("<p>{}</p>\n", inline(block));
        }
    }
    html
}

fn inline(text: &str) -> String {
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let mut html = String::new();
    for (index, part) in escaped.split('`').enumerate() {
        if index % 2 == 1 {
            html += &format!("<code>{part}</code>");
        } else {
            html += part;
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_pages() {
        let html = render("# `a`\n\nText <b>\nmore.\n\n- one\n- two `x`\n");
        assert_eq!(
            html,
            "<h1><code>a</code></h1>\n<p>Text &lt;b&gt;\nmore.</p>\n<ul><li>one</li><li>two <code>x</code></li></ul>\n"
        );
    }
}
