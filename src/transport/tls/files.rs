//! Certificates and private keys out of files, in PEM or DER; a key may be encrypted. An error names the file at fault,
//! what that file holds instead, and what to type.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pkcs8::EncryptedPrivateKeyInfo;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::transport::x509::{self, Certificate};

/// Bytes of one file; a larger one is refused. The certificates of all public CAs together have a quarter of a megabyte.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Why a file cannot be used.
#[derive(Debug)]
pub struct LoadError {
    pub path: PathBuf,
    pub why: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for LoadError {}

impl LoadError {
    pub(super) fn new(path: &Path, why: impl fmt::Display) -> LoadError {
        LoadError { path: path.to_owned(), why: why.to_string() }
    }
}

/// All certificates of a file, in their order; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let bytes = read(path)?;
    let missing = || LoadError::new(path, format!("no certificate in this file: {}", holds(path, &bytes)));
    let chain: Vec<_> = if is_pem(&bytes) {
        let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>();
        found.map_err(|error| not_pem(path, &error))?
    } else if x509::sequence(&bytes).is_some() && Certificate::parse(&bytes).is_some() {
        vec![CertificateDer::from(bytes.clone())]
    } else {
        return Err(missing());
    };
    if chain.is_empty() {
        return Err(missing());
    }
    match chain.iter().position(|der| Certificate::parse(der).is_none()) {
        None => Ok(chain),
        Some(at) => Err(LoadError::new(path, format!("certificate {} of this file cannot be read", at + 1))),
    }
}

/// The first private key of a file. `password` names a file with the password of a key that is encrypted.
pub(super) fn private_key(path: &Path, password: Option<&Path>) -> Result<PrivateKeyDer<'static>, LoadError> {
    let bytes = read(path)?;
    let missing = || LoadError::new(path, format!("no private key in this file: {}", holds(path, &bytes)));
    if !is_pem(&bytes) {
        if EncryptedPrivateKeyInfo::try_from(&bytes[..]).is_ok() {
            return decrypted(path, &bytes, password);
        }
        return PrivateKeyDer::try_from(bytes.clone()).map_err(|_| missing());
    }
    let text = String::from_utf8_lossy(&bytes);
    match sections(&text).find(|(label, _)| label.ends_with("PRIVATE KEY")) {
        None => Err(missing()),
        Some((_, body)) if body.contains("Proc-Type: 4,ENCRYPTED") => Err(LoadError::new(
            path,
            format!(
                "the key is encrypted in an old format (Proc-Type: 4,ENCRYPTED) that is not read. Write it anew: {}",
                rewritten(path)
            ),
        )),
        Some(("ENCRYPTED PRIVATE KEY", body)) => {
            let digits: String = body.split_whitespace().collect();
            let der = STANDARD.decode(digits).map_err(|error| {
                LoadError::new(path, format!("not PEM: the text of the key is not base64: {error}"))
            })?;
            decrypted(path, &der, password)
        }
        Some((label @ ("DSA PRIVATE KEY" | "OPENSSH PRIVATE KEY"), _)) => {
            let what = format!(
                "a key of this kind ({label}) is of no use for TLS. Make one: openssl genpkey -algorithm EC \
                 -pkeyopt ec_paramgen_curve:P-256 -out server.key"
            );
            Err(LoadError::new(path, what))
        }
        Some(_) => PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| not_pem(path, &error)),
    }
}

/// The key that stands encrypted in `der`.
fn decrypted(path: &Path, der: &[u8], password: Option<&Path>) -> Result<PrivateKeyDer<'static>, LoadError> {
    let Some(password_path) = password else {
        let what = "the key is encrypted. Name a file with its password: --tls-key-password-file FILE (in a [[listener]]: \
                    key-password-file = \"FILE\"). Or write it without encryption: openssl pkey -in";
        let plain = format!("{what} {} -out plain.key", path.display());
        return Err(LoadError::new(path, plain));
    };
    let password = password_of(password_path)?;
    let unknown = || {
        let what = format!(
            "the key is encrypted in a way that is not read; AES and 3DES are, by PBES2. Write it anew: {}",
            rewritten(path)
        );
        LoadError::new(path, what)
    };
    let key = EncryptedPrivateKeyInfo::try_from(der).map_err(|_| unknown())?;
    let wrong = || {
        LoadError::new(path, format!("the password in {} does not open this key", password_path.display()))
    };
    let plain = key.decrypt(&password).map_err(|error| match error {
        pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::UnsupportedAlgorithm { .. }) => unknown(),
        pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::NoPbes1CryptSupport) => unknown(),
        _ => wrong(),
    })?;
    PrivateKeyDer::try_from(plain.as_bytes().to_vec()).map_err(|_| wrong())
}

/// The first line of a file, without its end.
fn password_of(path: &Path) -> Result<Vec<u8>, LoadError> {
    let bytes = read(path)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(LoadError::new(path, "no password: the first line of this file is empty"));
    }
    Ok(line.to_vec())
}

/// What writes an encrypted key in a form that is read.
fn rewritten(path: &Path) -> String {
    format!("openssl pkcs8 -topk8 -v2 aes-256-cbc -in {} -out new.key", path.display())
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| LoadError::new(path, error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(LoadError::new(path, format!("more than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    Ok(bytes)
}

fn not_pem(path: &Path, error: &pem::Error) -> LoadError {
    LoadError::new(path, format!("not PEM: {error}"))
}

fn is_pem(bytes: &[u8]) -> bool {
    bytes.windows(BEGIN.len()).any(|window| window == BEGIN.as_bytes())
}

const BEGIN: &str = "-----BEGIN ";

/// The labels of a PEM file, each with the text from its line to that of its end.
fn sections(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(BEGIN).skip(1).filter_map(|section| {
        let (label, rest) = section.split_once("-----")?;
        let body = rest.split_once("-----END").map_or(rest, |(body, _)| body);
        Some((label, body))
    })
}

/// What a file without the thing that was looked for holds, and how to come by that thing.
fn holds(path: &Path, bytes: &[u8]) -> String {
    let path = path.display();
    let pkcs12 = format!(
        "it is PKCS#12 (.p12, .pfx). Take both out: openssl pkcs12 -in {path} -nodes -out server.pem, which then serves as \
         certificate and key"
    );
    let pkcs7 = format!(
        "it is PKCS#7 (.p7b). Take the certificates out: openssl pkcs7 -in {path} -print_certs -out server.pem"
    );
    let request = format!(
        "it is a request for a certificate, which a CA has to sign: openssl x509 -req -in {path} -CA ca.pem -CAkey ca.key \
         -CAcreateserial -days 365 -out server.pem"
    );
    let trusted = format!(
        "it is a certificate in openssl's own form. Write it anew: openssl x509 -in {path} -out server.pem"
    );
    if bytes.is_empty() {
        return "it is empty".to_owned();
    }
    if is_pem(bytes) {
        let text = String::from_utf8_lossy(bytes);
        let mut labels: Vec<&str> = sections(&text).map(|(label, _)| label).collect();
        labels.dedup();
        return match labels[..] {
            ["CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST", ..] => request,
            ["PKCS7", ..] => pkcs7,
            ["TRUSTED CERTIFICATE", ..] => trusted,
            [] => "its PEM is cut off".to_owned(),
            _ => format!("it holds {}", labels.join(", ")),
        };
    }
    match x509::sequence(bytes) {
        None => "it is neither PEM nor DER".to_owned(),
        Some([2, 1, 3, ..]) => pkcs12,
        Some([6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 2, ..]) => {
            pkcs7.replace("-print_certs", "-inform DER -print_certs")
        }
        Some(_) if PrivateKeyDer::try_from(bytes).is_ok() => "it holds a private key (DER)".to_owned(),
        Some(_) if EncryptedPrivateKeyInfo::try_from(bytes).is_ok() => {
            "it holds an encrypted private key (DER)".to_owned()
        }
        Some(_) if Certificate::parse(bytes).is_some() => "it holds a certificate (DER)".to_owned(),
        Some(_) => "it is DER of another kind".to_owned(),
    }
}
