//! Bugs planted on purpose, to prove that the tests can fail.
//!
//! Outside tests [`is`] is `false`, known at compile time, unless the build is one that plants bugs. A test plants one
//! bug for its own thread and expects the suite to find it (`simulation::planted`); the simulation of the cluster
//! plants the same ones.

/// A bug that someone might write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Records count as soon as they are written.
    AckBeforeFlush,
    /// No flush is ever sent.
    SkipFlush,
    /// A flush answers for writes that completed after it was submitted.
    FlushCoversLater,
    /// A failed flush is tried again.
    RetryFlush,
    /// A short write counts as whole.
    IgnoreShortWrite,
    /// The fence is not written to the label.
    ForgetFence,
    /// Requests that waited for a shard are overtaken by later ones.
    OvertakeWaiting,
    /// Reclaiming drops tombstones that are still needed.
    DropTombstones,
    /// Reclaiming frees a segment before the tombstones it still needs are elsewhere.
    FreeBeforeTombstones,
    /// What replaces a record does not kill the old copy.
    ForgetOldCopy,
    /// A scan ends at the first sector it does not know.
    StopAtBadSector,
    /// Acknowledged records whose headers are unreadable are not counted.
    ForgetLost,
    /// Torn records count.
    AcceptTorn,
    /// Numbers of segment lives start over where the drive's headers end.
    RepeatLife,
    /// Resume blocks are not believed.
    IgnoreResume,
    /// Reads do not check which record the header names.
    IgnoreIdentity,
    /// Reads do not check the payload.
    IgnoreChecksum,
    /// A segment gets its footer while some of its records are still on their way.
    FooterBeforeDurable,
    /// Reclaiming moves what it can into the last room of the drive, whether or not a segment becomes free by that.
    MoveInHope,
    /// Damaged records keep their segments whatever room there is.
    DamagePins,
}

#[cfg(not(test))]
impl Bug {
    const fn name(self) -> &'static str {
        match self {
            Self::AckBeforeFlush => "AckBeforeFlush",
            Self::SkipFlush => "SkipFlush",
            Self::FlushCoversLater => "FlushCoversLater",
            Self::RetryFlush => "RetryFlush",
            Self::IgnoreShortWrite => "IgnoreShortWrite",
            Self::ForgetFence => "ForgetFence",
            Self::OvertakeWaiting => "OvertakeWaiting",
            Self::DropTombstones => "DropTombstones",
            Self::FreeBeforeTombstones => "FreeBeforeTombstones",
            Self::ForgetOldCopy => "ForgetOldCopy",
            Self::StopAtBadSector => "StopAtBadSector",
            Self::ForgetLost => "ForgetLost",
            Self::AcceptTorn => "AcceptTorn",
            Self::RepeatLife => "RepeatLife",
            Self::IgnoreResume => "IgnoreResume",
            Self::IgnoreIdentity => "IgnoreIdentity",
            Self::IgnoreChecksum => "IgnoreChecksum",
            Self::FooterBeforeDurable => "FooterBeforeDurable",
            Self::MoveInHope => "MoveInHope",
            Self::DamagePins => "DamagePins",
        }
    }
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is planted.
#[cfg(test)]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted, under its name.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn is(bug: Bug) -> bool {
    holdfast_planted::CAN_PLANT && holdfast_planted::is(bug.name())
}

/// Plants a bug while `run` runs.
#[cfg(test)]
pub(crate) fn with<T>(bug: Bug, run: impl FnOnce() -> T) -> T {
    PLANTED.set(Some(bug));
    let result = run();
    PLANTED.set(None);
    result
}
