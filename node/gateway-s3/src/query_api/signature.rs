//! Signature version 4 of a query call: a small form in the body, in the `Authorization` header.

use holdfast_access::{iam::IamError, text::instant_millis};
use http::{HeaderMap, request::Parts};
use ring::{
    digest::{SHA256, digest},
    hmac,
};

use crate::{
    identities::{self, Identities, Signer},
    limits::CLOCK_SKEW_MAX,
    sigv4::signing_key,
};

/// IAM is signed for this region wherever it is called.
const GLOBAL_REGION: &str = "us-east-1";

/// What a call says about its signature. Nothing here is verified yet.
#[derive(Debug)]
pub(super) struct Claims {
    /// `iam` or `sts`.
    pub service: String,
    access_key: String,
    scope: String,
    date_of_scope: String,
    signed_headers: Vec<String>,
    signature: String,
    date: String,
    token: Option<String>,
}

fn incomplete(said: &str) -> IamError {
    IamError::new("IncompleteSignature", 400, format!("Authorization header is not complete: {said}."))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default().to_owned())
}

impl Claims {
    pub(super) fn parse(headers: &HeaderMap, region: &str) -> Result<Self, IamError> {
        let authorization = text(headers, "authorization").ok_or_else(|| {
            IamError::new("MissingAuthenticationToken", 403, "Request is missing Authentication Token")
        })?;
        let rest = authorization
            .strip_prefix("AWS4-HMAC-SHA256 ")
            .ok_or_else(|| incomplete("AWS4-HMAC-SHA256 is the only algorithm"))?;
        let field = |name: &str| {
            let value = rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
            value.map(str::to_owned).ok_or_else(|| incomplete(&format!("it has no {name}")))
        };
        let (credential, signed, signature) =
            (field("Credential")?, field("SignedHeaders")?, field("Signature")?);
        let mut pieces = credential.rsplitn(5, '/');
        let (Some("aws4_request"), Some(service), Some(scope_region), Some(date_of_scope), Some(access_key)) =
            (pieces.next(), pieces.next(), pieces.next(), pieces.next(), pieces.next())
        else {
            return Err(incomplete("the Credential is not KEY/DATE/REGION/SERVICE/aws4_request"));
        };
        let wrong = |said: String| IamError::new("SignatureDoesNotMatch", 403, said);
        if !matches!(service, "iam" | "sts") {
            return Err(wrong("Credential should be scoped to correct service: 'iam' or 'sts'.".to_owned()));
        }
        // Clients that were given no region sign for none; their endpoint is this one all the same.
        if !scope_region.is_empty() && scope_region != region && scope_region != GLOBAL_REGION {
            return Err(wrong(format!(
                "Credential should be scoped to a valid region, not '{scope_region}'."
            )));
        }
        let date = text(headers, "x-amz-date").ok_or_else(|| incomplete("it has no x-amz-date"))?;
        let signed_headers: Vec<String> = signed.split(';').map(str::to_ascii_lowercase).collect();
        if !signed_headers.iter().any(|name| name == "host") {
            return Err(wrong("'Host' must be a 'SignedHeader' in the AWS Authorization.".to_owned()));
        }
        let unsigned = headers.keys().find(|name| {
            name.as_str().starts_with("x-amz-")
                && !signed_headers.iter().any(|signed| signed == name.as_str())
        });
        if let Some(name) = unsigned {
            return Err(wrong(format!("The header {name} was not signed.")));
        }
        Ok(Self {
            service: service.to_owned(),
            access_key: access_key.to_owned(),
            scope: format!("{date_of_scope}/{scope_region}/{service}/aws4_request"),
            date_of_scope: date_of_scope.to_owned(),
            signed_headers,
            signature,
            date,
            token: text(headers, "x-amz-security-token"),
        })
    }

    /// Who signed it.
    pub(super) fn verify(
        &self,
        parts: &Parts,
        body: &[u8],
        identities: &dyn Identities,
    ) -> Result<Signer, IamError> {
        let mismatch = |said: &str| IamError::new("SignatureDoesNotMatch", 403, said);
        self.check_date(identities.now_millis())?;
        let signer = identities::signer(identities, &self.access_key, self.token.as_deref());
        let signer = signer.map_err(|refusal| match refusal.code {
            "ExpiredToken" => {
                IamError::new("ExpiredToken", 403, "The security token included in the request is expired")
            }
            _ => IamError::new(
                "InvalidClientTokenId",
                403,
                "The security token included in the request is invalid.",
            ),
        })?;
        let mut headers = String::new();
        for name in &self.signed_headers {
            let value = if name == "host" {
                text(&parts.headers, "host")
                    .or_else(|| parts.uri.authority().map(|authority| authority.as_str().to_owned()))
            } else {
                let values = parts.headers.get_all(name.as_str()).iter();
                let joined: Vec<&str> = values.map(|value| value.to_str().unwrap_or_default()).collect();
                (!joined.is_empty()).then(|| joined.join(","))
            };
            let value = value.ok_or_else(|| mismatch("A signed header is missing."))?;
            let value: Vec<&str> = value.split_whitespace().collect();
            headers.push_str(&format!("{name}:{}\n", value.join(" ")));
        }
        let hash = hex::encode(digest(&SHA256, body));
        if let Some(declared) = text(&parts.headers, "x-amz-content-sha256")
            && declared != hash
        {
            return Err(mismatch("x-amz-content-sha256 does not match the body."));
        }
        let canonical = format!("POST\n/\n\n{headers}\n{}\n{hash}", self.signed_headers.join(";"));
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{}\n{}\n{}",
            self.date,
            self.scope,
            hex::encode(digest(&SHA256, canonical.as_bytes()))
        );
        let key = signing_key(&signer.secret, &self.scope);
        let given = hex::decode(&self.signature).unwrap_or_default();
        // Compared in constant time by ring.
        hmac::verify(&key, to_sign.as_bytes(), &given).map_err(|_| {
            mismatch(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
            )
        })?;
        Ok(signer)
    }

    fn check_date(&self, now: u64) -> Result<(), IamError> {
        let text = &self.date;
        let well_formed = text.len() == 16 && text.is_ascii() && text.starts_with(&self.date_of_scope);
        let iso = well_formed.then(|| {
            format!(
                "{}-{}-{}T{}:{}:{}Z",
                &text[..4],
                &text[4..6],
                &text[6..8],
                &text[9..11],
                &text[11..13],
                &text[13..15]
            )
        });
        let made = iso.and_then(|iso| instant_millis(&iso));
        let made = made.ok_or_else(|| incomplete("x-amz-date is not of the scope's day"))?;
        let skew = made.abs_diff(now.cast_signed());
        if u128::from(skew) > CLOCK_SKEW_MAX.as_millis() {
            return Err(IamError::new(
                "SignatureDoesNotMatch",
                403,
                format!("Signature expired or not yet current: {text} is too far from this server's clock."),
            ));
        }
        Ok(())
    }
}
