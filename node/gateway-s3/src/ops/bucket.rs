//! Buckets: create, list, look at, delete.

use std::collections::HashMap;

use bytes::Bytes;
use holdfast_access::{block::PublicAccessBlock, ownership::Ownership};
use holdfast_model::config::NewBuckets;
use holdfast_object::versioned::DocumentKind;
use s3s::{
    S3Request, S3Response,
    dto::{
        Bucket, BucketLocationConstraint, CreateBucketInput, CreateBucketOutput, DeleteBucketInput,
        DeleteBucketOutput, GetBucketLocationInput, GetBucketLocationOutput, HeadBucketInput,
        HeadBucketOutput, ListBucketsInput, ListBucketsOutput,
    },
};

use holdfast_object::api::ObjectError;

use crate::{authorize::owner_of, errors::Refusal, lists, ops::shared::timestamp, service::Context};

/// The oldest region: AWS shows its buckets with an empty constraint, and there it is no error to create a
/// bucket again that one owns.
const REGION_WITHOUT_CONSTRAINT: &str = "us-east-1";

/// Buckets of one answer, when the client sets no limit.
const BUCKETS_MAX: i32 = 10_000;

pub(crate) async fn list(
    cx: Context,
    request: S3Request<ListBucketsInput>,
) -> Result<S3Response<ListBucketsOutput>, Refusal> {
    let input = request.input;
    let limit = match input.max_buckets {
        None => BUCKETS_MAX,
        Some(limit) if (1..=BUCKETS_MAX).contains(&limit) => limit,
        Some(_) => {
            return Err(Refusal::because("InvalidArgument", "max-buckets must be between 1 and 10000."));
        }
    };
    let prefix = input.prefix.as_deref().unwrap_or("");
    let after = input.continuation_token.as_deref().unwrap_or("");
    let elsewhere = input.bucket_region.as_deref().is_some_and(|region| region != cx.region);
    let mut buckets = cx.objects.list_buckets().await?;
    let owned = owned_by_caller(&cx).await?;
    buckets.retain(|bucket| {
        !elsewhere && bucket.name.starts_with(prefix) && bucket.name.as_str() > after && owned(&bucket.name)
    });
    let limit = usize::try_from(limit).unwrap_or(0);
    let more = buckets.len() > limit;
    buckets.truncate(limit);
    let next = buckets.last().filter(|_| more).map(|bucket| bucket.name.clone());
    let shown = |bucket: holdfast_object::api::BucketInfo| Bucket {
        name: Some(bucket.name),
        creation_date: Some(timestamp(bucket.created)),
        bucket_region: Some(cx.region.clone()),
    };
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(buckets.into_iter().map(shown).collect()),
        continuation_token: next,
        owner: Some(cx.owner),
        prefix: input.prefix,
    }))
}

/// Tells the caller's account's buckets from those of other accounts of its tenant.
async fn owned_by_caller(cx: &Context) -> Result<impl Fn(&str) -> bool + use<>, Refusal> {
    let access = cx.call.access()?;
    let caller = access.caller.canonical();
    let first = access.identities.tenants.get(&access.tenant).and_then(|tenant| tenant.first_account());
    let is_first = first.is_some_and(|first| Some(first.canonical) == caller);
    let owners = cx.objects.documents_of_all(DocumentKind::Owner).await?;
    let owners: HashMap<String, _> = owners.into_iter().collect();
    // A bucket without an owner is from before owners were: the first account's.
    Ok(move |bucket: &str| owners.get(bucket).map_or(is_first, |owner| owner_of(owner) == caller))
}

/// Who owns a new bucket, what is written in it, and what is public.
fn documents_of_new(cx: &Context) -> Result<Vec<(DocumentKind, Bytes)>, Refusal> {
    let access = cx.call.access()?;
    let owner = access.caller.canonical().ok_or_else(|| Refusal::new("AccessDenied"))?;
    let asked = cx.call.headers.get("x-amz-object-ownership");
    let lists = cx.new_buckets == NewBuckets::Lists;
    let ownership = match asked.map(|word| word.to_str().unwrap_or_default()) {
        None if lists => Ownership::ObjectWriter,
        None => Ownership::BucketOwnerEnforced,
        Some(word) => Ownership::parse(word).ok_or_else(|| {
            Refusal::new("InvalidArgument")
                .with("ArgumentName", "x-amz-object-ownership")
                .with("ArgumentValue", word)
        })?,
    };
    let block = if lists { PublicAccessBlock::default() } else { PublicAccessBlock::ALL };
    let acl = lists::of_new_bucket(access, owner, &cx.call.headers, ownership, block)?;
    let mut documents = vec![(DocumentKind::Owner, Bytes::copy_from_slice(owner.as_bytes()))];
    // What is not set is as it was before there were such settings: lists count, nothing is blocked.
    if !lists || asked.is_some() {
        documents.push((DocumentKind::Ownership, Bytes::from_static(ownership.word().as_bytes())));
    }
    if !lists {
        documents.push((DocumentKind::PublicAccess, Bytes::copy_from_slice(&[block.to_byte()])));
    }
    if !acl.is_private() {
        documents.push((DocumentKind::Acl, acl.encode()));
    }
    Ok(documents)
}

pub(crate) async fn create(
    cx: Context,
    request: S3Request<CreateBucketInput>,
) -> Result<S3Response<CreateBucketOutput>, Refusal> {
    let input = request.input;
    // Each label of a name is one of the DNS. Buckets of an earlier release may have others.
    if input.bucket.split('.').any(|label| label.starts_with('-') || label.ends_with('-')) {
        return Err(Refusal::new("InvalidBucketName").with("BucketName", &input.bucket));
    }
    if let Some(configuration) = &input.create_bucket_configuration {
        let asked = configuration.location_constraint.as_ref().map(BucketLocationConstraint::as_str);
        if let Some(asked) = asked.filter(|asked| !asked.is_empty() && *asked != cx.region) {
            return Err(Refusal::new("InvalidLocationConstraint").with("LocationConstraint", asked));
        }
        if configuration.bucket.is_some() || configuration.location.is_some() {
            return Err(Refusal::not_implemented("This kind of bucket"));
        }
    }
    let object_lock = input.object_lock_enabled_for_bucket.unwrap_or(false);
    let documents = documents_of_new(&cx)?;
    match cx.objects.create_bucket_with(&input.bucket, object_lock, documents).await {
        Err(ObjectError::BucketAlreadyOwnedByYou(_)) => {
            if !owned_by_caller(&cx).await?(&input.bucket) {
                return Err(Refusal::new("BucketAlreadyExists"));
            }
            // AWS answers so in this region, for programs older than the other ones.
            if cx.region != REGION_WITHOUT_CONSTRAINT
                || cx.objects.bucket(&input.bucket).await?.object_lock != object_lock
            {
                return Err(Refusal::new("BucketAlreadyOwnedByYou"));
            }
        }
        created => created?,
    }
    Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{}", input.bucket)) }))
}

pub(crate) async fn head(
    cx: Context,
    request: S3Request<HeadBucketInput>,
) -> Result<S3Response<HeadBucketOutput>, Refusal> {
    cx.objects.head_bucket(&request.input.bucket).await?;
    Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(cx.region), ..Default::default() }))
}

pub(crate) async fn delete(
    cx: Context,
    request: S3Request<DeleteBucketInput>,
) -> Result<S3Response<DeleteBucketOutput>, Refusal> {
    cx.objects.delete_bucket(&request.input.bucket).await?;
    Ok(S3Response::new(DeleteBucketOutput {}))
}

pub(crate) async fn location(
    cx: Context,
    request: S3Request<GetBucketLocationInput>,
) -> Result<S3Response<GetBucketLocationOutput>, Refusal> {
    cx.objects.head_bucket(&request.input.bucket).await?;
    let constraint =
        (cx.region != REGION_WITHOUT_CONSTRAINT).then(|| BucketLocationConstraint::from(cx.region));
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint: constraint }))
}
