//! Who may read: the policy at the start and after each change of the config, expiry before each block.

use crate::config::ChannelConfig;
use crate::policy::SignedData;
use crate::proto::common::Status;

use super::Refusal;

/// Checks that the signer satisfies `policy` of the channel and that its certificate has not expired at `now` (Unix
/// seconds); 403 otherwise.
pub fn authorise(config: &ChannelConfig, policy: &str, signed: &SignedData, now: i64) -> Result<(), Refusal> {
    grant(config, policy, signed, now).map(drop)
}

/// As [`authorise`]; returns when the signer's certificate expires.
fn grant(config: &ChannelConfig, policy: &str, signed: &SignedData, now: i64) -> Result<i64, Refusal> {
    let forbidden = |info: String| Refusal::new(Status::Forbidden, info);
    let channel = config.channel_id();
    config.evaluate(policy, std::slice::from_ref(signed)).map_err(|error| {
        forbidden(format!("the signer does not satisfy {policy} of channel {channel}: {error}"))
    })?;
    let identity = config
        .identify(&signed.identity)
        .map_err(|error| forbidden(format!("the signer is not a member: {error}")))?;
    if identity.expired_at(now) {
        return Err(forbidden("the signer's certificate has expired; renew it".into()));
    }
    Ok(identity.certificate().not_after())
}

/// The right of a signer to read a channel.
#[derive(Debug, Clone)]
pub struct Access {
    signed: SignedData,
    config_sequence: u64,
    expires: i64,
}

impl Access {
    /// Grants access under `policy` of `config` at time `now` (Unix seconds), or refuses with 403.
    pub fn grant(
        config: &ChannelConfig,
        policy: &str,
        signed: SignedData,
        now: i64,
    ) -> Result<Self, Refusal> {
        let expires = grant(config, policy, &signed, now)?;
        Ok(Self { signed, config_sequence: config.sequence(), expires })
    }

    /// To be asked before each block: under a config with another sequence the policy is evaluated anew, and the
    /// certificate must still be valid at `now`; 403 otherwise. `policy` is looked up in the config given.
    pub fn check_again(&mut self, config: &ChannelConfig, policy: &str, now: i64) -> Result<(), Refusal> {
        if config.sequence() != self.config_sequence {
            authorise(config, policy, &self.signed, now)?;
            self.config_sequence = config.sequence();
        }
        if now > self.expires {
            let info = "the session expired with the signer's certificate; renew it";
            return Err(Refusal::new(Status::Forbidden, info));
        }
        Ok(())
    }
}
