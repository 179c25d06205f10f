//! Website configurations of buckets: read, replaced, removed. What they do is in [`crate::website`].

use holdfast_access::website::{Fault, Place, Redirect, Rule, Website};
use holdfast_object::versioned::DocumentKind;
use s3s::{
    S3Request, S3Response,
    dto::{
        Condition, DeleteBucketWebsiteInput, DeleteBucketWebsiteOutput, ErrorDocument, GetBucketWebsiteInput,
        GetBucketWebsiteOutput, IndexDocument, Protocol, PutBucketWebsiteInput, PutBucketWebsiteOutput,
        Redirect as RedirectXml, RedirectAllRequestsTo, RoutingRule, WebsiteConfiguration,
    },
};

use crate::{errors::Refusal, ops::documents, service::Context};

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Schema => Self::new("MalformedXML"),
            Fault::Argument(name, value, said) => {
                Self::because("InvalidArgument", said).with("ArgumentName", name).with("ArgumentValue", value)
            }
            Fault::Request(said) => Self::because("InvalidRequest", said),
        }
    }
}

/// A status as the document writes it; what is no number is outside the schema.
fn status(text: Option<String>) -> Result<Option<u16>, Refusal> {
    text.map(|text| text.parse().map_err(|_| Refusal::new("MalformedXML"))).transpose()
}

fn rule(rule: RoutingRule) -> Result<Rule, Refusal> {
    let (prefix, code) = match rule.condition {
        Some(Condition { http_error_code_returned_equals: None, key_prefix_equals: None }) => {
            return Err(Refusal::new("MalformedXML"));
        }
        Some(condition) => (condition.key_prefix_equals, condition.http_error_code_returned_equals),
        None => (None, None),
    };
    let to = rule.redirect;
    let redirect = Redirect {
        host: to.host_name,
        protocol: to.protocol.map(|protocol| protocol.as_str().to_owned()),
        code: status(to.http_redirect_code)?,
        key: to.replace_key_with,
        key_prefix: to.replace_key_prefix_with,
    };
    Ok(Rule { prefix, status: status(code)?, redirect })
}

fn parse(document: WebsiteConfiguration) -> Result<Website, Refusal> {
    let place = |to: RedirectAllRequestsTo| Place {
        host: to.host_name,
        protocol: to.protocol.map(|protocol| protocol.as_str().to_owned()),
    };
    let website = Website {
        index: document.index_document.map(|index| index.suffix),
        error: document.error_document.map(|error| error.key),
        redirect_all: document.redirect_all_requests_to.map(place),
        rules: document.routing_rules.unwrap_or_default().into_iter().map(rule).collect::<Result<_, _>>()?,
    };
    website.check()?;
    Ok(website)
}

fn shown(rule: Rule) -> RoutingRule {
    let condition = Condition {
        http_error_code_returned_equals: rule.status.map(|status| status.to_string()),
        key_prefix_equals: rule.prefix,
    };
    let any = condition.http_error_code_returned_equals.is_some() || condition.key_prefix_equals.is_some();
    let to = rule.redirect;
    let redirect = RedirectXml {
        host_name: to.host,
        http_redirect_code: to.code.map(|code| code.to_string()),
        protocol: to.protocol.map(Protocol::from),
        replace_key_prefix_with: to.key_prefix,
        replace_key_with: to.key,
    };
    RoutingRule { condition: any.then_some(condition), redirect }
}

pub(crate) async fn get(
    cx: Context,
    request: S3Request<GetBucketWebsiteInput>,
) -> Result<S3Response<GetBucketWebsiteOutput>, Refusal> {
    let body = documents::load(&cx, &request.input.bucket, DocumentKind::Website).await?;
    let body = body.ok_or_else(|| Refusal::new("NoSuchWebsiteConfiguration"))?;
    let website: Website = serde_json::from_slice(&body).map_err(|_| Refusal::new("InternalError"))?;
    let place = |place: Place| RedirectAllRequestsTo {
        host_name: place.host,
        protocol: place.protocol.map(Protocol::from),
    };
    Ok(S3Response::new(GetBucketWebsiteOutput {
        error_document: website.error.map(|key| ErrorDocument { key }),
        index_document: website.index.map(|suffix| IndexDocument { suffix }),
        redirect_all_requests_to: website.redirect_all.map(place),
        routing_rules: (!website.rules.is_empty()).then(|| website.rules.into_iter().map(shown).collect()),
    }))
}

pub(crate) async fn put(
    cx: Context,
    request: S3Request<PutBucketWebsiteInput>,
) -> Result<S3Response<PutBucketWebsiteOutput>, Refusal> {
    let input = request.input;
    if !cx.websites {
        // Nobody could reach it.
        return Err(Refusal::not_implemented("A website where no domain is configured"));
    }
    let website = parse(input.website_configuration)?;
    let body = serde_json::to_vec(&website).map_err(|_| Refusal::new("InternalError"))?;
    if body.len() > DocumentKind::Website.size_max() {
        return Err(Refusal::because("InvalidRequest", "The website configuration is too large."));
    }
    documents::store(&cx, &input.bucket, DocumentKind::Website, body.into()).await?;
    Ok(S3Response::new(PutBucketWebsiteOutput {}))
}

pub(crate) async fn delete(
    cx: Context,
    request: S3Request<DeleteBucketWebsiteInput>,
) -> Result<S3Response<DeleteBucketWebsiteOutput>, Refusal> {
    documents::remove(&cx, &request.input.bucket, DocumentKind::Website).await?;
    Ok(S3Response::new(DeleteBucketWebsiteOutput {}))
}
