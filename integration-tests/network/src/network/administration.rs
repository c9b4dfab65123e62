//! What operators of orderers and channels do: faults, config updates.

use std::path::PathBuf;

use super::{Network, TOOL_WITHIN};
use crate::error::NetworkError;

impl Network {
    /// Switches a fault of an orderer with `orderer-mock fault`, for example `&["equivocate"]` or `&["clear"]`.
    ///
    /// # Errors
    /// If the orderer is unknown or the tool fails.
    pub fn fault(&self, orderer: &str, fault: &[&str]) -> Result<(), NetworkError> {
        let config = self.member(orderer)?.config.to_string_lossy().into_owned();
        let mut arguments = vec!["fault", "--config", &config];
        arguments.extend(fault);
        self.start_orderer_tool(&arguments)?.success(TOOL_WITHIN, || self.is_interrupted()).map(drop)
    }

    /// Changes the config of a channel with `orderer-mock update`, signed by the administrators of these organisations, for
    /// example `update("trade", &["Org1MSP", "Org2MSP"], &["--remove-org", "Org2MSP"])`.
    ///
    /// # Errors
    /// If an organisation is unknown or the update is refused.
    pub fn update(&self, channel: &str, signers: &[&str], change: &[&str]) -> Result<(), NetworkError> {
        let config = self.submitter(channel)?.to_string_lossy().into_owned();
        let mut arguments = vec!["update", "--config", &config, "--channel", channel];
        let mut administrators = Vec::new();
        for signer in signers {
            let domain = self.domain(signer)?;
            let msp = format!("users/Admin@{domain}/msp");
            let directory = self.organization_directory(signer)?.join(msp);
            administrators.push(format!("{signer}={}", directory.display()));
        }
        arguments.extend(change);
        for administrator in &administrators {
            arguments.extend(["--signer", administrator]);
        }
        self.start_orderer_tool(&arguments)?.success(TOOL_WITHIN, || self.is_interrupted()).map(drop)
    }

    /// The directory of an organisation as Fabric's cryptogen lays it out: `ca`, `msp`, `peers`, `users`.
    ///
    /// # Errors
    /// If the organisation is unknown.
    pub fn organization_directory(&self, msp_id: &str) -> Result<PathBuf, NetworkError> {
        let is_orderer = self.config().ordering.organization == msp_id;
        let kind = if is_orderer { "ordererOrganizations" } else { "peerOrganizations" };
        Ok(self.directory().join("net/crypto").join(kind).join(self.domain(msp_id)?))
    }

    fn domain(&self, msp_id: &str) -> Result<&str, NetworkError> {
        let config = self.config();
        if config.ordering.organization == msp_id {
            return Ok(&config.ordering.domain);
        }
        let found = config.organizations.iter().find(|organization| organization.msp_id == msp_id);
        found.map(|organization| organization.domain.as_str()).ok_or_else(|| NetworkError::Unknown {
            kind: "organisation",
            name: msp_id.to_owned(),
            known: config
                .organizations
                .iter()
                .map(|known| known.msp_id.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}
