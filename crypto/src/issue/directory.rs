//! Files of certificate authorities, MSP directories and TLS directories, named as `cryptogen` names them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::certificate::Certificate;
use crate::identity::KeyMismatch;
use crate::key::PrivateKey;
use crate::role::Role;

use super::{CertificateAuthority, IssueError, Issued};

/// Largest file of a CA directory, bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

impl CertificateAuthority {
    /// Writes `<name>-cert.pem` and the private key `<ski>_sk` (mode 0600).
    ///
    /// # Errors
    /// [`IssueError::File`].
    pub fn save(&self, directory: &Path) -> Result<(), IssueError> {
        make_directory(directory)?;
        write(&directory.join(certificate_file(self.certificate())), self.certificate().pem())?;
        write_key(&directory.join(key_file(self.key())), self.key())
    }

    /// Loads a CA from a directory with one `*-cert.pem` and one private key `*_sk`.
    ///
    /// # Errors
    /// [`IssueError::NoAuthority`] if a file is missing, [`IssueError::KeyMismatch`] if the key is another one.
    pub fn load(directory: &Path) -> Result<Self, IssueError> {
        let entries =
            fs::read_dir(directory).map_err(|source| file_error(directory, source))?.collect::<Vec<_>>();
        let mut certificate = None;
        let mut key = None;
        for entry in entries {
            let path = entry.map_err(|source| file_error(directory, source))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with("-cert.pem") {
                certificate = Some(Certificate::from_configured_pem(read(&path)?.as_bytes())?);
            } else if name.ends_with("_sk") {
                key = Some(PrivateKey::from_pkcs8_pem(&zeroize::Zeroizing::new(read(&path)?))?);
            }
        }
        let (Some(certificate), Some(key)) = (certificate, key) else {
            return Err(IssueError::NoAuthority(directory.to_owned()));
        };
        if key.public_key() != *certificate.public_key() {
            return Err(KeyMismatch.into());
        }
        Ok(Self::from_parts(certificate, key))
    }
}

/// Writes an MSP directory with NodeOUs on: `cacerts/`, `tlscacerts/`, `config.yaml`, and for a member
/// `signcerts/` and `keystore/<ski>_sk` (mode 0600).
///
/// # Errors
/// [`IssueError::File`].
pub fn write_msp_dir(
    directory: &Path,
    authority: &CertificateAuthority,
    tls_authority: &CertificateAuthority,
    member: Option<&Issued>,
) -> Result<(), IssueError> {
    let root = write_certificate(&directory.join("cacerts"), authority.certificate())?;
    write_certificate(&directory.join("tlscacerts"), tls_authority.certificate())?;
    write(&directory.join("config.yaml"), config_yaml(&format!("cacerts/{root}")).as_bytes())?;
    if let Some(member) = member {
        write_certificate(&directory.join("signcerts"), &member.certificate)?;
        let keystore = directory.join("keystore");
        make_directory(&keystore)?;
        write_key(&keystore.join(key_file(&member.key)), &member.key)?;
    }
    Ok(())
}

/// Writes a TLS directory: `server.crt`, `server.key` (mode 0600) and `ca.crt`.
///
/// # Errors
/// [`IssueError::File`].
pub fn write_tls_dir(
    directory: &Path,
    tls_authority: &CertificateAuthority,
    server: &Issued,
) -> Result<(), IssueError> {
    make_directory(directory)?;
    write(&directory.join("server.crt"), server.certificate.pem())?;
    write_key(&directory.join("server.key"), &server.key)?;
    write(&directory.join("ca.crt"), tls_authority.certificate().pem())
}

/// `cryptogen`'s `config.yaml`.
fn config_yaml(root: &str) -> String {
    let mut yaml = "NodeOUs:\n    Enable: true\n".to_owned();
    for (key, role) in
        [("Client", Role::Client), ("Peer", Role::Peer), ("Admin", Role::Admin), ("Orderer", Role::Orderer)]
    {
        let unit = role.organizational_unit();
        yaml.push_str(&format!("    {key}OUIdentifier:\n"));
        yaml.push_str(&format!("        Certificate: {root}\n"));
        yaml.push_str(&format!("        OrganizationalUnitIdentifier: {unit}\n"));
    }
    yaml
}

fn certificate_file(certificate: &Certificate) -> String {
    // Names become file names; whatever could leave the directory does not.
    let name = certificate.subject_common_name().unwrap_or("member").replace(['/', '\\', '\0'], "_");
    format!("{name}-cert.pem")
}

fn key_file(key: &PrivateKey) -> String {
    format!("{}_sk", key.public_key().key_id())
}

fn write_certificate(directory: &Path, certificate: &Certificate) -> Result<String, IssueError> {
    make_directory(directory)?;
    let name = certificate_file(certificate);
    write(&directory.join(&name), certificate.pem())?;
    Ok(name)
}

fn file_error(path: &Path, source: std::io::Error) -> IssueError {
    IssueError::File { path: PathBuf::from(path), source }
}

fn make_directory(path: &Path) -> Result<(), IssueError> {
    fs::create_dir_all(path).map_err(|source| file_error(path, source))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), IssueError> {
    fs::write(path, bytes).map_err(|source| file_error(path, source))
}

fn write_key(path: &Path, key: &PrivateKey) -> Result<(), IssueError> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let pem = key.to_pkcs8_pem()?;
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        // The mode above does not apply to a file that was there before.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(pem.as_bytes())
    };
    write().map_err(|source| file_error(path, source))
}

fn read(path: &Path) -> Result<String, IssueError> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|source| file_error(path, source))?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|source| file_error(path, source))?;
    Ok(text)
}
