//! Policies of buckets, block public access, and object ownership.

use bytes::Bytes;
use holdfast_access::{
    block::PublicAccessBlock,
    identity::Tenant,
    ownership::Ownership,
    policy::{BUCKET_POLICY_SIZE_MAX, Kind, Policy, Principal, parse_principal_arn},
};
use holdfast_object::versioned::{BucketChange, DocumentKind};
use s3s::{
    S3Request, S3Response,
    dto::{
        DeleteBucketOwnershipControlsInput, DeleteBucketOwnershipControlsOutput, DeleteBucketPolicyInput,
        DeleteBucketPolicyOutput, DeletePublicAccessBlockInput, DeletePublicAccessBlockOutput,
        GetBucketOwnershipControlsInput, GetBucketOwnershipControlsOutput, GetBucketPolicyInput,
        GetBucketPolicyOutput, GetBucketPolicyStatusInput, GetBucketPolicyStatusOutput,
        GetPublicAccessBlockInput, GetPublicAccessBlockOutput, ObjectOwnership, OwnershipControls,
        OwnershipControlsRule, PolicyStatus, PublicAccessBlockConfiguration, PutBucketOwnershipControlsInput,
        PutBucketOwnershipControlsOutput, PutBucketPolicyInput, PutBucketPolicyOutput,
        PutPublicAccessBlockInput, PutPublicAccessBlockOutput,
    },
};

use crate::{errors::Refusal, service::Context};

async fn store(cx: &Context, bucket: &str, kind: DocumentKind, body: Option<Bytes>) -> Result<(), Refusal> {
    let change = BucketChange::Document { kind, id: String::new(), body };
    Ok(cx.objects.set_bucket(bucket, change).await?)
}

pub(crate) async fn get(
    cx: Context,
    _: S3Request<GetBucketPolicyInput>,
) -> Result<S3Response<GetBucketPolicyOutput>, Refusal> {
    let policy = &cx.call.access()?.bucket()?.policy;
    let text = policy.as_ref().map(|text| String::from_utf8_lossy(text).into_owned());
    let policy = text.ok_or_else(|| Refusal::new("NoSuchBucketPolicy"))?;
    Ok(S3Response::new(GetBucketPolicyOutput { policy: Some(policy) }))
}

pub(crate) async fn status(
    cx: Context,
    _: S3Request<GetBucketPolicyStatusInput>,
) -> Result<S3Response<GetBucketPolicyStatusOutput>, Refusal> {
    let policy = &cx.call.access()?.bucket()?.facts.policy;
    let policy = policy.as_ref().ok_or_else(|| Refusal::new("NoSuchBucketPolicy"))?;
    let status = PolicyStatus { is_public: Some(policy.is_public()) };
    Ok(S3Response::new(GetBucketPolicyStatusOutput { policy_status: Some(status) }))
}

pub(crate) async fn put(
    cx: Context,
    request: S3Request<PutBucketPolicyInput>,
) -> Result<S3Response<PutBucketPolicyOutput>, Refusal> {
    let input = request.input;
    let malformed = |text: String| Refusal::because("MalformedPolicy", text);
    if input.policy.len() > BUCKET_POLICY_SIZE_MAX {
        return Err(malformed(format!("Policies must be at most {BUCKET_POLICY_SIZE_MAX} bytes")));
    }
    let policy = Policy::parse(input.policy.as_bytes()).map_err(|error| malformed(error.0))?;
    policy.validate(Kind::Bucket(&input.bucket)).map_err(|error| malformed(error.0))?;
    let access = cx.call.access()?;
    let tenant = access.identities.tenants.get(&access.tenant).ok_or_else(|| Refusal::new("AccessDenied"))?;
    if !policy.principals().all(|principal| exists(principal, tenant)) {
        return Err(malformed("Invalid principal in policy".to_owned()));
    }
    if access.bucket()?.facts.block.block_policy && policy.is_public() {
        return Err(Refusal::because(
            "AccessDenied",
            "Access Denied: public policies are blocked by the bucket's BlockPublicPolicy setting",
        ));
    }
    store(&cx, &input.bucket, DocumentKind::Policy, Some(input.policy.into())).await?;
    Ok(S3Response::new(PutBucketPolicyOutput {}))
}

/// Whether a principal is somebody of this tenant: a slip of the pen must not become a hole later.
fn exists(principal: &Principal, tenant: &Tenant) -> bool {
    match principal {
        Principal::Anyone | Principal::Nobody(_) => true,
        Principal::Account(number) => tenant.accounts.contains_key(number),
        Principal::Canonical(id) => tenant.by_canonical(*id).is_some(),
        Principal::Arn(arn) => {
            let Some((number, resource)) = parse_principal_arn(arn) else { return false };
            let Some(account) = tenant.accounts.get(&number) else { return false };
            let Some((kind, path)) = resource.split_once('/') else { return false };
            let full = |own_path: &str, name: &str| format!("{own_path}{name}") == format!("/{path}");
            match kind {
                "user" => account.users.values().any(|row| full(&row.value.path, &row.value.name)),
                "role" => account.roles.values().any(|row| full(&row.value.path, &row.value.name)),
                // Sessions come and go; the role has to be there.
                "assumed-role" => {
                    let role = path.split('/').next().unwrap_or_default();
                    account.roles.contains_key(&role.to_lowercase())
                }
                _ => false,
            }
        }
    }
}

pub(crate) async fn delete(
    cx: Context,
    request: S3Request<DeleteBucketPolicyInput>,
) -> Result<S3Response<DeleteBucketPolicyOutput>, Refusal> {
    store(&cx, &request.input.bucket, DocumentKind::Policy, None).await?;
    Ok(S3Response::new(DeleteBucketPolicyOutput {}))
}

pub(crate) async fn block_get(
    cx: Context,
    _: S3Request<GetPublicAccessBlockInput>,
) -> Result<S3Response<GetPublicAccessBlockOutput>, Refusal> {
    let bucket = cx.call.access()?.bucket()?;
    if !bucket.block_set {
        return Err(Refusal::new("NoSuchPublicAccessBlockConfiguration"));
    }
    let block = bucket.facts.block;
    let configuration = PublicAccessBlockConfiguration {
        block_public_acls: Some(block.block_acls),
        block_public_policy: Some(block.block_policy),
        ignore_public_acls: Some(block.ignore_acls),
        restrict_public_buckets: Some(block.restrict),
    };
    Ok(S3Response::new(GetPublicAccessBlockOutput { public_access_block_configuration: Some(configuration) }))
}

pub(crate) async fn block_put(
    cx: Context,
    request: S3Request<PutPublicAccessBlockInput>,
) -> Result<S3Response<PutPublicAccessBlockOutput>, Refusal> {
    let input = request.input;
    let asked = input.public_access_block_configuration;
    let block = PublicAccessBlock {
        block_acls: asked.block_public_acls.unwrap_or(false),
        ignore_acls: asked.ignore_public_acls.unwrap_or(false),
        block_policy: asked.block_public_policy.unwrap_or(false),
        restrict: asked.restrict_public_buckets.unwrap_or(false),
    };
    let body = Bytes::copy_from_slice(&[block.to_byte()]);
    store(&cx, &input.bucket, DocumentKind::PublicAccess, Some(body)).await?;
    Ok(S3Response::new(PutPublicAccessBlockOutput {}))
}

pub(crate) async fn block_delete(
    cx: Context,
    request: S3Request<DeletePublicAccessBlockInput>,
) -> Result<S3Response<DeletePublicAccessBlockOutput>, Refusal> {
    // Written rather than removed: without a document a bucket of old is restrained.
    if cx.call.access()?.bucket()?.block_set {
        keep_owner_defaults(&cx)?;
        store(&cx, &request.input.bucket, DocumentKind::PublicAccess, None).await?;
    }
    Ok(S3Response::new(DeletePublicAccessBlockOutput {}))
}

/// A bucket from before accounts were has no owner of its own, and stays restrained until it is made anew.
fn keep_owner_defaults(cx: &Context) -> Result<(), Refusal> {
    let bucket = cx.call.access()?.bucket()?;
    if bucket.from_before {
        return Err(Refusal::because(
            "InvalidBucketState",
            "This bucket was created before access control was; create a new one and copy its objects.",
        ));
    }
    Ok(())
}

pub(crate) async fn ownership_get(
    cx: Context,
    _: S3Request<GetBucketOwnershipControlsInput>,
) -> Result<S3Response<GetBucketOwnershipControlsOutput>, Refusal> {
    let bucket = cx.call.access()?.bucket()?;
    if !bucket.ownership_set {
        return Err(Refusal::new("OwnershipControlsNotFoundError"));
    }
    let object_ownership = ObjectOwnership::from_static(bucket.facts.ownership.word());
    let controls = OwnershipControls { rules: vec![OwnershipControlsRule { object_ownership }] };
    Ok(S3Response::new(GetBucketOwnershipControlsOutput { ownership_controls: Some(controls) }))
}

pub(crate) async fn ownership_put(
    cx: Context,
    request: S3Request<PutBucketOwnershipControlsInput>,
) -> Result<S3Response<PutBucketOwnershipControlsOutput>, Refusal> {
    let input = request.input;
    let [rule] = input.ownership_controls.rules.as_slice() else { return Err(Refusal::new("MalformedXML")) };
    let ownership =
        Ownership::parse(rule.object_ownership.as_str()).ok_or_else(|| Refusal::new("MalformedXML"))?;
    let bucket = cx.call.access()?.bucket()?;
    if ownership == Ownership::BucketOwnerEnforced && !bucket.facts.acl.is_private() {
        return Err(Refusal::because(
            "InvalidBucketAclWithObjectOwnership",
            "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
        ));
    }
    let body = Bytes::from_static(ownership.word().as_bytes());
    store(&cx, &input.bucket, DocumentKind::Ownership, Some(body)).await?;
    Ok(S3Response::new(PutBucketOwnershipControlsOutput {}))
}

pub(crate) async fn ownership_delete(
    cx: Context,
    request: S3Request<DeleteBucketOwnershipControlsInput>,
) -> Result<S3Response<DeleteBucketOwnershipControlsOutput>, Refusal> {
    if cx.call.access()?.bucket()?.ownership_set {
        keep_owner_defaults(&cx)?;
        store(&cx, &request.input.bucket, DocumentKind::Ownership, None).await?;
    }
    Ok(S3Response::new(DeleteBucketOwnershipControlsOutput {}))
}
