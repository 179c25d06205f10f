//! Object ownership: whether access control lists count in a bucket, and who owns what others write there.

/// `ObjectOwnership` of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Lists are disabled; the bucket's owner owns every object. New buckets have this (AWS since April 2023).
    BucketOwnerEnforced,
    /// The bucket's owner owns what is written with `bucket-owner-full-control`.
    BucketOwnerPreferred,
    /// Whoever writes an object owns it.
    ObjectWriter,
}

impl Ownership {
    /// Reads the word of the API.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::BucketOwnerEnforced, Self::BucketOwnerPreferred, Self::ObjectWriter]
            .into_iter()
            .find(|ownership| ownership.word() == word)
    }

    /// The word of the API; also what is stored.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::BucketOwnerEnforced => "BucketOwnerEnforced",
            Self::BucketOwnerPreferred => "BucketOwnerPreferred",
            Self::ObjectWriter => "ObjectWriter",
        }
    }
}
