//! Block public access: four switches of a bucket that restrain its lists and its policy.

/// The switches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublicAccessBlock {
    /// Lists that grant to everybody cannot be set.
    pub block_acls: bool,
    /// Grants to everybody do not count.
    pub ignore_acls: bool,
    /// A public policy cannot be set.
    pub block_policy: bool,
    /// A public policy counts within the owner's account only.
    pub restrict: bool,
}

impl PublicAccessBlock {
    /// New buckets have this (AWS since April 2023).
    pub const ALL: Self = Self { block_acls: true, ignore_acls: true, block_policy: true, restrict: true };

    /// What is stored: one byte.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        u8::from(self.block_acls)
            | u8::from(self.ignore_acls) << 1
            | u8::from(self.block_policy) << 2
            | u8::from(self.restrict) << 3
    }

    /// Reads the byte. What cannot be read restrains everything.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match bytes {
            [byte @ 0..=15] => Self {
                block_acls: byte & 1 != 0,
                ignore_acls: byte & 2 != 0,
                block_policy: byte & 4 != 0,
                restrict: byte & 8 != 0,
            },
            _ => Self::ALL,
        }
    }
}
