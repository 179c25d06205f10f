//! Builds an image from a given program: `build_image PROGRAM OUTPUT_DIRECTORY`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(program), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err("usage: build_image PROGRAM OUTPUT_DIRECTORY".into());
    };
    let spec =
        holdfast_image::ImageSpec::new(std::path::PathBuf::from(program), std::path::PathBuf::from(output));
    let built = holdfast_image::build(&spec)?;
    println!("kernel {}, {} modules", built.manifest.kernel_release, built.manifest.modules.len());
    for artifact in &built.manifest.artifacts {
        println!(
            "{:<14} {:>12} {:>12} {}",
            artifact.name, artifact.size, artifact.allocated, artifact.sha256
        );
    }
    Ok(())
}
