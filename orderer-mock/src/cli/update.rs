//! `orderer-mock update`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use grapevine_channels::ChannelId;
use grapevine_channels::config::Endpoint;
use grapevine_crypto::{MspId, Signer, load_msp_config};
use grapevine_orderer_mock::update::{ConfigClient, Edit};

use crate::cli::client::{self, ClientArgs};
use crate::{load_signer, read};

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// The channel.
    #[arg(long)]
    channel: ChannelId,
    /// Replaces the anchor peers of an organisation; again for each further anchor. `MSPID=` removes them all.
    #[arg(long, value_name = "MSPID=HOST:PORT", value_parser = anchor)]
    anchor: Vec<(MspId, Option<Endpoint>)>,
    /// Replaces the addresses of an ordering organisation's orderers; again for each further address.
    #[arg(long, value_name = "MSPID=HOST:PORT", value_parser = endpoint)]
    orderer_endpoint: Vec<(MspId, Endpoint)>,
    /// Removes an application organisation.
    #[arg(long, value_name = "MSPID")]
    remove_org: Vec<String>,
    /// Adds an application organisation with the verification material of an MSP directory.
    #[arg(long, value_name = "MSPID=MSP_DIR", value_parser = path_of)]
    add_org: Vec<(MspId, PathBuf)>,
    /// Most transactions in a block.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    batch_count: Option<u32>,
    /// Adds a certificate revocation list, PEM, to an organisation.
    #[arg(long, value_name = "MSPID=FILE", value_parser = path_of)]
    crl: Vec<(MspId, PathBuf)>,
    /// Signs the update with the identity of an MSP directory, usually an administrator's.
    #[arg(long, value_name = "MSPID=MSP_DIR", value_parser = path_of)]
    signer: Vec<(MspId, PathBuf)>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(crate) async fn run(arguments: UpdateArgs) -> Result<()> {
    let section = arguments.client.section()?;
    let submitter = load_signer(&section.msp_config_path, &section.local_msp_id)?;
    let load = |(id, directory): &(MspId, PathBuf)| load_signer(directory, id.as_str());
    let signers: Vec<Arc<Signer>> = arguments.signer.iter().map(load).collect::<Result<_>>()?;
    let signers: Vec<&Signer> = signers.iter().map(AsRef::as_ref).collect();
    let edits = edits(&arguments)?;
    if edits.is_empty() {
        bail!(
            "nothing to change; give at least one of --anchor, --orderer-endpoint, --remove-org, --add-org, --batch-count, --crl"
        );
    }
    let channel = arguments.channel;
    let mut client = ConfigClient::connect(&client::options(&section)?, channel.clone()).await?;
    let sequence = client.change(&edits, &submitter, &signers).await?;
    println!("config {sequence} of channel {channel} is accepted");
    Ok(())
}

fn edits(arguments: &UpdateArgs) -> Result<Vec<Edit>> {
    let mut edits = Vec::new();
    for (id, directory) in &arguments.add_org {
        edits.push(Edit::AddOrganization(load_msp_config(directory, id)?.into()));
    }
    let mut anchors: BTreeMap<&MspId, Vec<Endpoint>> = BTreeMap::new();
    for (organization, anchor) in &arguments.anchor {
        anchors.entry(organization).or_default().extend(anchor.clone());
    }
    for (organization, anchors) in anchors {
        edits.push(Edit::AnchorPeers { organization: organization.clone(), anchors });
    }
    let mut endpoints: BTreeMap<&MspId, Vec<Endpoint>> = BTreeMap::new();
    for (organization, endpoint) in &arguments.orderer_endpoint {
        endpoints.entry(organization).or_default().push(endpoint.clone());
    }
    for (organization, endpoints) in endpoints {
        edits.push(Edit::OrdererEndpoints { organization: organization.clone(), endpoints });
    }
    for (organization, file) in &arguments.crl {
        let pem = read(file, "certificate revocation list")?;
        edits.push(Edit::RevocationList { organization: organization.clone(), pem });
    }
    edits.extend(arguments.batch_count.map(Edit::BatchCount));
    edits.extend(arguments.remove_org.iter().map(|id| Edit::RemoveOrganization(id.as_str().into())));
    Ok(edits)
}

fn split(text: &str) -> Result<(MspId, &str), String> {
    match text.split_once('=') {
        Some((id, rest)) if !id.is_empty() => Ok((id.into(), rest)),
        _ => Err("write an MSP ID, = and a value".into()),
    }
}

fn path_of(text: &str) -> Result<(MspId, PathBuf), String> {
    let (id, path) = split(text)?;
    if path.is_empty() { Err("the path is missing".into()) } else { Ok((id, Path::new(path).to_owned())) }
}

fn endpoint(text: &str) -> Result<(MspId, Endpoint), String> {
    let (id, endpoint) = anchor(text)?;
    endpoint.map(|endpoint| (id, endpoint)).ok_or_else(|| "the address is missing".into())
}

fn anchor(text: &str) -> Result<(MspId, Option<Endpoint>), String> {
    let (id, address) = split(text)?;
    if address.is_empty() {
        return Ok((id, None));
    }
    let parsed = address.rsplit_once(':').and_then(|(host, port)| {
        let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then(|| Endpoint { host: host.to_owned(), port })
    });
    parsed.map(|endpoint| (id, Some(endpoint))).ok_or_else(|| format!("{address:?} is not host:port"))
}
