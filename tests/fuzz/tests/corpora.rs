//! Every committed input again, and some thousand new ones of every target.

use std::fs;

use holdfast_fuzz::{
    corpus, image,
    run::{Budget, fuzz},
    targets::TARGETS,
};

/// Inputs for each target: seconds in all, beside a busy machine.
const INPUTS: u64 = 3000;

/// Each of these is a drive that is mounted, read, written and closed.
const DRIVE_INPUTS: u64 = 400;

#[test]
fn no_input_of_the_corpora_and_none_near_them_crashes() {
    for target in TARGETS {
        let inputs: Vec<Vec<u8>> = corpus::load(target.name).unwrap().into_iter().map(|(_, b)| b).collect();
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        let most = if target.name == "drive" { DRIVE_INPUTS } else { INPUTS };
        let outcome = fuzz(target, inputs, 7, Budget::Inputs(most));
        println!(
            "{}: {} inputs, {} words: {:?}",
            target.name,
            outcome.executions,
            outcome.words.len(),
            outcome.words
        );
        assert!(outcome.crash.is_none(), "{}: {:?}", target.name, outcome.crash);
        assert!(outcome.words.len() > 1, "{}: only {:?} came of it", target.name, outcome.words);
    }
}

#[test]
fn the_fuzzer_finds_a_bug_behind_a_checksum() {
    // A parser that believes a number once the checksum is right.
    fn careless(bytes: &[u8]) -> String {
        let Some(sector) = bytes.first_chunk::<4096>() else { return "short".to_owned() };
        match holdfast_format::TombstoneBlock::parse(sector) {
            Ok(block) => [0u8; 64][block.place.segment as usize].to_string(),
            Err(error) => error.to_string(),
        }
    }
    let target = holdfast_fuzz::targets::Target { name: "careless", run: careless };
    // From the seed alone: what a run finds must not depend on how the corpus has grown.
    let seeds =
        corpus::load("tombstones").unwrap().into_iter().filter(|(name, _)| name.ends_with("seed.bin"));
    let inputs: Vec<Vec<u8>> = seeds.map(|(_, bytes)| bytes).collect();
    assert_eq!(inputs.len(), 1);
    let outcome = fuzz(&target, inputs, 7, Budget::Inputs(200_000));
    let (input, panic) = outcome.crash.expect("an index out of bounds is found");
    assert!(panic.contains("out of bounds"), "{panic}");
    assert!(!input.is_empty());
}

/// Corpora are made of golden files and of a sound drive: `HOLDFAST_WRITE_CORPUS=1` adds what is missing.
#[test]
fn every_target_has_its_seed() {
    let golden = |name: &str| {
        fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../node/format/golden").join(name))
            .unwrap()
    };
    let nbd = [
        &3u32.to_be_bytes()[..],
        b"IHAVEOPT\0\0\0\x07\0\0\0\x09\0\0\0\x01x\0\x01\0\x03",
        &0x2560_9513_u32.to_be_bytes(),
        &[0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 16, 0],
    ];
    let gpt = [&[0; 512][..], b"EFI PART"].concat();
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    // An answer of a TPM that went well.
    let answer = |parts: &[&[u8]]| {
        let body = parts.concat();
        let size = u32::try_from(10 + body.len()).unwrap();
        [&[0x80, 2], &size.to_be_bytes()[..], &[0; 4], &body].concat()
    };
    let handle = 0x8000_0001_u32.to_be_bytes();
    // An ECC storage key of the TCG's template, its point of 32 and 31 bytes.
    let public = [
        &b"\0\x23\0\x0b\0\x03\x04\x72\0\0\0\x06\0\x80\0\x43\0\x10\0\x03\0\x10"[..],
        &sized(&[1; 32]),
        &sized(&[2; 31]),
    ]
    .concat();
    let areas = [sized(&[3; 90]), sized(&[4; 46])].concat();
    let size_of = |parameters: &[u8]| u32::try_from(parameters.len()).unwrap().to_be_bytes();
    let session = [&sized(&[5; 32])[..], &[1], &sized(&[6; 32])].concat();
    let name = sized(&[7; 34]);
    let seeds = [
        ("tpm-storage-key", answer(&[&handle, &size_of(&sized(&public)), &sized(&public)])),
        ("tpm-session", answer(&[&handle, &sized(&[5; 32])])),
        ("tpm-created", answer(&[&size_of(&areas), &areas, &session])),
        ("tpm-loaded", answer(&[&handle, &size_of(&name), &name, &session])),
        ("tpm-sealed-key", [&[1][..], &sized(&public), &sized(&[8; 50]), &sized(&[9; 90])].concat()),
        ("label", golden("drive_label_v1.bin")),
        ("segment-header", golden("segment_header_v1.bin")),
        ("record-header", golden("record_header_v1.bin")),
        ("tombstones", golden("tombstones_v1.bin")),
        ("resume", [golden("resume_block_v1.bin"), golden("resume_table_v1.bin")].concat()),
        ("footer", golden("segment_footer_v1.bin")),
        ("catalog-record", golden("catalog_record_v1.bin")),
        ("recognise", gpt),
        ("nbd", nbd.concat()),
    ];
    for (target, seed) in &seeds {
        let path = corpus::directory(target).join("seed.bin");
        if std::env::var_os("HOLDFAST_WRITE_CORPUS").is_some() {
            fs::create_dir_all(corpus::directory(target)).unwrap();
            fs::write(&path, seed).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), *seed, "{target}");
    }
    // Times of writing are in it: any sound drive will do.
    let path = corpus::directory("drive").join("seed.bin");
    if std::env::var_os("HOLDFAST_WRITE_CORPUS").is_some() && !path.exists() {
        fs::create_dir_all(corpus::directory("drive")).unwrap();
        fs::write(&path, image::seed()).unwrap();
    }
    assert_eq!(fs::read(&path).unwrap().len(), image::seed().len());
    // Written by hand: text, one of everything.
    for target in ["policy", "form-policy"] {
        assert!(corpus::directory(target).join("seed.bin").exists(), "{target}");
    }
    assert_eq!(TARGETS.len(), seeds.len() + 3);
}
