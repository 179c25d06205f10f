//! Cuts one content anew: reads it, seals it under a fresh key in stripes of the level it should have, reads
//! that back, and switches the catalog in one command.
//!
//! A fresh key, because a cell's nonce is its address: content that is cut otherwise would put other bytes at
//! the same addresses. The old stripes stay as they are, and readable, until the sweep.
//!
//! Invariants:
//! - the switch names the content as it was read, and is refused when it was cut anew meanwhile;
//! - it is proposed only after every cell of the new stripes was read from the drives, opened, and found to
//!   have the digest of what was read from the old ones.

use std::sync::Arc;

use futures::StreamExt;
use holdfast_catalog::{
    BodyRef, ContentBody, Op, PartContent, Refusal, ReplaceStripes, Response, StripeRef, StripedContent,
};
use holdfast_crypt::{BodyContext, BodyKey, BodyUse, CustodyError, Outer, OuterKey, SealedBodyKey};
use holdfast_model::{
    VersionId,
    fit::{Fit, Laid, Standard},
};
use md5::{Digest, Md5};

use super::Route;
use crate::{
    api::ObjectError,
    backing::{Taker, WrittenBody},
    body_reader::{ContentOwner, open_body},
    body_writer::{BodyTarget, BodyWriter, no_key},
    directory::TenantEntry,
    draft::Draft,
    host::{chance, now},
    sealing::{NamedKey, Sealed},
    service::{ObjectService, from_opaque},
    stripes::StripeIo,
};

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Recut {
    /// The content is in stripes of its level; so many bytes of plaintext were read twice and written once.
    Done { bytes: u64 },
    /// Nothing refers to it any more, or it has its level already.
    Overtaken,
    /// Its key is wrapped under a customer's key as well, or a named one that is gone: it cannot be opened here.
    Closed,
    /// Drives went away while it was being written, so that it would be no better than before.
    Worse,
}

/// A named key and what a wrapping under it is bound to; `None` without one.
type OuterLayer = Option<(OuterKey, Vec<u8>)>;

/// How a stripe stands to a standard.
pub(super) fn fit(standard: &Standard, stripe: &StripeRef) -> Fit {
    standard.judge(Laid {
        data: stripe.data,
        parity: stripe.parity,
        places: &stripe.places,
        written: stripe.id.created(),
    })
}

/// Cuts a content anew.
pub(super) async fn recut(
    service: &Arc<ObjectService>,
    tenant: &TenantEntry,
    route: Route,
    owned: &StripedContent,
    standard: &Standard,
) -> Result<Recut, ObjectError> {
    let content = owned.content;
    let Some(old) = service.read(route, ("", ""), move |catalog| catalog.content_body(content)).await? else {
        return Ok(Recut::Overtaken);
    };
    let Some(first) = old.stripes.first().map(|stripe| stripe.id) else { return Ok(Recut::Overtaken) };
    if old.stripes.iter().all(|stripe| fit(standard, stripe) == Fit::Right) {
        return Ok(Recut::Overtaken);
    }
    let Some(outer) = outer(tenant, owned)? else { return Ok(Recut::Closed) };
    let owner = Arc::new(ContentOwner {
        cluster: service.directory.cluster(),
        tenant: tenant.id,
        tenant_key: Arc::clone(tenant.key()?),
        wanted: BodyUse::Background,
        bucket: owned.bucket,
        name: owned.key.clone(),
        outer,
    });
    if !opens(&owner, &old)? {
        return Ok(Recut::Closed);
    }
    let size = old.size;
    let mut written = write(service, &owner, route, standard, old).await?;
    let BodyRef::Stripes(stripes) = written.body.clone() else {
        return Err(ObjectError::Internal(format!("{size} bytes in stripes came out as an inline body")));
    };
    if stripes.iter().any(|stripe| fit(standard, stripe) != Fit::Right) {
        return Ok(Recut::Worse);
    }
    let copy = ContentBody { size, wrapped_key: written.wrapped_key.clone(), stripes: stripes.clone() };
    let wrapped_key = copy.wrapped_key.clone();
    if digest(service, &owner, copy).await? != written.md5 {
        return Err(ObjectError::Damaged(format!(
            "content {content} of partition {} did not read back as it was written",
            route.0
        )));
    }
    let op = ReplaceStripes { content, expected: first, wrapped_key, stripes: stripes.clone() };
    match service.propose(route, Op::ReplaceStripes(op)).await? {
        Ok(Response::StripesReplaced) => {
            written.draft.keep(&stripes);
            Ok(Recut::Done { bytes: size })
        }
        Ok(other) => Err(ObjectError::Internal(format!("the catalog answered {other:?}"))),
        Err(Refusal::ContentChanged) => Ok(Recut::Overtaken),
        Err(refusal) => Err(ObjectError::Internal(refusal.to_string())),
    }
}

/// The named key that the content's key is wrapped under, and what that is bound to, if it is. `None`: a customer's, or
/// one that this tenant has not.
fn outer(tenant: &TenantEntry, owned: &StripedContent) -> Result<Option<OuterLayer>, ObjectError> {
    Ok(match Sealed::of(&from_opaque(&owned.attributes)?) {
        Sealed::Own => Some(None),
        Sealed::Customer(_) => None,
        Sealed::Named(NamedKey { id, context, .. }) => {
            let key = tenant.named_key(BodyUse::Background, &id)?;
            key.map(|key| Some((key, context.into_bytes())))
        }
    })
}

/// Whether the tenant's key, with the named one, opens the content's.
fn opens(owner: &ContentOwner, content: &ContentBody) -> Result<bool, ObjectError> {
    let sealed = SealedBodyKey::from_bytes(content.wrapped_key.to_vec());
    let place = (owner.cluster, owner.tenant, owner.bucket);
    let custody = (&*owner.tenant_key, owner.wanted);
    match BodyKey::unwrap_by(&sealed, custody, place, &owner.name, layer(owner)) {
        Ok(_) => Ok(true),
        Err(CustodyError::Crypt(_)) => Ok(false),
        Err(error) => Err(no_key(error)),
    }
}

fn layer(owner: &ContentOwner) -> Option<Outer<'_>> {
    owner.outer.as_ref().map(|(key, context)| Outer { key, context })
}

async fn write(
    service: &Arc<ObjectService>,
    owner: &Arc<ContentOwner>,
    route: Route,
    standard: &Standard,
    old: ContentBody,
) -> Result<WrittenBody, ObjectError> {
    let target = BodyTarget {
        context: BodyContext {
            cluster: owner.cluster,
            tenant: owner.tenant,
            bucket: owner.bucket,
            content: VersionId::new(now(), chance()),
        },
        tenant_key: Arc::clone(&owner.tenant_key),
        wanted: BodyUse::Background,
        name: owner.name.clone(),
        level: standard.level(),
    };
    let size = old.size;
    // What is cut anew replaces what is there, and may be what holds a level again after a loss.
    let io = StripeIo { uses_spare: true, ..service.stripes.clone() };
    let mut writer = BodyWriter::begin(&io, target, Some(size), layer(owner))?;
    let draft = Draft::new(
        (Arc::clone(&service.consensus), service.directory.seal(owner.tenant)?, Arc::clone(&service.stamps)),
        route,
        writer.attempts(),
    );
    let (contents, taker) = (vec![whole(old)], Taker::Copy);
    let mut body = open_body(&service.stripes, Arc::clone(owner), contents, 0..size, None, taker).await?;
    while let Some(piece) = body.next().await {
        writer.push(piece?).await?;
    }
    Ok(WrittenBody { draft, ..writer.finish(None).await? })
}

/// MD5 of what the drives give back: it tells a mistake, and nobody has reason to forge it here.
async fn digest(
    service: &ObjectService,
    owner: &Arc<ContentOwner>,
    content: ContentBody,
) -> Result<[u8; 16], ObjectError> {
    let size = content.size;
    let mut body =
        open_body(&service.stripes, Arc::clone(owner), vec![whole(content)], 0..size, None, Taker::Client)
            .await?;
    let mut md5 = Md5::new();
    while let Some(piece) = body.next().await {
        md5.update(&piece?);
    }
    Ok(md5.finalize().into())
}

fn whole(content: ContentBody) -> PartContent {
    PartContent {
        number: 0,
        offset: 0,
        size: content.size,
        wrapped_key: content.wrapped_key,
        body: BodyRef::Stripes(content.stripes),
        skipped: 0,
    }
}
