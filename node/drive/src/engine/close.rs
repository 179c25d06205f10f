//! Closing: finish what is under way, write the label, flush, answer, end.

use std::time::{Duration, Instant};

use holdfast_ring::{BlockDevice, Operation};
use tokio::sync::oneshot;

use super::{Engine, Job};
use crate::shared::Unavailable;

/// How long a closing engine waits for operations in flight.
pub(super) const CLOSE_GRACE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Closing {
    pub(super) replies: Vec<oneshot::Sender<()>>,
    pub(super) until: Instant,
    pub(super) stage: Stage,
}

/// How far a closing engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Requests are finished.
    Draining,
    /// The label is being written.
    Labelling,
    /// A last flush is on its way.
    Flushing,
}

impl<D: BlockDevice> Engine<D> {
    /// Ends the engine step by step once everything is written; `true` when it is over.
    pub(super) fn finish_closing(&mut self, now: Instant) -> bool {
        let Some(closing) = &self.closing else { return false };
        let (stage, in_time) = (closing.stage, now < closing.until);
        let answered = self.reads.is_empty() && self.released.is_empty();
        let written = self.writes_in_flight == 0
            && !self.flush_in_flight
            && self.written.is_empty()
            && self.ready.is_empty()
            && self.tombs.is_idle()
            && self.starved.is_empty()
            && self.busy.is_empty();
        if in_time && !answered {
            return false;
        }
        if in_time && self.unavailable.is_none() {
            if !written {
                return false;
            }
            match stage {
                Stage::Draining => {
                    self.record_label();
                    self.closing_stage(Stage::Labelling);
                    self.submit_ready(now);
                    return false;
                }
                Stage::Labelling => {
                    self.enqueue(Operation::flush(0), Job::LastFlush);
                    self.closing_stage(Stage::Flushing);
                    self.submit_ready(now);
                    return false;
                }
                Stage::Flushing if self.device.in_flight() > 0 => return false,
                // The label was whole before that flush was asked for.
                Stage::Flushing => self.label_flushed = self.label.counter,
            }
        }
        for request in self.shared.close() {
            self.refuse(request, &Unavailable::Closed);
        }
        self.fail(Unavailable::Closed);
        self.publish(now);
        let replies = self.closing.take().map(|c| c.replies).unwrap_or_default();
        for reply in replies {
            // The caller may have gone.
            let _ = reply.send(());
        }
        true
    }

    fn closing_stage(&mut self, stage: Stage) {
        if let Some(closing) = &mut self.closing {
            closing.stage = stage;
        }
    }
}
