//! The command line: `grapevine run | net init | channel join|list|info|export|verify|repair|evidence|verify-blocks|config show | block show |
//! status`.
//!
//! - Results go to standard output, everything else to standard error. A reader that stops reading (`grapevine … | head`) ends
//!   the command quietly.
//! - Every failure is one line on standard error that says what to do, and exit code 1; wrong usage is exit code 2.
//! - `channel list|info|export|evidence|config show` and `block show` read the ledger's files, whether the peer runs or not; heights come from the running peer where
//!   there is one, since files are seen as they stood when they were opened.
//! - `GRAPEVINE_LOG` sets what `run` logs, as in `GRAPEVINE_LOG=info,grapevine_peer=debug`; the default is `info`.

mod block;
mod channel;
mod config_show;
mod evidence;
mod export;
mod join;
mod net;
mod output;
mod progress;
mod settings;
mod source;
mod status;
mod verify;
mod verify_blocks;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use grapevine_block_trace::BlockTrace;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::driver::TakeOver;

/// Environment variable with the log filter.
pub const LOG_VARIABLE: &str = "GRAPEVINE_LOG";

/// A block-dissemination peer for permissioned ledgers.
#[derive(Debug, Parser)]
#[command(name = "grapevine", version, about, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a peer until SIGTERM or Ctrl-C
    Run {
        #[command(flatten)]
        config: ConfigArguments,
        /// Append to this file when each block was received, verified, handed to the ledger and committed
        #[arg(long, value_name = "FILE")]
        block_trace: Option<PathBuf>,
        /// Keep the blocks of a data directory that was copied from another peer
        #[arg(long)]
        take_over_ledger: bool,
    },
    /// Make the files of a whole network
    #[command(subcommand)]
    Net(NetCommand),
    /// Join, list, inspect and export channels
    #[command(subcommand)]
    Channel(ChannelCommand),
    /// Look at blocks
    #[command(subcommand)]
    Block(BlockCommand),
    /// Show how a running peer is doing
    Status {
        #[command(flatten)]
        config: ConfigArguments,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Show it again every second until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
}

#[derive(Debug, Args)]
struct ConfigArguments {
    /// The peer's configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum NetCommand {
    /// Write certificates, MSP directories, genesis blocks and configurations of every node
    Init {
        /// The description of the network
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Directory to write to
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum ChannelCommand {
    /// Join a channel: by its genesis block, in the running peer or for its next start, or by its hash through a peer that is in it
    Join {
        #[command(flatten)]
        config: ConfigArguments,
        /// File with the channel's genesis block
        #[arg(long, value_name = "FILE", required_unless_present = "anchor", conflicts_with = "anchor")]
        block: Option<PathBuf>,
        /// A peer in the channel, of this organisation or of one in a channel joined before; it sends the genesis block
        #[arg(long, value_name = "HOST:PORT", requires_all = ["channel", "genesis_hash"])]
        anchor: Option<String>,
        /// Name of the channel
        #[arg(short, long, value_name = "NAME", requires = "anchor")]
        channel: Option<String>,
        /// Header hash of the genesis block, from somebody you trust: `grapevine channel info` shows it
        #[arg(long, value_name = "HEX", requires = "anchor")]
        genesis_hash: Option<String>,
    },
    /// List the channels joined
    List {
        #[command(flatten)]
        config: ConfigArguments,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show height and tip of a channel
    Info {
        #[command(flatten)]
        config: ConfigArguments,
        /// Name of the channel
        #[arg(short, long, value_name = "NAME")]
        channel: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Add the header hash of every block
        #[arg(long)]
        hashes: bool,
    },
    /// Write the transactions or the blocks of a channel to files
    Export {
        #[command(flatten)]
        config: ConfigArguments,
        /// Name of the channel
        #[arg(short, long, value_name = "NAME")]
        channel: String,
        /// File for the payloads of all transactions but config transactions, byte for byte as submitted, one after the
        /// other; - for standard output
        #[arg(long, value_name = "FILE", required_unless_present = "blocks_dir")]
        output: Option<PathBuf>,
        /// Directory for one file NUMBER.block for each block
        #[arg(long, value_name = "DIR")]
        blocks_dir: Option<PathBuf>,
    },
    /// Show blocks that the orderers signed and that contradict this peer's chain
    Evidence {
        #[command(flatten)]
        config: ConfigArguments,
        /// Name of the channel
        #[arg(short, long, value_name = "NAME")]
        channel: String,
        /// Directory to write the blocks to, one file NUMBER-HASH.block each
        #[arg(long, value_name = "DIR")]
        blocks_dir: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at a channel's config
    #[command(subcommand)]
    Config(ChannelConfigCommand),
    /// Verify the whole chain in the ledger: hashes, signatures, index
    Verify {
        #[command(flatten)]
        config: ConfigArguments,
        /// Name of the channel
        #[arg(short, long, value_name = "NAME")]
        channel: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Verify, and have the running peer fetch damaged blocks from other peers
    Repair {
        #[command(flatten)]
        config: ConfigArguments,
        /// Name of the channel
        #[arg(short, long, value_name = "NAME")]
        channel: String,
    },
    /// Verify a directory of files NUMBER.block from the genesis block on
    VerifyBlocks {
        /// File with the channel's genesis block, which you vouch for
        #[arg(long, value_name = "FILE")]
        genesis: PathBuf,
        /// Directory with the blocks
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum BlockCommand {
    /// Show a block of a file, or of a channel of a peer
    Show(BlockShowArguments),
}

#[derive(Debug, Args)]
struct BlockShowArguments {
    /// File with a block or, with --channel, the block's number
    #[arg(value_name = "FILE|NUMBER")]
    block: PathBuf,
    /// Channel to take the block from
    #[arg(short, long, value_name = "NAME", requires = "config")]
    channel: Option<String>,
    /// The peer's configuration file
    #[arg(long, value_name = "FILE", requires = "channel")]
    config: Option<PathBuf>,
    /// File with the config block in force, to check the signatures of a file and to show config changes
    #[arg(long, value_name = "FILE", conflicts_with = "channel")]
    config_block: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ChannelConfigCommand {
    /// Show organisations, orderers, policies and settings of a channel
    Show {
        #[command(flatten)]
        config: ConfigArguments,
        /// Name of the channel
        #[arg(short, long, value_name = "NAME")]
        channel: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command given by `arguments` (the program's name first) and says how the process should exit.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help asked for is no error; clap knows the difference. A closed pipe is nobody's concern.
            let _closed = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(1)
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { config, block_trace, take_over_ledger } => {
            let take_over = if take_over_ledger { TakeOver::Yes } else { TakeOver::No };
            run(&config, block_trace.as_deref(), take_over)
        }
        Command::Net(NetCommand::Init { config, dir }) => net::init(&config, &dir),
        Command::Channel(ChannelCommand::Join { config, block: Some(block), .. }) => {
            join::join(&settings::load(&config.config)?, &block)
        }
        Command::Channel(ChannelCommand::Join { config, block: None, anchor, channel, genesis_hash }) => {
            let (Some(anchor), Some(channel), Some(hash)) = (anchor, channel, genesis_hash) else {
                anyhow::bail!("give --block, or --anchor with --channel and --genesis-hash");
            };
            join::join_by_anchor(&settings::load(&config.config)?, &channel, &anchor, &hash)
        }
        Command::Channel(ChannelCommand::List { config, json }) => {
            channel::list(&settings::load(&config.config)?, json)
        }
        Command::Channel(ChannelCommand::Info { config, channel, json, hashes }) => {
            channel::info(&settings::load(&config.config)?, &settings::channel(&channel)?, json, hashes)
        }
        Command::Channel(ChannelCommand::Export { config, channel, output, blocks_dir }) => {
            let (settings, channel) = (settings::load(&config.config)?, settings::channel(&channel)?);
            export::export(&settings, &channel, output.as_deref(), blocks_dir.as_deref())
        }
        Command::Channel(ChannelCommand::Evidence { config, channel, blocks_dir, json }) => {
            let (settings, channel) = (settings::load(&config.config)?, settings::channel(&channel)?);
            evidence::show(&settings, &channel, blocks_dir.as_deref(), json)
        }
        Command::Channel(ChannelCommand::Config(ChannelConfigCommand::Show { config, channel, json })) => {
            config_show::show(&settings::load(&config.config)?, &settings::channel(&channel)?, json)
        }
        Command::Channel(ChannelCommand::Verify { config, channel, json }) => {
            verify::verify(&settings::load(&config.config)?, &settings::channel(&channel)?, json)
        }
        Command::Channel(ChannelCommand::Repair { config, channel }) => {
            verify::repair(&settings::load(&config.config)?, &settings::channel(&channel)?)
        }
        Command::Channel(ChannelCommand::VerifyBlocks { genesis, directory }) => {
            verify_blocks::verify_blocks(&genesis, &directory)
        }
        Command::Block(BlockCommand::Show(arguments)) => show_block(&arguments),
        Command::Status { config, json, watch: false } => {
            status::status(&settings::load(&config.config)?, json)
        }
        Command::Status { config, json, watch: true } => {
            status::watch(&settings::load(&config.config)?, json)
        }
    }
}

fn show_block(arguments: &BlockShowArguments) -> anyhow::Result<()> {
    let (block, json) = (&arguments.block, arguments.json);
    let (Some(channel), Some(config)) = (&arguments.channel, &arguments.config) else {
        return block::show_file(block, arguments.config_block.as_deref(), json);
    };
    let number = block.to_str().and_then(|number| number.parse().ok());
    let number = number.with_context(|| format!("{} is not a block's number", block.display()))?;
    block::show_stored(&settings::load(config)?, &settings::channel(channel)?, number, json)
}

fn run(arguments: &ConfigArguments, block_trace: Option<&Path>, take_over: TakeOver) -> anyhow::Result<()> {
    log_to_stderr()?;
    let config = settings::load_and_log(&arguments.config)?;
    let trace = match block_trace {
        Some(path) => BlockTrace::to_file(path)
            .with_context(|| format!("--block-trace: cannot write {}", path.display()))?,
        None => BlockTrace::off(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime could not be started; raise the limit of threads for this user")?;
    // On a worker, next to the tasks it talks to.
    let running = runtime.spawn(crate::driver::run(config, trace, take_over));
    let ran = runtime.block_on(running).unwrap_or_else(|error| Err(anyhow::Error::new(error)));
    // Blocking work that is still under way must not hold the process back for longer than it may take to stop.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    crate::terminal::show(Vec::new());
    ran
}

fn log_to_stderr() -> anyhow::Result<()> {
    let filter = match std::env::var(LOG_VARIABLE) {
        Ok(filter) if !filter.is_empty() => filter.parse::<Targets>().with_context(|| {
            format!("{LOG_VARIABLE}={filter} is not a log filter; try {LOG_VARIABLE}=info")
        })?,
        _ => Targets::new().with_default(LevelFilter::INFO),
    };
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(crate::terminal::log_writer).with_ansi(colour);
    let started = tracing_subscriber::registry().with(filter).with(lines).try_init();
    started.map_err(|error| anyhow::anyhow!("logging could not be started: {error}"))
}
