//! Answers the admin API about access keys, and reserves addresses for journals.

use anyhow::{Context, Result};
use holdfast_access::policy::{Kind, Policy};
use holdfast_admin_api::{
    AccessKeyBackend, AccessKeyBounds, AccessKeyPair, AccessKeyStatus, AdminError, Secret,
};
use holdfast_control::{
    AccessKeyCommand, AccessKeyRecord, Command, ControlView, FEATURE_LEVEL_ACCESS_KEYS,
    JOURNAL_ADDRESS_ALPHABET, JOURNAL_ADDRESS_SIZE, KEY_POLICY_SIZE_MAX, KeyBounds, TenantRecord,
    TenantState,
};
use holdfast_keyservice::Client;
use holdfast_model::{TenantId, UnixMillis};
use serde_json::Value;

use crate::{
    admin::{Admin, internal, unavailable},
    control::{Control, now},
    identities::{account_of, documents_of, policy_name, policy_text},
    protection::tenant,
    tenants::{fresh_access_key, secret_name, text},
};

/// Bounds as they are asked for, read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Bounds {
    expires: Option<UnixMillis>,
    policy: Option<String>,
}

impl Bounds {
    /// As the control group keeps them.
    fn sealed(
        &self,
        keyring: &Client,
        tenant: &TenantRecord,
        access_key: &str,
    ) -> Result<KeyBounds, AdminError> {
        let documents = documents_of(keyring, tenant).context("sealing the policy of an access key");
        let documents = documents.map_err(|error| unavailable(&error))?;
        let seal = |text: &String| documents.seal(policy_name(access_key).as_bytes(), text.as_bytes());
        Ok(KeyBounds { expires: self.expires, policy: self.policy.as_ref().map(seal) })
    }
}

/// Reads the bounds that are asked for; nothing that would let nobody in, or that cannot be read, is kept.
fn bounds_of(asked: AccessKeyBounds) -> Result<Bounds, AdminError> {
    let invalid = |what: String| AdminError::Invalid { what };
    let expires = asked.expires_unix_ms.map(UnixMillis::new);
    if expires.is_some_and(|at| at <= now()) {
        return Err(invalid("The key would end in the past: delete it instead.".to_owned()));
    }
    if expires.is_some_and(|at| i64::try_from(at.get()).is_err()) {
        return Err(invalid("expires_unix_ms is in milliseconds since 1970.".to_owned()));
    }
    let policy = asked.policy.map(|document| document.to_string());
    if let Some(text) = &policy {
        if text.len() > KEY_POLICY_SIZE_MAX {
            let size = text.len();
            return Err(invalid(format!(
                "The policy has {size} bytes without spaces, an access key's has {KEY_POLICY_SIZE_MAX} at most."
            )));
        }
        let read = Policy::parse(text.as_bytes()).and_then(|policy| policy.validate(Kind::Identity));
        read.map_err(|error| {
            invalid(format!("The policy cannot be used: {}.", error.0.trim_end_matches('.')))
        })?;
    }
    Ok(Bounds { expires, policy })
}

#[async_trait::async_trait]
impl AccessKeyBackend for Admin {
    async fn access_keys(&self, name: &str) -> Result<Vec<AccessKeyStatus>, AdminError> {
        let view = self.view().await?;
        let record = tenant(&view, name)?;
        let id = record.tenant;
        let mut keys: Vec<_> = view.access_keys.iter().filter(|(_, record)| record.tenant == id).collect();
        keys.sort_by_key(|(key, record)| {
            (account_of(record), record.user.clone(), record.created, (*key).clone())
        });
        let documents = documents_of(&self.keyring, record).context("opening the policies of access keys");
        let documents = documents.map_err(|error| unavailable(&error))?;
        let policy_of = |key: &str, record: &AccessKeyRecord| {
            let text = policy_text(&documents, key, record).map_err(anyhow::Error::msg)?;
            text.map(|text| serde_json::from_slice::<Value>(&text)).transpose().context("it is not JSON")
        };
        let status = |(key, record): (&String, &AccessKeyRecord)| {
            let policy = policy_of(key, record);
            Ok(AccessKeyStatus {
                access_key: key.clone(),
                account: account_of(record).to_string(),
                user: record.user.clone(),
                created_unix_ms: record.created.get(),
                active: record.active,
                expired: record.bounds.expires.is_some_and(|at| at <= now()),
                expires_unix_ms: record.bounds.expires.map(UnixMillis::get),
                policy: policy.map_err(|error| internal("reading the policy of an access key", error))?,
            })
        };
        keys.into_iter().map(status).collect()
    }

    async fn create_access_key(
        &self,
        name: &str,
        bounds: AccessKeyBounds,
    ) -> Result<AccessKeyPair, AdminError> {
        let bounds = bounds_of(bounds)?;
        let view = self.view().await?;
        let record = tenant(&view, name)?;
        let tenant = record.tenant;
        let (access_key, secret) = fresh_access_key();
        let sealed_secret = self
            .keyring
            .seal_secret(&secret_name(&access_key), secret.as_bytes())
            .context("sealing the secret of an access key")
            .map_err(|error| unavailable(&error))?;
        let (at, key) = (now(), access_key.clone());
        // One without bounds can be made while some nodes are of an older release.
        let command = if bounds == Bounds::default() {
            Command::CreateAccessKey { tenant, access_key: key, sealed_secret, at }
        } else {
            Command::AccessKeys(AccessKeyCommand::Create {
                tenant,
                access_key: key,
                sealed_secret,
                bounds: bounds.sealed(&self.keyring, record, &access_key)?,
                at,
            })
        };
        self.decide(&command).await?;
        Ok(AccessKeyPair { access_key, secret_key: Secret::new(secret) })
    }

    async fn set_access_key_bounds(
        &self,
        name: &str,
        access_key: &str,
        bounds: AccessKeyBounds,
    ) -> Result<(), AdminError> {
        let bounds = bounds_of(bounds)?;
        let view = self.view().await?;
        let record = tenant(&view, name)?;
        let (tenant, access_key) = (record.tenant, access_key.to_owned());
        let bounds = bounds.sealed(&self.keyring, record, &access_key)?;
        self.decide(&Command::AccessKeys(AccessKeyCommand::SetBounds { tenant, access_key, bounds })).await
    }

    async fn delete_access_key(&self, name: &str, access_key: &str) -> Result<(), AdminError> {
        let view = self.view().await?;
        let tenant = tenant(&view, name)?.tenant;
        let record = view.access_keys.get(access_key).filter(|record| record.tenant == tenant);
        let record =
            record.ok_or_else(|| AdminError::NotFound { what: format!("access key {access_key:?}") })?;
        if let Some(user) = &record.user {
            return Err(AdminError::Conflict {
                what: format!(
                    "The key is of the user {user} of account {}, which deletes it by IAM (DeleteAccessKey). To shut \
                     it out meanwhile, bound it to an end a few seconds from now.",
                    account_of(record)
                ),
            });
        }
        self.decide(&Command::DeleteAccessKey { access_key: access_key.to_owned() }).await
    }
}

/// Gives every tenant that has none an address for its journals, once all nodes know such. Run by the leader of the
/// control group.
///
/// # Errors
/// When the control group does not decide.
pub async fn reserve_journals(view: &ControlView, control: &Control) -> Result<()> {
    if view.cluster.as_ref().is_none_or(|cluster| cluster.feature_level < FEATURE_LEVEL_ACCESS_KEYS) {
        return Ok(());
    }
    let without = view
        .tenants
        .values()
        .filter(|tenant| tenant.journal_address.is_none() && tenant.state != TenantState::Shredding);
    for tenant in without {
        reserve_journal(control, tenant.tenant).await?;
    }
    Ok(())
}

async fn reserve_journal(control: &Control, tenant: TenantId) -> Result<()> {
    let address = text::<JOURNAL_ADDRESS_SIZE>(JOURNAL_ADDRESS_ALPHABET);
    let command = Command::AccessKeys(AccessKeyCommand::ReserveJournal { tenant, address });
    if let Err(refusal) = control.propose(&command).await? {
        tracing::warn!(%tenant, %refusal, "no address for its journals");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bounds_that_cannot_be_used_are_refused_with_a_reason() {
        let refused = |bounds: AccessKeyBounds| match bounds_of(bounds) {
            Err(AdminError::Invalid { what }) => what,
            other => panic!("{other:?}"),
        };
        let policy = |policy| AccessKeyBounds { expires_unix_ms: None, policy: Some(policy) };
        let past = AccessKeyBounds { expires_unix_ms: Some(1), policy: None };
        assert!(refused(past).contains("in the past"));
        assert!(refused(policy(json!("all"))).contains("valid JSON"));
        assert!(refused(policy(json!({"Statement": [], "Sid": 1}))).contains("Unknown field"));
        let large = json!({"Version": "2012-10-17", "Id": "x".repeat(KEY_POLICY_SIZE_MAX), "Statement": []});
        assert!(refused(policy(large)).contains("2048"));
        let public = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*"}]});
        assert!(!refused(policy(public)).is_empty());
        let sound = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::mail/*"}]});
        assert_eq!(bounds_of(policy(sound.clone())).unwrap().policy, Some(sound.to_string()));
        assert_eq!(bounds_of(AccessKeyBounds::default()).unwrap(), Bounds::default());
    }
}
