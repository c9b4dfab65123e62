//! Certificates of running peers: renewed, refused, and at their end.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grapevine_crypto::issue::{Issued, Organization, Validity, write_msp_dir};
use grapevine_crypto::{MspId, Role};
use grapevine_network::{Network, NetworkError, Payload};

const SOON: Duration = Duration::from_secs(45);
const RENEWED: &str = "peer1.org1.example.com";

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// An organisation of the network, with its keys.
fn organization(network: &Network, msp_id: &str) -> Result<Organization, Box<dyn std::error::Error>> {
    Ok(Organization::load(&network.organization_directory(msp_id)?, MspId::from(msp_id))?)
}

fn msp_directory(network: &Network, msp_id: &str, peer: &str) -> Result<PathBuf, NetworkError> {
    Ok(network.organization_directory(msp_id)?.join("peers").join(peer).join("msp"))
}

/// Puts a certificate with a new key in the place of the peer's own.
fn install(
    network: &Network,
    of: &Organization,
    name: &str,
    not_after: i64,
) -> Result<Issued, Box<dyn std::error::Error>> {
    let validity = Validity { not_before: now() - 60, not_after };
    let issued = of.authority().issue_enrolment(name, Role::Peer, validity)?;
    let directory = msp_directory(network, "Org1MSP", RENEWED)?;
    for file in std::fs::read_dir(directory.join("signcerts"))? {
        std::fs::remove_file(file?.path())?;
    }
    write_msp_dir(&directory, of.authority(), of.tls_authority(), Some(&issued))?;
    Ok(issued)
}

fn serial(issued: &Issued) -> String {
    issued.certificate.serial().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until a peer uses the certificate and all others know it by that.
fn wait_until_known(network: &Network, serial: &str) -> Result<(), NetworkError> {
    network.wait_until("the new certificate to be known", SOON, || {
        let own = network.status(RENEWED)?;
        if own.certificate_serial != serial {
            return Ok(Err(format!("it uses {}; {:?}", own.certificate_serial, own.warnings)));
        }
        for other in network.peers() {
            let status = network.status(other)?;
            if let Some(member) = status.member(RENEWED).filter(|member| member.certificate_serial != serial)
            {
                return Ok(Err(format!("{other} knows {}", member.certificate_serial)));
            }
        }
        Ok(Ok(()))
    })
}

fn is_connected(network: &Network, peer: &str) -> Result<bool, NetworkError> {
    Ok(network.status(peer)?.member(RENEWED).is_some_and(|member| member.connected))
}

/// Renewed while it runs: the same member to all, connections stay, blocks flow on. Then one that lasts for seconds: the others cut it
/// off at its end, and take it back when it is renewed again.
#[test]
fn a_certificate_is_renewed_while_its_peer_runs_and_ends_when_it_ends() -> Outcome {
    let network = Network::builder().start()?;
    network.submit("trade", Payload::lines(["before"]))?;
    network.wait_for_sync("trade", SOON)?;
    let before = network.status(RENEWED)?;
    let others: Vec<&str> = network.peers().into_iter().filter(|peer| *peer != RENEWED).collect();
    let members = network.status(others[0])?.members.len();
    let handshakes = |peer: &str| -> Result<u64, NetworkError> {
        Ok(network.status(peer)?.counters["net_handshakes_completed"])
    };
    let handshakes_before = handshakes(RENEWED)?;

    let own = organization(&network, "Org1MSP")?;
    let issued = install(&network, &own, RENEWED, now() + 400 * 86_400)?;
    network.hang_up(RENEWED)?;
    wait_until_known(&network, &serial(&issued))?;
    let after = network.status(RENEWED)?;
    assert_eq!(after.pki_id, before.pki_id);
    assert_ne!(after.certificate_serial, before.certificate_serial);
    assert_eq!(handshakes(RENEWED)?, handshakes_before, "no connection was made anew");
    for other in &others {
        let status = network.status(other)?;
        assert!(status.members.len() <= members, "{other} knows a new member: {:?}", status.members);
        assert!(is_connected(&network, other)?, "{other}");
    }
    network.submit("trade", Payload::lines(["renewed"]))?;
    network.wait_for_sync("trade", SOON)?;

    // Noticed without a signal.
    let end = now() + 25;
    let issued = install(&network, &own, RENEWED, end)?;
    wait_until_known(&network, &serial(&issued))?;
    let warns = |status: &grapevine_network::Status| {
        status.warnings.iter().any(|warning| warning.contains("expires within a day"))
    };
    assert!(warns(&network.status(RENEWED)?));
    for other in &others {
        let connected = is_connected(&network, other)?;
        assert!(connected || now() > end, "{other}");
    }
    network.wait_until("the others to cut it off", SOON, || {
        for other in &others {
            if is_connected(&network, other)? {
                return Ok(Err(format!("{other} is connected to it")));
            }
        }
        Ok(Ok(()))
    })?;
    assert!(now() > end, "not before its end");
    let issued = install(&network, &own, RENEWED, now() + 400 * 86_400)?;
    wait_until_known(&network, &serial(&issued))?;
    network.wait_until("the others to take it back", SOON, || {
        for other in &others {
            if !is_connected(&network, other)? {
                return Ok(Err(format!("{other} is not connected to it")));
            }
        }
        Ok(Ok(()))
    })?;
    network.submit("trade", Payload::lines(["back"]))?;
    network.wait_for_sync("trade", SOON)?;
    Ok(())
}

/// Pairs that are not its own, or do not fit: refused with the reason, and everything goes on with the old one.
#[test]
fn a_foreign_or_broken_certificate_is_refused_and_the_old_one_stays() -> Outcome {
    let network = Network::builder().start()?;
    let before = network.status(RENEWED)?;
    let own = organization(&network, "Org1MSP")?;
    let directory = msp_directory(&network, "Org1MSP", RENEWED)?;
    let refused = |reason: &str| {
        network.hang_up(RENEWED)?;
        network.wait_until(&format!("a refusal: {reason}"), SOON, || {
            let status = network.status(RENEWED)?;
            assert_eq!(status.certificate_serial, before.certificate_serial);
            let is_told = status
                .warnings
                .iter()
                .any(|warning| warning.contains("not taken into use") && warning.contains(reason));
            Ok(if is_told { Ok(()) } else { Err(format!("{:?}", status.warnings)) })
        })
    };
    let year = now() + 365 * 86_400;
    install(&network, &own, "peer0.org1.example.com", year)?;
    refused("keeps the subject's common name")?;
    let foreign = organization(&network, "Org2MSP")?;
    let roots = std::fs::read_dir(directory.join("cacerts"))?.collect::<Result<Vec<_>, _>>()?;
    install(&network, &foreign, RENEWED, year)?;
    refused("does not vouch for it")?;
    for entry in std::fs::read_dir(directory.join("cacerts"))? {
        let path = entry?.path();
        if !roots.iter().any(|root| root.path() == path) {
            std::fs::remove_file(path)?;
        }
    }
    install(&network, &own, RENEWED, now() - 1)?;
    refused("expired")?;
    let signcerts = directory.join("signcerts").join(format!("{RENEWED}-cert.pem"));
    std::fs::write(&signcerts, b"half a certificate")?;
    refused("signcerts")?;
    // All is well again with a good one.
    let issued = install(&network, &own, RENEWED, year)?;
    network.hang_up(RENEWED)?;
    wait_until_known(&network, &serial(&issued))?;
    assert!(network.status(RENEWED)?.warnings.is_empty());
    Ok(())
}
