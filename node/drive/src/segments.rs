//! What state each segment is in and how much of it is alive. Pure bookkeeping.

use std::collections::{BTreeMap, HashMap, VecDeque};

use holdfast_format::{Layout, SegmentSequence, record_sectors};

/// Where a segment is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Free, and that is flushed; may be opened once nothing reads from it.
    Free,
    /// Its free mark is on its way.
    Freeing,
    /// Takes records.
    Open,
    /// Full; its footer is not written yet.
    Sealing,
    /// Full, with a footer.
    Sealed,
    /// Left alone until the next mount: its header or footer could not be read back.
    Suspect,
}

/// One segment.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) phase: Phase,
    pub(crate) life: SegmentSequence,
    /// Live records, and their sectors.
    pub(crate) live_records: u32,
    pub(crate) live_sectors: u32,
    /// Entries of the footer.
    pub(crate) records: u32,
    pub(crate) tombstones: u32,
    /// Reads in flight.
    pub(crate) pins: u32,
    /// Writes not yet durable.
    pub(crate) unflushed: u32,
    /// Tombstones in this segment by the life they point to, while that life is on the drive.
    pub(crate) needed: BTreeMap<SegmentSequence, u32>,
    /// Reclaiming failed when it held so much; no use before that changes.
    pub(crate) stuck_at: Option<StuckAt>,
}

/// What a segment held when it could not be reclaimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StuckAt {
    live_records: u32,
    needed_tombstones: u32,
    /// Damaged records would have been moved as they are.
    last_resort: bool,
}

impl Segment {
    fn new(phase: Phase, life: SegmentSequence) -> Self {
        Self {
            phase,
            life,
            live_records: 0,
            live_sectors: 0,
            records: 0,
            tombstones: 0,
            pins: 0,
            unflushed: 0,
            needed: BTreeMap::new(),
            stuck_at: None,
        }
    }

    /// Tombstones of this segment that must outlive it.
    pub(crate) fn needed_tombstones(&self) -> u32 {
        self.needed.values().sum()
    }

    /// Reclaiming failed on what it holds now.
    pub(crate) fn set_stuck(&mut self, last_resort: bool) {
        let (live_records, needed_tombstones) = (self.live_records, self.needed_tombstones());
        self.stuck_at = Some(StuckAt { live_records, needed_tombstones, last_resort });
    }

    /// Whether reclaiming failed on what it holds now, no less determined.
    fn is_stuck(&self, last_resort: bool) -> bool {
        self.stuck_at.is_some_and(|at| {
            (at.live_records, at.needed_tombstones) == (self.live_records, self.needed_tombstones())
                && (at.last_resort || !last_resort)
        })
    }

    /// Sectors that it takes to keep what must be kept of it: copies of its live records, each pair of them with a block of
    /// tombstones for what they replace, and its tombstones.
    fn cost_to_keep(&self) -> u32 {
        let tombstones = self.needed_tombstones().div_ceil(TOMBSTONES_A_SECTOR);
        self.live_sectors + self.live_records.div_ceil(2) + tombstones
    }
}

/// All segments of a drive.
#[derive(Debug)]
pub(crate) struct Segments {
    all: Vec<Segment>,
    free: VecDeque<u32>,
    lives: HashMap<SegmentSequence, u32>,
    live_sectors: u64,
}

impl Segments {
    /// All free, none ever used.
    pub(crate) fn new(layout: &Layout) -> Self {
        let all = vec![Segment::new(Phase::Free, SegmentSequence::NONE); layout.segments() as usize];
        Self { all, free: VecDeque::new(), lives: HashMap::new(), live_sectors: 0 }
    }

    pub(crate) fn get(&self, segment: u32) -> &Segment {
        &self.all[segment as usize]
    }

    pub(crate) fn get_mut(&mut self, segment: u32) -> &mut Segment {
        &mut self.all[segment as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Segment)> {
        (0u32..).zip(&self.all)
    }

    /// The segment that has this life now.
    pub(crate) fn by_life(&self, life: SegmentSequence) -> Option<u32> {
        self.lives.get(&life).copied()
    }

    /// Puts a segment found by the mount in place.
    pub(crate) fn found(&mut self, segment: u32, phase: Phase, life: SegmentSequence) {
        *self.get_mut(segment) = Segment::new(phase, life);
        match phase {
            Phase::Free => self.free.push_back(segment),
            _ => drop(self.lives.insert(life, segment)),
        }
    }

    /// Segments that may be opened, or could be once a read in flight ends.
    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Takes the free segment that has been free for longest, as long as `reserve` stay free.
    pub(crate) fn open(&mut self, reserve: usize, life: SegmentSequence) -> Option<u32> {
        if self.free.len() <= reserve {
            return None;
        }
        let at = self.free.iter().position(|s| self.all[*s as usize].pins == 0)?;
        let segment = self.free.remove(at)?;
        *self.get_mut(segment) = Segment::new(Phase::Open, life);
        self.lives.insert(life, segment);
        Some(segment)
    }

    /// The free mark of `segment` is durable: its life is over, and with it the tombstones that name it.
    pub(crate) fn freed(&mut self, segment: u32) {
        let (life, pins) = (self.get(segment).life, self.get(segment).pins);
        *self.get_mut(segment) = Segment::new(Phase::Free, life);
        self.get_mut(segment).pins = pins;
        self.lives.remove(&life);
        self.free.push_back(segment);
        for other in &mut self.all {
            other.needed.remove(&life);
        }
    }

    /// A record in `segment` is live.
    pub(crate) fn add_live(&mut self, segment: u32, payload_len: u32) {
        let sectors = record_sectors(payload_len);
        let s = self.get_mut(segment);
        s.live_records += 1;
        s.live_sectors += sectors;
        self.live_sectors += u64::from(sectors);
    }

    /// A live record in `segment` died.
    pub(crate) fn remove_live(&mut self, segment: u32, payload_len: u32) {
        let sectors = record_sectors(payload_len);
        let s = self.get_mut(segment);
        s.live_records -= 1;
        s.live_sectors -= sectors;
        self.live_sectors -= u64::from(sectors);
    }

    /// A tombstone in `segment` for a record in the segment of that life.
    pub(crate) fn add_tombstone(&mut self, segment: u32, target: SegmentSequence) {
        if self.lives.contains_key(&target) {
            *self.get_mut(segment).needed.entry(target).or_default() += 1;
        }
    }

    /// Sectors in live records.
    pub(crate) fn live_sectors(&self) -> u64 {
        self.live_sectors
    }

    /// The sealed segment with the least that must be kept, and how many sectors that takes. Those that reclaiming failed on
    /// are left out, unless it is more determined now.
    pub(crate) fn emptiest(&self, last_resort: bool) -> Option<(u32, u32)> {
        self.iter()
            .filter(|(_, s)| s.phase == Phase::Sealed && !s.is_stuck(last_resort))
            .map(|(i, s)| (i, s.cost_to_keep()))
            .min_by_key(|(_, keep)| *keep)
    }
}

/// Tombstones that fit one block, for estimates.
const TOMBSTONES_A_SECTOR: u32 = holdfast_format::TombstoneBlock::ENTRIES_MAX as u32;
