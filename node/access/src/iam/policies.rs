//! Managed policies and their versions.

use std::collections::BTreeMap;

use super::{
    Facts, IamError, POLICY_VERSIONS_MAX, Params, Performed, RowChange, Then, Xml,
    entities::{Entity, check_free, ending, page},
    managed,
    xml::encoded,
};
use crate::{
    identity::{Kind, ManagedPolicy, PolicyVersion, Row, Rows},
    text::instant_text,
};

impl Entity for ManagedPolicy {
    const KIND: Kind = Kind::Policy;
    const WORD: &'static str = "policy";
    fn rows<'a>(facts: &'a Facts<'_>) -> &'a Rows<Self> {
        &facts.account.policies
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn path(&self) -> &str {
        &self.path
    }
}

fn no_such(arn: &str) -> IamError {
    IamError::no_such(format!("Policy {arn} does not exist or is not attachable."))
}

/// A policy of this account by its ARN.
fn find(facts: &Facts<'_>, arn: &str) -> Result<Row<ManagedPolicy>, IamError> {
    let name = arn.rsplit('/').next().unwrap_or_default().to_lowercase();
    let row = facts.account.policies.get(&name).ok_or_else(|| no_such(arn))?;
    if self_arn(facts, &row.value) == arn { Ok(row.clone()) } else { Err(no_such(arn)) }
}

fn self_arn(facts: &Facts<'_>, policy: &ManagedPolicy) -> String {
    super::entities::arn(facts, policy)
}

/// The ARN, when a policy of it exists.
pub(super) fn existing(facts: &Facts<'_>, arn: &str) -> Result<String, IamError> {
    if let Some(name) = arn.strip_prefix("arn:aws:iam::aws:policy/") {
        return managed::aws_managed(name).map(|_| arn.to_owned()).ok_or_else(|| no_such(arn));
    }
    find(facts, arn).map(|_| arn.to_owned())
}

/// A change that gives the policy a new row version and nothing else.
pub(super) fn touched(facts: &mut Facts<'_>, arn: &str) -> Option<RowChange> {
    let row = find(facts, arn).ok()?;
    Some(super::entities::put(facts, Some(row.version), &row.value))
}

fn attachments(facts: &Facts<'_>, arn: &str) -> usize {
    let account = facts.account;
    let users = account.users.values().map(|row| &row.value.permissions);
    let groups = account.groups.values().map(|row| &row.value.permissions);
    let roles = account.roles.values().map(|row| &row.value.permissions);
    users.chain(groups).chain(roles).filter(|permissions| permissions.attached.contains(arn)).count()
}

fn boundaries(facts: &Facts<'_>, arn: &str) -> usize {
    let users = facts.account.users.values().filter_map(|row| row.value.boundary.as_deref());
    let roles = facts.account.roles.values().filter_map(|row| row.value.boundary.as_deref());
    users.chain(roles).filter(|boundary| *boundary == arn).count()
}

fn shown(xml: Xml, facts: &Facts<'_>, policy: &ManagedPolicy) -> Xml {
    let arn = self_arn(facts, policy);
    let (attached, bounds) = (attachments(facts, &arn), boundaries(facts, &arn));
    xml.text("PolicyName", &policy.name)
        .text("PolicyId", &policy.id)
        .text("Arn", arn)
        .text("Path", &policy.path)
        .text("DefaultVersionId", format!("v{}", policy.default))
        .text("AttachmentCount", attached.to_string())
        .text("PermissionsBoundaryUsageCount", bounds.to_string())
        .text("IsAttachable", "true")
        .maybe("Description", Some(policy.description.as_str()).filter(|text| !text.is_empty()))
        .text("CreateDate", instant_text(policy.created))
        .text("UpdateDate", instant_text(policy.updated))
}

fn managed_shown(xml: Xml, name: &str) -> Xml {
    xml.text("PolicyName", name)
        .text("PolicyId", format!("ANPA{name}"))
        .text("Arn", format!("arn:aws:iam::aws:policy/{name}"))
        .text("Path", "/")
        .text("DefaultVersionId", "v1")
        .text("IsAttachable", "true")
        .text("CreateDate", instant_text(0))
        .text("UpdateDate", instant_text(0))
}

pub(super) fn create(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let name = params.name("PolicyName", 128)?;
    check_free::<ManagedPolicy>(facts, name)?;
    let version = PolicyVersion { document: params.identity_policy()?.to_owned(), created: facts.now };
    let policy = ManagedPolicy {
        name: name.to_owned(),
        path: params.path()?.to_owned(),
        id: facts.id("ANPA"),
        created: facts.now,
        updated: facts.now,
        description: params.get("Description").unwrap_or_default().chars().take(1000).collect(),
        versions: BTreeMap::from([(1, version)]),
        default: 1,
        last: 1,
    };
    let row = super::entities::put(facts, None, &policy);
    Ok(Performed::changed(row).with(Xml::new().inside("Policy", |xml| shown(xml, facts, &policy))))
}

pub(super) fn get(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let arn = params.required("PolicyArn")?;
    if let Some((name, _)) = arn.strip_prefix("arn:aws:iam::aws:policy/").and_then(managed::aws_managed) {
        return Ok(Performed::answer(Xml::new().inside("Policy", |xml| managed_shown(xml, name))));
    }
    let policy = find(facts, arn)?.value;
    Ok(Performed::answer(Xml::new().inside("Policy", |xml| shown(xml, facts, &policy))))
}

pub(super) fn list(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let scope = params.get("Scope").unwrap_or("All");
    let only_attached = params.get("OnlyAttached") == Some("true");
    let prefix = params.get("PathPrefix").unwrap_or("/");
    let own = facts.account.policies.values().map(|row| &row.value);
    let own: Vec<(String, Option<&ManagedPolicy>)> = own
        .filter(|policy| policy.path.starts_with(prefix))
        .map(|policy| (self_arn(facts, policy), Some(policy)))
        .collect();
    let aws = managed::all().map(|(name, _)| (format!("arn:aws:iam::aws:policy/{name}"), None));
    let mut all: Vec<(String, Option<&ManagedPolicy>)> = match scope {
        "Local" => own,
        "AWS" => aws.collect(),
        "All" => own.into_iter().chain(aws).collect(),
        _ => return Err(IamError::validation("Scope must be All, AWS or Local.")),
    };
    all.retain(|(arn, _)| !only_attached || attachments(facts, arn) > 0);
    all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let (policies, next) = page(params, all.iter().map(|(arn, policy)| (arn.as_str(), (arn, policy))))?;
    let xml = Xml::new().members("Policies", policies, |xml, (arn, policy)| match policy {
        Some(policy) => shown(xml, facts, policy),
        None => managed_shown(xml, arn.rsplit('/').next().unwrap_or_default()),
    });
    Ok(Performed::answer(ending(xml, next.as_deref())))
}

pub(super) fn delete(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let arn = params.required("PolicyArn")?;
    let row = find(facts, arn)?;
    if attachments(facts, arn) + boundaries(facts, arn) > 0 {
        return Err(IamError::conflict("Cannot delete a policy attached to entities."));
    }
    if row.value.versions.len() > 1 {
        return Err(IamError::conflict(
            "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.",
        ));
    }
    let name = row.value.name.to_lowercase();
    Ok(Performed::changed(RowChange {
        kind: Kind::Policy,
        name,
        expected: Some(row.version),
        then: Then::Delete,
    }))
}

fn version_number(params: Params<'_>) -> Result<u32, IamError> {
    let text = params.required("VersionId")?;
    text.strip_prefix('v')
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| IamError::validation(format!("VersionId {text} is not of the form v1.")))
}

fn no_such_version(number: u32) -> IamError {
    IamError::no_such(format!("Policy version v{number} does not exist."))
}

fn version_shown(xml: Xml, (number, version): (u32, &PolicyVersion), default: u32, whole: bool) -> Xml {
    let document = encoded(&version.document);
    xml.maybe("Document", Some(document.as_str()).filter(|_| whole))
        .text("VersionId", format!("v{number}"))
        .text("IsDefaultVersion", if number == default { "true" } else { "false" })
        .text("CreateDate", instant_text(version.created))
}

pub(super) fn create_version(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let mut row = find(facts, params.required("PolicyArn")?)?;
    let policy = &mut row.value;
    if policy.versions.len() >= POLICY_VERSIONS_MAX {
        return Err(IamError::limit("VersionsPerPolicy", POLICY_VERSIONS_MAX));
    }
    let version = PolicyVersion { document: params.identity_policy()?.to_owned(), created: facts.now };
    policy.last += 1;
    policy.updated = facts.now;
    let number = policy.last;
    if params.get("SetAsDefault") == Some("true") {
        policy.default = number;
    }
    policy.versions.insert(number, version.clone());
    let default = policy.default;
    let change = super::entities::put(facts, Some(row.version), &row.value);
    let xml =
        Xml::new().inside("PolicyVersion", |xml| version_shown(xml, (number, &version), default, false));
    Ok(Performed::changed(change).with(xml))
}

pub(super) fn get_version(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let arn = params.required("PolicyArn")?;
    let number = version_number(params)?;
    let aws = arn.strip_prefix("arn:aws:iam::aws:policy/").and_then(managed::aws_managed);
    if let Some((_, document)) = aws.filter(|_| number == 1) {
        let version = PolicyVersion { document: document.to_owned(), created: 0 };
        let xml = Xml::new().inside("PolicyVersion", |xml| version_shown(xml, (1, &version), 1, true));
        return Ok(Performed::answer(xml));
    }
    let policy = find(facts, arn)?.value;
    let version = policy.versions.get(&number).ok_or_else(|| no_such_version(number))?;
    let xml =
        Xml::new().inside("PolicyVersion", |xml| version_shown(xml, (number, version), policy.default, true));
    Ok(Performed::answer(xml))
}

pub(super) fn list_versions(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let policy = find(facts, params.required("PolicyArn")?)?.value;
    let xml = Xml::new().members("Versions", policy.versions.iter().rev(), |xml, (number, version)| {
        version_shown(xml, (*number, version), policy.default, false)
    });
    Ok(Performed::answer(ending(xml, None)))
}

pub(super) fn delete_version(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let mut row = find(facts, params.required("PolicyArn")?)?;
    let number = version_number(params)?;
    if number == row.value.default {
        return Err(IamError::conflict("Cannot delete the default version of a policy."));
    }
    row.value.versions.remove(&number).ok_or_else(|| no_such_version(number))?;
    Ok(Performed::changed(super::entities::put(facts, Some(row.version), &row.value)))
}

pub(super) fn set_default(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let mut row = find(facts, params.required("PolicyArn")?)?;
    let number = version_number(params)?;
    if !row.value.versions.contains_key(&number) {
        return Err(no_such_version(number));
    }
    row.value.default = number;
    row.value.updated = facts.now;
    Ok(Performed::changed(super::entities::put(facts, Some(row.version), &row.value)))
}

pub(super) fn entities(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let arn = existing(facts, params.required("PolicyArn")?)?;
    let account = facts.account;
    let users = account.users.values().filter(|row| row.value.permissions.attached.contains(&arn));
    let groups = account.groups.values().filter(|row| row.value.permissions.attached.contains(&arn));
    let roles = account.roles.values().filter(|row| row.value.permissions.attached.contains(&arn));
    let xml = Xml::new()
        .members("PolicyUsers", users, |xml, row| {
            xml.text("UserName", &row.value.name).text("UserId", &row.value.id)
        })
        .members("PolicyGroups", groups, |xml, row| {
            xml.text("GroupName", &row.value.name).text("GroupId", &row.value.id)
        })
        .members("PolicyRoles", roles, |xml, row| {
            xml.text("RoleName", &row.value.name).text("RoleId", &row.value.id)
        });
    Ok(Performed::answer(ending(xml, None)))
}
