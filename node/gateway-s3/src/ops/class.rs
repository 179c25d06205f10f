//! Storage classes. All of them keep objects alike, at the level of the tenant: the class is kept with the
//! object and shown, so that tools that sort by it find what they wrote. Classes whose objects have to be
//! restored before they can be read are refused, because nothing here ever has to be.

use holdfast_object::api::{Attributes, STANDARD};

use crate::errors::Refusal;

/// Classes that objects may have.
const KEPT: &[&str] =
    &["GLACIER_IR", "INTELLIGENT_TIERING", "ONEZONE_IA", "REDUCED_REDUNDANCY", "STANDARD", "STANDARD_IA"];

/// Classes that AWS knows and this gateway does not.
const REFUSED: &[&str] =
    &["DEEP_ARCHIVE", "EXPRESS_ONEZONE", "FSX_ONTAP", "FSX_OPENZFS", "GLACIER", "OUTPOSTS", "SNOW"];

/// # Errors
/// `InvalidStorageClass` for a name that is none, `NotImplemented` for one that AWS alone has.
pub(crate) fn check(name: &str) -> Result<&str, Refusal> {
    if KEPT.contains(&name) {
        return Ok(name);
    }
    if REFUSED.contains(&name) {
        return Err(Refusal::because(
            "NotImplemented",
            format!("Storage class {name} is not implemented: nothing is ever in an archive or elsewhere."),
        )
        .with("Header", "x-amz-storage-class"));
    }
    Err(Refusal::new("InvalidStorageClass").with("StorageClassRequested", name))
}

/// As GET and HEAD show it: `STANDARD` is not said.
pub(crate) fn shown(attributes: &Attributes) -> Option<&'static str> {
    let class = attributes.storage_class();
    KEPT.iter().copied().find(|kept| *kept == class && class != STANDARD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_kept_refused_or_unknown() {
        assert_eq!(check("STANDARD_IA"), Ok("STANDARD_IA"));
        assert_eq!(check("GLACIER").unwrap_err().code, "NotImplemented");
        assert_eq!(check("standard").unwrap_err().code, "InvalidStorageClass");
    }
}
