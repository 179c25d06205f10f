//! Roles: who may assume them, and for how long.

use super::{
    Facts, IamError, Params, Performed, TAGS_MAX, Xml,
    entities::{arn, check_free, ending, find, listed, put, remove, tags_shown},
    xml::encoded,
};
use crate::{identity::Role, policy::Kind, text::instant_text};

/// Shortest and longest session of a role, in seconds (AWS).
const SESSION_SECONDS: std::ops::RangeInclusive<u64> = 3600..=43_200;

fn shown(xml: Xml, facts: &Facts<'_>, role: &Role) -> Xml {
    let xml = xml
        .text("Path", &role.path)
        .text("RoleName", &role.name)
        .text("RoleId", &role.id)
        .text("Arn", arn(facts, role))
        .text("CreateDate", instant_text(role.created))
        .text("AssumeRolePolicyDocument", encoded(&role.trust))
        .maybe("Description", Some(role.description.as_str()).filter(|text| !text.is_empty()))
        .text("MaxSessionDuration", role.max_session_seconds.to_string());
    let xml = match &role.boundary {
        Some(boundary) => xml.inside("PermissionsBoundary", |xml| {
            xml.text("PermissionsBoundaryType", "Policy").text("PermissionsBoundaryArn", boundary)
        }),
        None => xml,
    };
    if role.tags.is_empty() { xml } else { tags_shown(xml, &role.tags) }
}

fn trust<'a>(params: Params<'a>, parameter: &str) -> Result<&'a str, IamError> {
    let (text, policy) = params.document(parameter)?;
    policy.validate(Kind::Trust).map_err(|error| IamError::new("MalformedPolicyDocument", 400, error.0))?;
    Ok(text)
}

fn session_seconds(params: Params<'_>, otherwise: u64) -> Result<u64, IamError> {
    match params.get("MaxSessionDuration").map(str::parse::<u64>) {
        None => Ok(otherwise),
        Some(Ok(seconds)) if SESSION_SECONDS.contains(&seconds) => Ok(seconds),
        Some(_) => Err(IamError::validation(format!(
            "MaxSessionDuration is {} to {} seconds.",
            SESSION_SECONDS.start(),
            SESSION_SECONDS.end()
        ))),
    }
}

pub(super) fn create(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let name = params.name("RoleName", 64)?;
    check_free::<Role>(facts, name)?;
    let boundary = match params.get("PermissionsBoundary") {
        Some(arn) => Some(super::policies::existing(facts, arn)?),
        None => None,
    };
    let role = Role {
        name: name.to_owned(),
        path: params.path()?.to_owned(),
        id: facts.id("AROA"),
        created: facts.now,
        boundary,
        tags: params.tags()?,
        trust: trust(params, "AssumeRolePolicyDocument")?.to_owned(),
        description: params.get("Description").unwrap_or_default().chars().take(1000).collect(),
        max_session_seconds: session_seconds(params, *SESSION_SECONDS.start())?,
        ..Role::default()
    };
    let row = put(facts, None, &role);
    Ok(Performed::changed(row).with(Xml::new().inside("Role", |xml| shown(xml, facts, &role))))
}

pub(super) fn get(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let role = find::<Role>(facts, params.name("RoleName", 64)?)?.value;
    Ok(Performed::answer(Xml::new().inside("Role", |xml| shown(xml, facts, &role))))
}

pub(super) fn list(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let (roles, next) = listed::<Role>(params, facts)?;
    let xml = Xml::new().members("Roles", roles, |xml, role| shown(xml, facts, role));
    Ok(Performed::answer(ending(xml, next.as_deref())))
}

pub(super) fn update(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let mut row = find::<Role>(facts, params.name("RoleName", 64)?)?;
    if let Some(description) = params.get("Description") {
        row.value.description = description.chars().take(1000).collect();
    }
    row.value.max_session_seconds = session_seconds(params, row.value.max_session_seconds)?;
    Ok(Performed::changed(put(facts, Some(row.version), &row.value)).with(Xml::new()))
}

pub(super) fn update_trust(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let mut row = find::<Role>(facts, params.name("RoleName", 64)?)?;
    trust(params, "PolicyDocument")?.clone_into(&mut row.value.trust);
    Ok(Performed::changed(put(facts, Some(row.version), &row.value)))
}

pub(super) fn delete(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let row = find::<Role>(facts, params.name("RoleName", 64)?)?;
    let permissions = &row.value.permissions;
    if !permissions.inline.is_empty() {
        return Err(IamError::conflict("Cannot delete entity, must delete policies first."));
    }
    if !permissions.attached.is_empty() {
        return Err(IamError::conflict("Cannot delete entity, must detach all policies first."));
    }
    Ok(Performed::changed(remove(&row)))
}

pub(super) fn tag(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let mut row = find::<Role>(facts, params.name("RoleName", 64)?)?;
    row.value.tags.extend(params.tags()?);
    if row.value.tags.len() > TAGS_MAX {
        return Err(IamError::limit("TagsPerRole", TAGS_MAX));
    }
    Ok(Performed::changed(put(facts, Some(row.version), &row.value)))
}

pub(super) fn untag(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let mut row = find::<Role>(facts, params.name("RoleName", 64)?)?;
    for number in 1..=TAGS_MAX {
        let Some(key) = params.get(&format!("TagKeys.member.{number}")) else { break };
        row.value.tags.remove(key);
    }
    Ok(Performed::changed(put(facts, Some(row.version), &row.value)))
}

pub(super) fn tags(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let row = find::<Role>(facts, params.name("RoleName", 64)?)?;
    Ok(Performed::answer(ending(tags_shown(Xml::new(), &row.value.tags), None)))
}
