//! Two builds from the same inputs, with separate caches and directories, are equal bit for bit.

use std::{fs, path::Path};

use holdfast_image::{ImageArtifacts, ImageSpec, KernelSource, PartitionSizes, build, existing};

/// This test program itself: statically linked, as the node program is.
fn program() -> std::path::PathBuf {
    std::env::current_exe().expect("the path of this program")
}

fn build_in(dir: &Path, shared_cache: &Path) -> ImageArtifacts {
    let mut spec = ImageSpec::new(program(), dir);
    spec.partitions = PartitionSizes { esp: 300 << 20, state: 256 << 20 };
    // The package is fetched once; what is derived from it is made anew in each build.
    build(&ImageSpec { cache_dir: shared_cache.to_owned(), ..spec.clone() })
        .expect("the first build fills the cache");
    let package = existing(dir).expect("the build is complete").manifest.kernel_package;
    spec.kernel = KernelSource::Package(shared_cache.join(package));
    build(&spec).expect("the build succeeds")
}

#[test]
fn two_builds_are_bit_identical() {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/image/cache");
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (build_in(one.path(), &cache), build_in(two.path(), &cache));
    assert_eq!(first.manifest, second.manifest);
    for name in ["vmlinux", "initrd.zst", "holdfast.efi", "disk.img", "manifest.json", "sha256sums"] {
        let read = |dir: &Path| fs::read(dir.join(name)).unwrap();
        assert!(read(one.path()) == read(two.path()), "{name} differs");
    }
}
