//! Names and patterns that all parts share: wildcards, account numbers, canonical ids, times.

use serde::{Deserialize, Serialize};

/// Whether `text` matches `pattern`, in which `*` is any run of characters and `?` is any one.
///
/// Linear in the product of the lengths, whatever the pattern.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to resume when what follows the last star does not fit: one character further on.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(one) if *one == '?' || *one == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((after, from)) = star else { return false };
                p = after;
                t = from + 1;
                star = Some((after, from + 1));
            }
        }
    }
    pattern[p..].iter().all(|rest| *rest == '*')
}

/// An account's number: 12 decimal digits in ARNs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccountNumber(u64);

impl AccountNumber {
    /// Numbers lie below this.
    pub const LIMIT: u64 = 1_000_000_000_000;

    /// A number of at most 12 digits, made so from any other.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number % Self::LIMIT)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Reads exactly 12 digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse().ok().map(Self) } else { None }
    }
}

impl std::fmt::Display for AccountNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:012}", self.0)
    }
}

/// An account's canonical id: 64 hexadecimal digits in access control lists.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CanonicalId([u8; 32]);

impl CanonicalId {
    /// Takes 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl std::fmt::Display for CanonicalId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for CanonicalId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Milliseconds since 1970 of an ISO 8601 instant in UTC (`2026-01-31T23:59:59Z`, fraction optional, or
/// a date alone), or of a count of seconds.
#[must_use]
pub fn instant_millis(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(1000);
    }
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let mut pieces = date.split('-');
    let mut number = |digits: usize| {
        let piece = pieces.next()?;
        (piece.len() == digits).then(|| piece.parse::<i64>().ok()).flatten()
    };
    let (year, month, day) = (number(4)?, number(2)?, number(2)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) {
        return None;
    }
    let time = time.strip_suffix('Z').or_else(|| time.strip_suffix("+00:00"))?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut pieces = clock.split(':');
    let mut number = || {
        let piece = pieces.next()?;
        (piece.len() == 2).then(|| piece.parse::<i64>().ok()).flatten()
    };
    let (hour, minute, second) = (number()?, number()?, number().unwrap_or(0));
    if hour > 23 || minute > 59 || second > 60 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some((((days_from_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis)
}

/// `2026-01-31T23:59:59Z` of milliseconds since 1970.
#[must_use]
pub fn instant_text(millis: u64) -> String {
    let seconds = i64::try_from(millis / 1000).unwrap_or(0);
    let (mut year, mut left) = (1970, seconds / 86_400);
    loop {
        let days = if is_leap(year) { 366 } else { 365 };
        if left < days {
            break;
        }
        left -= days;
        year += 1;
    }
    let mut month = 1;
    while left >= days_of(year, month) {
        left -= days_of(year, month);
        month += 1;
    }
    let (day, rest) = (left + 1, seconds % 86_400);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let mut days = before * 365 + before / 4 - before / 100 + before / 400 - 719_162;
    let mut at = 1;
    while at < month {
        days += days_of(year, at);
        at += 1;
    }
    days + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match_as_shells_do() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbbd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*.jpg", "a/b/c.jpg", true),
            ("arn:aws:s3:::b/*", "arn:aws:s3:::b", false),
            ("**a**", "xxa", true),
            ("", "x", false),
            ("ä?", "äö", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        let (pattern, text) = ("a*".repeat(200), "a".repeat(2000) + "b");
        assert!(matches(&pattern, &text) && !matches(&format!("{pattern}c"), &text));
    }

    #[test]
    fn instants_are_read_and_written() {
        assert_eq!(instant_millis("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(instant_millis("2024-02-29T12:00:00.5Z"), Some(1_709_208_000_500));
        assert_eq!(instant_millis("1709208000"), Some(1_709_208_000_000));
        assert_eq!(instant_millis("2024-02-29"), Some(1_709_164_800_000));
        assert_eq!(instant_text(1_709_208_000_999), "2024-02-29T12:00:00Z");
        for wrong in ["2023-02-29T00:00:00Z", "2024-1-01T00:00:00Z", "2024-01-01T25:00:00Z", "soon", ""] {
            assert_eq!(instant_millis(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn account_numbers_have_twelve_digits() {
        assert_eq!(
            AccountNumber::parse("000000000012").map(|n| n.to_string()).as_deref(),
            Some("000000000012")
        );
        assert_eq!(AccountNumber::parse("12"), None);
        assert_eq!(AccountNumber::new(AccountNumber::LIMIT + 7).get(), 7);
    }
}
