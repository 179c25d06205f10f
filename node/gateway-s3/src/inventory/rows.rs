//! Rows of an inventory: CSV, every value quoted, keys written as in URLs; compressed as they come.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};
use holdfast_access::text::instant_text;
use holdfast_object::{
    api::{Attributes, ObjectError},
    versioned::{ListedVersion, attributes_of},
};
use md5::{Digest, Md5};

use super::config::{Field, Inventory};
use crate::{intake::checksum::Algorithm, ops::shared::version_text};

/// One data file, growing.
#[derive(Debug)]
pub(crate) struct File {
    gzip: GzEncoder<Vec<u8>>,
    rows: u64,
}

/// One that is done.
#[derive(Debug)]
pub(crate) struct Done {
    /// What is put.
    pub bytes: Vec<u8>,
    /// Its MD5, in hex.
    pub md5: String,
}

impl Default for File {
    fn default() -> Self {
        Self { gzip: GzEncoder::new(Vec::new(), Compression::default()), rows: 0 }
    }
}

impl File {
    /// Compressed bytes so far.
    pub(crate) fn size(&self) -> usize {
        self.gzip.get_ref().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Adds a row.
    ///
    /// # Errors
    /// `Damaged` when the version's attributes cannot be read.
    pub(crate) fn add(
        &mut self,
        inventory: &Inventory,
        bucket: &str,
        version: &ListedVersion,
    ) -> Result<(), ObjectError> {
        let row = row(inventory, bucket, version)?;
        self.gzip.write_all(row.as_bytes()).map_err(in_memory)?;
        self.rows += 1;
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// None that is expected: it is in memory.
    pub(crate) fn end(self) -> Result<Done, ObjectError> {
        let bytes = self.gzip.finish().map_err(in_memory)?;
        let md5 = hex::encode(Md5::digest(&bytes));
        Ok(Done { bytes, md5 })
    }
}

fn in_memory(error: io::Error) -> ObjectError {
    ObjectError::Internal(format!("compressing an inventory: {error}"))
}

fn row(inventory: &Inventory, bucket: &str, version: &ListedVersion) -> Result<String, ObjectError> {
    let mut values = vec![bucket.to_owned(), urlencoding::encode(&version.key).replace("%2F", "/")];
    if inventory.all_versions {
        // The null version has no id here, as on AWS.
        let id = if version.version.null { String::new() } else { version_text(version.version) };
        values.extend([id, version.latest.to_string(), version.marker.to_string()]);
    }
    let attributes = attributes_of(version)?;
    values.extend(inventory.fields.iter().map(|field| value(*field, version, &attributes)));
    let quoted: Vec<String> =
        values.iter().map(|value| format!("\"{}\"", value.replace('"', "\"\""))).collect();
    Ok(quoted.join(",") + "\n")
}

/// A column's value. A delete marker has the date of its making and nothing else.
fn value(field: Field, version: &ListedVersion, attributes: &Attributes) -> String {
    match field {
        Field::LastModifiedDate => instant_text(version.modified.get()),
        _ if version.marker => String::new(),
        Field::Size => version.size.to_string(),
        Field::StorageClass => attributes.storage_class().to_owned(),
        Field::ETag => version.etag.clone(),
        Field::IsMultipartUploaded => version.etag.contains('-').to_string(),
        // There is no replication to other clusters.
        Field::ReplicationStatus => String::new(),
        Field::ChecksumAlgorithm => {
            let kept = |algorithm: &&Algorithm| attributes.checksums.contains_key(algorithm.name());
            Algorithm::ALL.iter().find(kept).map_or(String::new(), |algorithm| algorithm.name().to_owned())
        }
    }
}
