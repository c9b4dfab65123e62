//! `grapevine channel evidence`: blocks that the orderers signed and that contradict this peer's chain.
//!
//! Each is proof by itself: written to a file, anybody who has the channel's config can verify its signatures with
//! `grapevine block show --config-block`, and compare it with the block of the same number in the own ledger.

use std::path::Path;

use anyhow::Context as _;
use grapevine_channels::ChannelId;
use grapevine_channels::describe::BlockDescription;
use serde::Serialize;

use super::output;
use super::settings::Settings;
use super::source::StoredChannel;

#[derive(Debug, Serialize)]
struct Evidence {
    /// Number of both blocks.
    number: u64,
    /// Header hash of the committed one; none if the ledger has no block of this number.
    kept: Option<String>,
    /// The other one.
    other: BlockDescription,
}

pub(super) fn show(
    settings: &Settings,
    channel: &ChannelId,
    blocks_dir: Option<&Path>,
    json: bool,
) -> anyhow::Result<()> {
    let stored = StoredChannel::open(settings, channel)?;
    let blocks = stored.evidence()?;
    if let Some(directory) = blocks_dir {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}; check --blocks-dir", directory.display()))?;
    }
    let mut evidence = Vec::new();
    for block in blocks {
        let (number, hash) = (block.number(), block.header_hash());
        if let Some(directory) = blocks_dir {
            let path = directory
                .join(format!("{number:03}-{}.block", hash.to_string().get(..8).unwrap_or_default()));
            std::fs::write(&path, block.encode())
                .with_context(|| format!("cannot write {}; check the space left", path.display()))?;
        }
        let config = stored.config_before(&block).unwrap_or_default();
        let kept = stored.header_hash(number)?.map(|hash| hash.to_string());
        evidence.push(Evidence { number, kept, other: BlockDescription::new(&block, config.as_ref()) });
    }
    let text =
        if json { format!("{}\n", serde_json::to_string_pretty(&evidence)?) } else { render(&evidence) };
    Ok(output::print(&text)?)
}

fn render(evidence: &[Evidence]) -> String {
    if evidence.is_empty() {
        return "no evidence against the orderers\n".to_owned();
    }
    let heading = ["BLOCK", "COMMITTED", "ALSO SIGNED", "AUTHENTIC", "SIGNERS"].map(str::to_owned).to_vec();
    let rows = evidence.iter().map(|Evidence { number, kept, other }| {
        let authentic = match other.authentic {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "not checked",
        };
        let signers = other
            .signers
            .iter()
            .map(|signer| format!("{} ({})", signer.identity.common_name, signer.identity.msp_id));
        vec![
            number.to_string(),
            kept.clone().unwrap_or_else(|| "-".to_owned()),
            other.header_hash.clone(),
            authentic.to_owned(),
            signers.collect::<Vec<_>>().join(", "),
        ]
    });
    output::table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}
