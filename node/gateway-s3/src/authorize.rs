//! One step in front of every handler: may this caller do this? After the signature was verified, before
//! any of the body is read. What nothing allows is denied.
//!
//! What was found out is left with the call ([`Access`]): handlers that decide key by key, or write lists,
//! go on from there.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use holdfast_access::{
    acl::Acl,
    block::PublicAccessBlock,
    cors::Cors,
    decide::{BucketFacts, ByList, Decision, decide, decide_by_identity},
    identity::{AccountInfo, Caller, Snapshot, Tenant, Who},
    ownership::Ownership,
    policy::{Context, Policy, Question},
    text::CanonicalId,
};
use holdfast_model::{TenantId, VersionId};
use holdfast_object::{
    api::{ObjectError, ObjectGateway},
    versioned::{DocumentKind, VersionInfo, VersionSelector, VersionedObjects},
};

use crate::{
    actions::{BY_HEADER, BYPASS, LIST_BUCKET, NO_NEED, Need, SOURCE, Subject, TARGET, needs},
    call::Call,
    conditions,
    errors::Refusal,
    identities::Identities,
    lists,
    logs::{LogTo, Logging},
};

/// Documents of a bucket that have a say.
pub(crate) const KINDS: &[DocumentKind] = &[
    DocumentKind::Owner,
    DocumentKind::Policy,
    DocumentKind::Acl,
    DocumentKind::Ownership,
    DocumentKind::PublicAccess,
    DocumentKind::Cors,
    DocumentKind::Logging,
    DocumentKind::RequestPayment,
];

/// The document of a bucket whose requesters pay.
pub(crate) const REQUESTER: &str = "Requester";

/// A bucket as access control sees it.
#[derive(Debug, Clone)]
pub(crate) struct BucketAccess {
    /// What decisions need.
    pub facts: BucketFacts,
    /// Its owner.
    pub owner: Arc<AccountInfo>,
    /// Its policy as it was stored.
    pub policy: Option<Bytes>,
    /// Whether ownership controls are set.
    pub ownership_set: bool,
    /// Whether a public access block is set.
    pub block_set: bool,
    /// From before buckets had owners: it is restrained without any document.
    pub from_before: bool,
    /// Its cross-origin rules.
    pub cors: Option<Cors>,
    /// Where its access log goes.
    pub logging: Option<Arc<Logging>>,
    /// Whether accounts beside the owner's have to say that they pay.
    pub requester_pays: bool,
}

/// What was found out about a request.
#[derive(Debug)]
pub(crate) struct Access {
    /// The namespace of its bucket.
    pub tenant: TenantId,
    /// Who asks.
    pub caller: Arc<Caller>,
    /// All identities as they were when it was decided.
    pub identities: Arc<Snapshot>,
    /// The bucket it names.
    pub bucket: Option<BucketAccess>,
    /// List of the object that it writes; empty: the bucket owner's, private.
    pub object_acl: Bytes,
    context: Context,
}

impl BucketAccess {
    /// Reads what the catalog has of a bucket.
    pub(crate) async fn load(
        objects: &dyn VersionedObjects,
        tenant: &Tenant,
        bucket: &str,
    ) -> Result<Self, Refusal> {
        let (_, documents) = objects.bucket_with(bucket, KINDS).await?;
        let find = |kind| documents.iter().find(|(found, _)| *found == kind).map(|(_, body)| body);
        let owner = match find(DocumentKind::Owner) {
            Some(id) => owner_of(id).and_then(|id| tenant.by_canonical(id)),
            None => tenant.first_account(),
        };
        let owner = owner.cloned().ok_or_else(|| {
            tracing::error!(bucket, "the bucket's owner is unknown");
            Refusal::new("InternalError")
        })?;
        // From before ownership was: nothing of it was public, and its owner owned every object.
        let old = find(DocumentKind::Owner).is_none();
        let word = find(DocumentKind::Ownership).and_then(|word| std::str::from_utf8(word).ok());
        let ownership = match word {
            Some(word) => Ownership::parse(word).unwrap_or(Ownership::BucketOwnerEnforced),
            None if old => Ownership::BucketOwnerEnforced,
            None => Ownership::ObjectWriter,
        };
        let block = match find(DocumentKind::PublicAccess) {
            Some(byte) => PublicAccessBlock::from_bytes(byte),
            None if old => PublicAccessBlock::ALL,
            None => PublicAccessBlock::default(),
        };
        let policy = find(DocumentKind::Policy).cloned();
        let parsed = match policy.as_deref().map(Policy::parse) {
            None => None,
            Some(Ok(parsed)) => Some(Arc::new(parsed)),
            Some(Err(error)) => {
                // It was checked when it was stored. What cannot be read may hold a deny.
                tracing::error!(bucket, %error, "the bucket's policy cannot be read");
                return Err(Refusal::new("AccessDenied"));
            }
        };
        let acl = match find(DocumentKind::Acl) {
            None => Acl::private(owner.canonical),
            Some(bytes) => Acl::decode(bytes).unwrap_or(Acl { owner: owner.canonical, grants: Vec::new() }),
        };
        Ok(Self {
            facts: BucketFacts { owner: owner.canonical, policy: parsed, acl, ownership, block },
            owner,
            policy,
            ownership_set: old || word.is_some(),
            block_set: old || find(DocumentKind::PublicAccess).is_some(),
            from_before: old,
            cors: find(DocumentKind::Cors).and_then(|text| serde_json::from_slice(text).ok()),
            logging: find(DocumentKind::Logging)
                .and_then(|text| serde_json::from_slice(text).ok())
                .map(Arc::new),
            requester_pays: find(DocumentKind::RequestPayment).is_some_and(|payer| payer == REQUESTER),
        })
    }
}

/// The owner that a document of kind `Owner` names.
pub(crate) fn owner_of(document: &[u8]) -> Option<CanonicalId> {
    document.try_into().ok().map(CanonicalId::from_bytes)
}

/// Which tenant's bucket somebody who did not sign means: tenants have names of their own for buckets, so
/// it is the first tenant, by id, that has one of this name.
pub(crate) async fn tenant_of_bucket(
    objects: &dyn ObjectGateway,
    snapshot: &Snapshot,
    bucket: &str,
) -> Result<(TenantId, BucketAccess), Refusal> {
    let mut tenants: Vec<_> = snapshot.tenants.iter().collect();
    tenants.sort_unstable_by_key(|(id, _)| *id.as_bytes());
    for (id, tenant) in tenants {
        match BucketAccess::load(&*objects.open(*id), tenant, bucket).await {
            Ok(found) => return Ok((*id, found)),
            Err(refusal) if refusal.code == "NoSuchBucket" => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Err(Refusal::new("NoSuchBucket"))
}

/// Finds the bucket of a request: in the signer's tenant, or where an anonymous request may mean it.
pub(crate) async fn find_bucket(
    call: &Call,
    objects: &dyn ObjectGateway,
    snapshot: &Snapshot,
    bucket: &str,
) -> Result<(TenantId, BucketAccess), Refusal> {
    match call.signer.get() {
        Some(signer) => {
            let tenant = snapshot.tenants.get(&signer.tenant).ok_or_else(|| Refusal::new("AccessDenied"))?;
            Ok((signer.tenant, BucketAccess::load(&*objects.open(signer.tenant), tenant, bucket).await?))
        }
        None => tenant_of_bucket(objects, snapshot, bucket).await,
    }
}

/// What clients of a suspended tenant are told.
pub(crate) const SUSPENDED: &str = "The tenant is suspended. Ask whoever runs this storage.";

/// Refuses clients of a suspended tenant, and of one whose key waits for its external service. Its data is kept, and
/// background work on it goes on.
fn check_standing(snapshot: &Snapshot, tenant: TenantId) -> Result<(), Refusal> {
    let Some(tenant) = snapshot.tenants.get(&tenant) else { return Ok(()) };
    if tenant.suspended {
        return Err(Refusal::because("AccessDenied", SUSPENDED));
    }
    match &tenant.waits_for {
        Some(what) => {
            Err(Refusal::because("ServiceUnavailable", format!("The tenant's data cannot be read: {what}.")))
        }
        None => Ok(()),
    }
}

/// Decides, and leaves what was found with the call.
pub(crate) async fn authorize(
    call: &Call,
    objects: &dyn ObjectGateway,
    identities: &dyn Identities,
) -> Result<(), Refusal> {
    let snapshot = identities.snapshot();
    let caller = match call.signer.get() {
        Some(signer) => Arc::clone(&signer.caller),
        None if call.signed.is_none() => Arc::new(Caller::anonymous()),
        None => return Err(Refusal::new("AccessDenied")),
    };
    let context = conditions::of(call, &caller, &objects.region(), identities.now_millis());
    let needs = needs(call.operation.name);
    if needs.is_empty() {
        return Err(Refusal::new("AccessDenied"));
    }
    let named = call.target.bucket().filter(|_| needs.iter().all(|need| need.on != Subject::Caller));
    if let Some(signer) = call.signer.get() {
        check_standing(&snapshot, signer.tenant)?;
    }
    let found = match named {
        Some(bucket) => Some(find_bucket(call, objects, &snapshot, bucket).await?),
        None => None,
    };
    let tenant = match (&found, call.signer.get()) {
        (Some((tenant, _)), _) => *tenant,
        (None, Some(signer)) => signer.tenant,
        (None, None) => return Err(Refusal::new("AccessDenied")),
    };
    check_standing(&snapshot, tenant)?;
    if let Some((_, bucket)) = &found {
        note_log(call, tenant, bucket, &caller);
        check_payer(call, bucket, &caller)?;
    }
    let mut access = Access {
        tenant,
        caller,
        identities: snapshot,
        bucket: found.map(|(_, bucket)| bucket),
        object_acl: Bytes::new(),
        context,
    };
    access.check_expected_owner(call, "x-amz-expected-bucket-owner", access.bucket.as_ref())?;
    let handle = objects.open(tenant);
    access.set_resource_owner();
    let (bucket, key) = (call.target.bucket().unwrap_or_default(), call.target.key());
    let version = call.query.iter().find(|(name, _)| name == "versionId").map(|(_, value)| value.as_str());
    // What tags a document sets is known when it was read: its handler decides.
    let deferred = call.operation.name == "PutObjectTagging" && access.any_reads("s3:requestobjecttag");
    for need in needs.iter().filter(|_| !deferred) {
        access.check(need, &*handle, bucket, key, version).await?;
    }
    for (header, operations, need) in BY_HEADER {
        if call.headers.contains_key(*header) && operations.contains(&call.operation.name) {
            access.check(need, &*handle, bucket, key, None).await?;
        }
    }
    if call
        .headers
        .get("x-amz-bypass-governance-retention")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
        && let Some(key) = key
    {
        access.check(&BYPASS, &*handle, bucket, Some(key), version).await?;
    }
    if let Some(source) =
        call.headers.get("x-amz-copy-source").filter(|_| call.operation.name.contains("Copy"))
    {
        access.check_source(call, source.to_str().unwrap_or_default(), &*handle).await?;
    }
    if matches!(call.operation.name, "PutObject" | "CopyObject" | "CreateMultipartUpload" | "PostObject") {
        access.object_acl = lists::of_new_object(&access, &call.headers)?;
    }
    let _ = call.access.set(access);
    Ok(())
}

/// Leaves with the call where a line about it goes: refusals from here on are logged as well.
fn note_log(call: &Call, tenant: TenantId, bucket: &BucketAccess, caller: &Caller) {
    let Some(logging) = &bucket.logging else { return };
    let requester = match caller.who {
        Who::Anonymous => None,
        Who::Root => caller.canonical().map(|id| id.to_string()),
        Who::User { .. } | Who::Session { .. } => caller.arn(),
    };
    let to = LogTo {
        tenant,
        owner: bucket.owner.canonical,
        account: bucket.owner.number.to_string(),
        requester: requester.unwrap_or_else(|| "-".to_owned()),
        logging: Arc::clone(logging),
    };
    // Fresh: a call is decided on once.
    let _ = call.log.set(to);
}

/// Another account than the owner's has to say that it pays, where requesters do; nobody cannot.
fn check_payer(call: &Call, bucket: &BucketAccess, caller: &Caller) -> Result<(), Refusal> {
    if !bucket.requester_pays || caller.canonical() == Some(bucket.owner.canonical) {
        return Ok(());
    }
    let says = call.headers.get("x-amz-request-payer").is_some_and(|payer| payer.as_bytes() == b"requester");
    if !says || caller.canonical().is_none() {
        return Err(Refusal::new("AccessDenied"));
    }
    call.charged.store(true, Ordering::Relaxed);
    Ok(())
}

/// Splits a copy source into bucket, key and version.
pub(crate) fn copy_source(text: &str) -> Option<(String, String, Option<String>)> {
    let (path, version) = match text.split_once("?versionId=") {
        Some((path, version)) => (path, Some(version.to_owned())),
        None => (text, None),
    };
    let path = urlencoding::decode(path).ok()?;
    let (bucket, key) = path.strip_prefix('/').unwrap_or(&path).split_once('/')?;
    Some((bucket.to_owned(), key.to_owned(), version))
}

impl Access {
    fn set_resource_owner(&mut self) {
        if let Some(bucket) = &self.bucket {
            let number = bucket.owner.number.to_string();
            self.context.set("s3:ResourceAccount", number.clone());
            self.context.set("aws:ResourceAccount", number);
        }
    }

    /// An account as this tenant knows it.
    pub(crate) fn account(&self, id: CanonicalId) -> Option<&Arc<AccountInfo>> {
        self.identities.tenants.get(&self.tenant)?.by_canonical(id)
    }

    /// The bucket that was found.
    pub(crate) fn bucket(&self) -> Result<&BucketAccess, Refusal> {
        self.bucket.as_ref().ok_or_else(|| Refusal::new("AccessDenied"))
    }

    fn check_expected_owner(
        &self,
        call: &Call,
        header: &str,
        bucket: Option<&BucketAccess>,
    ) -> Result<(), Refusal> {
        let (Some(expected), Some(bucket)) = (call.headers.get(header), bucket) else { return Ok(()) };
        let is = |text: String| expected.as_bytes() == text.as_bytes();
        if is(bucket.owner.number.to_string()) || is(bucket.owner.canonical.to_string()) {
            return Ok(());
        }
        Err(Refusal::new("AccessDenied"))
    }

    /// Whether an action may be done on a key of the bucket, or on the bucket.
    pub(crate) async fn check(
        &self,
        need: &Need,
        objects: &dyn VersionedObjects,
        bucket: &str,
        key: Option<&str>,
        version: Option<&str>,
    ) -> Result<(), Refusal> {
        self.check_with(need, objects, (bucket, self.bucket.as_ref()), key, version, None).await
    }

    /// As [`Access::check`] of setting tags that only the body names.
    pub(crate) async fn check_tags(
        &self,
        call: &Call,
        objects: &dyn VersionedObjects,
        tags: impl Iterator<Item = (String, String)>,
    ) -> Result<(), Refusal> {
        let mut context = self.context.clone();
        conditions::requested_tags(&mut context, tags);
        let version =
            call.query.iter().find(|(name, _)| name == "versionId").map(|(_, value)| value.as_str());
        let bucket = (call.target.bucket().unwrap_or_default(), self.bucket.as_ref());
        for need in needs(call.operation.name) {
            self.check_with(need, objects, bucket, call.target.key(), version, Some(&context)).await?;
        }
        Ok(())
    }

    async fn check_with(
        &self,
        need: &Need,
        objects: &dyn VersionedObjects,
        (name, bucket): (&str, Option<&BucketAccess>),
        key: Option<&str>,
        version: Option<&str>,
        context: Option<&Context>,
    ) -> Result<(), Refusal> {
        if *need == NO_NEED[0] {
            return Ok(());
        }
        let action = if version.is_some() { need.of_version } else { need.action };
        let resource = match (need.on, key) {
            (Subject::Object, Some(key)) => format!("arn:aws:s3:::{name}/{key}"),
            _ if name.is_empty() => "*".to_owned(),
            _ => format!("arn:aws:s3:::{name}"),
        };
        let mut context = context.unwrap_or(&self.context).clone();
        if need.on == Subject::Object
            && let Some(version) = version
        {
            context.set("s3:VersionId", version);
        }
        let Some(bucket) = bucket.filter(|_| need.on != Subject::Caller) else {
            let question = Question { action, resource: &resource, context: &context };
            return self.answer(decide_by_identity(question, &self.caller), question);
        };
        let object = match (need.on, key) {
            (Subject::Object, Some(key)) if self.looks_at_object(bucket, need) => {
                existing(objects, name, key, version).await?
            }
            _ => None,
        };
        if let Some(object) = &object {
            for (name, value) in &object.extras.tags {
                context.set(&format!("s3:ExistingObjectTag/{name}"), value);
            }
        }
        let by_list = matches!(need.list, ByList::Object(_))
            && bucket.facts.ownership != Ownership::BucketOwnerEnforced;
        let missing = by_list && object.is_none();
        let acl = object.map(|object| lists::of_object(&object.extras.acl, bucket.facts.owner));
        let question = Question { action, resource: &resource, context: &context };
        let decision = decide(question, &self.caller, &bucket.facts, acl.as_ref(), need.list);
        // A key that is not there has no list that could grant anything; who may list the bucket is told so.
        if missing && decision == Decision::NothingAllows && self.may_list_in(bucket, name, key) {
            return Err(Refusal::new("NoSuchKey"));
        }
        self.answer(decision, question)
    }

    /// Whether the decision needs the object itself: its list, its owner or its tags.
    fn looks_at_object(&self, bucket: &BucketAccess, need: &Need) -> bool {
        let by_list = bucket.facts.ownership != Ownership::BucketOwnerEnforced
            && matches!(need.list, ByList::Object(_));
        let of_bucket =
            bucket.facts.policy.as_ref().is_some_and(|policy| policy.reads("s3:existingobjecttag"));
        by_list || of_bucket || self.any_reads("s3:existingobjecttag")
    }

    /// Whether a policy that has a say reads keys that begin so.
    fn any_reads(&self, prefix: &str) -> bool {
        let of_bucket = self.bucket.iter().filter_map(|bucket| bucket.facts.policy.as_ref());
        let policies = of_bucket.chain(&self.caller.policies);
        policies.chain(self.caller.bounds.iter().flatten()).any(|policy| policy.reads(prefix))
    }

    fn answer(&self, decision: Decision, question: Question<'_>) -> Result<(), Refusal> {
        let why = match decision {
            Decision::Allow => return Ok(()),
            Decision::ExplicitDeny => "with an explicit deny".to_owned(),
            Decision::NothingAllows => format!("because nothing allows the {} action", question.action),
        };
        let Some(arn) = self.caller.arn() else { return Err(Refusal::new("AccessDenied")) };
        Err(Refusal::because(
            "AccessDenied",
            format!(
                "User: {arn} is not authorized to perform: {} on resource: \"{}\" {why}",
                question.action, question.resource
            ),
        ))
    }

    async fn check_source(
        &self,
        call: &Call,
        source: &str,
        objects: &dyn VersionedObjects,
    ) -> Result<(), Refusal> {
        // What is malformed is the handler's to say.
        let Some((name, key, version)) = copy_source(source) else { return Ok(()) };
        let tenant = self.identities.tenants.get(&self.tenant).ok_or_else(|| Refusal::new("AccessDenied"))?;
        let bucket = BucketAccess::load(objects, tenant, &name).await?;
        self.check_expected_owner(call, "x-amz-source-expected-bucket-owner", Some(&bucket))?;
        let what = (name.as_str(), Some(&bucket));
        check_payer(call, &bucket, &self.caller)?;
        self.check_with(SOURCE, objects, what, Some(&key), version.as_deref(), None).await
    }

    /// Whether the caller may have objects with keys that begin with `prefix` written into another bucket.
    pub(crate) async fn check_target(
        &self,
        objects: &dyn VersionedObjects,
        name: &str,
        prefix: &str,
    ) -> Result<BucketAccess, Refusal> {
        let tenant = self.identities.tenants.get(&self.tenant).ok_or_else(|| Refusal::new("AccessDenied"))?;
        let bucket = BucketAccess::load(objects, tenant, name).await?;
        let key = format!("{prefix}key");
        self.check_with(TARGET, objects, (name, Some(&bucket)), Some(&key), None, None).await?;
        Ok(bucket)
    }

    /// Whether the caller may hear that a key is not there.
    pub(crate) fn may_list(&self, bucket_name: &str, key: Option<&str>) -> bool {
        self.bucket.as_ref().is_none_or(|bucket| self.may_list_in(bucket, bucket_name, key))
    }

    /// The listing that would show a key begins with it.
    fn may_list_in(&self, bucket: &BucketAccess, bucket_name: &str, key: Option<&str>) -> bool {
        let resource = format!("arn:aws:s3:::{bucket_name}");
        let mut context = self.context.clone();
        if let Some(key) = key {
            context.set("s3:prefix", key);
        }
        let question = Question { action: LIST_BUCKET.action, resource: &resource, context: &context };
        decide(question, &self.caller, &bucket.facts, None, LIST_BUCKET.list).allows()
    }
}

async fn existing(
    objects: &dyn VersionedObjects,
    bucket: &str,
    key: &str,
    version: Option<&str>,
) -> Result<Option<VersionInfo>, Refusal> {
    let selector = match version {
        None => None,
        Some("null") => Some(VersionSelector::Null),
        Some(text) => match text.parse::<VersionId>() {
            Ok(id) => Some(VersionSelector::Id(id)),
            // Names no version, so there is nothing to look at.
            Err(_) => return Ok(None),
        },
    };
    match objects.head(bucket, key, selector).await {
        Ok(found) => Ok(Some(found)),
        Err(ObjectError::NoSuchKey(_) | ObjectError::NoSuchVersion(_) | ObjectError::DeleteMarker { .. }) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
