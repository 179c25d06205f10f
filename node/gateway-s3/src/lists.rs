//! Access control lists as S3 writes them: canned names, grant headers and XML, to and from the stored form.
//!
//! Where the bucket's owner owns every object, lists are disabled: asking for one is refused, unless it
//! says what is the case anyway.

use bytes::Bytes;
use holdfast_access::{
    acl::{Acl, Canned, GRANTS_MAX, Grant, Grantee, Permission},
    block::PublicAccessBlock,
    decide::BucketFacts,
    identity::{Snapshot, Tenant},
    ownership::Ownership,
    text::CanonicalId,
};
use holdfast_model::TenantId;
use http::HeaderMap;
use s3s::dto::{self, AccessControlPolicy};

use crate::{authorize::Access, errors::Refusal};

/// In the order in which lists show what they grant.
const GRANT_HEADERS: &[(&str, Permission)] = &[
    ("x-amz-grant-read", Permission::Read),
    ("x-amz-grant-write", Permission::Write),
    ("x-amz-grant-read-acp", Permission::ReadAcp),
    ("x-amz-grant-write-acp", Permission::WriteAcp),
    ("x-amz-grant-full-control", Permission::FullControl),
];

/// What a request asks a list to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing.
    Nothing,
    /// One of the canned.
    Canned(Canned),
    /// These grants.
    Grants(Vec<Grant>),
}

fn invalid(name: &'static str, value: &str, message: &'static str) -> Refusal {
    Refusal::because("InvalidArgument", message).with("ArgumentName", name).with("ArgumentValue", value)
}

fn not_supported() -> Refusal {
    Refusal::new("AccessControlListNotSupported")
}

/// Reads the headers. `tenant` resolves ids and e-mail addresses.
pub(crate) fn asked(headers: &HeaderMap, tenant: &Tenant) -> Result<Asked, Refusal> {
    let mut grants = Vec::new();
    for (name, permission) in GRANT_HEADERS {
        for value in headers.get_all(*name) {
            let text = value.to_str().unwrap_or("\u{fffd}");
            for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
                grants.push(Grant { grantee: grantee(name, one, tenant)?, permission: *permission });
            }
        }
    }
    check_count(grants.len())?;
    let canned = headers.get("x-amz-acl").map(|value| value.to_str().unwrap_or("\u{fffd}"));
    match (canned, grants.is_empty()) {
        (None, true) => Ok(Asked::Nothing),
        (None, false) => Ok(Asked::Grants(grants)),
        (Some(_), false) => Err(Refusal::because(
            "InvalidRequest",
            "Specifying both Canned ACLs and Header Grants is not allowed",
        )),
        (Some(word), true) => Canned::parse(word)
            .map(Asked::Canned)
            .ok_or_else(|| invalid("x-amz-acl", word, "Invalid Argument")),
    }
}

/// `id="..."`, `emailAddress="..."` or `uri="..."`
fn grantee(header: &'static str, text: &str, tenant: &Tenant) -> Result<Grantee, Refusal> {
    let (kind, value) =
        text.split_once('=').ok_or_else(|| invalid(header, text, "Argument format not recognized"))?;
    let value = value.trim().trim_matches('"');
    match kind.trim().to_ascii_lowercase().as_str() {
        "id" => by_id(value, tenant),
        "emailaddress" => by_email(value, tenant),
        "uri" => Grantee::group(value).ok_or_else(|| invalid("uri", value, "Invalid group uri")),
        _ => Err(invalid(header, text, "Argument format not recognized")),
    }
}

fn by_id(text: &str, tenant: &Tenant) -> Result<Grantee, Refusal> {
    CanonicalId::parse(text)
        .filter(|id| tenant.by_canonical(*id).is_some())
        .map(Grantee::Account)
        .ok_or_else(|| invalid("CanonicalUser/ID", text, "Invalid id"))
}

fn by_email(text: &str, tenant: &Tenant) -> Result<Grantee, Refusal> {
    tenant
        .by_email(text)
        .map(|account| Grantee::Account(account.canonical))
        .ok_or_else(|| Refusal::new("UnresolvableGrantByEmailAddress").with("EmailAddress", text))
}

fn check_count(count: usize) -> Result<(), Refusal> {
    if count > GRANTS_MAX {
        return Err(Refusal::because("InvalidRequest", format!("A list has at most {GRANTS_MAX} grants.")));
    }
    Ok(())
}

fn tenant_of(snapshot: &Snapshot, tenant: TenantId) -> Result<&Tenant, Refusal> {
    snapshot.tenants.get(&tenant).ok_or_else(|| Refusal::new("AccessDenied"))
}

/// The list that an object about to be written gets, in its stored form.
pub(crate) fn of_new_object(access: &Access, headers: &HeaderMap) -> Result<Bytes, Refusal> {
    let bucket = access.bucket()?;
    let asked = asked(headers, tenant_of(&access.identities, access.tenant)?)?;
    let bucket_owner = bucket.facts.owner;
    let ownership = bucket.facts.ownership;
    if ownership == Ownership::BucketOwnerEnforced {
        return match asked {
            // AWS refuses the last one; rclone sends it with every object unless it is told otherwise, and it says what
            // is the case.
            Asked::Nothing | Asked::Canned(Canned::BucketOwnerFullControl | Canned::Private) => {
                Ok(Bytes::new())
            }
            _ => Err(not_supported()),
        };
    }
    let handed_over = ownership == Ownership::BucketOwnerPreferred
        && asked == Asked::Canned(Canned::BucketOwnerFullControl);
    // Whoever did not sign has no account to own anything with.
    let owner = access.caller.canonical().filter(|_| !handed_over).unwrap_or(bucket_owner);
    let acl = match asked {
        Asked::Nothing => Acl::private(owner),
        Asked::Canned(canned) => canned.list(owner, bucket_owner),
        Asked::Grants(grants) => Acl { owner, grants },
    };
    refuse_public(&acl, bucket.facts.block)?;
    Ok(stored(&acl, bucket_owner))
}

/// A private list of the bucket's owner is what an object has without one.
pub(crate) fn stored(acl: &Acl, bucket_owner: CanonicalId) -> Bytes {
    if *acl == Acl::private(bucket_owner) { Bytes::new() } else { acl.encode() }
}

fn refuse_public(acl: &Acl, block: PublicAccessBlock) -> Result<(), Refusal> {
    if block.block_acls && acl.is_public() {
        return Err(Refusal::because(
            "AccessDenied",
            "Access Denied: public access control lists are blocked by the bucket's BlockPublicAcls setting",
        ));
    }
    Ok(())
}

/// An object's list from its stored form. One that cannot be read grants nothing.
pub(crate) fn of_object(bytes: &[u8], bucket_owner: CanonicalId) -> Acl {
    if bytes.is_empty() {
        return Acl::private(bucket_owner);
    }
    Acl::decode(bytes).unwrap_or(Acl { owner: bucket_owner, grants: Vec::new() })
}

/// The list of a bucket about to be created.
pub(crate) fn of_new_bucket(
    access: &Access,
    owner: CanonicalId,
    headers: &HeaderMap,
    ownership: Ownership,
    block: PublicAccessBlock,
) -> Result<Acl, Refusal> {
    let asked = asked(headers, tenant_of(&access.identities, access.tenant)?)?;
    let acl = match asked {
        Asked::Nothing | Asked::Canned(Canned::Private) => return Ok(Acl::private(owner)),
        Asked::Canned(canned) => canned.list(owner, owner),
        Asked::Grants(grants) => Acl { owner, grants },
    };
    if ownership == Ownership::BucketOwnerEnforced {
        return Err(Refusal::because(
            "InvalidBucketAclWithObjectOwnership",
            "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
        ));
    }
    refuse_public(&acl, block)?;
    Ok(acl)
}

/// What an existing list is to become: by headers or by the document.
pub(crate) fn changed(
    access: &Access,
    current: &Acl,
    headers: &HeaderMap,
    document: Option<AccessControlPolicy>,
) -> Result<Acl, Refusal> {
    let bucket = access.bucket()?;
    let tenant = tenant_of(&access.identities, access.tenant)?;
    // Where lists are disabled, whether a grantee exists is nobody's business.
    let enforced = bucket.facts.ownership == Ownership::BucketOwnerEnforced;
    let disabled = |refusal: Refusal| if enforced { not_supported() } else { refusal };
    let granted = GRANT_HEADERS.iter().any(|(name, _)| headers.contains_key(*name));
    let asked =
        asked(headers, tenant).map_err(|refusal| if granted { disabled(refusal) } else { refusal })?;
    let other_word = matches!(asked, Asked::Canned(canned) if canned != Canned::BucketOwnerFullControl);
    let acl = match (asked, document) {
        (Asked::Nothing, None) => return Err(Refusal::new("MissingSecurityHeader")),
        (Asked::Nothing, Some(document)) => {
            from_document(document, current.owner, tenant).map_err(disabled)?
        }
        (_, Some(_)) => {
            return Err(Refusal::because("UnexpectedContent", "This request does not support content"));
        }
        (Asked::Canned(canned), None) => canned.list(current.owner, bucket.facts.owner),
        (Asked::Grants(grants), None) => Acl { owner: current.owner, grants },
    };
    if enforced {
        let full = |grant: &Grant| {
            grant.grantee == Grantee::Account(bucket.facts.owner)
                && grant.permission == Permission::FullControl
        };
        let says_what_is = !other_word && !acl.grants.is_empty() && acl.grants.iter().all(full);
        return if says_what_is { Ok(acl) } else { Err(not_supported()) };
    }
    refuse_public(&acl, bucket.facts.block)?;
    Ok(acl)
}

fn from_document(document: AccessControlPolicy, owner: CanonicalId, tenant: &Tenant) -> Result<Acl, Refusal> {
    let malformed = || Refusal::new("MalformedACLError");
    if let Some(named) = document.owner.as_ref().and_then(|named| named.id.as_deref())
        && CanonicalId::parse(named) != Some(owner)
    {
        return Err(Refusal::new("AccessDenied"));
    }
    let given = document.grants.unwrap_or_default();
    check_count(given.len())?;
    let mut grants = Vec::with_capacity(given.len());
    for grant in given {
        let permission = grant.permission.as_ref().and_then(|word| Permission::parse(word.as_str()));
        let permission = permission.ok_or_else(malformed)?;
        let to = grant.grantee.ok_or_else(malformed)?;
        let grantee = match to.type_.as_str() {
            dto::Type::CANONICAL_USER => by_id(to.id.as_deref().unwrap_or_default(), tenant)?,
            dto::Type::AMAZON_CUSTOMER_BY_EMAIL => {
                by_email(to.email_address.as_deref().unwrap_or_default(), tenant)?
            }
            dto::Type::GROUP => {
                let uri = to.uri.as_deref().unwrap_or_default();
                Grantee::group(uri).ok_or_else(|| invalid("Group/URI", uri, "Invalid group uri"))?
            }
            _ => return Err(malformed()),
        };
        grants.push(Grant { grantee, permission });
    }
    Ok(Acl { owner, grants })
}

/// Who will own the object of an upload.
pub(crate) fn owner_of_upload(access: &Access, bucket: &BucketFacts, acl: &[u8]) -> dto::Owner {
    let owned_by_bucket = bucket.ownership == Ownership::BucketOwnerEnforced;
    owner(access, if owned_by_bucket { bucket.owner } else { of_object(acl, bucket.owner).owner })
}

/// An account as lists show it.
pub(crate) fn owner(access: &Access, id: CanonicalId) -> dto::Owner {
    dto::Owner {
        id: Some(id.to_string()),
        display_name: access.account(id).map(|account| account.name.clone()),
    }
}

/// Grants as the API shows them.
pub(crate) fn shown(access: &Access, acl: &Acl) -> Vec<dto::Grant> {
    let one = |grant: &Grant| {
        let kind = |word| dto::Type::from_static(word);
        let empty =
            |type_| dto::Grantee { display_name: None, email_address: None, id: None, type_, uri: None };
        let grantee = match grant.grantee {
            Grantee::Account(id) => {
                let dto::Owner { id, display_name } = owner(access, id);
                dto::Grantee { id, display_name, ..empty(kind(dto::Type::CANONICAL_USER)) }
            }
            group => dto::Grantee { uri: group.uri().map(str::to_owned), ..empty(kind(dto::Type::GROUP)) },
        };
        dto::Grant {
            grantee: Some(grantee),
            permission: Some(dto::Permission::from_static(grant.permission.word())),
        }
    };
    acl.grants.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use holdfast_access::{
        identity::{Account, AccountInfo},
        text::AccountNumber,
    };

    use super::*;

    fn tenant() -> Tenant {
        let number = AccountNumber::new(7);
        let info = AccountInfo {
            number,
            canonical: CanonicalId::from_bytes([7; 32]),
            name: "seven".into(),
            email: "seven@example.com".into(),
        };
        let account = Account {
            info: Arc::new(info),
            users: BTreeMap::new(),
            groups: BTreeMap::new(),
            roles: BTreeMap::new(),
            policies: BTreeMap::new(),
        };
        Tenant {
            name: "t".into(),
            first: Some(number),
            accounts: BTreeMap::from([(number, account)]),
            suspended: false,
            waits_for: None,
            limits: holdfast_model::TenantLimits::default(),
        }
    }

    fn of(list: &[(&'static str, &str)]) -> Result<Asked, &'static str> {
        let headers = list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        asked(&HeaderMap::from_iter(headers), &tenant()).map_err(|refusal| refusal.code)
    }

    #[test]
    fn grants_name_accounts_by_id_and_address_and_groups_by_uri() {
        let id = "07".repeat(32);
        let text = format!(
            "id=\"{id}\", emailAddress=seven@example.com,uri=\"http://acs.amazonaws.com/groups/global/AllUsers\""
        );
        let Ok(Asked::Grants(grants)) = of(&[("x-amz-grant-read", &text)]) else { panic!() };
        let account = Grantee::Account(CanonicalId::from_bytes([7; 32]));
        assert_eq!(
            grants.iter().map(|grant| grant.grantee).collect::<Vec<_>>(),
            [account, account, Grantee::AllUsers]
        );
        for (value, code) in [
            ("id=\"08\"", "InvalidArgument"),
            ("emailAddress=nobody@example.com", "UnresolvableGrantByEmailAddress"),
            ("uri=http://example.com", "InvalidArgument"),
            ("everybody", "InvalidArgument"),
        ] {
            assert_eq!(of(&[("x-amz-grant-write", value)]), Err(code), "{value}");
        }
    }

    #[test]
    fn grants_of_headers_are_shown_in_one_order() {
        let seven = "emailAddress=seven@example.com";
        let Ok(Asked::Grants(grants)) = of(&[
            ("x-amz-grant-full-control", seven),
            ("x-amz-grant-write-acp", seven),
            ("x-amz-grant-read", seven),
        ]) else {
            panic!()
        };
        let permissions: Vec<Permission> = grants.iter().map(|grant| grant.permission).collect();
        assert_eq!(permissions, [Permission::Read, Permission::WriteAcp, Permission::FullControl]);
    }

    #[test]
    fn a_canned_list_and_grants_exclude_each_other() {
        assert_eq!(of(&[("x-amz-acl", "public-read")]), Ok(Asked::Canned(Canned::PublicRead)));
        assert_eq!(of(&[("x-amz-acl", "public")]), Err("InvalidArgument"));
        let both = [("x-amz-acl", "private"), ("x-amz-grant-read", "emailAddress=seven@example.com")];
        assert_eq!(of(&both), Err("InvalidRequest"));
        assert_eq!(of(&[]), Ok(Asked::Nothing));
    }
}
