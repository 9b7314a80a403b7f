//! An authority for one test, and what it signs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use redis::{ClientTlsConfig, TlsCertificates};

use super::address;

/// Files in PEM, in a folder that is the caller's.
#[derive(Clone)]
pub struct Certificates {
    /// Who is trusted.
    pub ca: PathBuf,
    /// The server, under its IP address and `localhost`.
    pub server: Pair,
    /// A client, for servers that ask for one.
    pub client: Pair,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificates {
    pub fn issue(folder: &Path) -> Self {
        let authority = authority();
        let ca = folder.join("ca.pem");
        fs::write(&ca, authority.pem()).unwrap();
        let server = [address::host().to_string(), "localhost".to_owned()];
        Self {
            ca,
            server: signed(&authority, folder, "server", &server),
            client: signed(&authority, folder, "client", &["reprise".to_owned()]),
        }
    }

    /// The same for the client that the harness uses.
    pub fn of_client(&self) -> TlsCertificates {
        let [client_cert, client_key, root_cert] =
            [&self.client.certificate, &self.client.key, &self.ca]
                .map(|file| fs::read(file).unwrap());
        TlsCertificates {
            client_tls: Some(ClientTlsConfig { client_cert, client_key }),
            root_cert: Some(root_cert),
        }
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority of one test");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn signed(
    authority: &CertifiedIssuer<'_, KeyPair>,
    folder: &Path,
    name: &str,
    subjects: &[String],
) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(subjects).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, authority).unwrap();
    let pair = Pair {
        certificate: folder.join(name).with_extension("pem"),
        key: folder.join(name).with_extension("key"),
    };
    fs::write(&pair.certificate, certificate.pem()).unwrap();
    fs::write(&pair.key, key.serialize_pem()).unwrap();
    pair
}
