//! IAM calls against an account that lives through them.

use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::{
    identity::{AccountInfo, Row},
    policy::{Context, Question},
    text::CanonicalId,
};

/// An account that applies the changes it is given, as the control group would.
struct World {
    account: Account,
    root_keys: Vec<(String, KeyInfo)>,
    counter: u64,
}

const READ: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}"#;

impl World {
    fn new() -> Self {
        let info = AccountInfo {
            number: AccountNumber::new(7),
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
        Self { account, root_keys: Vec::new(), counter: 0 }
    }

    fn call(&mut self, action: &str, params: &[(&str, &str)]) -> Result<String, &'static str> {
        let params: Vec<(String, String)> =
            params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let caller = Caller::of(Arc::clone(&self.account.info), Who::Root);
        let mut counter = self.counter;
        let mut random = |bytes: &mut [u8]| {
            for byte in bytes {
                counter = counter.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = counter.to_be_bytes()[0];
            }
        };
        let mut facts = Facts {
            account: &self.account,
            caller: &caller,
            root_keys: self.root_keys.clone(),
            now: 1000,
            random: &mut random,
        };
        let done = perform(action, Params(&params), &mut facts).map_err(|error| error.code)?;
        self.counter = counter;
        for row in done.change.rows {
            self.apply(row);
        }
        Ok(done.result.unwrap_or_default())
    }

    fn apply(&mut self, row: RowChange) {
        fn on<T: serde::de::DeserializeOwned>(rows: &mut crate::identity::Rows<T>, row: RowChange) {
            assert_eq!(rows.get(&row.name).map(|found| found.version), row.expected, "{}", row.name);
            match row.then {
                Then::Keep => {}
                Then::Delete => drop(rows.remove(&row.name)),
                Then::Put(version, body) => {
                    let value = serde_json::from_slice(&body).unwrap();
                    rows.insert(row.name, Row { version, value });
                }
            }
        }
        match row.kind {
            Kind::User => on(&mut self.account.users, row),
            Kind::Group => on(&mut self.account.groups, row),
            Kind::Role => on(&mut self.account.roles, row),
            Kind::Policy => on(&mut self.account.policies, row),
        }
    }

    fn may_read(&self, user: &str) -> bool {
        let caller = Caller::user(&self.account, user).unwrap();
        let context = Context::default();
        let question = Question { action: "s3:GetObject", resource: "arn:aws:s3:::b/k", context: &context };
        crate::decide::decide_by_identity(question, &caller).allows()
    }
}

#[test]
fn actions_are_sorted_so_that_they_are_found() {
    assert!(ACTIONS.is_sorted_by(|a, b| a.0 < b.0));
}

#[test]
fn a_users_policies_come_from_itself_its_groups_and_what_is_attached() {
    let mut world = World::new();
    world.call("CreateUser", &[("UserName", "Ann"), ("Path", "/team/")]).unwrap();
    assert_eq!(world.call("CreateUser", &[("UserName", "ann")]), Err("EntityAlreadyExists"));
    assert!(!world.may_read("ann"));
    world
        .call("PutUserPolicy", &[("UserName", "ann"), ("PolicyName", "p"), ("PolicyDocument", READ)])
        .unwrap();
    assert!(world.may_read("ANN"));
    assert_eq!(world.call("DeleteUser", &[("UserName", "ann")]), Err("DeleteConflict"));
    world.call("DeleteUserPolicy", &[("UserName", "ann"), ("PolicyName", "p")]).unwrap();
    world.call("CreateGroup", &[("GroupName", "readers")]).unwrap();
    world.call("AddUserToGroup", &[("GroupName", "readers"), ("UserName", "ann")]).unwrap();
    let arn = "arn:aws:iam::000000000007:policy/reads";
    world.call("CreatePolicy", &[("PolicyName", "reads"), ("PolicyDocument", READ)]).unwrap();
    world.call("AttachGroupPolicy", &[("GroupName", "readers"), ("PolicyArn", arn)]).unwrap();
    assert!(world.may_read("ann"));
    assert_eq!(world.call("DeletePolicy", &[("PolicyArn", arn)]), Err("DeleteConflict"));
    assert_eq!(world.call("DeleteGroup", &[("GroupName", "readers")]), Err("DeleteConflict"));
    world.call("UpdateGroup", &[("GroupName", "readers"), ("NewGroupName", "All")]).unwrap();
    assert!(world.may_read("ann"), "who is in a group stays in it when it is renamed");
    assert!(world.call("GetGroup", &[("GroupName", "all")]).unwrap().contains("<UserName>Ann<"));
    world.call("UpdateGroup", &[("GroupName", "All"), ("NewGroupName", "readers")]).unwrap();
    world.call("DetachGroupPolicy", &[("GroupName", "readers"), ("PolicyArn", arn)]).unwrap();
    assert!(!world.may_read("ann"));
    world.call("RemoveUserFromGroup", &[("GroupName", "readers"), ("UserName", "ann")]).unwrap();
    world.call("DeleteUser", &[("UserName", "ann")]).unwrap();
    assert_eq!(world.call("GetUser", &[("UserName", "ann")]), Err("NoSuchEntity"));
}

#[test]
fn a_group_that_is_renamed_keeps_its_users() {
    let mut world = World::new();
    world.call("CreateUser", &[("UserName", "ann")]).unwrap();
    world.call("CreateGroup", &[("GroupName", "readers")]).unwrap();
    world.call("AddUserToGroup", &[("GroupName", "readers"), ("UserName", "ann")]).unwrap();
    world
        .call("PutGroupPolicy", &[("GroupName", "readers"), ("PolicyName", "p"), ("PolicyDocument", READ)])
        .unwrap();
    world.call("UpdateGroup", &[("GroupName", "readers"), ("NewGroupName", "Lectors")]).unwrap();
    assert!(world.may_read("ann"));
    assert!(world.call("GetGroup", &[("GroupName", "lectors")]).unwrap().contains("ann"));
    assert_eq!(world.call("GetGroup", &[("GroupName", "readers")]), Err("NoSuchEntity"));
    assert_eq!(world.call("DeleteGroup", &[("GroupName", "Lectors")]), Err("DeleteConflict"));
}

#[test]
fn nobody_provides_identities_and_that_can_be_asked() {
    let said = World::new().call("ListOpenIDConnectProviders", &[]).unwrap();
    assert!(said.contains("OpenIDConnectProviderList"), "{said}");
}

#[test]
fn a_user_has_two_keys_at_most_and_each_can_be_switched_off() {
    let mut world = World::new();
    world.call("CreateUser", &[("UserName", "ann")]).unwrap();
    world.call("CreateAccessKey", &[("UserName", "ann")]).unwrap();
    world.call("CreateAccessKey", &[("UserName", "ann")]).unwrap();
    assert_eq!(world.call("CreateAccessKey", &[("UserName", "ann")]), Err("LimitExceeded"));
    let keys: Vec<String> = world.account.users["ann"].value.keys.keys().cloned().collect();
    let key = keys[0].as_str();
    world
        .call("UpdateAccessKey", &[("UserName", "ann"), ("AccessKeyId", key), ("Status", "Inactive")])
        .unwrap();
    assert!(
        world.call("ListAccessKeys", &[("UserName", "ann")]).unwrap().contains("<Status>Inactive</Status>")
    );
    world.call("DeleteAccessKey", &[("UserName", "ann"), ("AccessKeyId", key)]).unwrap();
    assert_eq!(
        world.call("DeleteAccessKey", &[("UserName", "ann"), ("AccessKeyId", key)]),
        Err("NoSuchEntity")
    );
}

#[test]
fn what_is_malformed_is_refused_with_its_code() {
    let mut world = World::new();
    world.call("CreateUser", &[("UserName", "ann")]).unwrap();
    for (action, params, code) in [
        ("CreateUser", vec![("UserName", "a/b")], "ValidationError"),
        ("CreateUser", vec![("UserName", "b"), ("Path", "x")], "ValidationError"),
        ("CreateUser", vec![], "ValidationError"),
        (
            "PutUserPolicy",
            vec![("UserName", "ann"), ("PolicyName", "p"), ("PolicyDocument", "{}")],
            "MalformedPolicyDocument",
        ),
        (
            "CreateRole",
            vec![("RoleName", "r"), ("AssumeRolePolicyDocument", READ)],
            "MalformedPolicyDocument",
        ),
        (
            "AttachUserPolicy",
            vec![("UserName", "ann"), ("PolicyArn", "arn:aws:iam::aws:policy/No")],
            "NoSuchEntity",
        ),
        ("ListUsers", vec![("MaxItems", "0")], "ValidationError"),
        ("LaunchRocket", vec![], "InvalidAction"),
    ] {
        assert_eq!(world.call(action, &params), Err(code), "{action} {params:?}");
    }
}

#[test]
fn listings_are_paged() {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.call("CreateUser", &[("UserName", name)]).unwrap();
    }
    let first = world.call("ListUsers", &[("MaxItems", "2")]).unwrap();
    assert!(first.contains("<IsTruncated>true</IsTruncated><Marker>b</Marker>"), "{first}");
    let rest = world.call("ListUsers", &[("MaxItems", "2"), ("Marker", "b")]).unwrap();
    assert!(rest.contains("<UserName>c</UserName>") && rest.contains("<IsTruncated>false</IsTruncated>"));
}
