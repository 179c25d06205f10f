//! Answers as XML.

/// An answer in the making.
#[derive(Debug, Default)]
pub struct Xml(String);

impl Xml {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An element with text.
    #[must_use]
    pub fn text(mut self, name: &str, text: impl AsRef<str>) -> Self {
        self.open(name);
        for character in text.as_ref().chars() {
            match character {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                control if control.is_control() && !matches!(control, '\t' | '\n' | '\r') => {
                    self.0.push('\u{fffd}');
                }
                other => self.0.push(other),
            }
        }
        self.close(name)
    }

    /// An element with text, when there is one.
    #[must_use]
    pub fn maybe(self, name: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    /// An element with elements.
    #[must_use]
    pub fn inside(mut self, name: &str, inner: impl FnOnce(Self) -> Self) -> Self {
        self.open(name);
        inner(self).close(name)
    }

    /// A list: one `member` element for each.
    #[must_use]
    pub fn members<T>(
        self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut one: impl FnMut(Self, T) -> Self,
    ) -> Self {
        self.inside(name, |mut xml| {
            for item in items {
                xml.open("member");
                xml = one(xml, item).close("member");
            }
            xml
        })
    }

    /// A list of texts.
    #[must_use]
    pub fn texts<T: AsRef<str>>(self, name: &str, items: impl IntoIterator<Item = T>) -> Self {
        self.inside(name, |mut xml| {
            for item in items {
                xml = xml.text("member", item);
            }
            xml
        })
    }

    fn open(&mut self, name: &str) {
        self.0.push('<');
        self.0.push_str(name);
        self.0.push('>');
    }

    fn close(mut self, name: &str) -> Self {
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
        self
    }

    /// The text.
    #[must_use]
    pub fn done(self) -> String {
        self.0
    }
}

/// Percent-encoded (RFC 3986, section 2.1), as IAM shows documents.
#[must_use]
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
