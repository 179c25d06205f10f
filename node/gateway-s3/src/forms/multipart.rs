//! `multipart/form-data` (RFC 7578, RFC 2046 section 5.1), as it streams in: fields first, then the file.
//!
//! Invariant: what is held is the fields, within their limit, and at most one boundary's length of the file
//! beside the piece at hand. Whatever follows the file is read over, but the closing boundary must come.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};

use crate::{
    errors::Refusal,
    intake::{Fault, Source},
    limits::{FORM_FIELDS_MAX, FORM_FIELDS_SIZE_MAX},
};

/// Longest boundary in bytes (RFC 2046, section 5.1.1).
const BOUNDARY_SIZE_MAX: usize = 70;

/// The fields of a form, up to its file.
#[derive(Debug, Default)]
pub(crate) struct Form {
    /// Names in lower case, in their order.
    pub fields: Vec<(String, String)>,
    /// The file's name, without directories.
    pub filename: String,
}

fn malformed() -> Refusal {
    Refusal::new("MalformedPOSTRequest")
}

/// The boundary that a `Content-Type` names.
pub(crate) fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"').to_owned())
    })?;
    (1..=BOUNDARY_SIZE_MAX).contains(&value.len()).then_some(value)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Reads until the file begins.
///
/// # Errors
/// `MalformedPOSTRequest`, `MaxPostPreDataLengthExceeded`, `InvalidArgument` when there is no file, and
/// what the connection came to.
pub(crate) async fn open(source: &mut Source, boundary: &str) -> Result<(Form, Bytes), Refusal> {
    let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
    // A first delimiter needs no line before it; with one put there all are alike.
    let mut buffer = BytesMut::from(&b"\r\n"[..]);
    let mut form = Form::default();
    let mut taken = 0;
    let mut more = async |buffer: &mut BytesMut, source: &mut Source| {
        let piece = source.next().await.ok_or_else(malformed)?.map_err(|fault| Refusal::from(&fault))?;
        taken += piece.len();
        buffer.extend_from_slice(&piece);
        // What came of the file with the last piece is not counted against the fields.
        if taken > FORM_FIELDS_SIZE_MAX + piece.len() {
            return Err(Refusal::new("MaxPostPreDataLengthExceeded"));
        }
        Ok(())
    };
    // The preamble.
    loop {
        if let Some(at) = find(&buffer, &delimiter) {
            buffer.advance(at + delimiter.len());
            break;
        }
        more(&mut buffer, source).await?;
    }
    loop {
        while buffer.len() < 2 {
            more(&mut buffer, source).await?;
        }
        if buffer.starts_with(b"--") {
            let said = "POST requires exactly one file upload per request.";
            return Err(Refusal::because("InvalidArgument", said)
                .with("ArgumentName", "file")
                .with("ArgumentValue", "0"));
        }
        if !buffer.starts_with(b"\r\n") {
            return Err(malformed());
        }
        let head = loop {
            if let Some(at) = find(&buffer, b"\r\n\r\n") {
                break buffer.split_to(at + 4);
            }
            more(&mut buffer, source).await?;
        };
        let part = Part::parse(&head)?;
        if part.name == "file" {
            form.filename = part.filename.unwrap_or_default();
            return Ok((form, buffer.freeze()));
        }
        let value = loop {
            if let Some(at) = find(&buffer, &delimiter) {
                let value = buffer.split_to(at);
                buffer.advance(delimiter.len());
                break value;
            }
            more(&mut buffer, source).await?;
        };
        if form.fields.len() >= FORM_FIELDS_MAX {
            return Err(Refusal::new("MaxPostPreDataLengthExceeded"));
        }
        let value = String::from_utf8(value.to_vec()).map_err(|_| malformed())?;
        form.fields.push((part.name, value));
    }
}

/// The head of one part.
struct Part {
    name: String,
    filename: Option<String>,
}

impl Part {
    fn parse(head: &[u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(head).map_err(|_| malformed())?;
        let (mut name, mut filename) = (None, None);
        for line in text.split("\r\n").filter(|line| !line.is_empty()) {
            let (header, value) = line.split_once(':').ok_or_else(malformed)?;
            if header.trim().eq_ignore_ascii_case("content-disposition") {
                name = parameter(value, "name");
                filename = parameter(value, "filename");
            }
        }
        let name = name.ok_or_else(malformed)?.to_lowercase();
        // Browsers of old send the whole path.
        let base = |path: String| path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
        Ok(Self { name, filename: filename.map(base) })
    }
}

/// A parameter of `form-data; name="..."; filename="..."`; a quote within is `\"` or `%22`.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (found, left) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut text = String::new();
                let mut characters = quoted.char_indices();
                let end = loop {
                    match characters.next()? {
                        (_, '\\') => text.push(characters.next()?.1),
                        (at, '"') => break at + 1,
                        (_, other) => text.push(other),
                    }
                };
                (text, quoted[end..].trim_start().strip_prefix(';').unwrap_or(""))
            }
            None => {
                let (text, left) = after.split_once(';').unwrap_or((after, ""));
                (text.trim().to_owned(), left)
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(found);
        }
        rest = left;
    }
}

/// The file, as a stream that ends at its delimiter.
pub(crate) struct File {
    buffer: BytesMut,
    source: Source,
    delimiter: Vec<u8>,
    at: At,
}

/// Where in the form a [`File`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In the file.
    Content,
    /// Right behind a delimiter: two bytes tell whether it was the closing one.
    Delimiter,
    /// In a part after the file, of which nothing is of interest.
    Behind,
    /// Behind everything, or broken.
    End,
}

impl File {
    /// `first` is what [`open`] read of it already.
    pub(crate) fn new(first: Bytes, source: Source, boundary: &str) -> Self {
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        Self { buffer: BytesMut::from(&first[..]), source, delimiter, at: At::Content }
    }

    /// What can be said from the bytes at hand: a piece of content, or that more is needed.
    fn step(&mut self) -> Option<Bytes> {
        loop {
            match self.at {
                At::Content => match find(&self.buffer, &self.delimiter) {
                    Some(at) => {
                        let last = self.buffer.split_to(at).freeze();
                        self.buffer.advance(self.delimiter.len());
                        self.at = At::Delimiter;
                        if !last.is_empty() {
                            return Some(last);
                        }
                    }
                    None => {
                        // All but what may be the beginning of a delimiter.
                        let safe = self.buffer.len().saturating_sub(self.delimiter.len());
                        return (safe > 0).then(|| self.buffer.split_to(safe).freeze());
                    }
                },
                At::Delimiter if self.buffer.len() < 2 => return None,
                At::Delimiter if self.buffer.starts_with(b"--") => self.at = At::End,
                At::Delimiter => self.at = At::Behind,
                At::Behind => match find(&self.buffer, &self.delimiter) {
                    Some(at) => {
                        self.buffer.advance(at + self.delimiter.len());
                        self.at = At::Delimiter;
                    }
                    None => {
                        self.buffer.advance(self.buffer.len().saturating_sub(self.delimiter.len()));
                        return None;
                    }
                },
                At::End => return None,
            }
        }
    }
}

impl Stream for File {
    type Item = Result<Bytes, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(content) = this.step() {
                return Poll::Ready(Some(Ok(content)));
            }
            if this.at == At::End {
                return Poll::Ready(None);
            }
            match ready!(this.source.as_mut().poll_next(cx)) {
                Some(Ok(piece)) => this.buffer.extend_from_slice(&piece),
                Some(Err(fault)) => {
                    this.at = At::End;
                    return Poll::Ready(Some(Err(fault)));
                }
                None => {
                    this.at = At::End;
                    return Poll::Ready(Some(Err(Fault::Form("it ends without its closing boundary"))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nup/${filename}\r\n--b\r\n\
        Content-Disposition: form-data; name=\"File\"; filename=\"C:\\\\dir\\\\a \\\"b\\\".txt\"\r\n\
        Content-Type: text/plain\r\n\r\nline\r\n--not it\r\n\r\n--b\r\n\
        Content-Disposition: form-data; name=\"late\"\r\n\r\nx\r\n--b--\r\n";

    fn pieces(body: &str, size: usize) -> Source {
        let pieces: Vec<_> =
            body.as_bytes().chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Box::pin(futures::stream::iter(pieces))
    }

    async fn read(body: &str, size: usize) -> Result<(Form, Result<Vec<u8>, Fault>), Refusal> {
        let mut source = pieces(body, size);
        let (form, first) = open(&mut source, "b").await?;
        let mut file = File::new(first, source, "b");
        let mut content = Vec::new();
        while let Some(piece) = file.next().await {
            match piece {
                Ok(piece) => content.extend_from_slice(&piece),
                Err(fault) => return Ok((form, Err(fault))),
            }
        }
        Ok((form, Ok(content)))
    }

    #[tokio::test]
    async fn fields_and_file_are_the_same_however_the_body_is_cut() {
        for size in 1..BODY.len() {
            let (form, content) = read(BODY, size).await.unwrap();
            assert_eq!(form.fields, [("key".to_owned(), "up/${filename}".to_owned())], "{size}");
            assert_eq!(form.filename, "a \"b\".txt");
            assert_eq!(content.unwrap(), b"line\r\n--not it\r\n", "{size}");
        }
    }

    #[tokio::test]
    async fn a_form_cut_anywhere_is_refused() {
        for end in 0..BODY.len() - 4 {
            match read(&BODY[..end], 7).await {
                Ok((_, content)) => assert!(content.is_err(), "{end}"),
                Err(refusal) => assert_eq!(refusal.code, "MalformedPOSTRequest", "{end}"),
            }
        }
    }

    #[tokio::test]
    async fn a_form_without_a_file_or_with_too_many_fields_is_refused() {
        let field = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nv\r\n";
        let refused = read(&format!("{field}--b--\r\n"), 5).await.unwrap_err();
        assert_eq!(refused.code, "InvalidArgument");
        let refused = read(&field.repeat(FORM_FIELDS_MAX + 2), 4096).await.unwrap_err();
        assert_eq!(refused.code, "MaxPostPreDataLengthExceeded");
        let long =
            format!("--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n{}", "v".repeat(200_000));
        assert_eq!(read(&long, 4096).await.unwrap_err().code, "MaxPostPreDataLengthExceeded");
    }

    #[test]
    fn boundaries_are_read_quoted_and_bare() {
        assert_eq!(boundary("multipart/form-data; boundary=\"a b\"").as_deref(), Some("a b"));
        assert_eq!(boundary("Multipart/Form-Data; charset=x; Boundary=abc").as_deref(), Some("abc"));
        for wrong in ["multipart/form-data", "text/plain; boundary=a", "multipart/form-data; boundary="] {
            assert_eq!(boundary(wrong), None, "{wrong}");
        }
    }
}
