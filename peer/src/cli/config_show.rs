//! `grapevine channel config show`: who is in a channel, who orders, and which rules hold.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use grapevine_channels::ChannelId;
use grapevine_channels::describe::{AuthorityDescription, ConfigDescription, OrganizationDescription};

use super::output;
use super::settings::Settings;
use super::source::StoredChannel;

pub(super) fn show(settings: &Settings, channel: &ChannelId, json: bool) -> anyhow::Result<()> {
    let config = StoredChannel::open(settings, channel)?.newest_config()?;
    let config = ConfigDescription::new(&config);
    let text =
        if json { format!("{}\n", serde_json::to_string_pretty(&config)?) } else { render(&config, now()) };
    Ok(output::print(&text)?)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn render(config: &ConfigDescription, now: i64) -> String {
    let mut text = String::new();
    let capabilities = &config.capabilities;
    for (name, value) in [
        ("channel", config.channel.clone()),
        ("sequence", format!("{} (block {})", config.sequence, config.config_block)),
        (
            "capabilities",
            format!(
                "channel {}, orderer {}, application {}",
                names(&capabilities.channel),
                names(&capabilities.orderer),
                names(&capabilities.application)
            ),
        ),
        ("consensus", config.consensus_type.clone()),
        (
            "batches",
            format!(
                "{} ms, {} messages, {} bytes preferred, {} bytes at most",
                config.batch_timeout_ms,
                config.max_message_count,
                config.preferred_max_bytes,
                config.absolute_max_bytes
            ),
        ),
    ] {
        line(&mut text, &format!("{name:<13} {value}"));
    }
    line(&mut text, "\nORDERERS");
    for endpoint in &config.orderer_endpoints {
        line(&mut text, &format!("  {} ({})", endpoint.address, endpoint.msp_id));
    }
    for consenter in &config.consenters {
        let (id, identity) = (consenter.id, &consenter.identity);
        line(&mut text, &format!("  consenter {id}: {} ({})", identity.common_name, identity.msp_id));
    }
    organizations(&mut text, "APPLICATION ORGANISATIONS", &config.application_organizations, now);
    organizations(&mut text, "ORDERER ORGANISATIONS", &config.orderer_organizations, now);
    line(&mut text, "\nPOLICIES");
    let rows: Vec<Vec<String>> =
        config.policies.iter().map(|(path, policy)| vec![format!("  {path}"), policy.clone()]).collect();
    text.push_str(&output::table(&rows));
    if !config.acls.is_empty() {
        line(&mut text, "\nACCESS");
        let rows: Vec<Vec<String>> =
            config.acls.iter().map(|(name, policy)| vec![format!("  {name}"), policy.clone()]).collect();
        text.push_str(&output::table(&rows));
    }
    text
}

fn organizations(text: &mut String, title: &str, organizations: &[OrganizationDescription], now: i64) {
    line(text, &format!("\n{title}"));
    for organization in organizations {
        let msp = &organization.msp;
        let roles = if msp.node_ous { "roles by NodeOU" } else { "no NodeOUs" };
        line(text, &format!("  {} (group {}, {roles})", msp.id, organization.name));
        for authority in &msp.authorities {
            line(text, &format!("    {:<17} {}", authority.kind, authority_line(authority, now)));
        }
        for (name, values) in [
            ("admins", &msp.admins),
            ("units demanded", &msp.organizational_units),
            ("anchor peers", &organization.anchor_peers),
        ] {
            if !values.is_empty() {
                line(text, &format!("    {name:<17} {}", values.join(", ")));
            }
        }
        if msp.revocation_lists > 0 {
            let (all, unusable) = (msp.revocation_lists, msp.unusable_revocation_lists);
            line(
                text,
                &format!(
                    "    {:<17} {all}, {unusable} of them signed by no authority here",
                    "revocation lists"
                ),
            );
        }
    }
}

fn authority_line(authority: &AuthorityDescription, now: i64) -> String {
    let Some(expires) = &authority.expires else { return authority.subject.clone() };
    let expired = authority.not_after.is_some_and(|not_after| not_after < now);
    format!("{}, {} {expires}", authority.subject, if expired { "EXPIRED" } else { "expires" })
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join("+") }
}

fn line(text: &mut String, line: &str) {
    // Writing to a string does not fail.
    let _written = writeln!(text, "{line}");
}
