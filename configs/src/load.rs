//! Reading and writing whole files: what all kinds of configuration have in common.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{ConfigError, Warning};

/// A configuration that a file holds.
pub trait ConfigFile: Serialize + Sized {
    /// Reads a text. `name` stands for the file in messages; relative paths are joined to `directory`; `environment` is what
    /// `std::env::vars` gives.
    ///
    /// # Errors
    /// [`ConfigError`], with every problem of the text at once.
    fn parse(
        text: &str,
        name: &str,
        directory: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<Warning>), ConfigError>;

    /// Reads a file, as [`Self::parse`] does its text.
    ///
    /// # Errors
    /// [`ConfigError::Read`], and those of [`Self::parse`].
    fn load(
        path: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<Warning>), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        // Absolute, so that a later change of the working directory does no harm.
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let directory = absolute.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        Self::parse(&text, &path.display().to_string(), Some(&directory), environment)
    }

    /// The text that reads as this configuration.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    fn to_yaml(&self) -> Result<String, ConfigError> {
        serde_saphyr::to_string(self).map_err(|error| ConfigError::Write(error.to_string()))
    }
}
