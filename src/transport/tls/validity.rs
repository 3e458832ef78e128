//! When certificates are valid, and what to say about those that are not, or not for long.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::log;
use crate::transport::Standing;
use crate::transport::x509::Certificate;

/// From so many days before its end a certificate is said to end soon.
pub const EXPIRES_SOON_DAYS: u64 = 14;
const DAY_S: u64 = 86_400;
/// A certificate that lives shorter than that is said to end soon when one part in so many of its life is left.
const EXPIRES_SOON_PART: u64 = 3;

/// What a certificate is there for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// The server's, or one that signs it.
    Server,
    /// It signs certificates of clients.
    ClientCa,
}

/// From when to when one certificate of a file is valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Validity {
    path: Arc<Path>,
    /// Whom it names.
    subject: String,
    pub role: Role,
    not_before_s: u64,
    pub not_after_s: u64,
}

impl Validity {
    pub fn of(certificate: &Certificate<'_>, role: Role, path: Arc<Path>) -> Validity {
        let subject = certificate.subject_text().unwrap_or_else(|| "without a name".to_owned());
        let Certificate { not_before_s, not_after_s, .. } = *certificate;
        Validity { path, subject, role, not_before_s, not_after_s }
    }

    pub fn standing(&self, now_s: u64) -> Standing {
        let life_s = self.not_after_s.saturating_sub(self.not_before_s);
        let soon_s = (EXPIRES_SOON_DAYS * DAY_S).min(life_s / EXPIRES_SOON_PART);
        if now_s > self.not_after_s {
            Standing::Expired
        } else if now_s < self.not_before_s {
            Standing::NotYetValid
        } else if self.not_after_s - now_s <= soon_s {
            Standing::ExpiresSoon
        } else {
            Standing::Valid
        }
    }

    /// What somebody should know, if there is anything.
    pub fn warning(&self, now_s: u64) -> Option<Warning> {
        let (from, until) = (log::day(self.not_before_s), log::day(self.not_after_s));
        let what = match (self.standing(now_s), self.role) {
            (Standing::Valid, _) => return None,
            (Standing::Expired, Role::Server) => format!("has expired on {until}; clients refuse it"),
            // Of a CA that is trusted only its name and its key count.
            (Standing::Expired, Role::ClientCa) => {
                format!(
                    "has expired on {until}; certificates that it has signed are let in as long as they are valid themselves"
                )
            }
            (Standing::NotYetValid, Role::Server) => {
                format!("is not valid before {from}; clients refuse it. See whether the clock is right: date")
            }
            (Standing::NotYetValid, Role::ClientCa) => {
                format!("is not valid before {from}. See whether the clock is right: date")
            }
            (Standing::ExpiresSoon, Role::Server) => {
                format!("expires soon, on {until}. Put a new one in its place, and send SIGHUP")
            }
            (Standing::ExpiresSoon, Role::ClientCa) => format!("expires soon, on {until}"),
        };
        let kind = match self.role {
            Role::Server => "certificate",
            Role::ClientCa => "CA of clients",
        };
        Some(Warning { path: Arc::clone(&self.path), what: format!("{kind} {} {what}", self.subject) })
    }
}

/// A certificate that needs somebody to look after it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Warning {
    pub path: Arc<Path>,
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn valid(from_s: u64, until_s: u64) -> Validity {
        let subject = "CN=x".to_owned();
        let path = Path::new("x.pem").into();
        Validity { path, subject, role: Role::Server, not_before_s: from_s, not_after_s: until_s }
    }

    #[test]
    fn a_certificate_is_valid_from_its_first_second_to_its_last() {
        let year = 365 * DAY_S;
        assert_eq!(valid(NOW - year, NOW - 1).standing(NOW), Standing::Expired);
        assert_eq!(valid(NOW - year, NOW).standing(NOW), Standing::ExpiresSoon);
        assert_eq!(valid(NOW, NOW + year).standing(NOW), Standing::Valid);
        assert_eq!(valid(NOW + 1, NOW + year).standing(NOW), Standing::NotYetValid);
        assert_eq!(valid(NOW, NOW - 1).standing(NOW), Standing::Expired, "never valid");
    }

    #[test]
    fn soon_is_two_weeks_or_the_last_third_of_a_short_life() {
        let two_weeks = EXPIRES_SOON_DAYS * DAY_S;
        let old = NOW - 365 * DAY_S;
        assert_eq!(valid(old, NOW + two_weeks).standing(NOW), Standing::ExpiresSoon);
        assert_eq!(valid(old, NOW + two_weeks + 1).standing(NOW), Standing::Valid);
        assert_eq!(valid(NOW - 16 * 3600, NOW + 8 * 3600).standing(NOW), Standing::ExpiresSoon);
        assert_eq!(valid(NOW - 15 * 3600, NOW + 9 * 3600).standing(NOW), Standing::Valid, "of 24 hours");
    }

    #[test]
    fn a_warning_names_file_subject_and_day() {
        assert_eq!(valid(0, NOW + 365 * DAY_S).warning(NOW), None);
        let text = valid(0, NOW - 1).warning(NOW).unwrap().to_string();
        assert_eq!(text, "x.pem: certificate CN=x has expired on 2027-01-15; clients refuse it");
        let early = Validity { role: Role::ClientCa, ..valid(NOW + DAY_S, NOW + 99 * DAY_S) };
        let text = early.warning(NOW).unwrap().to_string();
        assert!(text.contains("CA of clients CN=x is not valid before 2027-01-16"), "{text}");
    }
}
