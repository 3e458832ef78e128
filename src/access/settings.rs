//! What a person sets about access, and the files that it is read from, at the start and again at SIGHUP.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::acl_file;
use super::gate::{Denial, Door, Overlap, Policy};
use super::users::Users;

/// Settings about access; the files are read by [`Settings::load`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Users and hashes of their passwords, as [`Door::users`] counts them.
    pub password_files: Vec<PathBuf>,
    /// Rules in mosquitto's format, as [`Door::rules`] counts them.
    pub acl_files: Vec<PathBuf>,
    /// By listener.
    pub doors: Box<[Door]>,
    pub overlap: Overlap,
    pub denial: Denial,
}

/// A file that is missing, or wrong.
#[derive(Debug)]
pub struct FileError {
    pub path: PathBuf,
    /// Holds nothing of any hash.
    pub what: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

impl std::error::Error for FileError {}

impl Settings {
    /// Reads all files.
    ///
    /// # Errors
    /// The first file that cannot be read or that is wrong. A rule that is not read would be one that is not enforced.
    pub fn load(&self) -> Result<Policy, FileError> {
        let users: Arc<[Users]> =
            self.password_files.iter().map(|path| read(path, Users::parse)).collect::<Result<_, _>>()?;
        let rules =
            self.acl_files.iter().map(|path| read(path, acl_file::parse)).collect::<Result<_, _>>()?;
        Ok(Policy { rules, users, doors: self.doors.clone(), overlap: self.overlap, denial: self.denial })
    }
}

fn read<T, E: fmt::Display>(path: &Path, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, FileError> {
    let wrong = |what: String| FileError { path: path.to_owned(), what };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    parse(&text).map_err(|error| wrong(error.to_string()))
}
