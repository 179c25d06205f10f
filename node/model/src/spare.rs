//! Space set aside for rebuilding: as much as the largest drives hold. Pure.
//!
//! Clients' writes are refused before the free bytes of all drives fall below it; rebuilding, emptying drives and
//! cutting stripes anew may use it. So what a lost drive held finds a place in a cluster that clients have filled.

/// Drives whose space may be set aside at most.
pub const SPARE_DRIVES_MAX: u8 = 4;

/// Without an operator's word one drive is set aside when it is at most this part of all bytes: in a smaller
/// cluster it would be too much, and losing a drive there needs a new one anyhow.
const PART_MAX: u64 = 5;

/// How much is set aside, and how much of it is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spare {
    /// Drives whose space is set aside.
    pub drives: u8,
    /// Their bytes.
    pub reserved_bytes: u64,
    /// Bytes that are free on all drives that take shards, or dead and can be reclaimed.
    pub free_bytes: u64,
}

impl Spare {
    /// From the size and the free bytes of each drive that takes shards, and what an operator asked for.
    #[must_use]
    pub fn new(drives: &[(u64, u64)], asked: Option<u8>) -> Self {
        let mut sizes: Vec<u64> = drives.iter().map(|(size, _)| *size).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let all: u64 = sizes.iter().sum();
        let usual = sizes.first().is_some_and(|largest| largest.saturating_mul(PART_MAX) <= all);
        // One drive at least is left for clients.
        let most = sizes.len().saturating_sub(1).min(usize::from(SPARE_DRIVES_MAX));
        let set_aside = usize::from(asked.unwrap_or(u8::from(usual))).min(most);
        Self {
            drives: u8::try_from(set_aside).expect("at most SPARE_DRIVES_MAX"),
            reserved_bytes: sizes[..set_aside].iter().sum(),
            free_bytes: drives.iter().map(|(_, free)| free).sum(),
        }
    }

    /// Whether clients may write so many bytes, parity and headers included.
    #[must_use]
    pub fn allows(&self, bytes: u64) -> bool {
        self.free_bytes >= self.reserved_bytes.saturating_add(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_drive_is_set_aside_where_it_is_a_small_part_and_as_many_as_are_asked_for_elsewhere() {
        let six = [(100, 90); 6];
        assert_eq!(Spare::new(&six, None), Spare { drives: 1, reserved_bytes: 100, free_bytes: 540 });
        assert_eq!(Spare::new(&six, Some(0)).reserved_bytes, 0);
        assert_eq!(Spare::new(&six, Some(2)).reserved_bytes, 200);
        assert_eq!(Spare::new(&six[..4], None).drives, 0, "a quarter is too much");
        assert_eq!(Spare::new(&six[..4], Some(1)).reserved_bytes, 100);
        assert_eq!(Spare::new(&six[..2], Some(4)).drives, 1, "one is left for clients");
        assert_eq!(Spare::new(&[], Some(1)), Spare::default());
        // The largest, whatever the order.
        assert_eq!(Spare::new(&[(50, 0), (300, 0), (100, 0), (900, 0)], Some(2)).reserved_bytes, 1200);
    }

    #[test]
    fn clients_stop_before_the_reserve_is_touched() {
        let spare = Spare { drives: 1, reserved_bytes: 100, free_bytes: 150 };
        assert!(spare.allows(50) && !spare.allows(51) && !spare.allows(u64::MAX));
        assert!(!Spare { free_bytes: 80, ..spare }.allows(0), "rebuilding has taken of it");
    }
}
