//! `ringmq passwd FILE USER`: sets a user's password in a file that `--password-file` reads.
//!
//! The file is replaced as a whole, so that a broker which reads it meanwhile sees the old or the new one, and only its
//! owner may read it. Other lines stay as they are.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cost::Cost;
use super::password::{SALT_BYTES, Scratch, Secret};
use super::users::{Users, name_in};

/// Bytes of a password at most: what a CONNECT can carry.
const PASSWORD_BYTES_MAX: usize = 65_535;
/// Interrupt and end-of-file, as a terminal in this mode delivers them.
const INTERRUPT: u8 = 3;

/// Where the password comes from.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Typed twice at the terminal, without echo.
    Terminal,
    /// The first line of stdin.
    Stdin,
}

/// What to do with the user.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Set(Source, Cost),
    Delete,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// What was asked for cannot be.
    Asked(String),
    /// The file cannot be read or written, or is none of users.
    File(String),
}

impl From<String> for Error {
    fn from(what: String) -> Error {
        Error::Asked(what)
    }
}

/// Changes one user and returns a line that says what was done.
///
/// # Errors
/// What is wrong, for the person who called.
pub fn run(file: &Path, user: &str, change: Change) -> Result<String, Error> {
    let is_bad = |c: char| c == ':' || c.is_control();
    let is_name = !user.is_empty() && !user.contains(is_bad) && !user.starts_with('#') && user.trim() == user;
    if change != Change::Delete && !is_name {
        return Err(Error::Asked(
            "a user name is not empty, has no colon, no control character and no space at its ends, and does not begin \
             with #"
                .to_owned(),
        ));
    }
    let unusable = |error: &dyn fmt::Display| Error::File(error.to_string());
    let old = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && change != Change::Delete => String::new(),
        Err(error) => return Err(unusable(&error)),
    };
    Users::parse(&old).map_err(|error| unusable(&error))?;
    let line = match change {
        Change::Set(source, cost) => {
            let password = match source {
                Source::Terminal => typed_twice(user)?,
                Source::Stdin => first_line(&mut io::stdin().lock())?,
            };
            let secret = Secret::derive(&password, salt()?, cost, &mut Scratch::default())
                .ok_or_else(|| Error::Asked("there is not enough memory to hash a password".to_owned()))?;
            Some(format!("{user}:{}", secret.text()))
        }
        Change::Delete => None,
    };
    let (text, existed) = replaced(&old, user, line.as_deref());
    if line.is_none() && !existed {
        return Err(Error::Asked(format!("{}: there is no user {user:?}", file.display())));
    }
    write(file, &text).map_err(|error| unusable(&error))?;
    let cost = match change {
        Change::Set(Source::Terminal, Cost::DEVICE) => {
            ", at the cost of a device's long random password (one that a person made up wants --cost person)"
        }
        Change::Set(..) | Change::Delete => "",
    };
    let what = match (line, existed) {
        (Some(_), true) => "has a new password",
        (Some(_), false) => "is new",
        (None, _) => "is gone",
    };
    Ok(format!("user {user:?} {what} in {}{cost}; a running broker reads it at SIGHUP", file.display()))
}

/// The file's text with the user's line replaced, added or taken out, and whether there was one.
fn replaced(old: &str, user: &str, line: Option<&str>) -> (String, bool) {
    let mut text = String::with_capacity(old.len() + 128);
    let mut existed = false;
    for kept in old.lines() {
        let ours = name_in(kept) == Some(user);
        let kept = if ours { line.filter(|_| !existed) } else { Some(kept) };
        existed |= ours;
        if let Some(kept) = kept {
            text.push_str(kept);
            text.push('\n');
        }
    }
    if let (Some(line), false) = (line, existed) {
        text.push_str(line);
        text.push('\n');
    }
    (text, existed)
}

/// Writes a new file beside the old one, readable by its owner alone, and puts it in its place.
fn write(file: &Path, text: &str) -> io::Result<()> {
    // Where the file is a link, the file behind it is replaced.
    let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let mut name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = target.with_file_name(name);
    let written = create(&new, text, fs::metadata(&target).ok()).and_then(|()| fs::rename(&new, &target));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written?;
    let directory = target.parent().filter(|path| !path.as_os_str().is_empty()).map(PathBuf::from);
    File::open(directory.unwrap_or_else(|| PathBuf::from(".")))?.sync_all()
}

fn create(path: &Path, text: &str, old: Option<fs::Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if let Some(old) = old {
        // Or a broker that runs as another user could not read what root wrote.
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn salt() -> Result<[u8; SALT_BYTES], String> {
    let mut salt = [0; SALT_BYTES];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut salt))
        .map_err(|error| format!("/dev/urandom: {error}"))?;
    Ok(salt)
}

/// One line without its end.
fn first_line(from: &mut impl BufRead) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    from.take(PASSWORD_BYTES_MAX as u64 + 2)
        .read_until(b'\n', &mut line)
        .map_err(|error| error.to_string())?;
    while matches!(line.last(), Some(b'\n' | b'\r')) {
        line.pop();
    }
    match line.len() {
        0 => Err("the password is empty".to_owned()),
        1..=PASSWORD_BYTES_MAX => Ok(line),
        _ => Err("the password is longer than MQTT allows".to_owned()),
    }
}

fn typed_twice(user: &str) -> Result<Vec<u8>, String> {
    const HOW: &str = "; to give the password another way: --password-stdin";
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let terminal = terminal.ok().filter(File::is_terminal).ok_or(format!("there is no terminal{HOW}"))?;
    let quiet = Quiet::begin(terminal).map_err(|error| format!("stty: {error}{HOW}"))?;
    let first = quiet.ask(&format!("Password for {user:?}: "))?;
    let second = quiet.ask("Once more: ")?;
    if first == second { Ok(first) } else { Err("the two differ; nothing was changed".to_owned()) }
}

/// A terminal that does not show what is typed, until it is dropped.
struct Quiet {
    terminal: File,
}

impl Quiet {
    /// Ctrl-C becomes a character meanwhile, or it would leave the terminal without echo.
    fn begin(terminal: File) -> io::Result<Quiet> {
        stty(&terminal, &["-echo", "-isig"])?;
        Ok(Quiet { terminal })
    }

    fn ask(&self, prompt: &str) -> Result<Vec<u8>, String> {
        let mut terminal = &self.terminal;
        terminal.write_all(prompt.as_bytes()).map_err(|error| error.to_string())?;
        let line = first_line(&mut io::BufReader::new(terminal));
        let _ = terminal.write_all(b"\n");
        match line {
            Ok(line) if line.contains(&INTERRUPT) => Err("interrupted; nothing was changed".to_owned()),
            line => line,
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = stty(&self.terminal, &["echo", "isig"]);
    }
}

fn stty(terminal: &File, arguments: &[&str]) -> io::Result<()> {
    let status = Command::new("stty")
        .args(arguments)
        .stdin(Stdio::from(terminal.try_clone()?))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("it failed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_replaced_where_it_stands() {
        let old = "# staff\nann:1\nbob:2\nbobby:3\n";
        assert_eq!(
            replaced(old, "bob", Some("bob:9")),
            ("# staff\nann:1\nbob:9\nbobby:3\n".to_owned(), true)
        );
        assert_eq!(replaced(old, "eve", Some("eve:9")), (format!("{old}eve:9\n"), false));
        assert_eq!(replaced(old, "ann", None), ("# staff\nbob:2\nbobby:3\n".to_owned(), true));
        assert_eq!(replaced("a:1", "b", Some("b:2")).0, "a:1\nb:2\n", "a last line without its end");
    }

    #[test]
    fn a_password_is_one_line() {
        let line = |text: &str| first_line(&mut text.as_bytes());
        assert_eq!(line("secret\nmore\n").unwrap(), b"secret");
        assert_eq!(line(" with space \r\n").unwrap(), b" with space ");
        assert_eq!(line("no end").unwrap(), b"no end");
        assert!(line("\n").is_err() && line("").is_err());
        assert!(line(&"x".repeat(PASSWORD_BYTES_MAX)).is_ok());
        assert!(line(&"x".repeat(PASSWORD_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn names_that_would_break_the_file_are_refused() {
        for user in ["", "a:b", "a\nb", "#a", "a\0", "a ", "\u{1b}[31ma"] {
            let refused = run(Path::new("/nonexistent/file"), user, Change::Set(Source::Stdin, Cost::DEVICE));
            assert!(matches!(refused, Err(Error::Asked(what)) if what.contains("user name")), "{user:?}");
        }
    }
}
