//! What is on a device, and making a blank one a drive.

use std::{
    io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use holdfast_format::{DriveLabel, Layout, SEGMENT_HEADER_SECTORS, Sequence, recognise};
use holdfast_model::{ByteCount, DriveId, UnixMillis, limits::SECTOR_SIZE};
use holdfast_ring::{BlockDevice, BufferPool, RingDevice, RingOptions};

use crate::{
    blocking::{Blocking, TRANSFER_SIZE_MAX},
    errors::{FormatDriveError, ProbeError},
    labels::{self, Labels},
    types::{DriveIdentity, FormatParams, Probe},
};

/// Memory for probing and formatting.
const POOL_SIZE: ByteCount = ByteCount::mib(2);

/// Operations in flight while probing and formatting.
const DEPTH: usize = 32;

/// Bytes zeroed by one write while erasing: several fit the pool.
const ERASE_STEP: usize = 256 * 1024;

impl From<DriveLabel> for DriveIdentity {
    fn from(label: DriveLabel) -> Self {
        Self {
            cluster: label.cluster,
            drive: label.drive,
            node: label.node,
            capacity: label.layout.capacity(),
            segment_size: label.layout.segment_size(),
            formatted: label.formatted,
            mount_epoch: label.mount_epoch,
            label_counter: label.counter,
            fenced: label.fenced,
        }
    }
}

/// Tells what is on the device at `path`, without changing anything. Blocking.
///
/// # Errors
/// [`ProbeError`] when it cannot be opened or read.
pub fn probe(path: &Path) -> Result<Probe, ProbeError> {
    let options = RingOptions { depth: DEPTH, read_only: true, register: None };
    let mut device = RingDevice::open(path, &options)?;
    probe_device(&mut device).map_err(|source| ProbeError::Read { path: path.to_owned(), source })
}

/// Makes the blank device at `path` a drive. Blocking.
///
/// # Errors
/// [`FormatDriveError::NotBlank`] whenever the device holds anything; the others when it cannot be
/// opened, laid out or written.
pub fn format(path: &Path, params: &FormatParams) -> Result<DriveId, FormatDriveError> {
    let options = RingOptions { depth: DEPTH, ..RingOptions::default() };
    let mut device = RingDevice::open(path, &options).map_err(ProbeError::Device)?;
    let found =
        probe_device(&mut device).map_err(|source| ProbeError::Read { path: path.to_owned(), source })?;
    let not_blank = |what| FormatDriveError::NotBlank { path: path.to_owned(), what };
    match found {
        Probe::Blank => {}
        Probe::Ours(identity) => {
            return Err(not_blank(format!("drive {} of cluster {}", identity.drive, identity.cluster)));
        }
        Probe::Foreign { what } => return Err(not_blank(what)),
        Probe::Damaged { what } => return Err(not_blank(format!("a damaged drive of Holdfast ({what})"))),
    }
    let layout = Layout::for_capacity(device.capacity())
        .map_err(|source| FormatDriveError::Layout { path: path.to_owned(), source })?;
    format_device(&mut device, params, layout)
        .map_err(|source| FormatDriveError::Write { path: path.to_owned(), source })?;
    Ok(params.drive)
}

/// Takes from the device at `path` what says what it is: both ends are zeros afterwards, so that it counts as
/// blank. What lies between is no longer found, and is still there until it is written over. Blocking.
///
/// # Errors
/// When it cannot be opened or written, or someone has it open.
pub fn erase(path: &Path) -> Result<(), FormatDriveError> {
    let options = RingOptions { depth: DEPTH, ..RingOptions::default() };
    let mut device = RingDevice::open(path, &options).map_err(ProbeError::Device)?;
    erase_device(&mut device).map_err(|source| FormatDriveError::Write { path: path.to_owned(), source })
}

fn erase_device<D: BlockDevice>(device: &mut D) -> io::Result<()> {
    let pool = own_pool()?;
    let capacity = device.capacity();
    let mut io = Blocking::new(device, &pool);
    let mut parts = Vec::new();
    for (start, length) in Layout::label_areas_for(capacity) {
        let mut offset = start;
        while offset < start + length {
            let step = usize::try_from(start + length - offset).unwrap_or(usize::MAX).min(ERASE_STEP);
            parts.push((offset, step));
            offset += step as u64;
        }
    }
    io.zero_many(&parts)?;
    io.flush()
}

/// Makes a drive of whatever `device` is, with segments of the given size: for simulations, whose devices are
/// small and blank. Blocking.
///
/// # Errors
/// `InvalidInput` when so many segments do not fit; what the device says.
pub fn format_simulated<D: BlockDevice>(
    device: &mut D,
    params: &FormatParams,
    segment_size: ByteCount,
) -> io::Result<()> {
    let layout = Layout::with_segment_size(device.capacity(), segment_size)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    format_device(device, params, layout)
}

fn own_pool() -> io::Result<BufferPool> {
    BufferPool::new(POOL_SIZE).map_err(io::Error::other)
}

/// The clock, for display fields.
pub(crate) fn unix_now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

pub(crate) fn probe_device<D: BlockDevice>(device: &mut D) -> io::Result<Probe> {
    let pool = own_pool()?;
    let capacity = device.capacity();
    let mut io = Blocking::new(device, &pool);
    if capacity.get() < SECTOR_SIZE as u64 {
        return Ok(Probe::Foreign { what: format!("only {capacity}") });
    }
    let labels = labels::read(&mut io)?;
    match labels {
        Labels::Good { label, .. } => return Ok(Probe::Ours(label.into())),
        Labels::Damaged { what } => return Ok(Probe::Damaged { what }),
        Labels::Blank | Labels::Foreign => {}
    }
    let mut first = None;
    for (start, length) in Layout::label_areas_for(capacity) {
        let mut offset = start;
        while offset < start + length {
            let step = usize::try_from(start + length - offset).unwrap_or(usize::MAX).min(TRANSFER_SIZE_MAX);
            let buffer = io.read(offset, step)?;
            let bytes = buffer.framed();
            if offset == 0
                && let Some(name) = recognise(bytes)
            {
                return Ok(Probe::Foreign { what: name.to_owned() });
            }
            if let Some(at) = bytes.iter().position(|b| *b != 0) {
                first.get_or_insert(offset + at as u64);
            }
            offset += step as u64;
        }
    }
    Ok(match first {
        None => Probe::Blank,
        Some(at) => Probe::Foreign { what: format!("data that is not recognised, from byte {at} on") },
    })
}

/// Writes labels, and zeros over all segment headers: what an earlier owner left there says nothing then.
pub(crate) fn format_device<D: BlockDevice>(
    device: &mut D,
    params: &FormatParams,
    layout: Layout,
) -> io::Result<()> {
    let pool = own_pool()?;
    let mut io = Blocking::new(device, &pool);
    let header_size = SEGMENT_HEADER_SECTORS as usize * SECTOR_SIZE;
    let headers: Vec<_> =
        (0..layout.segments()).map(|segment| (layout.offset(segment, 0), header_size)).collect();
    io.zero_many(&headers)?;
    io.flush()?;
    let label = DriveLabel {
        cluster: params.cluster,
        drive: params.drive,
        node: params.node,
        layout,
        formatted: unix_now(),
        fenced: false,
        mount_epoch: 0,
        counter: 1,
        durable: Sequence::NONE,
    };
    labels::write(&mut io, &label)
}
