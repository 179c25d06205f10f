//! Groups and who is in them.

use super::{
    ATTACHED_MAX, Change, Facts, IamError, Params, Performed, Xml,
    entities::{arn, check_free, ending, find, keep, listed, page, put, remove},
    users,
};
use crate::{
    identity::{Group, User},
    text::instant_text,
};

/// Users who are moved along with a group that is renamed, in one change, at most.
const RENAMED_WITH_MAX: usize = 100;

fn shown(xml: Xml, facts: &Facts<'_>, group: &Group) -> Xml {
    xml.text("Path", &group.path)
        .text("GroupName", &group.name)
        .text("GroupId", &group.id)
        .text("Arn", arn(facts, group))
        .text("CreateDate", instant_text(group.created))
}

pub(super) fn create(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let name = params.name("GroupName", 128)?;
    check_free::<Group>(facts, name)?;
    let group = Group {
        name: name.to_owned(),
        path: params.path()?.to_owned(),
        id: facts.id("AGPA"),
        created: facts.now,
        ..Group::default()
    };
    let row = put(facts, None, &group);
    Ok(Performed::changed(row).with(Xml::new().inside("Group", |xml| shown(xml, facts, &group))))
}

pub(super) fn get(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let group = find::<Group>(facts, params.name("GroupName", 128)?)?.value;
    let name = group.name.to_lowercase();
    let members = facts.account.users.iter().filter(|(_, row)| row.value.groups.contains(&name));
    let (members, next) = page(params, members.map(|(name, row)| (name.as_str(), &row.value)))?;
    let xml =
        Xml::new()
            .inside("Group", |xml| shown(xml, facts, &group))
            .members("Users", members, |xml, user| users::shown(xml, facts, user));
    Ok(Performed::answer(ending(xml, next.as_deref())))
}

pub(super) fn list(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let (groups, next) = listed::<Group>(params, facts)?;
    let xml = Xml::new().members("Groups", groups, |xml, group| shown(xml, facts, group));
    Ok(Performed::answer(ending(xml, next.as_deref())))
}

pub(super) fn of_user(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let user = find::<User>(facts, params.name("UserName", 64)?)?.value;
    let groups = user
        .groups
        .iter()
        .filter_map(|name| facts.account.groups.get(name).map(|row| (name.as_str(), &row.value)));
    let (groups, next) = page(params, groups)?;
    let xml = Xml::new().members("Groups", groups, |xml, group| shown(xml, facts, group));
    Ok(Performed::answer(ending(xml, next.as_deref())))
}

pub(super) fn update(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let row = find::<Group>(facts, params.name("GroupName", 128)?)?;
    let mut group = row.value.clone();
    if let Some(path) = params.get("NewPath") {
        let given = [("Path".to_owned(), path.to_owned())];
        group.path = Params(&given).path()?.to_owned();
    }
    let new = params.get("NewGroupName").unwrap_or(&row.value.name).to_owned();
    if new.to_lowercase() == row.value.name.to_lowercase() {
        group.name = new;
        return Ok(Performed::changed(put(facts, Some(row.version), &group)));
    }
    group.name = params.name("NewGroupName", 128)?.to_owned();
    check_free::<Group>(facts, &group.name)?;
    if members(facts, &row.value.name) > RENAMED_WITH_MAX {
        return Err(IamError::conflict(format!(
            "A group of more than {RENAMED_WITH_MAX} users is renamed once there are fewer in it."
        )));
    }
    let mut rows = vec![remove(&row), put(facts, None, &group)];
    // Users name their groups.
    let (old, new) = (row.value.name.to_lowercase(), group.name.to_lowercase());
    for user in facts.account.users.values().filter(|user| user.value.groups.contains(&old)) {
        let mut renamed = user.value.clone();
        renamed.groups.remove(&old);
        renamed.groups.insert(new.clone());
        rows.push(put(facts, Some(user.version), &renamed));
    }
    Ok(Performed { change: Change { rows, keys: Vec::new() }, result: String::new() })
}

fn members(facts: &Facts<'_>, name: &str) -> usize {
    let name = name.to_lowercase();
    facts.account.users.values().filter(|row| row.value.groups.contains(&name)).count()
}

pub(super) fn delete(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let row = find::<Group>(facts, params.name("GroupName", 128)?)?;
    let permissions = &row.value.permissions;
    let first = [
        (members(facts, &row.value.name) > 0, "users in group"),
        (!permissions.inline.is_empty(), "policies"),
        (!permissions.attached.is_empty(), "attached policies"),
    ];
    if let Some((_, what)) = first.iter().find(|(has, _)| *has) {
        return Err(IamError::conflict(format!("Cannot delete entity, must remove {what} first.")));
    }
    Ok(Performed::changed(remove(&row)))
}

pub(super) fn add_user(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let group = find::<Group>(facts, params.name("GroupName", 128)?)?;
    let mut user = find::<User>(facts, params.name("UserName", 64)?)?;
    user.value.groups.insert(group.value.name.to_lowercase());
    if user.value.groups.len() > ATTACHED_MAX {
        return Err(IamError::limit("GroupsPerUser", ATTACHED_MAX));
    }
    // The group's version moves too: it cannot be deleted by somebody who saw it without this user.
    let written = put(facts, Some(user.version), &user.value);
    let touched = put(facts, Some(group.version), &group.value);
    Ok(Performed { change: Change { rows: vec![touched, written], keys: Vec::new() }, result: String::new() })
}

pub(super) fn remove_user(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let group = find::<Group>(facts, params.name("GroupName", 128)?)?;
    let mut user = find::<User>(facts, params.name("UserName", 64)?)?;
    if !user.value.groups.remove(&group.value.name.to_lowercase()) {
        return Err(IamError::no_such(format!(
            "User {} is not in group {}.",
            user.value.name, group.value.name
        )));
    }
    let written = put(facts, Some(user.version), &user.value);
    Ok(Performed {
        change: Change { rows: vec![keep(&group), written], keys: Vec::new() },
        result: String::new(),
    })
}
