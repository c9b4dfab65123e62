//! MSP directories: what is wrong with one is told with the file's name and what to do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{VALIDITY, organization};
use grapevine_crypto::issue::Organization;
use grapevine_crypto::{Algorithm, LocalMsp, MspId, Role};
use p256::pkcs8::{DecodePrivateKey, LineEnding};

struct Directory {
    organization: Organization,
    root: tempfile::TempDir,
}

impl Directory {
    fn new() -> Self {
        let organization = organization(Algorithm::Ed25519);
        let root = tempfile::tempdir().unwrap();
        organization.write_member_dir(root.path(), "peer0", Role::Peer, &[], VALIDITY).unwrap();
        Self { organization, root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("msp").join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), contents).unwrap();
    }

    fn load(&self) -> Result<LocalMsp, String> {
        LocalMsp::load(&self.root.path().join("msp"), &MspId::from("Org1MSP")).map_err(|e| e.to_string())
    }

    /// The error must name the file and hold a word of advice.
    #[track_caller]
    fn refuses(&self, file: &str, advice: &str) {
        let error = self.load().expect_err("the directory must be refused");
        assert!(error.contains(file), "{error}\nnames {file}?");
        assert!(error.contains(advice), "{error}\nadvises {advice}?");
    }
}

fn only_file(directory: &Path) -> PathBuf {
    fs::read_dir(directory).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn a_complete_directory_loads() {
    Directory::new().load().unwrap();
}

#[test]
fn an_empty_or_missing_directory_asks_for_cacerts() {
    let directory = Directory::new();
    fs::remove_dir_all(directory.path("cacerts")).unwrap();
    directory.refuses("cacerts", "MSP directory");
    fs::remove_dir_all(directory.root.path().join("msp")).unwrap();
    directory.refuses("cacerts", "MSP directory");
}

#[test]
fn unusable_certificates_are_named() {
    let directory = Directory::new();
    directory.write("cacerts/zz.pem", "garbage");
    directory.refuses("cacerts/zz.pem", "replace it");
    fs::remove_file(directory.path("cacerts/zz.pem")).unwrap();
    directory.write("tlscacerts/tls.pem", "garbage");
    directory.refuses("tlscacerts/tls.pem", "remove it");
    fs::remove_file(directory.path("tlscacerts/tls.pem")).unwrap();
    let member = fs::read(only_file(&directory.path("signcerts"))).unwrap();
    directory.write("intermediatecerts/member.pem", member);
    directory.refuses("intermediatecerts/member.pem", "not a certificate authority");
}

#[test]
fn a_member_of_another_ca_is_named() {
    let directory = Directory::new();
    let stranger = organization(Algorithm::Ed25519).enrol("peer0", Role::Peer, VALIDITY).unwrap();
    directory.write("signcerts/peer0-cert.pem", stranger.identity().certificate().pem());
    directory.refuses("signcerts/peer0-cert.pem", "enrol again");
}

#[test]
fn text_around_the_own_certificate_is_refused_because_peers_would_refuse_it() {
    let directory = Directory::new();
    let path = only_file(&directory.path("signcerts"));
    let text = [b"Certificate:\n".as_slice(), &fs::read(&path).unwrap()].concat();
    fs::write(&path, text).unwrap();
    directory.refuses("signcerts/peer0-cert.pem", "PEM");
    // Around a CA certificate it does no harm.
    let directory = Directory::new();
    let path = only_file(&directory.path("cacerts"));
    let text = [b"Certificate:\n".as_slice(), &fs::read(&path).unwrap(), b"\n\n"].concat();
    fs::write(&path, text).unwrap();
    directory.load().unwrap();
}

#[test]
fn exactly_one_signing_certificate() {
    let directory = Directory::new();
    let pem = fs::read(only_file(&directory.path("signcerts"))).unwrap();
    directory.write("signcerts/second.pem", pem);
    directory.refuses("signcerts", "exactly one");
    fs::remove_dir_all(directory.path("signcerts")).unwrap();
    directory.refuses("signcerts", "exactly one");
}

#[test]
fn any_key_file_name_will_do_and_a_missing_key_is_told() {
    let directory = Directory::new();
    let key = only_file(&directory.path("keystore"));
    fs::rename(&key, directory.path("keystore/priv_sk")).unwrap();
    directory.load().unwrap();
    let other = organization(Algorithm::Ed25519);
    let elsewhere = tempfile::tempdir().unwrap();
    other.write_member_dir(elsewhere.path(), "peer0", Role::Peer, &[], VALIDITY).unwrap();
    let wrong = only_file(&elsewhere.path().join("msp/keystore"));
    fs::copy(wrong, directory.path("keystore/priv_sk")).unwrap();
    directory.refuses("keystore", "copy the key");
    directory.write("keystore/notes.txt", "not a key");
    directory.refuses("notes.txt", "PKCS#8");
}

#[test]
fn config_yaml_errors_have_a_place() {
    let directory = Directory::new();
    directory.write("config.yaml", "NodeOUs:\n  Enabled: true\n");
    directory.refuses("config.yaml", "Enabled");
    directory.write("config.yaml", "NodeOUs: [\n");
    directory.refuses("config.yaml", "line");
    directory.write(
        "config.yaml",
        "NodeOUs:\n  Enable: true\n  PeerOUIdentifier:\n    Certificate: cacerts/missing.pem\n    OrganizationalUnitIdentifier: peer\n",
    );
    directory.refuses("cacerts/missing.pem", "check that it exists");
    directory.write("config.yaml", "");
    directory.refuses("Org1MSP", "AdminOUIdentifier");
    fs::remove_file(directory.path("config.yaml")).unwrap();
    directory.refuses("Org1MSP", "admincerts");
}

#[test]
fn organizational_units_come_from_config_yaml() {
    let directory = Directory::new();
    let root = only_file(&directory.path("cacerts"));
    let root = root.file_name().unwrap().to_string_lossy();
    let mut yaml = fs::read_to_string(directory.path("config.yaml")).unwrap();
    yaml.push_str(&format!(
        "OrganizationalUnitIdentifiers:\n  - Certificate: cacerts/{root}\n    OrganizationalUnitIdentifier: peer\n"
    ));
    directory.write("config.yaml", &yaml);
    directory.load().unwrap();
    directory.write("config.yaml", yaml.replace("Identifier: peer\n", "Identifier: trade\n"));
    directory.refuses("signcerts", "organisational units");
}

#[test]
fn admincerts_are_admins() {
    let directory = Directory::new();
    let admin = directory.organization.enrol("boss", Role::Client, VALIDITY).unwrap();
    directory.write("admincerts/boss.pem", admin.identity().certificate().pem());
    let local = directory.load().unwrap();
    assert!(local.msp.identify(admin.serialized()).unwrap().is_admin());
    directory.write("admincerts/stranger.pem", {
        let stranger = organization(Algorithm::Ed25519).enrol("x", Role::Client, VALIDITY).unwrap();
        stranger.identity().certificate().pem().to_vec()
    });
    directory.refuses("admincerts/stranger.pem", "remove or replace");
}

#[test]
fn revocation_lists_apply_and_useless_ones_are_refused() {
    let directory = Directory::new();
    let authority = directory.organization.authority();
    let victim = authority.issue_enrolment("victim", Role::Peer, VALIDITY).unwrap();
    directory.write("crls/list.pem", authority.revoke(&[&victim.certificate], VALIDITY).unwrap());
    let local = directory.load().unwrap();
    assert!(common::identify(&local.msp, &victim.certificate).is_err());
    directory.write("crls/foreign.pem", common::authority().revoke(&[], VALIDITY).unwrap());
    directory.refuses("crls/foreign.pem", "remove it");
    directory.write("crls/foreign.pem", "garbage");
    directory.refuses("crls/foreign.pem", "revocation list");
}

#[test]
fn hidden_files_and_sub_directories_are_skipped() {
    let directory = Directory::new();
    directory.write("cacerts/.gitkeep", "");
    directory.write("signcerts/..data", "");
    directory.write("signcerts/old/peer0-cert.pem", "");
    directory.load().unwrap();
}

#[test]
fn absurd_directories_are_refused_before_they_are_read() {
    let directory = Directory::new();
    for number in 0..300 {
        directory.write(&format!("crls/{number}.pem"), "");
    }
    directory.refuses("crls", "more than 256 files");
    fs::remove_dir_all(directory.path("crls")).unwrap();
    directory.write("crls/huge.pem", vec![b'x'; 9 << 20]);
    directory.refuses("crls/huge.pem", "larger than");
}

#[test]
fn a_keystore_may_hold_other_keys_and_the_own_one_in_sec1() {
    let root = tempfile::tempdir().unwrap();
    let own = organization(Algorithm::EcdsaP256);
    own.write_member_dir(root.path(), "peer0", Role::Peer, &[], VALIDITY).unwrap();
    let directory = Directory { organization: own, root };
    // Keys of certificates that were renewed with a new key stay behind, and their file may come first.
    for (name, algorithm) in [("0_sk", Algorithm::EcdsaP256), ("1_sk", Algorithm::Ed25519)] {
        let former = tempfile::tempdir().unwrap();
        organization(algorithm).write_member_dir(former.path(), "peer0", Role::Peer, &[], VALIDITY).unwrap();
        let key = only_file(&former.path().join("msp/keystore"));
        fs::copy(key, directory.path("keystore").join(name)).unwrap();
    }
    directory.write("keystore/README", "keys of this peer");
    let signer = directory.load().unwrap().signer;
    let name = format!("keystore/{}_sk", signer.identity().certificate().public_key().key_id());
    let pkcs8 = fs::read_to_string(directory.path(&name)).unwrap();
    let sec1 = p256::SecretKey::from_pkcs8_pem(&pkcs8).unwrap().to_sec1_pem(LineEnding::LF).unwrap();
    assert!(sec1.contains("BEGIN EC PRIVATE KEY"));
    directory.write(&name, sec1.as_bytes());
    let signer = directory.load().unwrap().signer;
    assert_eq!(signer.identity().verify(b"message", &signer.sign(b"message")), Ok(()));
}

#[test]
fn a_directory_from_before_node_ous_loads() {
    let directory = Directory::new();
    let admin = directory.organization.enrol("boss", Role::Client, VALIDITY).unwrap();
    directory.write("admincerts/boss.pem", admin.identity().certificate().pem());
    for yaml in [Some("NodeOUs:\n  Enable: false\n"), Some("OrganizationalUnitIdentifiers: []\n"), None] {
        match yaml {
            Some(yaml) => directory.write("config.yaml", yaml),
            None => fs::remove_file(directory.path("config.yaml")).unwrap(),
        }
        let local = directory.load().unwrap();
        assert!(local.msp.identify(admin.serialized()).unwrap().is_admin());
        let own = local.msp.identify(local.signer.serialized()).unwrap();
        assert!(!own.is_admin());
        assert_eq!(own.role(), None, "nobody has a role: {yaml:?}");
    }
}

#[test]
fn a_member_of_an_intermediate_authority_loads() {
    let directory = Directory::new();
    let middle = directory.organization.authority().issue_authority("middle", VALIDITY).unwrap();
    let issued = middle.issue_enrolment("peer1", Role::Peer, VALIDITY).unwrap();
    fs::remove_file(only_file(&directory.path("signcerts"))).unwrap();
    directory.write("signcerts/cert.pem", issued.certificate.pem());
    directory.write("keystore/priv_sk", issued.key.to_pkcs8_pem().unwrap().as_bytes());
    directory.refuses("cert.pem", "Org1MSP");
    // Written as Fabric CA's client does.
    directory.write("intermediatecerts/ca-7054.pem", middle.certificate().pem());
    // Roles are certified by the authority that issues the members.
    directory.refuses("cert.pem", "certified by another");
    let yaml = fs::read_to_string(directory.path("config.yaml")).unwrap();
    let authority = only_file(&directory.path("cacerts"));
    let former = format!("cacerts/{}", authority.file_name().unwrap().to_str().unwrap());
    assert!(yaml.contains(&former), "{yaml}");
    directory.write("config.yaml", yaml.replace(&former, "intermediatecerts/ca-7054.pem"));
    let local = directory.load().unwrap();
    assert_eq!(common::identify(&local.msp, &issued.certificate).unwrap().role(), Some(Role::Peer));
}
