//! Going through a device, segment by segment.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::Path,
};

use holdfast_format::{
    DriveLabel, Footer, FooterRecord, FooterTrailer, FormatError, Layout, Place, RecordHeader, ResumeBlock,
    SEGMENT_HEADER_SECTORS, Sector, SegmentHeader, SegmentSequence, SegmentState, Tombstone, TombstoneBlock,
};
use holdfast_model::{ByteCount, ShardId, limits::SECTOR_SIZE};
use tokio_uring::fs::File;

use super::{InspectError, InspectedRecord, InspectedSegment, Inspection, LiveShard, Problem};

/// Bytes read at a time.
const CHUNK_SIZE: usize = 4 * 1024 * 1024;

/// Problems kept in a report; the rest is counted.
const PROBLEMS_MAX: usize = 1000;

pub(super) struct Inspector<'a, F> {
    path: &'a Path,
    file: File,
    label: DriveLabel,
    problems: Vec<Problem>,
    problem_count: u64,
    each: F,
}

/// What was found in a segment.
struct Contents {
    header: SegmentHeader,
    sealed: bool,
    /// With the first block that does not match.
    records: Vec<(RecordHeader, Option<usize>)>,
    tombstones: Vec<Tombstone>,
}

impl<'a, F: FnMut(&InspectedRecord)> Inspector<'a, F> {
    pub(super) async fn run(path: &'a Path, each: F) -> Result<Inspection, InspectError> {
        let device = |source| InspectError::Device { path: path.to_owned(), source };
        let size = device_size(path).map_err(device)?;
        let file = File::open(path).await.map_err(device)?;
        let (label, good_labels) = read_labels(path, &file, size).await?;
        let mut inspector = Self { path, file, label, problems: Vec::new(), problem_count: 0, each };
        for (copy, good) in good_labels.iter().enumerate() {
            if let Err(what) = good {
                inspector
                    .problem(label.layout.label_offsets()[copy], format!("copy {copy} of the label: {what}"));
            }
        }
        let mut contents = Vec::new();
        for segment in 0..label.layout.segments() {
            contents.extend(inspector.segment(segment).await);
        }
        Ok(inspector.conclude(contents, good_labels.iter().filter(|g| g.is_ok()).count()))
    }

    fn problem(&mut self, offset: u64, what: String) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { offset, what });
        }
    }

    async fn segment(&mut self, segment: u32) -> Option<Contents> {
        let layout = self.label.layout;
        let at = layout.offset(segment, 0);
        let header = match read(&self.file, at, SEGMENT_HEADER_SECTORS as usize * SECTOR_SIZE).await {
            Ok(bytes) => self.segment_header(segment, &bytes),
            Err(error) => {
                self.problem(at, format!("header of segment {segment}: {error}"));
                None
            }
        };
        let header = header.filter(|h| h.state == SegmentState::Used)?;
        let mut contents = Contents { header, sealed: false, records: Vec::new(), tombstones: Vec::new() };
        self.walk(&mut contents).await;
        self.footer(&mut contents).await;
        self.report(&contents);
        Some(contents)
    }

    fn segment_header(&mut self, segment: u32, bytes: &[u8]) -> Option<SegmentHeader> {
        let layout = self.label.layout;
        let mut best: Option<SegmentHeader> = None;
        for (copy, sector) in (0u32..).zip(sectors(bytes)) {
            let offset = layout.offset(segment, copy);
            match SegmentHeader::parse(sector) {
                Ok(h) if (h.cluster, h.drive) != (self.label.cluster, self.label.drive) => {
                    self.problem(offset, format!("header of segment {segment} belongs to drive {}", h.drive));
                }
                Ok(h) if (h.segment, h.sectors) != (segment, layout.segment_sectors()) => {
                    self.problem(
                        offset,
                        format!("header of segment {segment} says it is segment {}", h.segment),
                    );
                }
                Ok(h) => {
                    if best.is_none_or(|b| (h.life, h.state) > (b.life, b.state)) {
                        best = Some(h);
                    }
                }
                Err(FormatError::Blank { .. }) => {}
                Err(error) => self.problem(offset, format!("segment {segment}: {error}")),
            }
        }
        best
    }

    /// Goes through the segment from header to header.
    async fn walk(&mut self, contents: &mut Contents) {
        let layout = self.label.layout;
        let (segment, life) = (contents.header.segment, contents.header.life);
        let end = layout.segment_sectors();
        let mut window = Window { first: 0, bytes: Vec::new() };
        let mut at = SEGMENT_HEADER_SECTORS;
        while at < end {
            let expected =
                Place { cluster: self.label.cluster, drive: self.label.drive, segment, sector: at, life };
            let Some(sector) = self.window(&mut window, segment, at, 1).await else { return };
            let sector: Sector = sector.try_into().expect("one sector was asked for");
            if let Ok(header) = RecordHeader::parse(&sector)
                && header.place == expected
                && header.sectors() <= end - at
            {
                let Some(payload) = self.window(&mut window, segment, at + 1, header.sectors() - 1).await
                else {
                    return;
                };
                let bad_block = header.blocks.verify(0, &payload[..header.payload_len as usize]).err();
                at += header.sectors();
                contents.records.push((header, bad_block));
                continue;
            }
            if let Ok(block) = TombstoneBlock::parse(&sector)
                && block.place == expected
            {
                contents.tombstones.extend(block.entries);
            } else if let Ok(block) = ResumeBlock::parse(&sector)
                && block.place == expected
                && block.table_sectors() < end - at
            {
                let Some(table) = self.window(&mut window, segment, at + 1, block.table_sectors()).await
                else {
                    return;
                };
                match block.parse_table(table) {
                    Ok((records, tombstones)) => {
                        self.settle(contents, &records, &tombstones, block.lost, layout.offset(segment, at));
                        at += block.table_sectors();
                    }
                    Err(error) => {
                        self.problem(layout.offset(segment, at), format!("segment {segment}: {error}"))
                    }
                }
            }
            at += 1;
        }
    }

    /// Only what is listed counts; what is listed must be there.
    fn settle(
        &mut self,
        contents: &mut Contents,
        records: &[FooterRecord],
        tombstones: &[Tombstone],
        lost: u32,
        offset: u64,
    ) {
        let segment = contents.header.segment;
        if lost > 0 {
            self.problem(
                offset,
                format!("segment {segment}: {lost} acknowledged records were lost in an earlier crash"),
            );
        }
        let found: HashMap<u32, &RecordHeader> =
            contents.records.iter().map(|(h, _)| (h.place.sector, h)).collect();
        let mut listed_sectors = HashSet::new();
        let layout = self.label.layout;
        for listed in records {
            let FooterRecord { shard, generation, payload_len, sequence, sector, .. } = *listed;
            listed_sectors.insert(sector);
            let same = found.get(&sector).is_some_and(|h| {
                (h.shard, h.generation, h.payload_len, h.sequence)
                    == (shard, generation, payload_len, sequence)
            });
            if !same {
                self.problem(
                    layout.offset(segment, sector),
                    format!("shard {shard} {generation} is listed here and is not here"),
                );
            }
        }
        contents.records.retain(|(h, _)| listed_sectors.contains(&h.place.sector));
        let found: HashSet<&Tombstone> = contents.tombstones.iter().collect();
        for tombstone in tombstones.iter().filter(|t| !found.contains(t)) {
            self.problem(
                offset,
                format!("the tombstone of shard {} is listed and is not there", tombstone.shard),
            );
        }
        contents.tombstones = tombstones.to_vec();
    }

    /// Hands over what counts in the segment.
    fn report(&mut self, contents: &Contents) {
        let layout = self.label.layout;
        for (header, bad_block) in &contents.records {
            let Place { segment, sector, .. } = header.place;
            if let Some(block) = bad_block {
                let offset = layout.offset(segment, sector);
                self.problem(
                    offset,
                    format!("block {block} of shard {} does not match its checksum", header.shard),
                );
            }
            (self.each)(&InspectedRecord {
                segment,
                sector,
                shard: header.shard,
                generation: header.generation,
                tenant: header.tenant,
                geometry: (header.data, header.parity),
                payload_len: header.payload_len,
                manifest_len: header.manifest.len(),
                written: header.written,
                sound: bad_block.is_none(),
            });
        }
    }

    async fn window<'w>(
        &mut self,
        window: &'w mut Window,
        segment: u32,
        at: u32,
        count: u32,
    ) -> Option<&'w [u8]> {
        let layout = self.label.layout;
        let held = (window.bytes.len() / SECTOR_SIZE) as u32;
        if at < window.first || at + count > window.first + held {
            let length = CHUNK_SIZE.min((layout.segment_sectors() - at) as usize * SECTOR_SIZE);
            let offset = layout.offset(segment, at);
            match read(&self.file, offset, length).await {
                Ok(bytes) => *window = Window { first: at, bytes },
                Err(error) => {
                    self.problem(
                        offset,
                        format!("segment {segment} cannot be read from sector {at} on: {error}"),
                    );
                    return None;
                }
            }
        }
        let start = (at - window.first) as usize * SECTOR_SIZE;
        Some(&window.bytes[start..start + count as usize * SECTOR_SIZE])
    }

    /// Compares the footer, if there is one, with what was found.
    async fn footer(&mut self, contents: &mut Contents) {
        let layout = self.label.layout;
        let segment = contents.header.segment;
        let last = layout.segment_sectors() - 1;
        let trailer_offset = layout.offset(segment, last);
        let trailer = match read(&self.file, trailer_offset, SECTOR_SIZE).await {
            Ok(bytes) => FooterTrailer::parse(bytes.as_slice().try_into().expect("one sector was read")),
            Err(error) => {
                return self.problem(trailer_offset, format!("footer of segment {segment}: {error}"));
            }
        };
        let trailer = match trailer {
            Ok(trailer) if trailer.life == contents.header.life && trailer.segment == segment => trailer,
            // Not sealed: what is there is of an earlier life, or part of a record.
            Ok(_) | Err(FormatError::Blank { .. } | FormatError::Foreign { .. }) => return,
            Err(error) => return self.problem(trailer_offset, format!("segment {segment}: {error}")),
        };
        let first = last - trailer.table_sectors();
        let offset = layout.offset(segment, first);
        let footer = match read(&self.file, offset, trailer.table_sectors() as usize * SECTOR_SIZE).await {
            Ok(table) => Footer::parse(&trailer, &table).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match footer {
            Ok(footer) => {
                contents.sealed = true;
                self.settle(contents, &footer.records, &footer.tombstones, footer.lost, offset);
            }
            Err(what) => self.problem(offset, format!("footer of segment {segment}: {what}")),
        }
    }

    fn conclude(self, contents: Vec<Contents>, good_labels: usize) -> Inspection {
        let dead: HashSet<(SegmentSequence, u32)> =
            contents.iter().flat_map(|c| &c.tombstones).map(|t| (t.life, t.sector)).collect();
        let is_dead = |h: &RecordHeader| dead.contains(&(h.place.life, h.place.sector));
        let mut live: HashMap<ShardId, LiveShard> = HashMap::new();
        for (header, bad_block) in contents.iter().flat_map(|c| &c.records).filter(|(h, _)| !is_dead(h)) {
            let copy = LiveShard {
                tenant: header.tenant,
                generation: header.generation,
                sound: bad_block.is_none(),
            };
            let best = live.entry(header.shard).or_insert(copy);
            if (copy.sound, copy.generation) > (best.sound, best.generation) {
                *best = copy;
            }
        }
        let used = u32::try_from(contents.len()).expect("no more than there are segments");
        let segments = contents
            .iter()
            .map(|c| InspectedSegment {
                segment: c.header.segment,
                life: c.header.life.get(),
                sealed: c.sealed,
                records: c.records.len() as u64,
                dead: c.records.iter().filter(|(h, _)| is_dead(h)).count() as u64,
                tombstones: c.tombstones.len() as u64,
                payload: ByteCount::new(c.records.iter().map(|(h, _)| u64::from(h.payload_len)).sum()),
            })
            .collect();
        Inspection {
            path: self.path.to_owned(),
            label: self.label,
            good_labels,
            segments,
            free_segments: self.label.layout.segments() - used,
            live,
            problems: self.problems,
            problem_count: self.problem_count,
        }
    }
}

struct Window {
    first: u32,
    bytes: Vec<u8>,
}

fn sectors(bytes: &[u8]) -> impl Iterator<Item = &Sector> {
    bytes.chunks_exact(SECTOR_SIZE).map(|s| s.try_into().expect("chunks of one sector"))
}

fn device_size(path: &Path) -> io::Result<u64> {
    use std::io::Seek;
    std::fs::File::open(path)?.seek(io::SeekFrom::End(0))
}

/// Reads exactly `length` bytes.
async fn read(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut whole = Vec::with_capacity(length);
    while whole.len() < length {
        let rest = Vec::with_capacity(length - whole.len());
        let (result, bytes) = file.read_at(rest, offset + whole.len() as u64).await;
        match result {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => whole.extend_from_slice(&bytes[..count.min(length - whole.len())]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(whole)
}

/// The label with the highest counter, and what is wrong with each copy.
async fn read_labels(
    path: &Path,
    file: &File,
    size: u64,
) -> Result<(DriveLabel, Vec<Result<(), String>>), InspectError> {
    let mut offsets = Layout::label_offsets_for(ByteCount::new(size));
    let mut by_device = true;
    loop {
        let mut copies: Vec<Result<DriveLabel, String>> = Vec::new();
        for (copy, offset) in (0u16..).zip(offsets) {
            copies.push(match read(file, offset, SECTOR_SIZE).await {
                Ok(bytes) => {
                    match DriveLabel::parse(bytes.as_slice().try_into().expect("one sector was read")) {
                        Ok((label, number)) if number == copy => Ok(label),
                        Ok((_, number)) => Err(format!("it is copy {number}")),
                        Err(error) => Err(error.to_string()),
                    }
                }
                Err(error) => Err(error.to_string()),
            });
        }
        let newest = copies.iter().filter_map(|c| c.as_ref().ok()).max_by_key(|l| l.counter).copied();
        let Some(mut label) = newest else {
            let what: Vec<String> = copies.into_iter().filter_map(Result::err).collect();
            return Err(InspectError::NoLabel { path: path.to_owned(), what: what.join("; ") });
        };
        if by_device && label.layout.label_offsets() != offsets {
            // The device is larger than the drive on it.
            by_device = false;
            offsets = label.layout.label_offsets();
            continue;
        }
        label.fenced = copies.iter().flatten().any(|l| l.fenced);
        let checked = copies
            .into_iter()
            .map(|copy| match copy? {
                l if l.drive != label.drive => Err(format!("it names drive {}", l.drive)),
                _ => Ok(()),
            })
            .collect();
        return Ok((label, checked));
    }
}
