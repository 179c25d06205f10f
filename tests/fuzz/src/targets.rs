//! The targets: from bytes to a word for what came of them. New words make an input worth keeping.
//!
//! Each also checks what must hold of whatever was parsed: written again, it is the same.

use std::fmt::Debug;

use holdfast_access::{
    form::FormPolicy,
    identity::Caller,
    policy::{Context, Kind, Policy, Question},
};
use holdfast_fault::nbd::protocol;
use holdfast_format::{
    CatalogRecordHeader, DriveLabel, Footer, FooterTrailer, FormatError, RecordHeader, ResumeBlock, Sector,
    SegmentHeader, TombstoneBlock, recognise,
};
use holdfast_model::limits::SECTOR_SIZE;
use holdfast_tpm::{answers, sealed::SealedKey};

use crate::image;

/// A parser to be fuzzed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// What to do with an input.
    pub run: fn(&[u8]) -> String,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "label", run: label },
    Target { name: "segment-header", run: segment_header },
    Target { name: "record-header", run: record_header },
    Target { name: "tombstones", run: tombstones },
    Target { name: "resume", run: resume },
    Target { name: "footer", run: footer },
    Target { name: "catalog-record", run: catalog_record },
    Target { name: "recognise", run: recognise_start },
    Target { name: "nbd", run: nbd },
    Target { name: "policy", run: policy },
    Target { name: "form-policy", run: form_policy },
    Target { name: "tpm-storage-key", run: answers::storage_key },
    Target { name: "tpm-session", run: answers::started },
    Target { name: "tpm-created", run: |bytes| answers::in_session(bytes, 0) },
    Target { name: "tpm-loaded", run: |bytes| answers::in_session(bytes, 1) },
    Target { name: "tpm-sealed-key", run: sealed_key },
    Target { name: "drive", run: image::drive },
];

/// A policy of any kind, asked about a request; what it says must not depend on a second look.
fn policy(bytes: &[u8]) -> String {
    let parsed = match Policy::parse(bytes) {
        Ok(parsed) => parsed,
        Err(error) => return error.0.split([':', '"']).next().unwrap_or_default().to_owned(),
    };
    let mut context = Context::default();
    context.set("aws:SourceIp", "192.0.2.1");
    context.set("aws:CurrentTime", "2026-01-01T00:00:00Z");
    context.set("aws:username", "a*b");
    context.set("s3:max-keys", "10");
    let question =
        Question { action: "s3:GetObject", resource: "arn:aws:s3:::bucket/a*b/key", context: &context };
    let caller = Caller::anonymous();
    let (as_identity, as_resource) = (parsed.of_identity(question), parsed.of_resource(question, &caller));
    assert_eq!(Policy::parse(bytes).map(|again| again.of_resource(question, &caller)), Ok(as_resource));
    let valid = parsed.validate(Kind::Bucket("bucket")).is_ok();
    format!("{valid} {} {as_identity:?}", parsed.is_public())
}

fn form_policy(bytes: &[u8]) -> String {
    let fields = [("key".to_owned(), "user/a".to_owned()), ("bucket".to_owned(), "b".to_owned())];
    match FormPolicy::parse(bytes) {
        Ok(policy) => format!("{:?}", policy.check(&fields, 0).map_err(|error| error.0)),
        Err(error) => error.1,
    }
}

fn sealed_key(bytes: &[u8]) -> String {
    match SealedKey::parse(bytes) {
        Ok(sealed) => {
            assert_eq!(sealed.encode(), bytes, "{sealed:?} is written differently");
            "sealed key".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

fn first_sector(bytes: &[u8]) -> Sector {
    let mut sector = [0; SECTOR_SIZE];
    let length = bytes.len().min(SECTOR_SIZE);
    sector[..length].copy_from_slice(&bytes[..length]);
    sector
}

/// A word for an error: without the bytes that were found, which are as many as there are inputs.
fn word<T>(parsed: &Result<T, FormatError>, size: impl FnOnce(&T) -> usize) -> String {
    match parsed {
        Ok(value) => format!("ok {}", size(value).checked_ilog2().unwrap_or(0)),
        Err(FormatError::Foreign { what, .. }) => format!("{what} foreign"),
        Err(FormatError::UnknownVersion { what, .. }) => format!("{what} version"),
        Err(FormatError::Reserved { what, .. }) => format!("{what} reserved"),
        Err(error) => error.to_string(),
    }
}

fn same_again<T: PartialEq + Debug>(
    parsed: &Result<T, FormatError>,
    original: &[u8],
    encode: impl FnOnce(&T, &mut Sector),
) {
    if let Ok(value) = parsed {
        let mut sector = [0xEE; SECTOR_SIZE];
        encode(value, &mut sector);
        assert_eq!(sector[..], original[..], "{value:?} is written differently");
    }
}

fn label(bytes: &[u8]) -> String {
    let sector = first_sector(bytes);
    let parsed = DriveLabel::parse(&sector);
    same_again(&parsed, &sector, |(label, copy), sector| label.encode(*copy, sector));
    word(&parsed, |(label, _)| label.layout.segments() as usize)
}

fn segment_header(bytes: &[u8]) -> String {
    let sector = first_sector(bytes);
    let parsed = SegmentHeader::parse(&sector);
    same_again(&parsed, &sector, SegmentHeader::encode);
    word(&parsed, |header| header.sectors as usize)
}

fn record_header(bytes: &[u8]) -> String {
    let sector = first_sector(bytes);
    let parsed = RecordHeader::parse(&sector);
    same_again(&parsed, &sector, RecordHeader::encode);
    if let Ok(header) = &parsed {
        // The rest of the input is the payload, or part of it, or more than it.
        let payload = &bytes[bytes.len().min(SECTOR_SIZE)..];
        let _ = header.blocks.verify(0, payload);
        let _ = header.blocks.verify(1, payload);
        assert!(header.sectors() as usize * SECTOR_SIZE >= header.payload_len as usize + SECTOR_SIZE);
    }
    word(&parsed, |header| header.payload_len as usize)
}

fn tombstones(bytes: &[u8]) -> String {
    let sector = first_sector(bytes);
    let parsed = TombstoneBlock::parse(&sector);
    same_again(&parsed, &sector, TombstoneBlock::encode);
    word(&parsed, |block| block.entries.len())
}

fn resume(bytes: &[u8]) -> String {
    let parsed = ResumeBlock::parse(&first_sector(bytes));
    let Ok(block) = &parsed else { return word(&parsed, |_| 0) };
    let table = bytes.get(SECTOR_SIZE..).unwrap_or_default();
    let length = (block.table_sectors() as usize).saturating_mul(SECTOR_SIZE);
    let table = &table[..table.len().min(length)];
    let entries = block.parse_table(table);
    if let Ok((records, tombstones)) = &entries {
        let again =
            ResumeBlock::encode(block.place, block.sectors, block.lost, block.next, records, tombstones);
        assert_eq!(again[SECTOR_SIZE..], table[..], "the table is written differently");
    }
    format!("table {}", word(&entries, |(records, tombstones)| records.len() + tombstones.len()))
}

fn footer(bytes: &[u8]) -> String {
    let whole = &bytes[..bytes.len() / SECTOR_SIZE * SECTOR_SIZE];
    let Some((table, trailer)) = whole.split_last_chunk::<SECTOR_SIZE>() else { return "short".to_owned() };
    let parsed = FooterTrailer::parse(trailer);
    let Ok(trailer) = &parsed else { return word(&parsed, |_| 0) };
    let length = (trailer.table_sectors() as usize).saturating_mul(SECTOR_SIZE);
    let table = &table[table.len().saturating_sub(length)..];
    let entries = Footer::parse(trailer, table);
    if let Ok(footer) = &entries {
        assert_eq!(footer.encode()[..length], table[..], "the table is written differently");
    }
    format!("table {}", word(&entries, |footer| footer.records.len() + footer.tombstones.len()))
}

fn catalog_record(bytes: &[u8]) -> String {
    let parsed = CatalogRecordHeader::parse(bytes);
    if let Ok((header, body)) = &parsed {
        assert_eq!(
            header.encode()[..],
            bytes[..CatalogRecordHeader::SIZE],
            "{header:?} is written differently"
        );
        assert_eq!(body.len(), header.length as usize);
    }
    word(&parsed, |(_, body)| body.len())
}

fn recognise_start(bytes: &[u8]) -> String {
    recognise(bytes).unwrap_or("nothing").to_owned()
}

fn nbd(bytes: &[u8]) -> String {
    // A client: what it says is the input, what it hears is counted.
    struct Client<'a>(&'a [u8], usize);
    impl std::io::Read for Client<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl std::io::Write for Client<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.1 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut client = Client(bytes, 0);
    let shaken = protocol::handshake(&mut client, 1 << 30);
    let request = client.0.first_chunk().map(protocol::Request::parse);
    let request = request.map(|parsed| match parsed.map(|request| request.command) {
        Ok(protocol::Command::Other(_)) => "other".to_owned(),
        other => format!("{:?}", other.map_err(|error| error.kind())),
    });
    format!("{:?} {} {request:?}", shaken.map_err(|e| e.kind()), client.1.min(400))
}
