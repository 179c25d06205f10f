//! The page that tells users what is served is the table that decides it.

use std::fmt::Write;

use holdfast_access::iam;
use holdfast_gateway_s3::operations::{OPERATIONS, On, Support};

fn table() -> String {
    let mut rows: Vec<(&str, String)> = OPERATIONS
        .iter()
        .map(|row| {
            let path = match row.on {
                On::Service => "/",
                On::Bucket => "/bucket",
                On::Object => "/bucket/key",
            };
            let query =
                if row.markers.is_empty() { String::new() } else { format!("?{}", row.markers.join("&")) };
            let (served, why) = match row.support {
                Support::Yes => ("yes", ""),
                Support::Absent => ("yes", "answers as for a bucket that does not use the feature"),
                Support::No(why) => ("no", why),
            };
            (row.name, format!("| {} | `{} {path}{query}` | {served} | {why} |\n", row.name, row.method))
        })
        .collect();
    rows.sort();
    rows.into_iter().fold(String::new(), |mut table, (_, row)| {
        write!(table, "{row}").expect("a string takes everything");
        table
    })
}

#[test]
fn the_page_lists_every_operation_as_the_gateway_serves_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/s3.md");
    let page = std::fs::read_to_string(path).expect("the page is there");
    let begin = "<!-- operations: begin -->\n";
    let (head, rest) = page.split_once(begin).expect("the table begins");
    let (found, tail) = rest.split_once("<!-- operations: end -->").expect("the table ends");
    let expected = format!("\n| operation | request | served | |\n|---|---|---|---|\n{}\n", table());
    if std::env::var_os("HOLDFAST_UPDATE_PAGES").is_some() {
        std::fs::write(path, format!("{head}{begin}{expected}<!-- operations: end -->{tail}"))
            .expect("the page is written");
        return;
    }
    assert!(
        found == expected,
        "docs/s3.md is stale: run this test with HOLDFAST_UPDATE_PAGES=1 and commit it"
    );
}

/// The scripts in which boto3 checks one operation after the other.
const SCRIPTS: [&str; 3] = ["objects.py", "buckets.py", "identity.py"];

/// `GetBucketAcl` as boto3 calls it.
fn method(operation: &str) -> String {
    let letters: Vec<char> = operation.chars().collect();
    let mut name = String::new();
    for (at, letter) in letters.iter().enumerate() {
        // A word begins at a capital that follows a small letter, or that ends a run of capitals.
        let begins = at > 0
            && letter.is_ascii_uppercase()
            && (letters[at - 1].is_ascii_lowercase()
                || letters.get(at + 1).is_some_and(char::is_ascii_lowercase));
        if begins {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[test]
fn a_public_sdk_calls_every_operation_that_is_served() {
    let scripts: String = SCRIPTS
        .iter()
        .map(|script| {
            let path = format!("{}/../../tests/blackbox/clients/{script}", env!("CARGO_MANIFEST_DIR"));
            std::fs::read_to_string(path).expect("the script is there")
        })
        .collect();
    let s3 = OPERATIONS.iter().filter(|row| !matches!(row.support, Support::No(_))).map(|row| row.name);
    // Forms are no method of the SDK, which signs them; the check of them names the operation.
    let missing: Vec<_> = s3
        .chain(iam::ACTIONS.iter().map(|row| row.0))
        .chain(["AssumeRole", "GetCallerIdentity", "GetSessionToken"])
        .filter(|operation| {
            let method = method(operation);
            let called =
                [format!(".{method}("), format!(".{method},"), format!("get_paginator(\"{method}\")")];
            let form = *operation == "PostObject" && scripts.contains(*operation);
            !form && !called.iter().any(|call| scripts.contains(call))
        })
        .collect();
    assert!(missing.is_empty(), "no script in tests/blackbox/clients calls {missing:?}");
}
