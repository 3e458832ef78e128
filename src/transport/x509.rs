//! As much of a certificate as a broker needs: its version, who signed it, when it is valid, whom it names, its key.
//!
//! What it is not: verification. The bytes may come from a peer that nobody has checked yet, so nothing in here trusts a
//! length. DER, by X.690; the fields by RFC 5280, 4.1; the text of a subject by RFC 4514.

use std::fmt::Write;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const UTF8_STRING: u8 = 0x0C;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
/// `[0] EXPLICIT`, which holds the version.
const VERSION: u8 = 0xA0;

/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// Attributes that RFC 4514 writes by name.
const NAMED: [(&[u8], &str); 9] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x09], "STREET"),
    (&[0x55, 0x04, 0x0A], "O"),
    (&[0x55, 0x04, 0x0B], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 0x01, 0x01], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 0x01, 0x19], "DC"),
];

/// What was found in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// 1, 2 or 3, as X.509 counts them; 0 for a version that does not exist.
    pub version: u8,
    /// Seconds since 1970; the certificate is valid in both of these and in between.
    pub not_before_s: u64,
    pub not_after_s: u64,
    /// The name of the signer, without its tag and length.
    pub issuer: &'a [u8],
    /// The whole SubjectPublicKeyInfo.
    pub public_key: &'a [u8],
    pub signed: Signed<'a>,
    /// Nothing stands behind the public key, and nothing behind the signature: there are no extensions, and no byte is
    /// left out of the signature.
    pub is_bare: bool,
    /// Relative names in the order of the certificate, each a set of attributes.
    subject: Vec<Vec<Attribute<'a>>>,
}

/// What the signer of a certificate has signed, and how.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    pub bytes: &'a [u8],
    /// The contents of the AlgorithmIdentifier beside the signature.
    pub algorithm: &'a [u8],
    pub signature: &'a [u8],
    /// The signed bytes name the same algorithm.
    pub algorithms_agree: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Attribute<'a> {
    oid: &'a [u8],
    tag: u8,
    value: &'a [u8],
}

impl Attribute<'_> {
    /// The value as text; `None` for kinds of strings that nobody should use any more, and for text that a name cannot
    /// be: empty or with control characters.
    fn text(&self) -> Option<&str> {
        let text = match self.tag {
            UTF8_STRING => std::str::from_utf8(self.value).ok()?,
            PRINTABLE_STRING | IA5_STRING if self.value.is_ascii() => std::str::from_utf8(self.value).ok()?,
            _ => return None,
        };
        (!text.is_empty() && !text.chars().any(char::is_control)).then_some(text)
    }
}

impl<'a> Certificate<'a> {
    /// Reads a certificate in DER; `None` if it is not one.
    pub fn parse(der: &'a [u8]) -> Option<Certificate<'a>> {
        let mut outer = Der(der);
        let mut parts = Der(outer.expect(SEQUENCE)?);
        let bytes = parts.whole(SEQUENCE)?;
        let mut fields = Der(Der(bytes).expect(SEQUENCE)?);
        let version = match fields.next_if(VERSION)? {
            None => 1,
            Some(value) => match Der(value).expect(INTEGER)? {
                [version @ 0..=2] => version + 1,
                _ => 0,
            },
        };
        fields.expect(INTEGER)?; // serial number
        let inner_algorithm = fields.expect(SEQUENCE)?;
        let issuer = fields.expect(SEQUENCE)?;
        let mut validity = Der(fields.expect(SEQUENCE)?);
        let (before_tag, not_before) = validity.next()?;
        let (after_tag, not_after) = validity.next()?;
        let subject = names(fields.expect(SEQUENCE)?)?;
        let public_key = fields.whole(SEQUENCE)?;
        let algorithm = parts.expect(SEQUENCE)?;
        let signature = parts.bits()?;
        Some(Certificate {
            version,
            not_before_s: time(before_tag, not_before)?,
            not_after_s: time(after_tag, not_after)?,
            issuer,
            public_key,
            signed: Signed { bytes, algorithm, signature, algorithms_agree: inner_algorithm == algorithm },
            is_bare: fields.is_empty() && parts.is_empty() && outer.is_empty(),
            subject,
        })
    }

    /// The Common Name. `None` without one, and with several, since it would be anybody's guess which one counts.
    pub fn common_name(&self) -> Option<String> {
        let mut names = self.subject.iter().flatten().filter(|attribute| attribute.oid == COMMON_NAME);
        match (names.next(), names.next()) {
            (Some(name), None) => name.text().map(str::to_owned),
            _ => None,
        }
    }

    /// The subject as RFC 4514 writes it, the last relative name first; `None` for an empty one and for one with a
    /// value that is no text.
    pub fn subject_text(&self) -> Option<String> {
        let mut out = String::new();
        for (index, names) in self.subject.iter().rev().enumerate() {
            for (inner, attribute) in names.iter().enumerate() {
                match (index, inner) {
                    (0, 0) => {}
                    (_, 0) => out.push(','),
                    _ => out.push('+'),
                }
                push_type(&mut out, attribute.oid)?;
                out.push('=');
                push_escaped(&mut out, attribute.text()?);
            }
        }
        (!out.is_empty()).then_some(out)
    }
}

/// The relative names of a Name, each a set of attributes.
fn names(der: &[u8]) -> Option<Vec<Vec<Attribute<'_>>>> {
    let mut names = Der(der);
    let mut found = Vec::new();
    while !names.is_empty() {
        let mut set = Der(names.expect(SET)?);
        let mut attributes = Vec::new();
        while !set.is_empty() {
            let mut pair = Der(set.expect(SEQUENCE)?);
            let oid = pair.expect(OBJECT_IDENTIFIER)?;
            let (tag, value) = pair.next()?;
            attributes.push(Attribute { oid, tag, value });
        }
        found.push(attributes);
    }
    Some(found)
}

/// The two parts of a SubjectPublicKeyInfo: the contents of its AlgorithmIdentifier, and the key.
pub fn key_parts(contents: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = Der(contents);
    let algorithm = parts.expect(SEQUENCE)?;
    let key = parts.bits()?;
    parts.is_empty().then_some((algorithm, key))
}

/// The contents of `der`, if it is one SEQUENCE and nothing else.
pub fn sequence(der: &[u8]) -> Option<&[u8]> {
    let mut outer = Der(der);
    let contents = outer.expect(SEQUENCE)?;
    outer.is_empty().then_some(contents)
}

fn push_type(out: &mut String, oid: &[u8]) -> Option<()> {
    if let Some((_, name)) = NAMED.iter().find(|(known, _)| *known == oid) {
        out.push_str(name);
        return Some(());
    }
    let mut arcs = oid.split_inclusive(|byte| byte & 0x80 == 0);
    let mut number = || {
        let digits = arcs.next()?;
        // Five groups of seven bits: more than any arc in use.
        (digits.len() <= 5 && digits.last()? & 0x80 == 0)
            .then(|| digits.iter().fold(0u64, |sum, digit| sum << 7 | u64::from(digit & 0x7F)))
    };
    let first = number()?;
    let (root, second) = if first < 80 { (first / 40, first % 40) } else { (2, first - 80) };
    let _ = write!(out, "{root}.{second}");
    while let Some(arc) = number() {
        let _ = write!(out, ".{arc}");
    }
    Some(())
}

/// RFC 4514, 2.4.
fn push_escaped(out: &mut String, text: &str) {
    let last = text.chars().count() - 1;
    for (index, c) in text.chars().enumerate() {
        let special = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=');
        if special || (c == '#' && index == 0) || (c == ' ' && (index == 0 || index == last)) {
            out.push('\\');
        }
        out.push(c);
    }
}

/// The rest of a sequence of DER values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next tag and its value.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7F => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
                (digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, value))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }

    /// As `expect`, with the tag and the length.
    fn whole(&mut self, tag: u8) -> Option<&'a [u8]> {
        let before = self.0;
        self.expect(tag)?;
        before.get(..before.len() - self.0.len())
    }

    /// The bytes of a BIT STRING of whole bytes.
    fn bits(&mut self) -> Option<&'a [u8]> {
        match self.expect(BIT_STRING)? {
            [0, bytes @ ..] => Some(bytes),
            _ => None,
        }
    }

    /// The next value if it has this tag; `None` inside if it has another one.
    fn next_if(&mut self, tag: u8) -> Option<Option<&'a [u8]>> {
        if self.0.first() == Some(&tag) { self.next().map(|(_, value)| Some(value)) } else { Some(None) }
    }
}

/// Seconds since 1970 of `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`; moments before 1970 are 0. RFC 5280, 4.1.2.5.
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = digits.split_at(2);
            (number(year) + if number(year) < 50 { 2000 } else { 1900 }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at(4);
            (number(year), rest)
        }
        _ => return None,
    };
    let [month, day, hour, minute, second] =
        std::array::from_fn(|pair| number(&rest[pair * 2..pair * 2 + 2]));
    let sound =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !sound {
        return None;
    }
    // Days since 0000-03-01 in years that begin in March, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468;
    u64::try_from(((days * 24 + hour) * 60 + minute) * 60 + second).ok().or(Some(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, date_time_ymd};

    use super::*;

    fn der(subject: &[(DnType, DnValue)], not_after: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.not_after = date_time_ymd(not_after.0, not_after.1, not_after.2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn text(value: &str) -> DnValue {
        DnValue::Utf8String(value.to_owned())
    }

    #[test]
    fn the_subject_is_read_in_both_forms() {
        let der = der(
            &[
                (DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap())),
                (DnType::OrganizationName, text("Acme, Inc. ")),
                (DnType::CustomDnType(vec![2, 999, 70_000]), text("#x")),
                (DnType::CommonName, text("sensor-1/ä+b")),
            ],
            (2030, 2, 28),
        );
        let certificate = Certificate::parse(&der).unwrap();
        assert_eq!(certificate.common_name().unwrap(), "sensor-1/ä+b");
        assert_eq!(
            certificate.subject_text().unwrap(),
            r"CN=sensor-1/ä\+b,2.999.70000=\#x,O=Acme\, Inc.\ ,C=DE"
        );
        assert_eq!((certificate.not_before_s, certificate.not_after_s), (157_766_400, 1_898_467_200));
        assert_eq!((certificate.version, certificate.is_bare), (3, true), "without extensions");
        assert!(certificate.signed.algorithms_agree && der.ends_with(certificate.signed.signature));
        let (algorithm, key) = key_parts(sequence(certificate.public_key).unwrap()).unwrap();
        assert!(algorithm.len() == 19 && key.len() == 65, "a key on the curve P-256");
    }

    #[test]
    fn a_name_that_could_be_two_is_none() {
        let none = der(&[(DnType::OrganizationName, text("Acme"))], (2030, 1, 1));
        assert_eq!(Certificate::parse(&none).unwrap().common_name(), None);
        let twice = Attribute { oid: COMMON_NAME, tag: UTF8_STRING, value: b"a" };
        let subject = vec![vec![twice], vec![Attribute { value: b"b", ..twice }]];
        let der = none;
        let named = |subject| Certificate { subject, ..Certificate::parse(&der).unwrap() };
        assert_eq!(named(subject).common_name(), None);
        for bad in [&b""[..], b"a\0b", b"a\nb", b"\xFF"] {
            let subject = vec![vec![Attribute { value: bad, ..twice }]];
            let certificate = named(subject);
            assert_eq!((certificate.common_name(), certificate.subject_text()), (None, None), "{bad:?}");
        }
        let bmp = vec![vec![Attribute { tag: 0x1E, ..twice }]];
        assert_eq!(named(bmp).common_name(), None);
    }

    #[test]
    fn moments() {
        assert_eq!(time(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(time(UTC_TIME, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(time(UTC_TIME, b"500101000000Z"), Some(0));
        assert_eq!(time(GENERALIZED_TIME, b"20240229120000Z"), Some(1_709_208_000));
        assert_eq!(time(GENERALIZED_TIME, b"99991231235959Z"), Some(253_402_300_799));
        for wrong in [&b"20240229120000"[..], b"20241329120000Z", b"2024022912000Z", b"2024022912000xZ", b"Z"]
        {
            assert_eq!(time(GENERALIZED_TIME, wrong), None);
        }
        assert_eq!(time(SEQUENCE, b"700101000000Z"), None);
    }

    #[test]
    fn no_cut_and_no_changed_byte_breaks_it() {
        let whole = der(&[(DnType::CommonName, text("x"))], (2050, 1, 1));
        assert!(Certificate::parse(&whole).is_some());
        for len in 0..whole.len() {
            let _ = Certificate::parse(&whole[..len]).map(|cut| (cut.common_name(), cut.subject_text()));
            for bit in 0..8 {
                let mut bent = whole.clone();
                bent[len] ^= 1 << bit;
                let _ = Certificate::parse(&bent).map(|bent| (bent.common_name(), bent.subject_text()));
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Certificate::parse(&bytes);
            let mut out = String::new();
            let _ = push_type(&mut out, &bytes);
        }
    }
}
