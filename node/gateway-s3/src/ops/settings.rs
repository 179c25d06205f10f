//! Settings that tools read when they start. What is the case is answered; a feature that is not there is
//! answered as AWS answers for a bucket that does not use it. Nothing here changes anything: deleting a
//! setting that cannot exist finds it gone, and the one ACL that can be set is the one every bucket and
//! object has (AWS answers the same where the bucket's owner owns every object).

use s3s::{
    S3Request, S3Response,
    dto::{
        AccessControlPolicy, DeleteBucketCorsInput, DeleteBucketCorsOutput, DeleteBucketPolicyInput,
        DeleteBucketPolicyOutput, DeleteBucketReplicationInput, DeleteBucketReplicationOutput,
        DeleteBucketWebsiteInput, DeleteBucketWebsiteOutput, GetBucketAccelerateConfigurationInput,
        GetBucketAccelerateConfigurationOutput, GetBucketAclInput, GetBucketAclOutput, GetBucketCorsInput,
        GetBucketCorsOutput, GetBucketLoggingInput, GetBucketLoggingOutput,
        GetBucketNotificationConfigurationInput, GetBucketNotificationConfigurationOutput,
        GetBucketOwnershipControlsInput, GetBucketOwnershipControlsOutput, GetBucketPolicyInput,
        GetBucketPolicyOutput, GetBucketPolicyStatusInput, GetBucketPolicyStatusOutput,
        GetBucketReplicationInput, GetBucketReplicationOutput, GetBucketRequestPaymentInput,
        GetBucketRequestPaymentOutput, GetBucketWebsiteInput, GetBucketWebsiteOutput, GetObjectAclInput,
        GetObjectAclOutput, GetPublicAccessBlockInput, GetPublicAccessBlockOutput, Grant, Grantee,
        ObjectOwnership, Owner, OwnershipControls, OwnershipControlsRule, Payer, Permission,
        PublicAccessBlockConfiguration, PutBucketAclInput, PutBucketAclOutput, PutObjectAclInput,
        PutObjectAclOutput, Type,
    },
};

use crate::{errors::Refusal, ops::shared::version, service::Context};

/// A setting of a bucket that exists has this answer.
macro_rules! bucket_settings {
    ($($name:ident: $input:ident -> $output:ident = |$cx:ident| $answer:expr;)*) => {
        $(
            pub(crate) async fn $name($cx: Context, request: S3Request<$input>) -> Result<S3Response<$output>, Refusal> {
                $cx.objects.head_bucket(&request.input.bucket).await?;
                let answer: Result<$output, Refusal> = $answer;
                answer.map(S3Response::new)
            }
        )*
    };
}

bucket_settings! {
    accelerate: GetBucketAccelerateConfigurationInput -> GetBucketAccelerateConfigurationOutput = |cx| Ok(Default::default());
    bucket_acl: GetBucketAclInput -> GetBucketAclOutput = |cx| {
        Ok(GetBucketAclOutput { grants: Some(full_control(&cx.owner)), owner: Some(cx.owner) })
    };
    cors: GetBucketCorsInput -> GetBucketCorsOutput = |cx| Err(Refusal::new("NoSuchCORSConfiguration"));
    logging: GetBucketLoggingInput -> GetBucketLoggingOutput = |cx| Ok(Default::default());
    notification: GetBucketNotificationConfigurationInput -> GetBucketNotificationConfigurationOutput = |cx| Ok(Default::default());
    ownership: GetBucketOwnershipControlsInput -> GetBucketOwnershipControlsOutput = |cx| {
        let enforced = ObjectOwnership::from_static(ObjectOwnership::BUCKET_OWNER_ENFORCED);
        let rules = vec![OwnershipControlsRule { object_ownership: enforced }];
        Ok(GetBucketOwnershipControlsOutput { ownership_controls: Some(OwnershipControls { rules }) })
    };
    policy: GetBucketPolicyInput -> GetBucketPolicyOutput = |cx| Err(Refusal::new("NoSuchBucketPolicy"));
    policy_status: GetBucketPolicyStatusInput -> GetBucketPolicyStatusOutput = |cx| Err(Refusal::new("NoSuchBucketPolicy"));
    public_access_block: GetPublicAccessBlockInput -> GetPublicAccessBlockOutput = |cx| {
        let all = PublicAccessBlockConfiguration {
            block_public_acls: Some(true),
            block_public_policy: Some(true),
            ignore_public_acls: Some(true),
            restrict_public_buckets: Some(true),
        };
        Ok(GetPublicAccessBlockOutput { public_access_block_configuration: Some(all) })
    };
    replication: GetBucketReplicationInput -> GetBucketReplicationOutput =
        |cx| Err(Refusal::new("ReplicationConfigurationNotFoundError"));
    request_payment: GetBucketRequestPaymentInput -> GetBucketRequestPaymentOutput =
        |cx| Ok(GetBucketRequestPaymentOutput { payer: Some(Payer::from_static(Payer::BUCKET_OWNER)) });
    website: GetBucketWebsiteInput -> GetBucketWebsiteOutput = |cx| Err(Refusal::new("NoSuchWebsiteConfiguration"));

    delete_cors: DeleteBucketCorsInput -> DeleteBucketCorsOutput = |cx| Ok(DeleteBucketCorsOutput {});
    delete_policy: DeleteBucketPolicyInput -> DeleteBucketPolicyOutput = |cx| Ok(DeleteBucketPolicyOutput {});
    delete_replication: DeleteBucketReplicationInput -> DeleteBucketReplicationOutput = |cx| Ok(DeleteBucketReplicationOutput {});
    delete_website: DeleteBucketWebsiteInput -> DeleteBucketWebsiteOutput = |cx| Ok(DeleteBucketWebsiteOutput {});
}

pub(crate) async fn object_acl(
    cx: Context,
    request: S3Request<GetObjectAclInput>,
) -> Result<S3Response<GetObjectAclOutput>, Refusal> {
    let input = request.input;
    cx.objects.head(&input.bucket, &input.key, version(input.version_id.as_deref())?).await?;
    Ok(S3Response::new(GetObjectAclOutput {
        grants: Some(full_control(&cx.owner)),
        owner: Some(cx.owner),
        ..Default::default()
    }))
}

pub(crate) async fn put_bucket_acl(
    cx: Context,
    request: S3Request<PutBucketAclInput>,
) -> Result<S3Response<PutBucketAclOutput>, Refusal> {
    let input = request.input;
    cx.objects.head_bucket(&input.bucket).await?;
    only_the_owner(input.acl.is_some(), input.access_control_policy, &cx.owner)?;
    Ok(S3Response::new(PutBucketAclOutput {}))
}

pub(crate) async fn put_object_acl(
    cx: Context,
    request: S3Request<PutObjectAclInput>,
) -> Result<S3Response<PutObjectAclOutput>, Refusal> {
    let input = request.input;
    cx.objects.head(&input.bucket, &input.key, version(input.version_id.as_deref())?).await?;
    only_the_owner(input.acl.is_some(), input.access_control_policy, &cx.owner)?;
    Ok(S3Response::new(PutObjectAclOutput::default()))
}

/// `canned` is one the gate let through, which says what is the case.
fn only_the_owner(canned: bool, policy: Option<AccessControlPolicy>, owner: &Owner) -> Result<(), Refusal> {
    let Some(policy) = policy else {
        return if canned { Ok(()) } else { Err(Refusal::new("MissingSecurityHeader")) };
    };
    let grants = policy.grants.unwrap_or_default();
    let same_owner = policy.owner.is_none_or(|named| named.id == owner.id);
    let full_control = |grant: &Grant| {
        grant.grantee.as_ref().is_some_and(|grantee| grantee.id == owner.id)
            && grant
                .permission
                .as_ref()
                .is_some_and(|permission| permission.as_str() == Permission::FULL_CONTROL)
    };
    if same_owner && !grants.is_empty() && grants.iter().all(full_control) {
        return Ok(());
    }
    Err(Refusal::new("AccessControlListNotSupported"))
}

fn full_control(owner: &Owner) -> Vec<Grant> {
    vec![Grant {
        grantee: Some(Grantee {
            display_name: owner.display_name.clone(),
            email_address: None,
            id: owner.id.clone(),
            type_: Type::from_static(Type::CANONICAL_USER),
            uri: None,
        }),
        permission: Some(Permission::from_static(Permission::FULL_CONTROL)),
    }]
}
