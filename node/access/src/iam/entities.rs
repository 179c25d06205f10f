//! Users, groups and roles as holders of permissions: found, written back.

use std::collections::BTreeMap;

use super::{Facts, IamError, PAGE_DEFAULT, PAGE_MAX, Params, RowChange, Then, Xml};
use crate::identity::{Group, Kind, Permissions, Role, Row, Rows, User};

/// What is stored of an entity.
pub(super) trait Entity: Clone + serde::Serialize + Sized {
    const KIND: Kind;
    /// `user`
    const WORD: &'static str;
    fn rows<'a>(facts: &'a Facts<'_>) -> &'a Rows<Self>;
    fn name(&self) -> &str;
    fn path(&self) -> &str;
}

/// What holds permissions.
pub(super) trait Holder: Entity {
    const PARAMETER: &'static str;
    fn permissions(&self) -> &Permissions;
    fn permissions_mut(&mut self) -> &mut Permissions;
}

macro_rules! entity {
    ($type:ident, $kind:ident, $word:literal, $rows:ident) => {
        impl Entity for $type {
            const KIND: Kind = Kind::$kind;
            const WORD: &'static str = $word;
            fn rows<'a>(facts: &'a Facts<'_>) -> &'a Rows<Self> {
                &facts.account.$rows
            }
            fn name(&self) -> &str {
                &self.name
            }
            fn path(&self) -> &str {
                &self.path
            }
        }
    };
}

macro_rules! holder {
    ($type:ident, $parameter:literal) => {
        impl Holder for $type {
            const PARAMETER: &'static str = $parameter;
            fn permissions(&self) -> &Permissions {
                &self.permissions
            }
            fn permissions_mut(&mut self) -> &mut Permissions {
                &mut self.permissions
            }
        }
    };
}

entity!(User, User, "user", users);
entity!(Group, Group, "group", groups);
entity!(Role, Role, "role", roles);
holder!(User, "UserName");
holder!(Group, "GroupName");
holder!(Role, "RoleName");

/// The entity of a name.
pub(super) fn find<T: Entity>(facts: &Facts<'_>, name: &str) -> Result<Row<T>, IamError> {
    T::rows(facts)
        .get(&name.to_lowercase())
        .cloned()
        .ok_or_else(|| IamError::no_such(format!("The {} with name {name} cannot be found.", T::WORD)))
}

/// A change that writes the entity in place of `expected`.
pub(super) fn put<T: Entity>(facts: &mut Facts<'_>, expected: Option<u64>, value: &T) -> RowChange {
    let body = serde_json::to_vec(value).unwrap_or_default();
    RowChange {
        kind: T::KIND,
        name: value.name().to_lowercase(),
        expected,
        then: Then::Put(facts.version(), body),
    }
}

/// A change that only relies on the entity.
pub(super) fn keep<T: Entity>(row: &Row<T>) -> RowChange {
    RowChange {
        kind: T::KIND,
        name: row.value.name().to_lowercase(),
        expected: Some(row.version),
        then: Then::Keep,
    }
}

/// A change that removes the entity.
pub(super) fn remove<T: Entity>(row: &Row<T>) -> RowChange {
    RowChange { then: Then::Delete, ..keep(row) }
}

/// Refuses a name that is taken.
pub(super) fn check_free<T: Entity>(facts: &Facts<'_>, name: &str) -> Result<(), IamError> {
    if T::rows(facts).contains_key(&name.to_lowercase()) {
        let word = T::WORD[..1].to_uppercase() + &T::WORD[1..];
        return Err(IamError::exists(format!("{word} with name {name} already exists.")));
    }
    Ok(())
}

pub(super) fn arn<T: Entity>(facts: &Facts<'_>, value: &T) -> String {
    format!("arn:aws:iam::{}:{}{}{}", facts.number(), T::WORD, value.path(), value.name())
}

/// One page of items by name, `Marker` and `MaxItems`: the items and where the next page starts.
pub(super) fn page<'a, T>(
    params: Params<'_>,
    items: impl Iterator<Item = (&'a str, T)>,
) -> Result<(Vec<T>, Option<String>), IamError> {
    let limit = match params.get("MaxItems").map(str::parse::<usize>) {
        None => PAGE_DEFAULT,
        Some(Ok(limit)) if (1..=PAGE_MAX).contains(&limit) => limit,
        Some(_) => return Err(IamError::validation(format!("MaxItems is 1 to {PAGE_MAX}."))),
    };
    let after = params.get("Marker").unwrap_or_default();
    let mut items = items.filter(|(name, _)| after.is_empty() || *name > after).peekable();
    let (mut page, mut last) = (Vec::new(), None);
    while page.len() < limit
        && let Some((name, item)) = items.next()
    {
        page.push(item);
        last = Some(name.to_owned());
    }
    Ok((page, last.filter(|_| items.peek().is_some())))
}

/// `IsTruncated` and `Marker`.
pub(super) fn ending(xml: Xml, next: Option<&str>) -> Xml {
    xml.text("IsTruncated", if next.is_some() { "true" } else { "false" }).maybe("Marker", next)
}

/// Entities whose path begins with `PathPrefix`.
pub(super) fn listed<'a, T: Entity>(
    params: Params<'a>,
    facts: &'a Facts<'_>,
) -> Result<(Vec<&'a T>, Option<String>), IamError> {
    let prefix = params.get("PathPrefix").unwrap_or("/");
    let rows = T::rows(facts).iter();
    let found = rows.filter(|(_, row)| row.value.path().starts_with(prefix));
    page(params, found.map(|(name, row)| (name.as_str(), &row.value)))
}

/// Tags as `member` elements.
pub(super) fn tags_shown(xml: Xml, tags: &BTreeMap<String, String>) -> Xml {
    xml.members("Tags", tags, |xml, (key, value)| xml.text("Key", key).text("Value", value))
}
