//! Compiles the shim: a shared library in C, since it takes the place of the C library's functions.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/shim.c");
    println!("cargo::rerun-if-env-changed=CC");
    let output = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("libdiskfaults.so");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let compiled = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&output)
        .args(["src/shim.c", "-ldl", "-lpthread"])
        .status();
    match compiled {
        Ok(status) if status.success() => {}
        outcome => {
            println!("cargo::error=the shim could not be compiled with {}: {outcome:?}", compiler.display());
        }
    }
}
