//! Runs the bench as a script would.

use std::process::Command;

use serde_json::Value;

/// Runs the bench with these arguments and `--json -`; returns what it printed.
pub(crate) fn bench(arguments: &str) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grapevine-bench"));
    let output = command.args(arguments.split_whitespace()).args(["--json", "-"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn number(object: &Value, field: &str) -> f64 {
    let value = object.get(field).and_then(Value::as_f64);
    assert!(value.is_some(), "{field} in {object}");
    value.unwrap_or_default()
}
