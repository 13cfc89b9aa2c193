//! `forebay health`: asks the admin port of the Forebay that runs beside it. The image has no shell and no `curl`, so the
//! binary itself is what a container's health check can run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    args::Health,
    client::print::Printer,
    exit::{Code, Failure, Result},
};

/// More than this of an answer is not read.
const ANSWER_MAX: u64 = 64 * 1024;

/// Every "no" is exit code 1: those who run health checks know no other.
pub(crate) async fn run(args: Health) -> Result<Code> {
    let address = nearby(args.admin.admin_addr.0);
    let asked = match args.live {
        true => "live",
        false => "ready",
    };
    let answer = timeout(args.timeout, ask(address, asked))
        .await
        .map_err(|_| no(format_args!("{address} did not answer within {:?}", args.timeout)))?
        .map_err(|error| no(format_args!("{address} cannot be asked: {error}")))?;
    verdict(&answer).map_err(no)?;
    Printer::new(false).line(asked)?;
    Ok(Code::Done)
}

fn no(message: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Failed, message)
}

/// Where a server that listens at this address can be reached from the same machine.
fn nearby(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// The whole answer as it came. HTTP/1.0, so that it ends with the connection and is not chunked.
async fn ask(address: SocketAddr, asked: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /health/{asked} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Nothing where the answer is 200, else what is wrong.
fn verdict(answer: &str) -> std::result::Result<(), String> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.lines().next().unwrap_or_default();
    match status.split_once(' ') {
        Some((version, rest)) if version.starts_with("HTTP/1.") && rest.starts_with("200") => Ok(()),
        Some((version, rest)) if version.starts_with("HTTP/1.") => {
            Err(problems(body).unwrap_or_else(|| format!("answered {rest}")))
        }
        _ => Err("did not answer in HTTP".to_owned()),
    }
}

/// `not ready: broker: unreachable; …`, from the body of a 503.
fn problems(body: &str) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    let each = body["problems"].as_array()?.iter().map(|problem| {
        let text = |member: &str| problem[member].as_str().unwrap_or("?").to_owned();
        format!("{}: {}", text("component"), text("problem"))
    });
    let all = each.collect::<Vec<_>>().join("; ");
    Some(format!("{}: {all}", body["status"].as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_the_loopback() {
        let of = |text: &str| nearby(text.parse().unwrap()).to_string();
        assert_eq!(of("0.0.0.0:9464"), "127.0.0.1:9464");
        assert_eq!(of("[::]:9464"), "[::1]:9464");
        assert_eq!(of("10.1.2.3:80"), "10.1.2.3:80");
    }

    #[test]
    fn only_200_is_a_yes_and_a_no_says_why() {
        assert_eq!(verdict("HTTP/1.0 200 OK\r\n\r\n{}"), Ok(()));
        let body = r#"{"status":"not ready","problems":[{"component":"broker","problem":"unreachable"},{"component":"recorder","problem":"has not started"}]}"#;
        assert_eq!(
            verdict(&format!("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\n{body}")).unwrap_err(),
            "not ready: broker: unreachable; recorder: has not started"
        );
        assert_eq!(
            verdict("HTTP/1.0 404 Not Found\r\n\r\n").unwrap_err(),
            "answered 404 Not Found"
        );
        for silence in ["", "SSH-2.0-x\r\n", "200 OK"] {
            assert_eq!(
                verdict(silence).unwrap_err(),
                "did not answer in HTTP",
                "{silence:?}"
            );
        }
    }
}
