//! `orderer-mock`: runs the stand-in ordering service, makes it misbehave, submits a file to an ordering service as
//! transactions, or changes a channel's config.
//!
//! Logs go to stderr (`RUST_LOG` sets the level, `info` by default), results to stdout. Every error is one line that says
//! what to do; the exit status is then 1.

mod cli;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use grapevine_block_trace::BlockTrace;
use grapevine_channels::ChannelId;
use grapevine_configs::orderer::BatchOverrides as BatchConfig;
use grapevine_configs::{ByteSize, ConfigFile, OrdererConfig, Period, Warning};
use grapevine_crypto::{LocalMsp, MspId, Signer};
use grapevine_orderer_mock::chain::BatchOverrides;
use grapevine_orderer_mock::pieces::Cutting;
use grapevine_orderer_mock::server::{
    KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, RunningServer, ServerOptions, ServerTls, chain_of,
};
use grapevine_orderer_mock::submit::{SubmitOptions, submit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use cli::client::{self, ClientArgs};
use cli::fault::{self, FaultArgs};
use cli::update::{self, UpdateArgs};

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
        /// Append to this file when each block was written.
        #[arg(long, value_name = "FILE")]
        block_trace: Option<PathBuf>,
    },
    /// Submits a file as signed transactions, in order.
    Submit(SubmitArgs),
    /// Changes the config of a channel: one config update with all the changes asked for.
    Update(UpdateArgs),
    /// Makes a running ordering service misbehave, for tests and demonstrations.
    Fault(FaultArgs),
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
    #[command(flatten)]
    client: ClientArgs,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("write a number above 0, for example 200".into()),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = std::env::var("RUST_LOG").ok().and_then(|filter| filter.parse::<Targets>().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Run { config, block_trace } => run(&config, block_trace.as_deref()).await,
            Command::Submit(arguments) => run_submit(arguments).await,
            Command::Update(arguments) => update::run(arguments).await,
            Command::Fault(arguments) => fault::run(&arguments),
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
    eprintln!("error: {}", chain_of(error.as_ref()));
    ExitCode::FAILURE
}

async fn run(path: &Path, block_trace: Option<&Path>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let (config, warnings) = OrdererConfig::load(path, std::env::vars())?;
    log_warnings(&warnings);
    let trace = match block_trace {
        Some(path) => BlockTrace::to_file(path)
            .with_context(|| format!("--block-trace: cannot write {}", path.display()))?,
        None => BlockTrace::off(),
    };
    let server = RunningServer::start(server_options(&config, trace)?).await?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
    server.stop().await;
    tracing::info!("stopped");
    Ok(())
}

fn server_options(config: &OrdererConfig, trace: BlockTrace) -> Result<ServerOptions> {
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
        keepalive_interval: KEEPALIVE_INTERVAL,
        keepalive_timeout: KEEPALIVE_TIMEOUT,
        batch: batch_overrides(&config.batch),
        trace,
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
    let client = arguments.client.section()?;
    let signer = load_signer(&client.msp_config_path, &client.local_msp_id)?;
    let piece_bytes = usize::try_from(arguments.piece_bytes).unwrap_or(usize::MAX);
    let options = SubmitOptions {
        orderer: client::options(&client)?,
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

fn load_signer(directory: &Path, id: &str) -> Result<Arc<Signer>> {
    let msp = LocalMsp::load(directory, &MspId::from(id))?;
    Ok(Arc::new(msp.signer))
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
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
