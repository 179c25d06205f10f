//! Copies a tree of files to a bucket and back with Amazon's SDK for Rust, certificates verified.
//!
//! `holdfast-sdk-client mb BUCKET | in BUCKET PREFIX DIR | ls BUCKET PREFIX | out BUCKET PREFIX DIR`
//!
//! Keys, region, endpoint and CA come from the environment, under the names that all of Amazon's clients use. `ls`
//! prints {path below the prefix: size} as JSON. Everything else prints nothing and fails on the first error.

mod parts;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use aws_sdk_s3::{
    Client,
    config::{Builder, Credentials, Region},
    primitives::ByteStream,
    types::Object,
};
use aws_smithy_http_client::{
    Builder as HttpClient,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::{fs::File, io};

const FILES_AT_ONCE: usize = 8;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let client = client()?;
    match arguments[..] {
        ["mb", bucket] => drop(client.create_bucket().bucket(bucket).send().await?),
        ["in", bucket, prefix, root] => copy_in(&client, bucket, prefix, Path::new(root)).await?,
        ["ls", bucket, prefix] => {
            println!("{}", serde_json::to_string(&sizes(&client, bucket, prefix).await?)?);
        }
        ["out", bucket, prefix, root] => copy_out(&client, bucket, prefix, Path::new(root)).await?,
        _ => bail!("usage: mb BUCKET | in BUCKET PREFIX DIR | ls BUCKET PREFIX | out BUCKET PREFIX DIR"),
    }
    Ok(())
}

fn client() -> Result<Client> {
    let set = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
    let ca = fs::read(set("AWS_CA_BUNDLE")?).context("reading the CA")?;
    let trust =
        TlsContext::builder().with_trust_store(TrustStore::empty().with_pem_certificate(ca)).build()?;
    let https = HttpClient::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(trust);
    let keys =
        Credentials::new(set("AWS_ACCESS_KEY_ID")?, set("AWS_SECRET_ACCESS_KEY")?, None, None, "environment");
    let config = Builder::new()
        .behavior_version_latest()
        .region(Region::new(set("AWS_DEFAULT_REGION")?))
        .endpoint_url(set("AWS_ENDPOINT_URL")?)
        .force_path_style(true)
        .credentials_provider(keys)
        .http_client(https.build_https())
        .build();
    Ok(Client::from_conf(config))
}

/// Files below `directory`, itself below `root`; both kinds of paths end up relative to `root`.
fn files(root: &Path, directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            files(root, &path, found)?;
        } else {
            found.push(path.strip_prefix(root)?.to_owned());
        }
    }
    Ok(())
}

async fn copy_in(client: &Client, bucket: &str, prefix: &str, root: &Path) -> Result<()> {
    let mut found = Vec::new();
    files(root, root, &mut found)?;
    stream::iter(found)
        .map(anyhow::Ok)
        .try_for_each_concurrent(FILES_AT_ONCE, |path| async move {
            let key = format!("{prefix}/{}", path.to_str().context("a name that is no UTF-8")?);
            let file = root.join(&path);
            if fs::metadata(&file)?.len() > parts::SIZE {
                return parts::upload(client, bucket, &key, &file).await;
            }
            let body = ByteStream::from_path(&file).await?;
            client.put_object().bucket(bucket).key(&key).body(body).send().await?;
            Ok(())
        })
        .await
}

async fn listing(client: &Client, bucket: &str, prefix: &str) -> Result<Vec<Object>> {
    let pages = client.list_objects_v2().bucket(bucket).prefix(format!("{prefix}/"));
    let mut pages = pages.into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        found.extend(page?.contents.unwrap_or_default());
    }
    Ok(found)
}

/// A key without its prefix.
fn below<'k>(key: &'k str, prefix: &str) -> Result<&'k str> {
    key.strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('/'))
        .with_context(|| format!("{key} is not below {prefix}"))
}

async fn sizes(client: &Client, bucket: &str, prefix: &str) -> Result<BTreeMap<String, i64>> {
    let mut sizes = BTreeMap::new();
    for object in listing(client, bucket, prefix).await? {
        let key = object.key().context("an object without a key")?;
        sizes.insert(below(key, prefix)?.to_owned(), object.size().context("an object without a size")?);
    }
    Ok(sizes)
}

async fn copy_out(client: &Client, bucket: &str, prefix: &str, root: &Path) -> Result<()> {
    stream::iter(listing(client, bucket, prefix).await?)
        .map(anyhow::Ok)
        .try_for_each_concurrent(FILES_AT_ONCE, |object| async move {
            let key = object.key().context("an object without a key")?;
            let target = root.join(below(key, prefix)?);
            fs::create_dir_all(target.parent().context("a path without a parent")?)?;
            let body = client.get_object().bucket(bucket).key(key).send().await?.body;
            io::copy(&mut body.into_async_read(), &mut File::create(target).await?).await?;
            Ok(())
        })
        .await
}
