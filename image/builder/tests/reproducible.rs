//! Two builds from the same inputs, in different directories, are equal bit for bit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use holdfast_image::{ImageSpec, KernelSource, PartitionSizes, build};

/// A small image around this test program itself, which is statically linked as the node program is.
fn spec(output: &Path, cache: &Path) -> ImageSpec {
    let program = std::env::current_exe().expect("the path of this program");
    let mut spec = ImageSpec::new(program, output);
    spec.cache_dir = cache.to_owned();
    spec.partitions = PartitionSizes { esp: 300 << 20, state: 256 << 20 };
    spec
}

#[test]
fn a_build_with_a_warm_cache_and_one_with_none_are_bit_identical() {
    let shared: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/image/cache");
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = build(&spec(one.path(), &shared)).unwrap();

    // The second build shares nothing but the kernel package.
    let package = KernelSource::Package(shared.join(&first.manifest.kernel_package));
    let fresh = two.path().join("cache");
    let second = build(&ImageSpec { kernel: package, ..spec(two.path(), &fresh) }).unwrap();

    assert_eq!(first.manifest.kernel_release, second.manifest.kernel_release);
    for name in ["vmlinux", "initrd.zst", "holdfast.efi", "disk.img", "manifest.json", "sha256sums"] {
        let read = |dir: &Path| fs::read(dir.join(name)).unwrap();
        assert!(read(one.path()) == read(two.path()), "{name} differs");
    }
}
