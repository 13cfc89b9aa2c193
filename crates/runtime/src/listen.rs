//! Listening, with an error that says what to do about it.

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;

use crate::config::values::ListenAddr;

/// Listens on `addr` for `what`; `flag` is the setting that chooses the address, such as `--http-addr`.
///
/// # Errors
/// Where the address can't be had; the message names it, and the setting.
pub async fn listen(addr: ListenAddr, what: &str, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr.0).await.map_err(|error| {
        let variable = format!(
            "FOREBAY{}",
            flag.replace("--", "-").replace('-', "_").to_uppercase()
        );
        let why = match error.kind() {
            std::io::ErrorKind::AddrInUse => "it is in use by another program".to_owned(),
            _ => error.to_string(),
        };
        anyhow!("cannot listen on {addr} for {what}: {why}; choose another with {flag} or {variable}")
    })
}

/// The address that people on this machine reach a listener by: the real port, and loopback in place of "all
/// interfaces".
///
/// # Errors
/// Where the system does not know the listener's address.
pub fn reachable(listener: &TcpListener) -> anyhow::Result<std::net::SocketAddr> {
    let mut addr = listener
        .local_addr()
        .context("ask for the address of a listener")?;
    if addr.ip().is_unspecified() {
        match addr {
            std::net::SocketAddr::V4(_) => addr.set_ip(std::net::Ipv4Addr::LOCALHOST.into()),
            std::net::SocketAddr::V6(_) => addr.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
        }
    }
    Ok(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_way_out() {
        let first = listen(":0".parse().unwrap(), "HTTP", "--http-addr")
            .await
            .unwrap();
        let addr = reachable(&first).unwrap();
        assert!(addr.ip().is_loopback() && addr.port() != 0);
        let taken = ListenAddr(addr);
        let error = listen(taken, "HTTP", "--http-addr")
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(&addr.to_string()), "{error}");
        assert!(error.contains("--http-addr or FOREBAY_HTTP_ADDR"), "{error}");
    }
}
