//! `cargo xtask image`: the bootable image with sizes and hashes.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use holdfast_blackbox::paths;
use holdfast_image::{ImageArtifacts, ImageSpec};

use crate::{binaries, run::say};

/// Arguments of `image`.
#[derive(Debug, Args)]
pub struct Image {
    /// Where it goes [default: target/image]
    #[arg(long)]
    output: Option<PathBuf>,
}

impl Image {
    /// Builds the image and prints what came out.
    ///
    /// # Errors
    /// When a build fails or something it needs is missing.
    pub fn run(self) -> Result<()> {
        let output = self.output.unwrap_or_else(output_dir);
        let built = build(output.clone())?;
        println!("\n  Holdfast {} on kernel {}", built.manifest.version, built.manifest.kernel_release);
        for artifact in &built.manifest.artifacts {
            let size = holdfast_model::ByteCount::new(artifact.size).to_string();
            println!("  {:<14} {size:>10}  {}", artifact.name, artifact.sha256);
        }
        println!("  in {}", output.display());
        Ok(())
    }
}

/// Where the image goes unless asked otherwise.
pub fn output_dir() -> PathBuf {
    paths::target().join("image")
}

/// Builds the node program and the image of it.
///
/// # Errors
/// As [`Image::run`].
pub fn build(output: PathBuf) -> Result<ImageArtifacts> {
    let noded = binaries::noded()?;
    say("building the image");
    let mut spec = ImageSpec::new(noded, output);
    // One kernel for all images, wherever they go.
    spec.cache_dir = output_dir().join("cache");
    holdfast_image::build(&spec).context("building the image; is `cargo xtask setup` done?")
}
