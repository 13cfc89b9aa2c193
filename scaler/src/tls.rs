//! Certificates, from files.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, bail};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// How long a client may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What the scaler proves itself with, and whom it lets in.
#[derive(Clone)]
pub struct Tls(ServerTlsConfig);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads PEM files: the certificate chain, its key, and the authority of the clients' certificates, where they must
    /// have one. `None` where no file is named. They are read once: renewed certificates want a restart.
    ///
    /// # Errors
    /// Where only some are named, or one can't be read or used; the message says which.
    pub fn read(
        certificate: Option<&Path>,
        key: Option<&Path>,
        client_authority: Option<&Path>,
    ) -> anyhow::Result<Option<Self>> {
        let (certificate, key) = match (certificate, key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) if client_authority.is_none() => return Ok(None),
            (None, None) => {
                bail!("a client CA needs TLS: name the certificate and the key of the scaler, too")
            }
            _ => bail!("TLS needs both a certificate and its key: name both files, or neither"),
        };
        let mut config = ServerTlsConfig::new()
            .identity(Identity::from_pem(pem(certificate)?, pem(key)?))
            .timeout(HANDSHAKE);
        if let Some(authority) = client_authority {
            config = config.client_ca_root(Certificate::from_pem(pem(authority)?));
        }
        let tls = Self(config);
        tls.check().with_context(|| {
            let authority = client_authority.map_or(String::new(), |path| format!(", {}", path.display()));
            format!(
                "the certificate, its key or the client CA cannot be used ({}, {}{authority})",
                certificate.display(),
                key.display()
            )
        })?;
        Ok(Some(tls))
    }

    /// Now, and not when the first client comes.
    fn check(&self) -> anyhow::Result<()> {
        // Another part of the process may have installed it: it is the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        tonic::transport::Server::builder().tls_config(self.0.clone())?;
        Ok(())
    }

    pub(crate) fn config(self) -> ServerTlsConfig {
        self.0
    }
}

fn pem(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
