//! What a person sets about access, and the files that it is read from, at the start and again at SIGHUP.

use std::fmt;
use std::path::{Path, PathBuf};

use super::gate::{Anonymous, ClientIds, Denial, Overlap, Policy};
use super::users::Users;
use super::{Rules, acl_file};

/// Settings about access; the files are read by [`Settings::load`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Users and hashes of their passwords; without it everybody is anonymous.
    pub password_file: Option<PathBuf>,
    /// Rules in mosquitto's format; without it everybody may do everything.
    pub acl_file: Option<PathBuf>,
    /// By listener.
    pub anonymous: Box<[Anonymous]>,
    pub client_ids: ClientIds,
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
    /// Reads everything; the users only if there is a file of them.
    ///
    /// # Errors
    /// The first file that cannot be read or that is wrong. A rule that is not read would be one that is not enforced.
    pub fn load(&self) -> Result<(Policy, Option<Users>), FileError> {
        let users = self.password_file.as_deref().map(|path| read(path, Users::parse)).transpose()?;
        let rules: Option<Rules> =
            self.acl_file.as_deref().map(|path| read(path, acl_file::parse)).transpose()?;
        let policy = Policy {
            rules,
            anonymous: self.anonymous.clone(),
            client_ids: self.client_ids,
            overlap: self.overlap,
            denial: self.denial,
        };
        Ok((policy, users))
    }
}

fn read<T, E: fmt::Display>(path: &Path, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, FileError> {
    let wrong = |what: String| FileError { path: path.to_owned(), what };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    parse(&text).map_err(|error| wrong(error.to_string()))
}
