//! `grapevine status`: what the running peer says about itself.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use super::output;
use super::settings::Settings;
use crate::admin::{AdminClient, ChannelStatus, Equivocation, MemberState, Status};

/// Time between two looks of [`watch`].
const LOOK: Duration = Duration::from_secs(1);
/// The cursor to the upper left corner of a terminal, and everything away.
const CLEAR: &str = "\x1b[H\x1b[J";

pub(super) fn status(settings: &Settings, json: bool) -> anyhow::Result<()> {
    Ok(output::print(&look(settings, json)?)?)
}

/// Shows it again and again: on a terminal in place, elsewhere one after the other, JSON a line each. Ends with an error when the peer does.
pub(super) fn watch(settings: &Settings, json: bool) -> anyhow::Result<()> {
    let before = if std::io::stdout().is_terminal() && !json { CLEAR } else { "" };
    let after = if before.is_empty() && !json { "\n" } else { "" };
    loop {
        output::print(&format!("{before}{}{after}", look(settings, json)?))?;
        std::thread::sleep(LOOK);
    }
}

fn look(settings: &Settings, json: bool) -> anyhow::Result<String> {
    let status = AdminClient::new(&settings.data).status()?;
    Ok(if json { format!("{}\n", serde_json::to_string(&status)?) } else { render(&status) })
}

fn render(status: &Status) -> String {
    let mut text = format!(
        "{} of {}, PKI-ID {}, version {}\n",
        status.peer, status.msp_id, status.pki_id, status.version
    );
    for warning in &status.warnings {
        text.push_str(&format!("WARNING: {warning}\n"));
    }
    let heading = ["CHANNEL", "HEIGHT", "TIP", "LEADER", "PEERS", "ORDERER"].map(str::to_owned).to_vec();
    let mut rows = vec![heading];
    for channel in &status.channels {
        let leader = if channel.is_leader {
            "this peer".to_owned()
        } else {
            channel.leader_name.clone().or_else(|| channel.leader.clone()).unwrap_or_else(|| "-".to_owned())
        };
        rows.push(vec![
            channel.channel.clone(),
            channel.height.to_string(),
            channel.tip.chars().take(16).collect(),
            leader,
            channel.members.to_string(),
            channel.orderer.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    text.push('\n');
    text.push_str(&output::table(&rows));
    text.extend(status.channels.iter().filter_map(why_it_leads));
    for channel in &status.channels {
        alarms(&mut text, channel);
        if let Some(reason) = &channel.not_ready {
            text.push_str(&format!("{} is not ready: {reason}\n", channel.channel));
        }
        if let Some(catch_up) = &channel.progress {
            let _written = writeln!(text, "{}  {}", channel.channel, catch_up.line(channel.height));
        }
    }
    let mut rows = vec![["PEER", "MSP", "STATE", "ENDPOINT", "CONNECTED"].map(str::to_owned).to_vec()];
    for member in &status.members {
        let state = match member.state {
            MemberState::Alive => "alive".to_owned(),
            MemberState::Suspect => format!("suspected by {}", member.suspected_by.join(", ")),
            MemberState::Dead => "dead".to_owned(),
        };
        let connected = if member.connected { "yes" } else { "no" };
        rows.push(vec![
            member.name.clone(),
            member.msp_id.clone(),
            state,
            member.endpoint.clone(),
            connected.to_owned(),
        ]);
    }
    text.push('\n');
    text.push_str(&output::table(&rows));
    text
}

/// One line about the leader of a channel.
fn why_it_leads(channel: &ChannelStatus) -> Option<String> {
    let leadership = channel.leadership.as_ref()?;
    let orderer = match leadership.orderer_round_trip_ms {
        Some(milliseconds) => format!("{milliseconds} ms from its orderer"),
        None => "distance from its orderer unknown".to_owned(),
    };
    let heard = if leadership.hearsay { "heard of through others" } else { "heard directly" };
    Some(format!(
        "leader of {}: term {}, for {} s, height {}, {orderer}, {heard}: {}\n",
        channel.channel,
        leadership.term,
        leadership.seconds,
        leadership.height,
        leadership.reason.as_deref().unwrap_or("reason not known")
    ))
}

/// What an operator must not overlook.
fn alarms(text: &mut String, channel: &ChannelStatus) {
    let name = &channel.channel;
    if let Some(reason) = &channel.stopped {
        text.push_str(&format!("\nSTOPPED: channel {name}: {reason}\n"));
    }
    for Equivocation { number, kept, other } in &channel.equivocations {
        let kept = kept.as_deref().unwrap_or("none yet");
        text.push_str(&format!(
            "\nALARM: channel {name}: the orderers signed another block {number}, {other}; committed is {kept}. \
             See: grapevine channel evidence -c {name}\n"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{CatchUp, LeadershipStatus, MemberStatus};

    #[test]
    fn shows_what_must_not_be_overlooked() {
        let equivocations = vec![Equivocation { number: 4, kept: Some("aa".into()), other: "bb".into() }];
        let channel = ChannelStatus {
            channel: "trade".to_owned(),
            stopped: Some("the ledger refused block 5".to_owned()),
            equivocations,
            ..Default::default()
        };
        let text = render(&Status { channels: vec![channel], ..Default::default() });
        assert!(text.contains("STOPPED: channel trade: the ledger refused block 5"), "{text}");
        assert!(
            text.contains("ALARM: channel trade") && text.contains("block 4, bb; committed is aa"),
            "{text}"
        );
    }

    #[test]
    fn shows_how_far_a_channel_that_catches_up_is() {
        let progress = CatchUp {
            claimed: 4_000,
            proven: 2_000,
            sources: 3,
            blocks_per_s: 100,
            bytes_per_s: 16_000_000,
            left_s: Some(30),
        };
        let channel = ChannelStatus {
            channel: "trade".to_owned(),
            height: 1_000,
            progress: Some(progress),
            ..Default::default()
        };
        let text = render(&Status { channels: vec![channel], ..Default::default() });
        let line = "trade  [#######-----------------------] 1000 of 4000 blocks, 100 blocks/s, 16.0 MB/s from 3 sources, 0:30 left\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn shows_leader_by_name_and_members() {
        let status = Status {
            peer: "peer0".to_owned(),
            channels: vec![ChannelStatus {
                channel: "trade".to_owned(),
                height: 7,
                leader: Some("ab".to_owned()),
                leader_name: Some("peer1".to_owned()),
                leadership: Some(LeadershipStatus {
                    term: 3,
                    seconds: 12,
                    height: 7,
                    orderer_round_trip_ms: Some(2),
                    reason: Some("elected".to_owned()),
                    hearsay: false,
                }),
                ..Default::default()
            }],
            members: vec![MemberStatus {
                name: "peer1".to_owned(),
                msp_id: "Org1MSP".to_owned(),
                pki_id: "ab".to_owned(),
                state: MemberState::Alive,
                endpoint: "127.0.0.1:7052".to_owned(),
                certificate_serial: String::new(),
                connected: true,
                suspected_by: Vec::new(),
            }],
            ..Default::default()
        };
        let text = render(&status);
        assert!(text.contains("trade    7            peer1   0      -"), "{text}");
        let why =
            "leader of trade: term 3, for 12 s, height 7, 2 ms from its orderer, heard directly: elected";
        assert!(text.contains(why), "{text}");
        assert!(text.contains("peer1  Org1MSP  alive  127.0.0.1:7052  yes"), "{text}");
    }
}
