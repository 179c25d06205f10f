//! Users and their access keys.

use super::{
    Change, Facts, IamError, KEYS_MAX, KeyChange, Params, Performed, TAGS_MAX, Xml,
    entities::{arn, check_free, ending, find, listed, page, put, remove, tags_shown},
};
use crate::{
    identity::{KeyInfo, User},
    text::instant_text,
};

const SECRET_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const KEY_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

pub(super) fn shown(xml: Xml, facts: &Facts<'_>, user: &User) -> Xml {
    let xml = xml
        .text("Path", &user.path)
        .text("UserName", &user.name)
        .text("UserId", &user.id)
        .text("Arn", arn(facts, user))
        .text("CreateDate", instant_text(user.created));
    let xml = match &user.boundary {
        Some(boundary) => xml.inside("PermissionsBoundary", |xml| {
            xml.text("PermissionsBoundaryType", "Policy").text("PermissionsBoundaryArn", boundary)
        }),
        None => xml,
    };
    if user.tags.is_empty() { xml } else { tags_shown(xml, &user.tags) }
}

pub(super) fn create(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let name = params.name("UserName", 64)?;
    check_free::<User>(facts, name)?;
    let boundary = match params.get("PermissionsBoundary") {
        Some(arn) => Some(super::policies::existing(facts, arn)?),
        None => None,
    };
    let user = User {
        name: name.to_owned(),
        path: params.path()?.to_owned(),
        id: facts.id("AIDA"),
        created: facts.now,
        boundary,
        tags: params.tags()?,
        ..User::default()
    };
    let row = put(facts, None, &user);
    Ok(Performed::changed(row).with(Xml::new().inside("User", |xml| shown(xml, facts, &user))))
}

pub(super) fn get(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let xml = match facts.user_meant(params)? {
        Some(name) => {
            let user = find::<User>(facts, name)?.value;
            Xml::new().inside("User", |xml| shown(xml, facts, &user))
        }
        // The root user: without a name and a path.
        None => Xml::new().inside("User", |xml| {
            xml.text("UserId", facts.number().to_string())
                .text("Arn", format!("arn:aws:iam::{}:root", facts.number()))
                .text("CreateDate", instant_text(0))
        }),
    };
    Ok(Performed::answer(xml))
}

pub(super) fn list(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let (users, next) = listed::<User>(params, facts)?;
    let xml = Xml::new().members("Users", users, |xml, user| shown(xml, facts, user));
    Ok(Performed::answer(ending(xml, next.as_deref())))
}

pub(super) fn update(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let row = find::<User>(facts, params.name("UserName", 64)?)?;
    let mut user = row.value.clone();
    if let Some(path) = params.get("NewPath") {
        let given = [("Path".to_owned(), path.to_owned())];
        user.path = Params(&given).path()?.to_owned();
    }
    if params.get("NewUserName").is_none_or(|new| new.to_lowercase() == row.value.name.to_lowercase()) {
        if let Some(new) = params.get("NewUserName") {
            new.clone_into(&mut user.name);
        }
        return Ok(Performed::changed(put(facts, Some(row.version), &user)));
    }
    let new = params.name("NewUserName", 64)?;
    check_free::<User>(facts, new)?;
    if !user.keys.is_empty() {
        // Keys are found by their user's name; nothing renames them in one step.
        return Err(IamError::new(
            "DeleteConflict",
            409,
            "Delete the user's access keys before you rename it.",
        ));
    }
    new.clone_into(&mut user.name);
    let written = put(facts, None, &user);
    let change = Change { rows: vec![remove(&row), written], keys: Vec::new() };
    Ok(Performed { change, result: None })
}

pub(super) fn delete(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let row = find::<User>(facts, params.name("UserName", 64)?)?;
    let user = &row.value;
    let first = [
        (!user.keys.is_empty(), "access keys"),
        (!user.permissions.inline.is_empty(), "policies"),
        (!user.permissions.attached.is_empty(), "attached policies"),
        (!user.groups.is_empty(), "group memberships"),
    ];
    if let Some((_, what)) = first.iter().find(|(has, _)| *has) {
        return Err(IamError::conflict(format!("Cannot delete entity, must delete {what} first.")));
    }
    Ok(Performed::changed(remove(&row)))
}

fn merged(
    row_tags: &mut std::collections::BTreeMap<String, String>,
    params: Params<'_>,
) -> Result<(), IamError> {
    row_tags.extend(params.tags()?);
    if row_tags.len() > TAGS_MAX { Err(IamError::limit("TagsPerUser", TAGS_MAX)) } else { Ok(()) }
}

pub(super) fn tag(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let mut row = find::<User>(facts, params.name("UserName", 64)?)?;
    merged(&mut row.value.tags, params)?;
    Ok(Performed::changed(put(facts, Some(row.version), &row.value)))
}

pub(super) fn untag(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let mut row = find::<User>(facts, params.name("UserName", 64)?)?;
    for number in 1..=TAGS_MAX {
        let Some(key) = params.get(&format!("TagKeys.member.{number}")) else { break };
        row.value.tags.remove(key);
    }
    Ok(Performed::changed(put(facts, Some(row.version), &row.value)))
}

pub(super) fn tags(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let row = find::<User>(facts, params.name("UserName", 64)?)?;
    Ok(Performed::answer(ending(tags_shown(Xml::new(), &row.value.tags), None)))
}

pub(super) fn create_key(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let meant = facts.user_meant(params)?.map(str::to_owned);
    let access_key = format!("AKIA{}", facts.text(KEY_ALPHABET, 16));
    let secret = facts.text(SECRET_ALPHABET, 40);
    let mut performed = Performed::default();
    let user_name = match &meant {
        None => {
            if facts.root_keys.len() >= KEYS_MAX {
                return Err(IamError::limit("AccessKeysPerUser", KEYS_MAX));
            }
            String::new()
        }
        Some(name) => {
            let mut row = find::<User>(facts, name)?;
            if row.value.keys.len() >= KEYS_MAX {
                return Err(IamError::limit("AccessKeysPerUser", KEYS_MAX));
            }
            row.value.keys.insert(access_key.clone(), KeyInfo { created: facts.now, active: true });
            performed = Performed::changed(put(facts, Some(row.version), &row.value));
            row.value.name
        }
    };
    performed.change.keys.push(KeyChange::Create {
        access_key: access_key.clone(),
        user: meant.map(|name| name.to_lowercase()),
        secret: secret.clone(),
    });
    let created = instant_text(facts.now);
    Ok(performed.with(Xml::new().inside("AccessKey", |xml| {
        xml.text("UserName", user_name)
            .text("AccessKeyId", access_key)
            .text("Status", "Active")
            .text("SecretAccessKey", secret)
            .text("CreateDate", created)
    })))
}

fn keys_of(params: Params<'_>, facts: &Facts<'_>) -> Result<(String, Vec<(String, KeyInfo)>), IamError> {
    Ok(match facts.user_meant(params)? {
        None => (String::new(), facts.root_keys.clone()),
        Some(name) => {
            let user = find::<User>(facts, name)?.value;
            (user.name, user.keys.into_iter().collect())
        }
    })
}

pub(super) fn list_keys(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let (name, keys) = keys_of(params, facts)?;
    let (keys, next) = page(params, keys.iter().map(|(key, info)| (key.as_str(), (key, info))))?;
    let xml = Xml::new().members("AccessKeyMetadata", keys, |xml, (key, info)| {
        xml.text("UserName", &name)
            .text("AccessKeyId", key)
            .text("Status", if info.active { "Active" } else { "Inactive" })
            .text("CreateDate", instant_text(info.created))
    });
    Ok(Performed::answer(ending(xml, next.as_deref())))
}

fn no_such_key(key: &str) -> IamError {
    IamError::no_such(format!("The Access Key with id {key} cannot be found."))
}

/// Applies `change` to one key of the user meant, in its row and in the table of keys.
fn on_key(
    params: Params<'_>,
    facts: &mut Facts<'_>,
    change: impl FnOnce(&mut std::collections::BTreeMap<String, KeyInfo>, &str) -> KeyChange,
) -> Result<Performed, IamError> {
    let key = params.required("AccessKeyId")?;
    let meant = facts.user_meant(params)?.map(str::to_owned);
    match meant {
        None => {
            let mut keys: std::collections::BTreeMap<_, _> = facts.root_keys.iter().cloned().collect();
            if !keys.contains_key(key) {
                return Err(no_such_key(key));
            }
            let change = Change { rows: Vec::new(), keys: vec![change(&mut keys, key)] };
            if keys.values().all(|info| !info.active) {
                // Nobody could let them in again.
                return Err(IamError::conflict("The last access key of the root user stays active."));
            }
            Ok(Performed { change, result: None })
        }
        Some(name) => {
            let mut row = find::<User>(facts, &name)?;
            if !row.value.keys.contains_key(key) {
                return Err(no_such_key(key));
            }
            let changed = change(&mut row.value.keys, key);
            let mut performed = Performed::changed(put(facts, Some(row.version), &row.value));
            performed.change.keys.push(changed);
            Ok(performed)
        }
    }
}

pub(super) fn update_key(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let active = match params.required("Status")? {
        "Active" => true,
        "Inactive" => false,
        _ => return Err(IamError::validation("Status must be Active or Inactive.")),
    };
    on_key(params, facts, |keys, key| {
        if let Some(info) = keys.get_mut(key) {
            info.active = active;
        }
        KeyChange::SetActive { access_key: key.to_owned(), active }
    })
}

pub(super) fn delete_key(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    on_key(params, facts, |keys, key| {
        keys.remove(key);
        KeyChange::Delete { access_key: key.to_owned() }
    })
}

pub(super) fn key_last_used(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let key = params.required("AccessKeyId")?;
    let user = facts.account.users.values().find(|row| row.value.keys.contains_key(key));
    let user = user.ok_or_else(|| no_such_key(key))?;
    // Uses are not recorded.
    let xml = Xml::new()
        .text("UserName", &user.value.name)
        .inside("AccessKeyLastUsed", |xml| xml.text("ServiceName", "N/A").text("Region", "N/A"));
    Ok(Performed::answer(xml))
}

pub(super) fn summary(_: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let account = facts.account;
    let counts = [
        ("Users", account.users.len()),
        ("Groups", account.groups.len()),
        ("Roles", account.roles.len()),
        ("Policies", account.policies.len()),
        ("AccountAccessKeysPresent", usize::from(!facts.root_keys.is_empty())),
        ("AccessKeysPerUserQuota", KEYS_MAX),
        ("AttachedPoliciesPerUserQuota", super::ATTACHED_MAX),
        ("AttachedPoliciesPerGroupQuota", super::ATTACHED_MAX),
        ("AttachedPoliciesPerRoleQuota", super::ATTACHED_MAX),
        ("VersionsPerPolicyQuota", super::POLICY_VERSIONS_MAX),
        ("AccountMFAEnabled", 0),
    ];
    let xml = Xml::new().inside("SummaryMap", |mut xml| {
        for (name, count) in counts {
            xml = xml.inside("entry", |xml| xml.text("key", name).text("value", count.to_string()));
        }
        xml
    });
    Ok(Performed::answer(xml))
}

/// There is no federation, and so nobody who provides identities.
pub(super) fn providers(_: Params<'_>, _: &mut Facts<'_>) -> Result<Performed, IamError> {
    Ok(Performed::answer(Xml::new().texts::<&str>("OpenIDConnectProviderList", [])))
}

pub(super) fn aliases(_: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let xml = Xml::new().texts("AccountAliases", [facts.account.info.name.as_str()]);
    Ok(Performed::answer(ending(xml, None)))
}
