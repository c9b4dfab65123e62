//! The values of the groups Channel and Orderer.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use super::tree::{APPLICATION, ORDERER, ROOT, group, optional_value, value};
use super::{ConfigError, organization::OrdererAddressSource};
use crate::proto::configtx::{
    BlockDataHashingStructure, Capabilities, ConfigGroup, OrdererAddresses, Orderers,
};
use crate::proto::orderer::{self, BatchTimeout, ConsensusState, ConsensusType};
use crate::proto::peer::{Acls, ApiResource};

/// Channel capabilities by rising level (Fabric: `common/capabilities`).
const CHANNEL_CAPABILITIES: [&str; 6] = ["V1_1", "V1_3", "V1_4_2", "V1_4_3", "V2_0", "V3_0"];
/// Position of `V1_4_3`, the lowest level whose identity rules are implemented.
const CHANNEL_LEVEL_MIN: usize = 3;
/// Position of `V3_0`: Ed25519, BFT, orderer endpoints per organisation.
const CHANNEL_LEVEL_V3_0: usize = 5;
const ORDERER_CAPABILITIES: [&str; 4] = ["V1_1", "V1_3", "V1_4_2", "V2_0"];
const APPLICATION_CAPABILITIES: [&str; 6] = ["V1_1", "V1_2", "V1_3", "V1_4_2", "V2_0", "V2_5"];

/// The one width of block data hashing: flat concatenation.
const HASHING_WIDTH: u32 = u32::MAX;

/// How orderers cut blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSize {
    /// Most transactions in a block.
    pub max_message_count: u32,
    /// Most bytes of transactions in a block.
    pub absolute_max_bytes: u32,
    /// A block is cut before it grows beyond this, unless a single transaction does.
    pub preferred_max_bytes: u32,
}

#[derive(Debug)]
pub(super) struct Values {
    pub(super) ed25519_allowed: bool,
    pub(super) addresses: OrdererAddressSource,
    pub(super) batch_size: BatchSize,
    pub(super) batch_timeout_ms: u64,
    pub(super) consensus_type: String,
    pub(super) in_maintenance: bool,
    pub(super) consenters: BTreeMap<u32, Bytes>,
    /// Resource to absolute policy path.
    pub(super) acls: BTreeMap<String, String>,
}

pub(super) fn parse(root: &ConfigGroup) -> Result<Values, ConfigError> {
    let orderer_path = format!("{ROOT}/{ORDERER}");
    let application_path = format!("{ROOT}/{APPLICATION}");
    let orderer = group(ROOT, root, ORDERER)?;
    let application = group(ROOT, root, APPLICATION)?;
    let level = channel_level(root)?;
    check_capabilities(&orderer_path, orderer, &ORDERER_CAPABILITIES)?;
    check_capabilities(&application_path, application, &APPLICATION_CAPABILITIES)?;

    let hashing: BlockDataHashingStructure = value(ROOT, root, "BlockDataHashingStructure")?;
    if hashing.width != HASHING_WIDTH {
        let reason = format!("width {} is not supported, only {HASHING_WIDTH}", hashing.width);
        return Err(invalid(ROOT, "BlockDataHashingStructure", reason));
    }
    let consensus: ConsensusType = value(&orderer_path, orderer, "ConsensusType")?;
    Ok(Values {
        ed25519_allowed: level >= CHANNEL_LEVEL_V3_0,
        addresses: addresses(root, level)?,
        batch_size: batch_size(&orderer_path, orderer)?,
        batch_timeout_ms: batch_timeout_ms(&orderer_path, orderer)?,
        consenters: consenters(&orderer_path, orderer, &consensus)?,
        in_maintenance: consensus.state() == ConsensusState::Maintenance,
        consensus_type: consensus.r#type,
        acls: acls(&application_path, application)?,
    })
}

/// Absolute policy of each resource (Fabric: `channelconfig.newAPIsProvider`): a name without a path is a policy of the
/// group Application, an empty one counts as absent.
fn acls(path: &str, application: &ConfigGroup) -> Result<BTreeMap<String, String>, ConfigError> {
    let acls: Acls = optional_value(path, application, "ACLs")?.unwrap_or_default();
    let given = acls.acls.into_iter().filter(|(_, resource)| !resource.policy_ref.is_empty());
    Ok(given
        .map(|(name, ApiResource { policy_ref })| {
            let absolute = policy_ref.starts_with('/');
            (name, if absolute { policy_ref } else { format!("{path}/{policy_ref}") })
        })
        .collect())
}

fn channel_level(root: &ConfigGroup) -> Result<usize, ConfigError> {
    let names = check_capabilities(ROOT, root, &CHANNEL_CAPABILITIES)?;
    let position = |name: &String| CHANNEL_CAPABILITIES.iter().position(|known| known == name);
    let level = names.iter().filter_map(position).max();
    match level {
        Some(level) if level >= CHANNEL_LEVEL_MIN => Ok(level),
        _ => {
            let level = level.and_then(|level| CHANNEL_CAPABILITIES.get(level)).copied().unwrap_or("not set");
            Err(ConfigError::CapabilityTooOld { level: level.to_owned() })
        }
    }
}

fn check_capabilities(path: &str, group: &ConfigGroup, known: &[&str]) -> Result<Vec<String>, ConfigError> {
    let capabilities: Capabilities = optional_value(path, group, "Capabilities")?.unwrap_or_default();
    for name in capabilities.capabilities.keys() {
        if !known.contains(&name.as_str()) {
            return Err(ConfigError::UnknownCapability { path: path.to_owned(), name: name.clone() });
        }
    }
    Ok(capabilities.capabilities.into_keys().collect())
}

/// With `V3_0` addresses stand with each organisation; before, those of the channel count for organisations without.
fn addresses(root: &ConfigGroup, level: usize) -> Result<OrdererAddressSource, ConfigError> {
    let global: OrdererAddresses = optional_value(ROOT, root, "OrdererAddresses")?.unwrap_or_default();
    if level < CHANNEL_LEVEL_V3_0 {
        return Ok(OrdererAddressSource::OrganizationsOrGlobal(global.addresses));
    }
    if global.addresses.is_empty() {
        return Ok(OrdererAddressSource::Organizations);
    }
    Err(invalid(ROOT, "OrdererAddresses", "global addresses are not allowed with the capability V3_0".into()))
}

fn batch_size(path: &str, orderer: &ConfigGroup) -> Result<BatchSize, ConfigError> {
    let size: orderer::BatchSize = value(path, orderer, "BatchSize")?;
    let reason = if size.max_message_count == 0 {
        "max_message_count is 0"
    } else if size.absolute_max_bytes == 0 {
        "absolute_max_bytes is 0"
    } else if size.preferred_max_bytes == 0 {
        "preferred_max_bytes is 0"
    } else if size.preferred_max_bytes > size.absolute_max_bytes {
        "preferred_max_bytes is larger than absolute_max_bytes"
    } else {
        return Ok(BatchSize {
            max_message_count: size.max_message_count,
            absolute_max_bytes: size.absolute_max_bytes,
            preferred_max_bytes: size.preferred_max_bytes,
        });
    };
    Err(invalid(path, "BatchSize", reason.to_owned()))
}

fn batch_timeout_ms(path: &str, orderer: &ConfigGroup) -> Result<u64, ConfigError> {
    let timeout: BatchTimeout = value(path, orderer, "BatchTimeout")?;
    parse_go_duration_ms(&timeout.timeout).filter(|timeout_ms| *timeout_ms > 0).ok_or_else(|| {
        let reason = format!("{:?} is not a duration such as 500ms or 2s", timeout.timeout);
        invalid(path, "BatchTimeout", reason)
    })
}

fn consenters(
    path: &str,
    orderer: &ConfigGroup,
    consensus: &ConsensusType,
) -> Result<BTreeMap<u32, Bytes>, ConfigError> {
    if consensus.r#type != "BFT" {
        return Ok(BTreeMap::new());
    }
    let orderers: Orderers = value(path, orderer, "Orderers")?;
    let mut consenters = BTreeMap::new();
    for consenter in orderers.consenter_mapping {
        let identity = grapevine_crypto::proto::SerializedIdentity {
            mspid: consenter.msp_id,
            id_bytes: consenter.identity,
        };
        if consenters.insert(consenter.id, identity.encode_to_vec().into()).is_some() {
            return Err(invalid(path, "Orderers", format!("consenter id {} appears twice", consenter.id)));
        }
    }
    Ok(consenters)
}

fn invalid(path: &str, name: &str, reason: String) -> ConfigError {
    ConfigError::Value { path: format!("{path}/{name}"), reason }
}

/// Milliseconds of a duration in Go's notation (`1.5s`, `500ms`, `1m30s`), rounded down; a positive one below a
/// millisecond counts as one. `None` if it is none.
pub fn parse_go_duration_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total_ns = 0_u128;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_end = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|character: char| character.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit_ns: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total_ns = total_ns.checked_add(decimal_times(number, unit_ns)?)?;
        rest = tail;
    }
    let milliseconds = u64::try_from(total_ns / 1_000_000).ok()?;
    Some(if total_ns > 0 { milliseconds.max(1) } else { 0 })
}

/// `number` × `unit`, where number may have a fraction; exact to nine digits after the point.
fn decimal_times(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut sum = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.chars() {
        place /= 10;
        sum = sum.checked_add(place.checked_mul(u128::from(digit.to_digit(10)?))?)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_reads_them() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("2s", 2_000),
            ("1m30s", 90_000),
            ("1.5s", 1_500),
            (".5s", 500),
            ("1h", 3_600_000),
            ("10us", 1),
            ("0s", 0),
        ] {
            assert_eq!(parse_go_duration_ms(text), Some(milliseconds), "{text}");
        }
        for text in
            ["", "5", "s", "-1s", "1x", "1.2.3s", ".s", "1s ", "99999999999999999999999999999999999999h"]
        {
            assert_eq!(parse_go_duration_ms(text), None, "{text}");
        }
    }
}
