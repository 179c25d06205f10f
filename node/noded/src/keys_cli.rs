//! `noded keys`: what is done away from any node, with recovery shares and certificates.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use holdfast_keyring::{certificate, recovery::recover};
use holdfast_keyservice::uses;
use holdfast_model::{ClusterId, KeyId};
use zeroize::Zeroizing;

/// Longest input, in bytes: far more than all shares there can be.
const INPUT_SIZE_MAX: u64 = 64 * 1024;

/// Longest certificate, in bytes.
const CERTIFICATE_SIZE_MAX: u64 = 1024 * 1024;

/// What is done.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Prove that recovery shares, one a line on standard input, give a root key. Nothing is sent anywhere
    Drill {
        /// The root they should give, as the cluster's status names it
        #[arg(long)]
        expect: Option<KeyId>,
    },
    /// Check the record of uses of tenants' keys that a node's key service keeps, and print it. Exit code 0: nothing was
    /// changed, left out or put in
    Uses {
        /// `keys` in the node's state directory
        dir: PathBuf,
        /// Only what was found, not each use
        #[arg(long)]
        quiet: bool,
    },
    /// Check a certificate of destruction. Exit code 0: the cluster signed it as it stands
    VerifyCertificate {
        /// The certificate
        file: PathBuf,
        /// The cluster's certificate key, 64 hex digits, as its status names it (`certificate_key` of
        /// `GET /api/v1/keys`), kept from when the cluster was trusted
        #[arg(long)]
        key: String,
    },
}

impl Keys {
    /// Does it.
    ///
    /// # Errors
    /// What does not fit.
    pub fn run(self) -> Result<ExitCode> {
        match self {
            Self::Drill { expect } => drill(expect),
            Self::Uses { dir, quiet } => show_uses(&dir, quiet),
            Self::VerifyCertificate { file, key } => verify(&file, &key),
        }
    }
}

fn show_uses(dir: &Path, quiet: bool) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    // Whoever reads may have read enough.
    let mut told = Ok(());
    let found = uses::verify(dir, |recorded| {
        if quiet || told.is_err() {
            return;
        }
        let used = &recorded.used;
        let body = used
            .body
            .map_or_else(String::new, |(bucket, content)| format!(" bucket {bucket} content {content}"));
        told = writeln!(
            out,
            "{} unix-ms {} {} {:?} {:?} tenant {}{body}",
            recorded.number,
            recorded.at,
            used.purpose.name(),
            used.act,
            used.outcome,
            used.tenant
        );
    })?;
    let (first, last, lost) = (found.first, found.last, found.lost);
    let hash = found.hash.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    writeln!(out, "VERIFIED: uses {first} to {last}, {lost} not on record, last hash {hash}").or(told)?;
    Ok(ExitCode::SUCCESS)
}

fn verify(file: &Path, key: &str) -> Result<ExitCode> {
    let public = certificate::parse_public_key(key).context("the key is not 64 hex digits")?;
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|input| input.take(CERTIFICATE_SIZE_MAX).read_to_end(&mut bytes))
        .with_context(|| format!("reading {}", file.display()))?;
    let text = String::from_utf8(bytes).context("not a text")?;
    let facts = certificate::verify(&text, &public)?;
    print!("{facts}");
    println!("VERIFIED: signed by {key}, every byte of it");
    Ok(ExitCode::SUCCESS)
}

fn drill(expect: Option<KeyId>) -> Result<ExitCode> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().take(INPUT_SIZE_MAX).read_to_string(&mut text).context("reading the shares")?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // Whose cluster it is plays no part in putting the root together.
    let root = recover(ClusterId::from_bytes([0; 16]), &lines)?;
    let (id, epoch) = (root.id(), root.epoch().get());
    if let Some(expected) = expect {
        ensure!(id == expected, "these shares give root {id} of epoch {epoch}, not {expected}");
    }
    println!("{} shares give root {id} of epoch {epoch}", lines.len());
    Ok(ExitCode::SUCCESS)
}
