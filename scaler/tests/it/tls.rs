//! TLS, with and without certificates of clients.

use std::path::PathBuf;

use forebay_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use forebay_scaler::Tls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Error, Identity};

use crate::served::{Served, in_time, object, quick};

const METADATA: [(&str, &str); 1] = [("queue", "mail")];

/// An authority, and what it gives out.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, both as PEM.
struct Issued {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        Issued {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// Files, as a mounted secret has them.
struct Files(tempfile::TempDir);

impl Files {
    fn of(server: &Issued, clients: &Authority) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        std::fs::write(files.path("tls.crt"), &server.certificate).unwrap();
        std::fs::write(files.path("tls.key"), &server.key).unwrap();
        std::fs::write(files.path("ca.crt"), clients.pem()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, names: [Option<&str>; 3]) -> anyhow::Result<Option<Tls>> {
        let [certificate, key, authority] = names.map(|name| name.map(|name| self.path(name)));
        Tls::read(certificate.as_deref(), key.as_deref(), authority.as_deref())
    }
}

async fn connect(served: &Served, tls: ClientTlsConfig) -> Result<Channel, Error> {
    let address = format!("https://localhost:{}", served.port);
    let endpoint = Channel::from_shared(address).unwrap().tls_config(tls)?;
    in_time(endpoint.connect()).await
}

/// Whether a call gets through.
async fn is_served(served: &Served, tls: ClientTlsConfig) -> bool {
    let Ok(channel) = connect(served, tls).await else {
        return false;
    };
    answers(channel).await
}

async fn answers(channel: Channel) -> bool {
    let mut client = ExternalScalerClient::new(channel);
    in_time(client.is_active(object(&METADATA))).await.is_ok()
}

#[tokio::test]
async fn a_certificate_is_shown_and_those_of_clients_are_checked() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let files = Files::of(&authority.issue("localhost"), &authority);
    let trusting =
        |authority: &Authority| ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    let known_as =
        |client: &Issued| trusting(&authority).identity(Identity::from_pem(&client.certificate, &client.key));

    let open = Served::with(
        quick(),
        files.read([Some("tls.crt"), Some("tls.key"), None]).unwrap(),
    )
    .await;
    assert!(is_served(&open, trusting(&authority)).await);
    assert!(
        !is_served(&open, trusting(&foreign)).await,
        "the client trusts somebody else"
    );

    let names = [Some("tls.crt"), Some("tls.key"), Some("ca.crt")];
    let mutual = Served::with(quick(), files.read(names).unwrap()).await;
    assert!(is_served(&mutual, known_as(&authority.issue("keda"))).await);
    assert!(
        !is_served(&mutual, trusting(&authority)).await,
        "it has no certificate"
    );
    assert!(
        !is_served(&mutual, known_as(&foreign.issue("keda"))).await,
        "it is not ours"
    );

    let plain = Channel::from_shared(format!("http://127.0.0.1:{}", mutual.port)).unwrap();
    let plain = match in_time(plain.connect()).await {
        Ok(channel) => answers(channel).await,
        Err(_) => false,
    };
    assert!(!plain, "in the clear nobody is served");
}

#[test]
fn files_that_do_not_do_are_named() {
    let authority = Authority::new();
    let files = Files::of(&authority.issue("localhost"), &authority);
    std::fs::write(files.path("other.key"), authority.issue("other").key).unwrap();
    std::fs::write(files.path("empty"), "").unwrap();
    assert!(files.read([None, None, None]).unwrap().is_none());
    for (names, says) in [
        ([Some("tls.crt"), None, None], "both a certificate and its key"),
        ([None, Some("tls.key"), None], "both a certificate and its key"),
        ([None, None, Some("ca.crt")], "a client CA needs TLS"),
        ([Some("missing"), Some("tls.key"), None], "cannot read"),
        ([Some("tls.crt"), Some("other.key"), None], "cannot be used"),
        ([Some("empty"), Some("tls.key"), None], "cannot be used"),
        (
            [Some("tls.crt"), Some("tls.key"), Some("empty")],
            "cannot be used",
        ),
    ] {
        let error = format!("{:#}", files.read(names).unwrap_err());
        assert!(error.contains(says), "{names:?}: {error}");
    }
}
