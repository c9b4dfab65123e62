//! The binary `grapevine`; see the library's `cli` module.

use std::process::ExitCode;

fn main() -> ExitCode {
    grapevine_peer::cli::main(std::env::args_os())
}
