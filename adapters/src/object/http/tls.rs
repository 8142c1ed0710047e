//! Whom TLS trusts.
//!
//! The system's certificates, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR` instead, and those
//! of `AWS_CA_BUNDLE` as well. They are read when the first server asks for them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use futures_rustls::TlsConnector;
use futures_rustls::pki_types::pem::PemObject as _;
use futures_rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use futures_rustls::rustls::client::WebPkiServerVerifier;
use futures_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use futures_rustls::rustls::crypto::{CryptoProvider, ring};
use futures_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::connect::within;
use super::io::Duplex;
use super::{Failure, Http};
use crate::pool::unblock_store;

/// The connectors of a process.
pub(super) struct Tls {
    /// A file of certificates that are trusted as well.
    bundle: Option<PathBuf>,
    verifying: OnceLock<TlsConnector>,
    trusting: OnceLock<TlsConnector>,
}

impl Tls {
    pub(super) fn new(bundle: Option<PathBuf>) -> Tls {
        Tls { bundle, verifying: OnceLock::new(), trusting: OnceLock::new() }
    }

    /// The connector to use. Blocks while it reads files, the first time.
    ///
    /// # Errors
    /// One line about a file that cannot be used.
    pub(super) fn connector(&self, skip_verify: bool) -> Result<&TlsConnector, String> {
        let cell = if skip_verify { &self.trusting } else { &self.verifying };
        if let Some(connector) = cell.get() {
            return Ok(connector);
        }
        // Two that come at once do the same work; one of the results stays.
        let connector = self.build(skip_verify)?;
        Ok(cell.get_or_init(|| connector))
    }

    fn build(&self, skip_verify: bool) -> Result<TlsConnector, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring has the default protocol versions");
        let mut config = if skip_verify {
            let verifier = Arc::new(TrustsAll(provider));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        } else {
            let roots = Arc::new(roots(self.bundle.as_deref())?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
            let verifier = verifier.map_err(|error| format!("certificates: {error}"))?;
            builder.with_webpki_verifier(verifier).with_no_client_auth()
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

impl Http {
    /// The stream under TLS, with a server that is `host`.
    pub(super) async fn tls(
        self: &Arc<Self>,
        host: &str,
        skip_verify: bool,
        stream: impl Duplex + 'static,
    ) -> Result<Box<dyn Duplex>, Failure> {
        let http = Arc::clone(self);
        let connector = unblock_store(move || http.tls.connector(skip_verify).cloned()).await;
        let connector = connector.map_err(Failure::setup)?;
        let name = ServerName::try_from(host.to_string())
            .map_err(|_| Failure::setup(format!("{host} is no name that a certificate can have")))?;
        match within("the TLS handshake", connector.connect(name, stream)).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(handshake_failure(&error)),
        }
    }
}

/// Sorts out certificates that are not trusted: those want a person, and a broken line does not.
fn handshake_failure(error: &io::Error) -> Failure {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidCertificate(_)) => Failure::untrusted(error.to_string()),
        _ => Failure::unsent(format!("TLS: {error}")),
    }
}

fn roots(bundle: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = bundle.filter(|path| !path.as_os_str().is_empty()) {
        let unusable = |cause: String| format!("AWS_CA_BUNDLE: {}: {cause}", path.display());
        let mut added = 0;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unusable(e.to_string()))? {
            let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
            roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
            added += 1;
        }
        if added == 0 {
            return Err(unusable("it holds no certificate".into()));
        }
    }
    if roots.is_empty() {
        let causes: Vec<_> = system.errors.iter().map(ToString::to_string).collect();
        let causes = if causes.is_empty() { String::new() } else { format!(" ({})", causes.join("; ")) };
        return Err(format!(
            "the system has no certificates to check servers with{causes}: install ca-certificates or set SSL_CERT_FILE"
        ));
    }
    Ok(roots)
}

/// Accepts any certificate, for `skip-verify`.
#[derive(Debug)]
struct TrustsAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustsAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        futures_rustls::rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        futures_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
