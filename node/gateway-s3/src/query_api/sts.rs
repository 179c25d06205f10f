//! STS: who am I, and temporary credentials.
//!
//! Source: AWS, "Security Token Service API reference", version 2011-06-15.

use std::ops::RangeInclusive;

use holdfast_access::{
    decide::decide_by_identity,
    iam::{IamError, Params, Xml},
    identity::{Caller, Who},
    policy::{Context, Kind, Matched, Policy, Question, SESSION_POLICY_SIZE_MAX, parse_principal_arn},
    text::instant_text,
};

use super::{Done, denied};
use crate::identities::{Identities, SESSION_KEY_PREFIX, Session, Signer};

/// Life of a session token in seconds (AWS): of users, by default, and of the root user at most.
const TOKEN_SECONDS: RangeInclusive<u64> = 900..=129_600;
const TOKEN_SECONDS_DEFAULT: u64 = 43_200;
const ROOT_SECONDS_MAX: u64 = 3600;
/// Life of a role's session in seconds: at least, by default, and of a session made with another session.
const ROLE_SECONDS_MIN: u64 = 900;
const ROLE_SECONDS_DEFAULT: u64 = 3600;
const CHAINED_SECONDS_MAX: u64 = 3600;
/// Managed policies of one session at most (AWS).
const SESSION_POLICIES_MAX: usize = 10;

pub(super) fn call(
    action: &str,
    params: Params<'_>,
    signer: &Signer,
    context: &Context,
    identities: &dyn Identities,
) -> Done {
    match action {
        "GetCallerIdentity" => caller_identity(signer),
        "GetSessionToken" => session_token(params, signer, identities),
        "AssumeRole" => assume_role(params, signer, context, identities),
        _ => Err(IamError::new(
            "InvalidAction",
            400,
            format!("Could not find operation {action} for version 2011-06-15"),
        )),
    }
}

fn invalid(message: impl Into<String>) -> IamError {
    IamError::new("ValidationError", 400, message)
}

fn caller_identity(signer: &Signer) -> Done {
    let account = signer.caller.account().map(|account| account.number.to_string());
    let xml = Xml::new()
        .text("Arn", signer.caller.arn().unwrap_or_default())
        .text("UserId", signer.caller.user_id())
        .text("Account", account.unwrap_or_default());
    Ok(Some(xml.done()))
}

fn duration(params: Params<'_>, allowed: RangeInclusive<u64>, otherwise: u64) -> Result<u64, IamError> {
    match params.get("DurationSeconds").map(str::parse::<u64>) {
        None => Ok(otherwise),
        Some(Ok(seconds)) if allowed.contains(&seconds) => Ok(seconds),
        Some(_) => Err(invalid(format!(
            "The requested DurationSeconds is not within {} to {} seconds",
            allowed.start(),
            allowed.end()
        ))),
    }
}

fn random_text(alphabet: &[u8], length: usize) -> String {
    debug_assert!(alphabet.len().is_power_of_two());
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it is up");
    bytes.iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
}

fn fresh_keys() -> (String, String) {
    let key = random_text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16);
    let secret = random_text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", 40);
    (format!("{SESSION_KEY_PREFIX}{key}"), secret)
}

fn credentials(xml: Xml, session: &Session, identities: &dyn Identities) -> Result<Xml, IamError> {
    let token = session.token(identities).ok_or_else(|| {
        IamError::new("ServiceUnavailable", 503, "This node is locked: it has no keys yet. Please try again.")
    })?;
    Ok(xml.inside("Credentials", |xml| {
        xml.text("AccessKeyId", &session.access_key)
            .text("SecretAccessKey", &session.secret)
            .text("SessionToken", token)
            .text("Expiration", instant_text(session.expires))
    }))
}

fn session_token(params: Params<'_>, signer: &Signer, identities: &dyn Identities) -> Done {
    if signer.caller.temporary {
        return Err(IamError::new(
            "AccessDenied",
            403,
            "Cannot call GetSessionToken with session credentials",
        ));
    }
    let account = signer.caller.account().ok_or_else(|| denied(signer, "sts:GetSessionToken", "*"))?;
    let is_root = signer.caller.who == Who::Root;
    let mut seconds = duration(params, TOKEN_SECONDS, TOKEN_SECONDS_DEFAULT)?;
    if is_root {
        seconds = seconds.min(ROOT_SECONDS_MAX);
    }
    let (access_key, secret) = fresh_keys();
    let session = Session {
        access_key,
        secret,
        parent: signer.key.clone(),
        tenant: signer.tenant,
        account: account.number,
        role: None,
        role_id: String::new(),
        policies: Vec::new(),
        expires: identities.now_millis() + seconds * 1000,
    };
    Ok(Some(credentials(Xml::new(), &session, identities)?.done()))
}

fn session_name(params: Params<'_>) -> Result<&str, IamError> {
    let name = params.required("RoleSessionName")?;
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if (2..=64).contains(&name.len()) && name.bytes().all(good) {
        return Ok(name);
    }
    Err(invalid(format!(
        "RoleSessionName {name:?} must have 2 to 64 characters of letters, digits and _+=,.@-"
    )))
}

fn assume_role(params: Params<'_>, signer: &Signer, context: &Context, identities: &dyn Identities) -> Done {
    const ACTION: &str = "sts:AssumeRole";
    let arn = params.required("RoleArn")?;
    let name = session_name(params)?;
    let snapshot = identities.snapshot();
    // Whether the role is missing or may not be assumed is nobody's business.
    let refused = || denied(signer, ACTION, arn);
    let (number, path) = parse_principal_arn(arn)
        .and_then(|(number, resource)| Some((number, resource.strip_prefix("role")?)))
        .ok_or_else(|| invalid(format!("{arn} is invalid")))?;
    let account = snapshot.account(signer.tenant, number).ok_or_else(refused)?;
    let role_name = path.rsplit('/').next().unwrap_or_default();
    let row = account.roles.get(&role_name.to_lowercase()).ok_or_else(refused)?;
    let role = &row.value;
    if format!("{}{}", role.path, role.name) != path {
        return Err(refused());
    }
    let mut context = context.clone();
    context.set("sts:RoleSessionName", name);
    if let Some(external) = params.get("ExternalId") {
        context.set("sts:ExternalId", external);
    }
    if !may_assume(&role.trust, arn, number == account_of(&signer.caller), &signer.caller, &context) {
        return Err(refused());
    }
    let most = if signer.caller.temporary {
        CHAINED_SECONDS_MAX
    } else {
        role.max_session_seconds.max(ROLE_SECONDS_DEFAULT)
    };
    let seconds = duration(params, ROLE_SECONDS_MIN..=most, ROLE_SECONDS_DEFAULT)?;
    let policies = session_policies(params, account)?;
    let (access_key, secret) = fresh_keys();
    let session = Session {
        access_key,
        secret,
        parent: signer.key.clone(),
        tenant: signer.tenant,
        account: number,
        role: Some((role.name.clone(), name.to_owned())),
        role_id: role.id.clone(),
        policies,
        expires: identities.now_millis() + seconds * 1000,
    };
    let xml = credentials(Xml::new(), &session, identities)?.inside("AssumedRoleUser", |xml| {
        xml.text("AssumedRoleId", format!("{}:{name}", role.id))
            .text("Arn", format!("arn:aws:sts::{number}:assumed-role/{}/{name}", role.name))
    });
    Ok(Some(xml.text("PackedPolicySize", "0").done()))
}

fn account_of(caller: &Caller) -> holdfast_access::text::AccountNumber {
    caller.account().map_or(holdfast_access::text::AccountNumber::new(0), |account| account.number)
}

/// Both the role's trust and, unless the trust names the caller itself in the same account, the caller's own
/// policies have to allow it.
fn may_assume(trust: &str, arn: &str, same_account: bool, caller: &Caller, context: &Context) -> bool {
    let Ok(trust) = Policy::parse(trust.as_bytes()) else { return false };
    let question = Question { action: "sts:AssumeRole", resource: arn, context };
    let effects = trust.of_resource(question, caller);
    let own = decide_by_identity(question, caller);
    if effects.denied || own == holdfast_access::decide::Decision::ExplicitDeny {
        return false;
    }
    match effects.allowed {
        Matched::No => false,
        Matched::Itself if same_account => caller.bounds.is_empty() || own.allows(),
        _ => own.allows(),
    }
}

fn session_policies(
    params: Params<'_>,
    account: &holdfast_access::identity::Account,
) -> Result<Vec<String>, IamError> {
    let mut policies = Vec::new();
    if let Some(text) = params.get("Policy").filter(|text| !text.is_empty()) {
        let malformed = |said: String| IamError::new("MalformedPolicyDocument", 400, said);
        if text.len() > SESSION_POLICY_SIZE_MAX {
            return Err(IamError::new("PackedPolicyTooLarge", 400, "The session policy is too large."));
        }
        let policy = Policy::parse(text.as_bytes()).map_err(|error| malformed(error.0))?;
        policy.validate(Kind::Identity).map_err(|error| malformed(error.0))?;
        policies.push(text.to_owned());
    }
    for number in 1..=SESSION_POLICIES_MAX {
        let Some(arn) = params.get(&format!("PolicyArns.member.{number}.arn")) else { break };
        let document = account
            .document(arn)
            .ok_or_else(|| IamError::new("NoSuchEntity", 404, format!("Policy {arn} does not exist.")))?;
        policies.push(document);
    }
    if policies.iter().map(String::len).sum::<usize>() > 2 * SESSION_POLICY_SIZE_MAX {
        return Err(IamError::new("PackedPolicyTooLarge", 400, "The session policies are too large."));
    }
    Ok(policies)
}
