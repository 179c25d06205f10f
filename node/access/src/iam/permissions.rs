//! Policies of users, groups and roles: inline documents, and managed policies attached to them.

use super::{
    ATTACHED_MAX, Change, Facts, IamError, Params, Performed, Xml,
    entities::{Holder, ending, find, page, put},
    policies,
    xml::encoded,
};
use crate::identity::{Group, Role, User};

fn put_inline<T: Holder>(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let mut row = find::<T>(facts, params.name(T::PARAMETER, 128)?)?;
    let name = params.name("PolicyName", 128)?.to_owned();
    let document = params.identity_policy()?.to_owned();
    let inline = &mut row.value.permissions_mut().inline;
    inline.insert(name, document);
    if inline.len() > ATTACHED_MAX {
        return Err(IamError::limit("inline policies", ATTACHED_MAX));
    }
    Ok(Performed::changed(put(facts, Some(row.version), &row.value)))
}

fn no_such_policy(name: &str) -> IamError {
    IamError::no_such(format!("The policy with name {name} cannot be found."))
}

fn get_inline<T: Holder>(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let row = find::<T>(facts, params.name(T::PARAMETER, 128)?)?;
    let name = params.name("PolicyName", 128)?;
    let document = row.value.permissions().inline.get(name).ok_or_else(|| no_such_policy(name))?;
    let xml = Xml::new()
        .text(T::PARAMETER, row.value.name())
        .text("PolicyName", name)
        .text("PolicyDocument", encoded(document));
    Ok(Performed::answer(xml))
}

fn list_inline<T: Holder>(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let row = find::<T>(facts, params.name(T::PARAMETER, 128)?)?;
    let names = row.value.permissions().inline.keys().map(|name| (name.as_str(), name));
    let (names, next) = page(params, names)?;
    Ok(Performed::answer(ending(Xml::new().texts("PolicyNames", names), next.as_deref())))
}

fn delete_inline<T: Holder>(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let mut row = find::<T>(facts, params.name(T::PARAMETER, 128)?)?;
    let name = params.name("PolicyName", 128)?;
    row.value.permissions_mut().inline.remove(name).ok_or_else(|| no_such_policy(name))?;
    Ok(Performed::changed(put(facts, Some(row.version), &row.value)))
}

fn attach<T: Holder>(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let mut row = find::<T>(facts, params.name(T::PARAMETER, 128)?)?;
    let arn = policies::existing(facts, params.required("PolicyArn")?)?;
    let attached = &mut row.value.permissions_mut().attached;
    attached.insert(arn.clone());
    if attached.len() > ATTACHED_MAX {
        return Err(IamError::limit("attached policies", ATTACHED_MAX));
    }
    let mut rows = vec![put(facts, Some(row.version), &row.value)];
    // The policy's version moves too: it cannot be deleted by somebody who saw it unattached.
    rows.extend(policies::touched(facts, &arn));
    Ok(Performed { change: Change { rows, keys: Vec::new() }, result: None })
}

fn detach<T: Holder>(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let mut row = find::<T>(facts, params.name(T::PARAMETER, 128)?)?;
    let arn = params.required("PolicyArn")?;
    if !row.value.permissions_mut().attached.remove(arn) {
        return Err(IamError::no_such(format!("Policy {arn} was not found.")));
    }
    Ok(Performed::changed(put(facts, Some(row.version), &row.value)))
}

fn attached<T: Holder>(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let row = find::<T>(facts, params.name(T::PARAMETER, 128)?)?;
    let arns = row.value.permissions().attached.iter().map(|arn| (arn.as_str(), arn));
    let (arns, next) = page(params, arns)?;
    let xml = Xml::new().members("AttachedPolicies", arns, |xml, arn| {
        xml.text("PolicyName", arn.rsplit('/').next().unwrap_or_default()).text("PolicyArn", arn)
    });
    Ok(Performed::answer(ending(xml, next.as_deref())))
}

macro_rules! of {
    ($type:ident: $($name:ident = $generic:ident;)*) => {
        $(
            pub(super) fn $name(params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
                $generic::<$type>(params, facts)
            }
        )*
    };
}

of! { User:
    put_of_user = put_inline; get_of_user = get_inline; list_of_user = list_inline;
    delete_of_user = delete_inline; attach_to_user = attach; detach_from_user = detach;
    attached_to_user = attached;
}
of! { Group:
    put_of_group = put_inline; get_of_group = get_inline; list_of_group = list_inline;
    delete_of_group = delete_inline; attach_to_group = attach; detach_from_group = detach;
    attached_to_group = attached;
}
of! { Role:
    put_of_role = put_inline; get_of_role = get_inline; list_of_role = list_inline;
    delete_of_role = delete_inline; attach_to_role = attach; detach_from_role = detach;
    attached_to_role = attached;
}
