//! Policies: parsed, refused, asked.

use std::sync::Arc;

use super::*;
use crate::identity::{AccountInfo, Caller, Who};

fn caller(number: u64, who: Who) -> Caller {
    let info = AccountInfo {
        number: AccountNumber::new(number),
        canonical: CanonicalId::from_bytes([number as u8; 32]),
        name: String::new(),
        email: String::new(),
    };
    Caller::of(Arc::new(info), who)
}

fn user(number: u64, name: &str) -> Caller {
    caller(number, Who::User { path_and_name: format!("/{name}"), id: "AIDA".into() })
}

fn policy(statement: &str) -> Policy {
    let text = format!(r#"{{"Version":"2012-10-17","Statement":[{statement}]}}"#);
    Policy::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn asked(statement: &str, caller: &Caller, action: &str, resource: &str, context: &Context) -> Effects {
    policy(statement).of_resource(Question { action, resource, context }, caller)
}

/// Whether a condition holds of a context.
fn holds(condition: &str, keys: &[(&str, &[&str])]) -> bool {
    let mut context = Context::default();
    for (key, values) in keys {
        context.set_all(key, values.iter().map(|value| (*value).to_owned()).collect());
    }
    let statement = format!(
        r#"{{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*","Condition":{condition}}}"#
    );
    let effects = asked(&statement, &Caller::anonymous(), "s3:GetObject", "arn:aws:s3:::b/k", &context);
    effects.allowed != Matched::No
}

#[test]
fn principals_name_accounts_users_roles_and_everybody() {
    let context = Context::default();
    let session =
        caller(7, Who::Session { path_and_role: "/p/r".into(), id: "AROA".into(), name: "s".into() });
    let ask = |principal: &str, caller: &Caller| {
        let statement = format!(r#"{{"Effect":"Allow",{principal},"Action":"s3:GetObject","Resource":"*"}}"#);
        asked(&statement, caller, "s3:GetObject", "arn:aws:s3:::b/k", &context).allowed
    };
    let ann = user(7, "ann");
    for (principal, who, expected) in [
        (r#""Principal":"*""#, &Caller::anonymous(), Matched::Itself),
        (r#""Principal":{"AWS":"*"}"#, &ann, Matched::Itself),
        (r#""Principal":{"AWS":"000000000007"}"#, &ann, Matched::Account),
        (r#""Principal":{"AWS":"arn:aws:iam::000000000007:root"}"#, &caller(7, Who::Root), Matched::Itself),
        (r#""Principal":{"AWS":"arn:aws:iam::000000000007:user/ann"}"#, &ann, Matched::Itself),
        (r#""Principal":{"AWS":"arn:aws:iam::000000000007:user/ann"}"#, &user(8, "ann"), Matched::No),
        (r#""Principal":{"AWS":"arn:aws:iam::000000000007:role/p/r"}"#, &session, Matched::Itself),
        (r#""Principal":{"AWS":"arn:aws:sts::000000000007:assumed-role/r/s"}"#, &session, Matched::Itself),
        (r#""Principal":{"AWS":"arn:aws:sts::000000000007:assumed-role/r/t"}"#, &session, Matched::No),
        (r#""Principal":{"AWS":"000000000007"}"#, &Caller::anonymous(), Matched::No),
        (r#""Principal":{"Service":"s3.amazonaws.com"}"#, &ann, Matched::No),
    ] {
        assert_eq!(ask(principal, who), expected, "{principal} {who:?}");
    }
    let canonical = format!(r#""Principal":{{"CanonicalUser":"{}"}}"#, CanonicalId::from_bytes([7; 32]));
    assert_eq!(ask(&canonical, &ann), Matched::Account);
}

#[test]
fn not_principal_denies_everybody_else() {
    let statement =
        r#"{"Effect":"Deny","NotPrincipal":{"AWS":"000000000007"},"Action":"s3:*","Resource":"*"}"#;
    let context = Context::default();
    let denied =
        |caller: &Caller| asked(statement, caller, "s3:GetObject", "arn:aws:s3:::b/k", &context).denied;
    assert!(!denied(&user(7, "ann")) && denied(&user(8, "ann")) && denied(&Caller::anonymous()));
}

#[test]
fn conditions_compare_as_their_operators_say() {
    let one: &[(&str, &[&str])] = &[("s3:prefix", &["a/b"])];
    assert!(holds(r#"{"StringEquals":{"s3:prefix":["x","a/b"]}}"#, one));
    assert!(holds(r#"{"StringLike":{"S3:Prefix":"a/*"}}"#, one));
    assert!(!holds(r#"{"StringNotLike":{"s3:prefix":"a/*"}}"#, one));
    assert!(holds(r#"{"StringEqualsIgnoreCase":{"s3:prefix":"A/B"}}"#, one));
    assert!(!holds(r#"{"StringEquals":{"s3:prefix":"a/b","s3:delimiter":"/"}}"#, one), "all keys must hold");
    assert!(holds(r#"{"NumericLessThanEquals":{"s3:max-keys":10}}"#, &[("s3:max-keys", &["10"])]));
    assert!(!holds(r#"{"NumericGreaterThan":{"s3:max-keys":"10"}}"#, &[("s3:max-keys", &["x"])]));
    let time: &[(&str, &[&str])] = &[("aws:CurrentTime", &["2026-01-01T00:00:00Z"])];
    assert!(holds(r#"{"DateLessThan":{"aws:CurrentTime":"2026-01-01T00:00:01Z"}}"#, time));
    let address: &[(&str, &[&str])] = &[("aws:SourceIp", &["192.0.2.77"])];
    assert!(holds(r#"{"IpAddress":{"aws:SourceIp":["10.0.0.0/8","192.0.2.0/24"]}}"#, address));
    assert!(!holds(r#"{"NotIpAddress":{"aws:SourceIp":"192.0.2.0/24"}}"#, address));
    assert!(holds(r#"{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}"#, address));
    assert!(holds(r#"{"Bool":{"aws:SecureTransport":true}}"#, &[("aws:SecureTransport", &["true"])]));
    let arn: &[(&str, &[&str])] = &[("aws:PrincipalArn", &["arn:aws:iam::000000000007:user/a/b"])];
    assert!(holds(r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/*"}}"#, arn));
    assert!(
        !holds(r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:*:user/*"}}"#, arn),
        "a star stays in its part"
    );
}

#[test]
fn a_missing_key_denies_unless_the_operator_says_otherwise() {
    for (condition, expected) in [
        (r#"{"StringEquals":{"s3:prefix":"a"}}"#, false),
        (r#"{"StringNotEquals":{"s3:prefix":"a"}}"#, true),
        (r#"{"StringEqualsIfExists":{"s3:prefix":"a"}}"#, true),
        (r#"{"Null":{"s3:prefix":"true"}}"#, true),
        (r#"{"Null":{"s3:prefix":"false"}}"#, false),
        (r#"{"ForAnyValue:StringEquals":{"s3:RequestObjectTagKeys":"a"}}"#, false),
        (r#"{"ForAllValues:StringEquals":{"s3:RequestObjectTagKeys":"a"}}"#, true),
        (r#"{"ForAnyValue:StringNotEquals":{"s3:RequestObjectTagKeys":"a"}}"#, false),
    ] {
        assert_eq!(holds(condition, &[]), expected, "{condition}");
    }
    let tags: &[(&str, &[&str])] = &[("s3:RequestObjectTagKeys", &["a", "b"])];
    assert!(holds(r#"{"ForAnyValue:StringEquals":{"s3:RequestObjectTagKeys":"a"}}"#, tags));
    assert!(!holds(r#"{"ForAllValues:StringEquals":{"s3:RequestObjectTagKeys":"a"}}"#, tags));
    assert!(holds(r#"{"ForAllValues:StringLike":{"s3:RequestObjectTagKeys":["a","b*"]}}"#, tags));
}

#[test]
fn variables_bring_in_text_and_never_wildcards() {
    let mut context = Context::default();
    context.set("aws:username", "*");
    let statement = r#"{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/${aws:username}/*"}"#;
    let allowed = |resource: &str, context: &Context| {
        asked(statement, &user(7, "x"), "s3:GetObject", resource, context).allowed != Matched::No
    };
    assert!(allowed("arn:aws:s3:::b/*/k", &context) && !allowed("arn:aws:s3:::b/ann/k", &context));
    assert!(!allowed("arn:aws:s3:::b//k", &Context::default()), "without a value nothing matches");
    let old = statement.replace("${aws:username}", "${aws:username, 'none'}");
    let effects = asked(&old, &user(7, "x"), "s3:GetObject", "arn:aws:s3:::b/none/k", &Context::default());
    assert_ne!(effects.allowed, Matched::No);
}

#[test]
fn what_is_no_policy_is_refused() {
    let statement = |rest: &str| format!(r#"{{"Statement":[{{{rest}}}]}}"#);
    for text in [
        String::new(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"Version":"2020-01-01","Statement":[]}"#.to_owned(),
        r#"{"Statement":[],"Other":1}"#.to_owned(),
        r#"{"Statement":[]}"#.to_owned(),
        statement(r#""Effect":"Maybe","Action":"*","Resource":"*""#),
        statement(r#""Action":"*","Resource":"*""#),
        statement(r#""Effect":"Allow","Resource":"*""#),
        statement(r#""Effect":"Allow","Action":"*","NotAction":"*","Resource":"*""#),
        statement(r#""Effect":"Allow","Action":[],"Resource":"*""#),
        statement(r#""Effect":"Allow","Action":1,"Resource":"*""#),
        statement(r#""Effect":"Allow","Principal":{"AWS":"bob"},"Action":"*","Resource":"*""#),
        statement(r#""Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000007:user/*"},"Action":"*""#),
        statement(r#""Effect":"Allow","Action":"*","Resource":"*","Condition":{"Like":{"s3:prefix":"a"}}"#),
        statement(r#""Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":{"s3:prefix":"a"}}"#),
        statement(
            r#""Effect":"Allow","Action":"*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"x"}}"#,
        ),
        "[".repeat(100_000),
        format!(r#"{{"Statement":{}"#, "{\"a\":".repeat(100_000)),
    ] {
        assert!(Policy::parse(text.as_bytes()).is_err(), "{}", text.chars().take(200).collect::<String>());
    }
}

#[test]
fn public_is_what_lets_in_anyone_without_binding_them() {
    let public = |rest: &str| {
        policy(&format!(r#"{{"Effect":"Allow","Action":"s3:GetObject","Resource":"*",{rest}}}"#)).is_public()
    };
    assert!(public(r#""Principal":"*""#));
    assert!(public(r#""Principal":{"AWS":"*"},"Condition":{"StringLike":{"aws:Referer":"x"}}"#));
    assert!(public(r#""Principal":"*","Condition":{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}"#));
    assert!(!public(r#""Principal":{"AWS":"000000000007"}"#));
    assert!(!public(r#""Principal":"*","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#));
    assert!(!public(
        r#""Principal":"*","Condition":{"StringEquals":{"aws:PrincipalAccount":"000000000007"}}"#
    ));
    assert!(public(r#""Principal":"*","Condition":{"StringLike":{"aws:PrincipalAccount":"*"}}"#));
}
