//! Shell patterns as module aliases use them: `*`, `?` and `[...]`.
//!
//! Linear in practice and bounded by `pattern * text` in the worst case: on a mismatch only the last
//! `*` is widened.

/// Does `pattern` match all of `text`?
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, t));
            p += 1;
            continue;
        }
        if let Some(next) = match_one(&pattern[p..], text[t]) {
            p += next;
            t += 1;
            continue;
        }
        let Some((after_star, start)) = retry else { return false };
        p = after_star;
        t = start + 1;
        retry = Some((after_star, t));
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Matches one byte against the head of `pattern`; returns how much of the pattern that used.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let end = pattern.iter().skip(2).position(|&b| b == b']')? + 2;
            let (set, negated) = match pattern[1] {
                b'!' | b'^' => (&pattern[2..end], true),
                _ => (&pattern[1..end], false),
            };
            (in_set(set, byte) != negated).then_some(end + 1)
        }
        literal => (literal == byte).then_some(1),
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    let mut i = 0;
    while i < set.len() {
        if i + 2 < set.len() && set[i + 1] == b'-' {
            if (set[i]..=set[i + 2]).contains(&byte) {
                return true;
            }
            i += 3;
        } else {
            if set[i] == byte {
                return true;
            }
            i += 1;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn device_aliases_match_as_modprobe_matches_them() {
        let device = "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00";
        assert!(matches("pci:v00001AF4d*sv*sd*bc*sc*i*", device));
        assert!(!matches("pci:v00008086d*sv*sd*bc*sc*i*", device));
        assert!(matches("pci:v*d*sv*sd*bc01sc0[0-3]i*", device));
        assert!(!matches("pci:v*d*sv*sd*bc01sc0[1-3]i*", device));
        assert!(matches("pci:v*d*sv*sd*bc01sc0[!1-3]i*", device));
        assert!(matches("virtio:d00000002v*", "virtio:d00000002v00001AF4"));
    }

    #[test]
    fn edges_of_the_pattern_language() {
        assert!(matches("", ""));
        assert!(matches("***", ""));
        assert!(!matches("", "a"));
        assert!(matches("a?c", "abc"));
        assert!(!matches("a?c", "ac"));
        assert!(matches("*b*b*c", "abxbyc"));
        assert!(!matches("*b*b*c", "abxyc"));
        assert!(!matches("[", "["), "an unclosed set matches nothing");
        assert!(!matches("[!]x", "a"));
    }
}
