//! Stripes on their way into the catalog. A write that fails, is refused or whose client goes away leaves
//! shards that nothing will ever refer to; they are condemned soon after, so that a full cluster gets their
//! space back in a minute. What a crash leaves is found by the orphan sweep instead, a day later.

use std::{collections::HashSet, sync::Arc, time::Duration};

use holdfast_catalog::{Command, MetadataSeal, Op, Orphan, SWEEP_MAX, StripeRef};
use holdfast_model::StripeId;
use parking_lot::Mutex;

use crate::{
    api::ObjectError,
    backing::Route,
    decides::Decides,
    family,
    service::{fresh_request, propose},
    stamps::Stamps,
};

/// How long after the end of a write its stripes are condemned: longer than a shard may be under way.
const CONDEMN_AFTER: Duration = Duration::from_secs(25);

/// Every stripe of a body that was begun, whether it reached its drives or not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attempts(Arc<Mutex<Vec<StripeRef>>>);

impl Attempts {
    pub(crate) fn note(&self, stripe: StripeRef) {
        self.0.lock().push(stripe);
    }
}

/// Condemns what was attempted, unless it is kept.
#[derive(Debug)]
pub struct Draft {
    attempted: Option<Attempted>,
    /// Stripes that the catalog refers to.
    kept: HashSet<StripeId>,
}

#[derive(Debug)]
struct Attempted {
    consensus: Arc<dyn Decides>,
    seal: Arc<MetadataSeal>,
    stamps: Arc<Stamps>,
    route: Route,
    attempts: Attempts,
}

impl Draft {
    /// Nothing to clean up.
    #[must_use]
    pub fn none() -> Self {
        Self { attempted: None, kept: HashSet::new() }
    }

    pub(crate) fn new(
        (consensus, seal, stamps): (Arc<dyn Decides>, Arc<MetadataSeal>, Arc<Stamps>),
        route: Route,
        attempts: Attempts,
    ) -> Self {
        Self { attempted: Some(Attempted { consensus, seal, stamps, route, attempts }), kept: HashSet::new() }
    }

    /// The catalog refers to these from now on.
    pub(crate) fn keep(&mut self, stripes: &[StripeRef]) {
        self.kept.extend(stripes.iter().map(|stripe| stripe.id));
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let Some(Attempted { consensus, seal, stamps, route, attempts }) = self.attempted.take() else {
            return;
        };
        let kept = std::mem::take(&mut self.kept);
        if holdfast_planted::is("DraftsAreForgotten") {
            return;
        }
        let all_kept = attempts.0.lock().iter().all(|stripe| kept.contains(&stripe.id));
        // While somebody else holds the list, a stripe may still be begun: it is looked at again later.
        if all_kept && Arc::strong_count(&attempts.0) == 1 {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            tokio::time::sleep(CONDEMN_AFTER).await;
            let left: Vec<StripeRef> =
                attempts.0.lock().drain(..).filter(|stripe| !kept.contains(&stripe.id)).collect();
            for part in left.chunks(SWEEP_MAX) {
                if let Err(error) = condemn(consensus.as_ref(), &seal, &stamps, route, part).await {
                    tracing::debug!(%error, stripes = part.len(), "stripes of a write that failed are left for the orphan sweep");
                }
            }
        });
    }
}

async fn condemn(
    consensus: &dyn Decides,
    seal: &MetadataSeal,
    stamps: &Stamps,
    (partition, group): Route,
    stripes: &[StripeRef],
) -> Result<(), ObjectError> {
    let orphan = |stripe: &StripeRef| Orphan {
        stripe: stripe.id,
        generation: stripe.generation,
        shards: stripe.shards().collect(),
    };
    let stripes = stripes.iter().map(orphan).collect();
    let decided = |op: Op| async move {
        let command = Command { partition, at: stamps.next(partition), request: fresh_request(), op };
        Ok(propose(consensus, seal, group, &command).await?.0)
    };
    let condemned = family::condemn(decided, stripes).await?;
    tracing::debug!(condemned, "stripes of a write that failed are condemned");
    Ok(())
}
