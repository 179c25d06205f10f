//! Embeds the built console: generates `console.rs` with one `include_bytes!` a file, sorted by path.
//!
//! Takes `HOLDFAST_WEB_DIST`, or `admin-web/dist` of this repository. Never runs npm: `cargo xtask web` does.
//! When nothing was built, a page that says so takes the console's place, unless `HOLDFAST_REQUIRE_WEB=1`
//! (images and releases) makes that an error.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

const MISSING_PAGE: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Holdfast</title>\n\
    <h1>The console was not built into this program</h1>\n\
    <p>Run <code>cargo xtask web</code>, then build again. The API at <code>/api/v1</code> works without it.</p>\n\
    </html>\n";

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=HOLDFAST_WEB_DIST");
    let dist =
        env::var_os("HOLDFAST_WEB_DIST").map_or_else(|| here.join("../../admin-web/dist"), PathBuf::from);
    // While the directory is missing, cargo runs this script at each build, and so sees it appear.
    println!("cargo::rerun-if-changed={}", dist.display());

    let mut files = Vec::new();
    let included = dist.join("index.html").is_file();
    if included {
        collect(&dist, &dist, &mut files);
        files.sort();
    } else {
        let required = env::var_os("HOLDFAST_REQUIRE_WEB").is_some_and(|value| value == "1");
        assert!(
            !required,
            "the web console is not built ({} is missing): run `cargo xtask web` first",
            dist.display()
        );
        let page = out.join("index.html");
        fs::write(&page, MISSING_PAGE).expect("OUT_DIR is writable");
        files.push(("index.html".to_owned(), page));
    }

    let mut code = fs::File::create(out.join("console.rs")).expect("OUT_DIR is writable");
    let mut line = |text: String| writeln!(code, "{text}").expect("OUT_DIR is writable");
    line("/// Whether the web console was built into this program.".into());
    line(format!("pub const CONSOLE_INCLUDED: bool = {included};"));
    line("static FILES: &[File] = &[".into());
    for (path, file) in files.iter().filter(|(path, _)| !path.ends_with(".br")) {
        let packed = files.iter().find(|(other, _)| *other == format!("{path}.br"));
        let brotli = packed.map_or("None".to_owned(), |(_, file)| format!("Some(include_bytes!({file:?}))"));
        line(format!("    File {{ path: {path:?}, bytes: include_bytes!({file:?}), brotli: {brotli} }},"));
    }
    line("];".into());
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<(String, PathBuf)>) {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("reading {}: {e}", directory.display()));
    for entry in entries {
        let path = entry.unwrap_or_else(|e| panic!("reading {}: {e}", directory.display())).path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name =
                path.strip_prefix(root).expect("found below root").to_str().expect("names made by the build");
            let absolute =
                fs::canonicalize(&path).unwrap_or_else(|e| panic!("finding {}: {e}", path.display()));
            files.push((name.to_owned(), absolute));
        }
    }
}
