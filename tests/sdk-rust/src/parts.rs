//! Uploads in parts, as the SDK's users write them.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use aws_sdk_s3::{
    Client,
    primitives::{ByteStream, Length},
    types::{CompletedMultipartUpload, CompletedPart},
};

/// Bytes of each part but the last; a file that is no larger is put as it is.
pub const SIZE: u64 = 8 << 20;

/// Uploads `file` in parts, one after the other.
///
/// # Errors
/// The first refusal, and what the file system says.
pub async fn upload(client: &Client, bucket: &str, key: &str, file: &Path) -> Result<()> {
    let begun = client.create_multipart_upload().bucket(bucket).key(key).send().await?;
    let id = begun.upload_id().context("an upload without an id")?;
    let size = fs::metadata(file)?.len();
    let mut done = Vec::new();
    let mut offset = 0;
    for number in 1.. {
        if offset == size {
            break;
        }
        let length = SIZE.min(size - offset);
        let body =
            ByteStream::read_from().path(file).offset(offset).length(Length::Exact(length)).build().await?;
        let part = client.upload_part().bucket(bucket).key(key).upload_id(id).part_number(number).body(body);
        let part = part.send().await?;
        done.push(
            CompletedPart::builder()
                .part_number(number)
                .set_e_tag(part.e_tag)
                .set_checksum_crc32(part.checksum_crc32)
                .build(),
        );
        offset += length;
    }
    let done = CompletedMultipartUpload::builder().set_parts(Some(done)).build();
    let complete = client.complete_multipart_upload().bucket(bucket).key(key).upload_id(id);
    complete.multipart_upload(done).send().await?;
    Ok(())
}
