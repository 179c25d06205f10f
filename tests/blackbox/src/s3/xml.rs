//! Reading the flat XML of S3 answers: text between tags, entities resolved.

/// Text of the first `<tag>` in `document`.
#[must_use]
pub fn first(document: &str, tag: &str) -> Option<String> {
    fields(document, tag).into_iter().next()
}

/// Text of every `<tag>` in `document`, in order. Nested elements come back as they stand.
#[must_use]
pub fn fields(document: &str, tag: &str) -> Vec<String> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let mut rest = document;
    let mut found = Vec::new();
    while let Some(start) = rest.find(&open) {
        let inner = &rest[start + open.len()..];
        let Some(end) = inner.find(&close) else { break };
        found.push(unescape(&inner[..end]));
        rest = &inner[end + close.len()..];
    }
    found
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        out.push_str(&rest[..start]);
        let entity = &rest[start..];
        let Some(end) = entity.find(';') else {
            out.push_str(entity);
            return out;
        };
        match resolve(&entity[1..end]) {
            Some(character) => out.push(character),
            None => out.push_str(&entity[..=end]),
        }
        rest = &entity[end + 1..];
    }
    out.push_str(rest);
    out
}

fn resolve(entity: &str) -> Option<char> {
    match entity {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = entity.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_and_its_entities_resolved() {
        let document = "<A><Key>a&amp;b</Key><Key>&#x41;&#10;&lt;</Key><Key>plain & open</Key></A>";
        assert_eq!(fields(document, "Key"), ["a&b", "A\n<", "plain & open"]);
        assert_eq!(first(document, "Absent"), None);
    }
}
