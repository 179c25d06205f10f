//! One decision from all that has a say: policies of the caller, bounds, the bucket's policy, lists,
//! ownership and block public access.
//!
//! Order (AWS, "Policy evaluation logic"): a deny anywhere is final; the owner's root user may; within the
//! owner's account the caller's policies or the bucket's allow; across accounts both sides must; bounds
//! restrain what the caller's side allows. What nothing allows is denied.

use std::sync::Arc;

use crate::{
    acl::{Acl, Permission},
    block::PublicAccessBlock,
    identity::{Caller, Who},
    ownership::Ownership,
    policy::{Matched, Policy, Question},
    text::{CanonicalId, matches},
};

/// Actions of S3 with what they are about: a bucket, an object.
const ACTIONS: &[(&str, bool, bool)] = &[
    ("abortmultipartupload", false, true),
    ("bypassgovernanceretention", false, true),
    ("createaccesspoint", true, false),
    ("createbucket", true, false),
    ("deletebucket", true, false),
    ("deletebucketpolicy", true, false),
    ("deletebucketpublicaccessblock", true, false),
    ("deletebucketwebsite", true, false),
    ("deleteobject", false, true),
    ("deleteobjecttagging", false, true),
    ("deleteobjectversion", false, true),
    ("deleteobjectversiontagging", false, true),
    ("getaccelerateconfiguration", true, false),
    ("getanalyticsconfiguration", true, false),
    ("getbucketacl", true, false),
    ("getbucketcors", true, false),
    ("getbucketlocation", true, false),
    ("getbucketlogging", true, false),
    ("getbucketnotification", true, false),
    ("getbucketobjectlockconfiguration", true, false),
    ("getbucketownershipcontrols", true, false),
    ("getbucketpolicy", true, false),
    ("getbucketpolicystatus", true, false),
    ("getbucketpublicaccessblock", true, false),
    ("getbucketrequestpayment", true, false),
    ("getbuckettagging", true, false),
    ("getbucketversioning", true, false),
    ("getbucketwebsite", true, false),
    ("getencryptionconfiguration", true, false),
    ("getintelligenttieringconfiguration", true, false),
    ("getinventoryconfiguration", true, false),
    ("getlifecycleconfiguration", true, false),
    ("getmetricsconfiguration", true, false),
    ("getobject", false, true),
    ("getobjectacl", false, true),
    ("getobjectattributes", false, true),
    ("getobjectlegalhold", false, true),
    ("getobjectretention", false, true),
    ("getobjecttagging", false, true),
    ("getobjecttorrent", false, true),
    ("getobjectversion", false, true),
    ("getobjectversionacl", false, true),
    ("getobjectversionattributes", false, true),
    ("getobjectversionforreplication", false, true),
    ("getobjectversiontagging", false, true),
    ("getobjectversiontorrent", false, true),
    ("getreplicationconfiguration", true, false),
    ("listallmybuckets", true, false),
    ("listbucket", true, false),
    ("listbucketmultipartuploads", true, false),
    ("listbucketversions", true, false),
    ("listmultipartuploadparts", false, true),
    ("objectowneroverridetobucketowner", false, true),
    ("putaccelerateconfiguration", true, false),
    ("putanalyticsconfiguration", true, false),
    ("putbucketacl", true, false),
    ("putbucketcors", true, false),
    ("putbucketlogging", true, false),
    ("putbucketnotification", true, false),
    ("putbucketobjectlockconfiguration", true, false),
    ("putbucketownershipcontrols", true, false),
    ("putbucketpolicy", true, false),
    ("putbucketpublicaccessblock", true, false),
    ("putbucketrequestpayment", true, false),
    ("putbuckettagging", true, false),
    ("putbucketversioning", true, false),
    ("putbucketwebsite", true, false),
    ("putencryptionconfiguration", true, false),
    ("putintelligenttieringconfiguration", true, false),
    ("putinventoryconfiguration", true, false),
    ("putlifecycleconfiguration", true, false),
    ("putmetricsconfiguration", true, false),
    ("putobject", false, true),
    ("putobjectacl", false, true),
    ("putobjectlegalhold", false, true),
    ("putobjectretention", false, true),
    ("putobjecttagging", false, true),
    ("putobjectversionacl", false, true),
    ("putobjectversiontagging", false, true),
    ("putreplicationconfiguration", true, false),
    ("replicatedelete", false, true),
    ("replicateobject", false, true),
    ("replicatetags", false, true),
    ("restoreobject", false, true),
    ("updateobjectencryption", false, true),
];

/// Whether a pattern (without `s3:`, lower case) names an action that exists.
#[must_use]
pub fn is_action_pattern(pattern: &str) -> bool {
    ACTIONS.iter().any(|(name, ..)| matches(pattern, name))
}

/// Whether actions that a pattern (without `s3:`, lower case) names are about buckets, about objects.
#[must_use]
pub fn subjects_of(pattern: &str) -> (bool, bool) {
    let named = ACTIONS.iter().filter(|(name, ..)| matches(pattern, name));
    named.fold((false, false), |(b, o), (_, bucket, object)| (b || *bucket, o || *object))
}

/// What is known of a bucket when somebody asks for something in it.
#[derive(Debug, Clone)]
pub struct BucketFacts {
    /// Whose it is.
    pub owner: CanonicalId,
    /// Its policy.
    pub policy: Option<Arc<Policy>>,
    /// Its list.
    pub acl: Acl,
    /// What is written in it belongs to.
    pub ownership: Ownership,
    /// What is restrained.
    pub block: PublicAccessBlock,
}

/// Which list may grant the action, beside policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByList {
    /// None does.
    No,
    /// The bucket's.
    Bucket(Permission),
    /// The object's.
    Object(Permission),
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Allowed.
    Allow,
    /// A statement denies it.
    ExplicitDeny,
    /// Nothing allows it.
    NothingAllows,
}

impl Decision {
    /// Whether it may be done.
    #[must_use]
    pub fn allows(self) -> bool {
        self == Self::Allow
    }
}

/// Actions that a bucket policy cannot take from its owner's root user, or nobody could repair it.
const OWNER_KEEPS: &[&str] = &["s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"];

/// What the caller's own policies say; bounds included.
#[derive(Debug, Clone, Copy)]
struct OwnSide {
    denied: bool,
    allowed: bool,
    bounded: bool,
}

fn own_side(question: Question<'_>, caller: &Caller) -> OwnSide {
    let mut side = OwnSide { denied: false, allowed: caller.who == Who::Root, bounded: true };
    for policy in &caller.policies {
        let effects = policy.of_identity(question);
        side.denied |= effects.denied;
        side.allowed |= effects.allowed != Matched::No;
    }
    for bound in &caller.bounds {
        let effects: Vec<_> = bound.iter().map(|policy| policy.of_identity(question)).collect();
        side.denied |= effects.iter().any(|one| one.denied);
        side.bounded &= effects.iter().any(|one| one.allowed != Matched::No);
    }
    side
}

/// Decides on something that has no policy of its own: buckets to be, listings of buckets, IAM.
#[must_use]
pub fn decide_by_identity(question: Question<'_>, caller: &Caller) -> Decision {
    let own = own_side(question, caller);
    match own {
        OwnSide { denied: true, .. } => Decision::ExplicitDeny,
        OwnSide { allowed: true, bounded: true, .. } if caller.account().is_some() => Decision::Allow,
        _ => Decision::NothingAllows,
    }
}

/// Decides on something in a bucket. `object` is the list of the object asked for, if there is one.
#[must_use]
pub fn decide(
    question: Question<'_>,
    caller: &Caller,
    bucket: &BucketFacts,
    object: Option<&Acl>,
    by_list: ByList,
) -> Decision {
    let own = own_side(question, caller);
    let is_owner = caller.canonical() == Some(bucket.owner);
    let of_bucket = bucket.policy.as_ref().map(|policy| policy.of_resource(question, caller));
    let lockout = is_owner && caller.who == Who::Root && OWNER_KEEPS.contains(&question.action);
    if own.denied || (!lockout && of_bucket.is_some_and(|effects| effects.denied)) {
        return Decision::ExplicitDeny;
    }
    let lists_count = bucket.ownership != Ownership::BucketOwnerEnforced;
    // An object that somebody else owns is that account's: the bucket's owner has no say in who reads it.
    let foreign = object.filter(|acl| lists_count && acl.owner != bucket.owner);
    let concerns_content = matches!(by_list, ByList::Object(_));
    let restricted = bucket.block.restrict && bucket.policy.as_ref().is_some_and(|policy| policy.is_public());
    let policy_counts = !(foreign.is_some() && concerns_content) && (is_owner || !restricted);
    let by_policy = of_bucket.filter(|_| policy_counts).map_or(Matched::No, |effects| effects.allowed);
    let granted = match by_list {
        ByList::No => false,
        ByList::Bucket(permission) => lists_count && grants(&bucket.acl, permission, caller, bucket),
        ByList::Object(permission) => {
            lists_count && object.is_some_and(|acl| grants(acl, permission, caller, bucket))
        }
    };
    let owns = is_owner && !(foreign.is_some() && concerns_content);
    let allowed = match (&caller.who, owns) {
        (Who::Anonymous, _) => by_policy == Matched::Itself || granted,
        (Who::Root, true) => own.bounded,
        (_, true) => (own.allowed || by_policy == Matched::Itself) && own.bounded,
        (_, false) => own.allowed && own.bounded && (by_policy != Matched::No || granted),
    };
    if allowed { Decision::Allow } else { Decision::NothingAllows }
}

fn grants(acl: &Acl, permission: Permission, caller: &Caller, bucket: &BucketFacts) -> bool {
    acl.grants(permission, caller.canonical(), bucket.block.ignore_acls)
}
