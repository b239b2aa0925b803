//! \[pure\] The two facts of an X.509 certificate that rustls doesn't tell: when it ends and its subject's common name.
//!
//! A minimal walk over DER (RFC 5280 section 4.1); it verifies nothing. Anything unexpected is `None`.

use rustls_pki_types::CertificateDer;
use std::time::{Duration, SystemTime};

const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xA0;
/// 2.5.4.3, commonName.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// One element off the front of `rest`: its tag and contents.
fn element<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, after) = rest.split_first()?;
    let (&first, mut after) = after.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let n = usize::from(first & 0x7F);
        if n == 0 || n > 4 || after.len() < n {
            return None;
        }
        let (bytes, rest) = after.split_at(n);
        after = rest;
        bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
    };
    let (contents, left) = after.split_at_checked(length)?;
    *rest = left;
    Some((tag, contents))
}

fn expect<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    element(rest).filter(|(found, _)| *found == tag).map(|(_, contents)| contents)
}

/// Validity and subject of a certificate.
fn validity_and_subject<'a>(certificate: &'a CertificateDer<'_>) -> Option<(&'a [u8], &'a [u8])> {
    let mut rest: &[u8] = certificate.as_ref();
    let mut outer = expect(&mut rest, SEQUENCE)?;
    let mut fields = expect(&mut outer, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        element(&mut fields)?;
    }
    expect(&mut fields, INTEGER)?;
    expect(&mut fields, SEQUENCE)?;
    expect(&mut fields, SEQUENCE)?;
    Some((expect(&mut fields, SEQUENCE)?, expect(&mut fields, SEQUENCE)?))
}

/// When the certificate ends.
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (mut validity, _) = validity_and_subject(certificate)?;
    element(&mut validity)?;
    let (tag, text) = element(&mut validity)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let number = |at: std::ops::Range<usize>| text.get(at)?.parse::<i64>().ok();
    let (year, rest) = match tag {
        // RFC 5280: two digits up to 49 are 20xx.
        UTC_TIME => (number(0..2).map(|y| if y < 50 { 2000 + y } else { 1900 + y })?, 2),
        GENERALIZED_TIME => (number(0..4)?, 4),
        _ => return None,
    };
    let part = |i: usize| number(rest + 2 * i..rest + 2 * i + 2);
    let (month, day, hour, minute, second) = (part(0)?, part(1)?, part(2)?, part(3)?, part(4)?);
    let days = days_from_civil(year, month, day)?;
    let seconds = u64::try_from(days * 86_400 + hour * 3_600 + minute * 60 + second).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// The subject's common name.
pub fn common_name<'a>(certificate: &'a CertificateDer<'_>) -> Option<&'a [u8]> {
    let (_, mut subject) = validity_and_subject(certificate)?;
    while !subject.is_empty() {
        let mut set = expect(&mut subject, SET)?;
        while !set.is_empty() {
            let mut pair = expect(&mut set, SEQUENCE)?;
            if expect(&mut pair, OID)? == COMMON_NAME {
                return element(&mut pair).map(|(_, name)| name);
            }
        }
    }
    None
}
