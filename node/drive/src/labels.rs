//! Reading the copies of the label and choosing the one that counts; writing them.

use std::io;

use holdfast_format::{DriveLabel, FormatError, LABEL_COPIES, Layout};
use holdfast_model::limits::SECTOR_SIZE;
use holdfast_ring::BlockDevice;

use crate::blocking::Blocking;

/// What the copies of the label say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Labels {
    /// The current label, and which copies were not like it.
    Good { label: DriveLabel, bad: Vec<(usize, String)> },
    /// All copies are zero.
    Blank,
    /// Nothing of ours; zero in places, perhaps.
    Foreign,
    /// Ours, but none can be used.
    Damaged { what: String },
}

/// Chooses among what was read from the places of the copies.
///
/// The highest counter wins; a fence in any good copy counts, so that a fence that reached only one copy
/// holds. Copies that name different drives mean that someone mixed two drives: damage.
pub(crate) fn choose(copies: &[io::Result<Result<(DriveLabel, u16), FormatError>>]) -> Labels {
    let good: Vec<(usize, DriveLabel)> = copies
        .iter()
        .enumerate()
        .filter_map(|(i, copy)| match copy {
            Ok(Ok((label, number))) if usize::from(*number) == i => Some((i, *label)),
            _ => None,
        })
        .collect();
    let Some((_, newest)) = good.iter().max_by_key(|(_, label)| label.counter) else {
        let is = |test: fn(&FormatError) -> bool| {
            copies.iter().all(|c| matches!(c, Ok(Err(error)) if test(error)))
        };
        if is(|e| matches!(e, FormatError::Blank { .. })) {
            return Labels::Blank;
        }
        if is(|e| matches!(e, FormatError::Blank { .. } | FormatError::Foreign { .. })) {
            return Labels::Foreign;
        }
        let what: Vec<String> = copies.iter().enumerate().map(describe).collect();
        return Labels::Damaged { what: what.join("; ") };
    };
    let same = |label: &DriveLabel| {
        (label.cluster, label.drive, label.layout) == (newest.cluster, newest.drive, newest.layout)
    };
    if let Some((i, other)) = good.iter().find(|(_, label)| !same(label)) {
        return Labels::Damaged {
            what: format!("copy {i} names drive {}, another {}", other.drive, newest.drive),
        };
    }
    let fenced = good.iter().any(|(_, label)| label.fenced);
    let is_bad = |i: &usize| !good.iter().any(|(g, _)| g == i);
    let bad = (0..copies.len()).filter(is_bad).map(|i| (i, describe((i, &copies[i])))).collect();
    Labels::Good { label: DriveLabel { fenced, ..*newest }, bad }
}

/// What a copy is, in words.
fn describe((i, copy): (usize, &io::Result<Result<(DriveLabel, u16), FormatError>>)) -> String {
    match copy {
        Ok(Ok((_, number))) => format!("copy {i}: is copy {number}, misplaced"),
        Ok(Err(error)) => format!("copy {i}: {error}"),
        Err(error) => format!("copy {i}: {error}"),
    }
}

/// Reads all copies: first where the device's size puts them, then where the label's own size does.
pub(crate) fn read<D: BlockDevice>(io: &mut Blocking<'_, D>) -> io::Result<Labels> {
    let by_device = Layout::label_offsets_for(io.device.capacity());
    let labels = choose(&read_at(io, by_device)?);
    if let Labels::Good { label, .. } = &labels {
        let by_label = label.layout.label_offsets();
        // A device smaller than its label is reported by the caller, who knows its path.
        if by_label != by_device && label.layout.capacity() <= io.device.capacity() {
            return Ok(choose(&read_at(io, by_label)?));
        }
    }
    Ok(labels)
}

type Copies = Vec<io::Result<Result<(DriveLabel, u16), FormatError>>>;

fn read_at<D: BlockDevice>(io: &mut Blocking<'_, D>, offsets: [u64; LABEL_COPIES]) -> io::Result<Copies> {
    let mut copies = Vec::with_capacity(LABEL_COPIES);
    for offset in offsets {
        copies.push(match io.read(offset, SECTOR_SIZE) {
            Ok(buffer) => Ok(DriveLabel::parse(buffer.headroom())),
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return Err(error),
            Err(error) => Err(error),
        });
    }
    Ok(copies)
}

/// Writes all copies in two flushed halves, so that no crash can hit all of them.
pub(crate) fn write<D: BlockDevice>(io: &mut Blocking<'_, D>, label: &DriveLabel) -> io::Result<()> {
    let offsets = label.layout.label_offsets();
    for half in [[0, 2], [1, 3]] {
        for copy in half {
            let mut buffer = io.frame(SECTOR_SIZE)?;
            label.encode(u16::try_from(copy).expect("four copies"), buffer.headroom_mut());
            io.write(offsets[copy], buffer)?;
        }
        io.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use holdfast_format::Sequence;
    use holdfast_model::{ByteCount, ClusterId, DriveId, NodeId, UnixMillis};

    use super::*;

    fn label(drive: u8, counter: u64, fenced: bool) -> DriveLabel {
        DriveLabel {
            cluster: ClusterId::from_bytes([1; 16]),
            drive: DriveId::from_bytes([drive; 16]),
            node: NodeId::new(1),
            layout: Layout::for_capacity(ByteCount::mib(64)).unwrap(),
            formatted: UnixMillis::new(0),
            fenced,
            mount_epoch: counter,
            counter,
            durable: Sequence::new(counter),
        }
    }

    const DAMAGED: FormatError = FormatError::Checksum { what: "drive label" };
    const BLANK: FormatError = FormatError::Blank { what: "drive label" };

    #[test]
    fn the_newest_good_copy_counts_and_one_fence_is_enough() {
        let copies = [
            Ok(Ok((label(7, 3, true), 0))),
            Ok(Err(DAMAGED)),
            Ok(Ok((label(7, 5, false), 2))),
            Ok(Err(BLANK)),
        ];
        let Labels::Good { label, bad } = choose(&copies) else { panic!("two copies are good") };
        let bad: Vec<usize> = bad.into_iter().map(|(copy, _)| copy).collect();
        assert_eq!((label.counter, label.fenced, bad), (5, true, vec![1, 3]));
    }

    #[test]
    fn copies_of_two_drives_and_misplaced_copies_are_damage() {
        let mixed = [Ok(Ok((label(7, 3, false), 0))), Ok(Ok((label(8, 3, false), 1)))];
        assert!(matches!(choose(&mixed), Labels::Damaged { .. }));
        assert!(matches!(choose(&[Ok(Ok((label(7, 3, false), 1)))]), Labels::Damaged { .. }));
    }

    #[test]
    fn blank_foreign_and_unreadable_are_told_apart() {
        let foreign = || FormatError::Foreign { what: "drive label", magic: [1; 8] };
        assert_eq!(choose(&[Ok(Err(BLANK)), Ok(Err(BLANK))]), Labels::Blank);
        assert_eq!(choose(&[Ok(Err(foreign())), Ok(Err(BLANK))]), Labels::Foreign);
        assert!(matches!(
            choose(&[Ok(Err(BLANK)), Err(io::ErrorKind::Other.into())]),
            Labels::Damaged { .. }
        ));
        let newer = FormatError::UnknownVersion { what: "drive label", version: 2, known: 1 };
        assert!(matches!(choose(&[Ok(Err(newer))]), Labels::Damaged { .. }));
    }
}
