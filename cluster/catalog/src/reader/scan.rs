//! What all listings share: the order of S3 (by the bytes of the key), roll-up at a delimiter, pages.
//!
//! Keys that share what stands before the next delimiter are rolled up into one common prefix, and the
//! scan goes on behind all of them by seeking: a page costs the same whether a prefix stands for one key
//! or for a billion.

/// Where a listing looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    pub(super) prefix: &'a str,
    delimiter: Option<&'a str>,
}

impl<'a> Window<'a> {
    /// An empty delimiter is like none.
    pub(super) fn new(prefix: &'a str, delimiter: Option<&'a str>) -> Self {
        Self { prefix, delimiter: delimiter.filter(|d| !d.is_empty()) }
    }

    /// The least byte string behind all keys of the window.
    pub(super) fn end(&self) -> Option<Vec<u8>> {
        successor(self.prefix.as_bytes())
    }

    /// The common prefix that `key` is shown as, delimiter included.
    pub(super) fn rolled_up<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.delimiter?;
        let rest = key.strip_prefix(self.prefix)?;
        let at = rest.find(delimiter)?;
        Some(&key[..self.prefix.len() + at + delimiter.len()])
    }

    /// The first key that a page after `after` may show. With `inclusive`, `after` itself may be shown.
    /// `None`: nothing can come any more.
    pub(super) fn start(&self, after: Option<&str>, inclusive: bool) -> Option<Vec<u8>> {
        let prefix = self.prefix.as_bytes();
        let Some(after) = after.filter(|after| after.as_bytes() >= prefix) else {
            return Some(prefix.to_vec());
        };
        // What is rolled up into a prefix at or before `after` has been shown.
        if let Some(rolled) = self.rolled_up(after) {
            return successor(rolled.as_bytes());
        }
        // The least key greater than `after`: itself and a zero byte.
        Some(if inclusive { after.as_bytes().to_vec() } else { [after.as_bytes(), &[0]].concat() })
    }
}

/// The least byte string greater than every string that begins with `prefix`. `None` when there is none.
pub(super) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut next = prefix[..=kept].to_vec();
    next[kept] += 1;
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successors_are_the_least_bound() {
        assert_eq!(successor(b"a/").unwrap(), b"a0");
        assert_eq!(successor(&[b'a', 255, 255]).unwrap(), b"b");
        assert_eq!(successor(&[]), None);
        assert_eq!(successor(&[255]), None);
    }

    #[test]
    fn a_page_starts_behind_what_was_shown() {
        let window = Window::new("a/", Some("/"));
        assert_eq!(window.start(None, false).unwrap(), b"a/");
        assert_eq!(window.start(Some("a"), false).unwrap(), b"a/");
        assert_eq!(window.start(Some("a/b"), false).unwrap(), b"a/b\0");
        assert_eq!(window.start(Some("a/b"), true).unwrap(), b"a/b");
        assert_eq!(window.start(Some("a/b/c"), true).unwrap(), b"a/b0");
    }
}
