//! Where the load goes, and connections to it.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use url::Url;

/// A connection, with or without TLS.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// The same as hyper wants it.
pub(crate) type Connection = TokioIo<Box<dyn Wire>>;

/// A server.
#[derive(Clone)]
pub(crate) struct Target {
    /// Without a slash at the end.
    pub(crate) url: String,
    /// What goes into the header `Host`.
    pub(crate) authority: String,
    /// What paths begin with.
    pub(crate) path: String,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
}

impl Target {
    /// Reads a URL; `alpn` is what is to be spoken over TLS.
    pub(crate) fn new(url: &str, alpn: &'static [u8]) -> Result<Self> {
        let parsed = Url::parse(url).with_context(|| format!("{url:?} is no URL"))?;
        let tls = match parsed.scheme() {
            "http" => None,
            "https" => Some(tls(alpn)?),
            other => bail!("{url}: {other} is neither http nor https"),
        };
        let host = parsed
            .host_str()
            .with_context(|| format!("{url} names no host"))?;
        let port = parsed.port_or_known_default().context("no port")?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            authority: parsed.authority().to_owned(),
            path: parsed.path().trim_end_matches('/').to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            tls,
        })
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> std::io::Result<Connection> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let wire: Box<dyn Wire> = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
                Box::new(tls.connect(name, stream).await?)
            }
        };
        Ok(TokioIo::new(wire))
    }
}

fn tls(alpn: &'static [u8]) -> Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("set up TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls() {
        let target = Target::new("http://[::1]:8080/behind/", b"http/1.1").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 8080));
        assert_eq!(
            (target.authority.as_str(), target.path.as_str()),
            ("[::1]:8080", "/behind")
        );
        assert!(
            Target::new("https://forebay.example", b"h2")
                .unwrap()
                .tls
                .is_some()
        );
        for wrong in ["", "127.0.0.1:8080", "nats://a"] {
            assert!(Target::new(wrong, b"h2").is_err(), "{wrong:?}");
        }
    }
}
