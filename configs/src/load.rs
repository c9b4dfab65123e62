//! Reading and writing whole files.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::ConfigError;

/// Text of a file, its name for messages, and the directory its relative paths start from (absolute if the
/// working directory is known, so that a later change of it does no harm).
pub(crate) fn read_file(path: &Path) -> Result<(String, String, PathBuf), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let directory = absolute.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    Ok((text, path.display().to_string(), directory))
}

/// YAML of a configuration.
pub(crate) fn write_yaml(config: &impl Serialize) -> Result<String, ConfigError> {
    serde_saphyr::to_string(config).map_err(|error| ConfigError::Write(error.to_string()))
}
