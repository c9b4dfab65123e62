//! `orderer-mock`: runs the stand-in ordering service, or submits a file to an ordering service as transactions.
//!
//! Logs go to stderr (`RUST_LOG` sets the level, `info` by default), results to stdout. Every error is one line that says
//! what to do; the exit status is then 1.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use grapevine_channels::ChannelId;
use grapevine_configs::orderer::BatchOverrides as BatchConfig;
use grapevine_configs::{ByteSize, ClientConfig, ClientSection, Endpoint, OrdererConfig, Period, Warning};
use grapevine_crypto::{LocalMsp, MspId, Signer};
use grapevine_orderer_mock::chain::BatchOverrides;
use grapevine_orderer_mock::client::{ClientOptions, ClientTls};
use grapevine_orderer_mock::pieces::Cutting;
use grapevine_orderer_mock::server::{RunningServer, ServerOptions, ServerTls};
use grapevine_orderer_mock::submit::{SubmitOptions, submit};
use tokio::signal::unix::{SignalKind, signal};

/// A stand-in for a Hyperledger Fabric ordering service.
#[derive(Debug, Parser)]
#[command(name = "orderer-mock", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the ordering service until SIGTERM or SIGINT.
    Run {
        /// The orderer.yaml.
        #[arg(long)]
        config: PathBuf,
    },
    /// Submits a file as signed transactions, in order.
    Submit(SubmitArgs),
}

#[derive(Debug, Args)]
struct SubmitArgs {
    /// The channel.
    #[arg(long)]
    channel: ChannelId,
    /// The file to submit.
    #[arg(long)]
    file: PathBuf,
    /// A transaction per line, its line end included.
    #[arg(long, conflicts_with = "piece_bytes")]
    lines: bool,
    /// A transaction per so many bytes.
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(1..))]
    piece_bytes: u64,
    /// Transactions per second; without it as fast as they are taken.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Seconds to wait for an orderer that cannot be reached yet.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    wait: u64,
    /// A client.yaml, or the orderer.yaml of the orderer to submit to.
    #[arg(long, required_unless_present = "orderer")]
    config: Option<PathBuf>,
    /// Address of the orderer, host:port.
    #[arg(long, requires = "msp_dir", requires = "msp_id")]
    orderer: Option<Endpoint>,
    /// MSP directory of the submitting identity.
    #[arg(long)]
    msp_dir: Option<PathBuf>,
    /// MSP id of the submitting identity.
    #[arg(long)]
    msp_id: Option<String>,
    /// PEM file of the CAs of the orderer's TLS certificate; without it plain text, unless the config says otherwise.
    #[arg(long)]
    tls_root: Option<PathBuf>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("write a number above 0, for example 200".into()),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Run { config } => run(&config).await,
            Command::Submit(arguments) => run_submit(arguments).await,
        }
    });
    // Blocking reads that are still under way must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

async fn run(path: &std::path::Path) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let (config, warnings) = OrdererConfig::load(path, std::env::vars())?;
    log_warnings(&warnings);
    let server = RunningServer::start(server_options(&config)?).await?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
    server.stop().await;
    tracing::info!("stopped");
    Ok(())
}

fn server_options(config: &OrdererConfig) -> Result<ServerOptions> {
    let general = &config.general;
    let tls = match (&general.tls.certificate, &general.tls.private_key) {
        (Some(certificate), Some(key)) if general.tls.enabled => Some(ServerTls {
            certificate: read(certificate, "TLS certificate")?,
            key: read(key, "TLS private key")?,
            client_roots: match general.tls.client_auth_required {
                true => Some(read_all(&general.tls.client_root_cas, "client root certificate")?.join(&b'\n')),
                false => None,
            },
        }),
        (None, _) | (_, None) if general.tls.enabled => {
            bail!("General.TLS.Enabled is true, but Certificate or PrivateKey is missing; name both files")
        }
        _ => None,
    };
    Ok(ServerOptions {
        listen: config.listen_socket(),
        tls,
        location: config.file_ledger.location.clone(),
        genesis_files: config.channels.clone(),
        signer: load_signer(&general.local_msp_dir, &general.local_msp_id)?,
        time_window: general.authentication.time_window.as_duration(),
        batch: batch_overrides(&config.batch),
    })
}

fn batch_overrides(config: &BatchConfig) -> BatchOverrides {
    let bytes =
        |size: Option<ByteSize>| size.map(|size| usize::try_from(size.as_bytes()).unwrap_or(usize::MAX));
    BatchOverrides {
        timeout: config.timeout.map(Period::as_duration),
        max_message_count: config.max_message_count.map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
        absolute_max_bytes: bytes(config.absolute_max_bytes),
        preferred_max_bytes: bytes(config.preferred_max_bytes),
    }
}

async fn run_submit(arguments: SubmitArgs) -> Result<()> {
    let client = client_section(&arguments)?;
    let signer = load_signer(&client.msp_config_path, &client.local_msp_id)?;
    let piece_bytes = usize::try_from(arguments.piece_bytes).unwrap_or(usize::MAX);
    let options = SubmitOptions {
        orderer: client_options(&client)?,
        channel: arguments.channel,
        file: arguments.file,
        cutting: if arguments.lines { Cutting::Lines } else { Cutting::Pieces(piece_bytes) },
        rate: arguments.rate,
        wait: Duration::from_secs(arguments.wait),
    };
    let channel = options.channel.clone();
    let started = Instant::now();
    let submitted = submit(options, signer).await?;
    println!(
        "submitted {} transactions, {} bytes, to channel {channel} in {:.1} s",
        submitted.transactions,
        submitted.payload_bytes,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The config file, with the flags in its place or over it.
fn client_section(arguments: &SubmitArgs) -> Result<ClientSection> {
    let mut section = match &arguments.config {
        Some(path) => {
            let (config, warnings) = ClientConfig::load(path, std::env::vars())?;
            log_warnings(&warnings);
            config.client
        }
        None => ClientSection {
            local_msp_id: String::new(),
            msp_config_path: PathBuf::new(),
            orderer: arguments.orderer.clone().context("--orderer is missing; write host:port")?,
            conn_timeout: Period::seconds(3),
            tls: grapevine_configs::ClientTls::default(),
        },
    };
    if let Some(orderer) = &arguments.orderer {
        section.orderer = orderer.clone();
    }
    if let Some(directory) = &arguments.msp_dir {
        section.msp_config_path = directory.clone();
    }
    if let Some(id) = &arguments.msp_id {
        section.local_msp_id = id.clone();
    }
    if let Some(root) = &arguments.tls_root {
        section.tls.enabled = true;
        section.tls.root_cas = vec![root.clone()];
    }
    Ok(section)
}

fn client_options(client: &ClientSection) -> Result<ClientOptions> {
    let tls = &client.tls;
    let identity = match (&tls.client_cert.file, &tls.client_key.file) {
        (Some(certificate), Some(key)) if tls.enabled => {
            Some((read(certificate, "TLS client certificate")?, read(key, "TLS client key")?))
        }
        _ => None,
    };
    let tls = match tls.enabled {
        true => Some(ClientTls {
            roots: read_all(&tls.root_cas, "TLS root certificate")?,
            identity,
            server_name: tls.server_host_override.clone(),
        }),
        false => None,
    };
    Ok(ClientOptions {
        address: client.orderer.to_string(),
        tls,
        connect_timeout: client.conn_timeout.as_duration(),
    })
}

fn load_signer(directory: &std::path::Path, id: &str) -> Result<Arc<Signer>> {
    let msp = LocalMsp::load(directory, &MspId::from(id))?;
    Ok(Arc::new(msp.signer))
}

fn read(path: &std::path::Path, what: &str) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read the {what} {}; check the path", path.display()))
}

fn read_all(paths: &[PathBuf], what: &str) -> Result<Vec<Vec<u8>>> {
    paths.iter().map(|path| read(path, what)).collect()
}

fn log_warnings(warnings: &[Warning]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}
