//! Brings batches of lines into the buckets that take them.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use holdfast_access::text::instant_text;
use holdfast_object::{
    api::{Attributes, ObjectError, ObjectGateway, PutOptions},
    versioned::Extras,
};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    DELIVERY_TIMEOUT, LOOK_INTERVAL, Naming,
    book::{Batch, Book, Destination},
};
use crate::{authorize::BucketAccess, errors::Refusal, identities::Identities, observer::LogFate};

const MILLIS_A_DAY: u64 = 24 * 3600 * 1000;

/// Delivers what a [`Book`] holds.
pub(crate) struct Courier {
    pub book: Arc<Book>,
    pub objects: Arc<dyn ObjectGateway>,
    pub identities: Arc<dyn Identities>,
}

/// Why a batch was not delivered.
#[derive(Debug)]
enum Failure {
    /// It may be at another time.
    Later(String),
    /// The target is not what it was when the log was set up.
    Never(String),
}

impl Courier {
    /// Delivers what is due until `ended` completes, and then what is left.
    pub(crate) async fn run(&self, ended: impl Future<Output = ()>) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(ended);
        loop {
            tokio::select! {
                () = &mut ended => break,
                _ = ticks.tick() => self.deliver(false).await,
            }
        }
        self.deliver(true).await;
    }

    async fn deliver(&self, last: bool) {
        for (destination, batch) in self.book.take(last) {
            let delivered = timeout(DELIVERY_TIMEOUT, self.put(&destination, &batch)).await;
            match delivered.unwrap_or_else(|_| Err(Failure::Later("it took too long".to_owned()))) {
                Ok(()) => self.book.settle(&batch, LogFate::Delivered),
                Err(Failure::Later(error)) if !last => {
                    tracing::debug!(
                        target_bucket = destination.target,
                        error,
                        "access log not delivered yet"
                    );
                    self.book.put_back(destination, batch);
                }
                Err(Failure::Later(error) | Failure::Never(error)) => {
                    let (source, lines) = (destination.source, batch.lines);
                    tracing::warn!(bucket = source, lines, error, "access log lost");
                    self.book.settle(&batch, LogFate::Dropped);
                }
            }
        }
    }

    async fn put(&self, to: &Destination, batch: &Batch) -> Result<(), Failure> {
        let objects = self.objects.open(to.tenant);
        let snapshot = self.identities.snapshot();
        let tenant = snapshot.tenants.get(&to.tenant);
        let tenant = tenant.ok_or_else(|| Failure::Never("the tenant is gone".to_owned()))?;
        // It may have been deleted since, and be somebody else's now.
        let target =
            BucketAccess::load(&*objects, tenant, &to.target).await.map_err(|refusal| not_found(&refusal))?;
        if target.owner.canonical != to.owner {
            return Err(Failure::Never("the target is another account's".to_owned()));
        }
        let mut unique = [0; 8];
        getrandom::fill(&mut unique).map_err(|error| Failure::Later(error.to_string()))?;
        let now = self.identities.now_millis();
        let key = key(to, &self.objects.region(), now, unique);
        let text = Bytes::copy_from_slice(&batch.text);
        let mut attributes = Attributes::default();
        attributes.headers.insert("content-type".to_owned(), "text/plain".to_owned());
        let options = PutOptions { length: Some(text.len() as u64), attributes, ..PutOptions::default() };
        let body = Box::pin(futures::stream::once(async move { Ok(text) }));
        match objects.put(&to.target, &key, body, options, Extras::default(), None).await {
            Ok(_) => Ok(()),
            Err(
                error @ (ObjectError::Unavailable(_) | ObjectError::Internal(_) | ObjectError::NoSpace(_)),
            ) => Err(Failure::Later(error.to_string())),
            Err(error) => Err(Failure::Never(error.to_string())),
        }
    }
}

fn not_found(refusal: &Refusal) -> Failure {
    let said = format!("{}: {}", refusal.code, refusal.text());
    if refusal.code == "NoSuchBucket" { Failure::Never(said) } else { Failure::Later(said) }
}

/// The key of a log object, as AWS makes them.
fn key(to: &Destination, region: &str, now: u64, unique: [u8; 8]) -> String {
    let unique = hex::encode_upper(unique);
    let by_event = to.day.map(|day| instant_text(day * MILLIS_A_DAY));
    let now = instant_text(now);
    let dated = |instant: &str| instant.trim_end_matches('Z').replace(['T', ':'], "-");
    let (prefix, account, source) = (&to.prefix, &to.account, &to.source);
    let partition = |at: &str| {
        format!("{prefix}{account}/{region}/{source}/{}/", at.get(..10).unwrap_or(at).replace('-', "/"))
    };
    match (to.naming, by_event) {
        (Naming::ByEvent, Some(day)) => format!("{}{}-{unique}", partition(&day), dated(&day)),
        (Naming::Simple, _) => format!("{prefix}{}-{unique}", dated(&now)),
        _ => format!("{}{}-{unique}", partition(&now), dated(&now)),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_access::text::CanonicalId;
    use holdfast_model::TenantId;

    use super::*;

    #[test]
    fn keys_are_as_amazon_documents_them() {
        let key = |naming, day| {
            let to = Destination {
                tenant: TenantId::from_bytes([1; 16]),
                owner: CanonicalId::from_bytes([2; 32]),
                account: "123456789012".to_owned(),
                source: "b".to_owned(),
                target: "logs".to_owned(),
                prefix: "p/".to_owned(),
                naming,
                day,
            };
            key(&to, "us-east-1", 1_549_411_238_000, [0xab; 8])
        };
        assert_eq!(key(Naming::Simple, None), "p/2019-02-06-00-00-38-ABABABABABABABAB");
        assert_eq!(
            key(Naming::ByDelivery, None),
            "p/123456789012/us-east-1/b/2019/02/06/2019-02-06-00-00-38-ABABABABABABABAB"
        );
        assert_eq!(
            key(Naming::ByEvent, Some(17_932)),
            "p/123456789012/us-east-1/b/2019/02/05/2019-02-05-00-00-00-ABABABABABABABAB"
        );
    }
}
