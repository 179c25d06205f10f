//! The query APIs of IAM and STS on the S3 endpoint: `POST /` with `Action=...`, signed for service `iam` or
//! `sts`. They have nothing to do with the protocol library: the signature is verified here.
//!
//! The body is a form of parameters, read whole within [`QUERY_BODY_SIZE_MAX`]; the signature covers it.
//! Changes are decided by [`holdfast_access::iam`], and decided again when something moved meanwhile.

mod signature;
mod sts;

use std::{net::IpAddr, sync::Arc};

use futures::StreamExt;
use holdfast_access::{
    decide::decide_by_identity,
    iam::{self, IamError, Params},
    identity::{KeyInfo, Who},
    policy::{Context, Question},
    text::instant_text,
};
use holdfast_model::TenantId;
use holdfast_object::api::ObjectGateway;
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};

use crate::{
    authorize::SUSPENDED,
    conditions,
    identities::{ChangeError, Identities, Signer},
    intake::Source,
    limits::QUERY_BODY_SIZE_MAX,
    throttle::Throttle,
};

/// How often a change is decided again when something moved meanwhile.
const ATTEMPTS_MAX: usize = 8;
/// Parameters of one call at most.
const PARAMETERS_MAX: usize = 1024;

const IAM_NAMESPACE: &str = "https://iam.amazonaws.com/doc/2010-05-08/";
const STS_NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// A call on its way in.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// Its head.
    pub parts: &'a Parts,
    /// Address of the connection's other end.
    pub peer: IpAddr,
    /// Its id.
    pub id: &'a str,
}

/// What it came to.
pub(crate) struct Answered {
    /// For the client.
    pub response: Response<s3s::Body>,
    /// For the observer.
    pub operation: &'static str,
    /// Whose key signed it.
    pub tenant: Option<TenantId>,
}

/// Whether a request is one of these, by its head. The path has to be looked at as well.
pub(crate) fn is_for(parts: &Parts) -> bool {
    let is_form = |value: &HeaderValue| {
        value.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded")
    };
    parts.method == Method::POST
        && parts.uri.query().is_none_or(str::is_empty)
        && parts.headers.get(header::CONTENT_TYPE).is_some_and(is_form)
}

/// The APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Iam,
    Sts,
}

/// An action that was done: its result's elements, if it has a result.
type Done = Result<Option<String>, IamError>;

/// Answers a call.
pub(crate) async fn answer(
    request: Request<'_>,
    body: Source,
    (objects, identities, throttle): (&dyn ObjectGateway, &Arc<dyn Identities>, &Throttle),
) -> Answered {
    let mut service = Service::Iam;
    let mut tenant = None;
    let mut action = String::new();
    let context = (objects, identities, throttle);
    let done = run(&request, body, context, &mut service, &mut tenant, &mut action).await;
    let operation = match service {
        Service::Iam => "Iam",
        Service::Sts => "Sts",
    };
    let response = match done {
        Ok(result) => success(service, &action, result.as_deref(), request.id),
        Err(error) => {
            tracing::debug!(action, code = error.code, id = request.id, "refused");
            failure(service, &error, request.id)
        }
    };
    Answered { response, operation, tenant }
}

async fn run(
    request: &Request<'_>,
    body: Source,
    (objects, identities, throttle): (&dyn ObjectGateway, &Arc<dyn Identities>, &Throttle),
    service: &mut Service,
    tenant: &mut Option<TenantId>,
    action: &mut String,
) -> Done {
    let body = gather(body).await?;
    let claims = signature::Claims::parse(&request.parts.headers, &objects.region())?;
    *service = if claims.service == "sts" { Service::Sts } else { Service::Iam };
    let signer = claims.verify(request.parts, &body, &**identities)?;
    *tenant = Some(signer.tenant);
    if let Some(tenant) = identities.snapshot().tenants.get(&signer.tenant) {
        if tenant.suspended {
            return Err(IamError::new("AccessDenied", 403, SUSPENDED));
        }
        if let Some(what) = &tenant.waits_for {
            return Err(IamError::new(
                "ServiceUnavailable",
                503,
                format!("The tenant is not served: {what}."),
            ));
        }
    }
    let limits = identities.snapshot().tenants.get(&signer.tenant).map(|tenant| tenant.limits);
    let _admission = throttle
        .admit(signer.tenant, limits.unwrap_or_default())
        .map_err(|refusal| IamError::new("Throttling", 400, refusal.message))?;
    let params = parameters(&body)?;
    let params = Params(&params);
    params.required("Action")?.clone_into(action);
    let mut context = Context::default();
    conditions::principal(&mut context, &signer.caller);
    context.set("aws:SourceIp", request.peer.to_canonical().to_string());
    context.set("aws:SecureTransport", "true");
    context.set("aws:CurrentTime", instant_text(identities.now_millis()));
    context.set("aws:EpochTime", (identities.now_millis() / 1000).to_string());
    context.set("aws:RequestedRegion", objects.region());
    let done = match *service {
        Service::Iam => iam_call(action, params, &signer, &context, &**identities).await,
        Service::Sts => sts::call(action, params, &signer, &context, &**identities),
    };
    match &done {
        Ok(_) => {
            tracing::info!(target: "audit", action, tenant = %signer.tenant, who = signer.caller.arn(), "identity call")
        }
        Err(error) => {
            tracing::info!(target: "audit", action, tenant = %signer.tenant, who = signer.caller.arn(), code = error.code, "identity call refused");
        }
    }
    done
}

async fn gather(mut body: Source) -> Result<Vec<u8>, IamError> {
    let mut gathered = Vec::new();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|fault| IamError::new("IncompleteBody", 400, fault.to_string()))?;
        if gathered.len() + piece.len() > QUERY_BODY_SIZE_MAX {
            return Err(IamError::new("RequestEntityTooLarge", 413, "The request is too large."));
        }
        gathered.extend_from_slice(&piece);
    }
    Ok(gathered)
}

fn parameters(body: &[u8]) -> Result<Vec<(String, String)>, IamError> {
    let malformed = || IamError::new("MalformedQueryString", 400, "The body is not a form of parameters.");
    let text = std::str::from_utf8(body).map_err(|_| malformed())?;
    let decode = |piece: &str| {
        let spaced = piece.replace('+', " ");
        urlencoding::decode(&spaced).map(std::borrow::Cow::into_owned).map_err(|_| malformed())
    };
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name)?, decode(value)?))
    });
    let pairs: Vec<_> = pairs.collect::<Result<_, IamError>>()?;
    if pairs.len() > PARAMETERS_MAX { Err(malformed()) } else { Ok(pairs) }
}

fn denied(signer: &Signer, action: &str, resource: &str) -> IamError {
    let who = signer.caller.arn().unwrap_or_default();
    IamError::new(
        "AccessDenied",
        403,
        format!("User: {who} is not authorized to perform: {action} on resource: {resource}"),
    )
}

async fn iam_call(
    action: &str,
    params: Params<'_>,
    signer: &Signer,
    context: &Context,
    identities: &dyn Identities,
) -> Done {
    let unavailable = |said: String| IamError::new("ServiceUnavailable", 503, said);
    for _ in 0..ATTEMPTS_MAX {
        let snapshot = identities.snapshot();
        let info = signer.caller.account().ok_or_else(|| denied(signer, action, "*"))?;
        let account =
            snapshot.account(signer.tenant, info.number).ok_or_else(|| denied(signer, action, "*"))?;
        let Some(target) = iam::target(action, params, account, &signer.caller) else {
            return Err(IamError::new(
                "InvalidAction",
                400,
                format!("Could not find operation {action} for version 2010-05-08"),
            ));
        };
        let name = format!("iam:{action}");
        let question = Question { action: &name, resource: &target, context };
        // A session token without a second factor does not reach IAM (AWS); roles do.
        let is_role = matches!(signer.caller.who, Who::Session { .. });
        let reaches = !signer.caller.temporary || is_role;
        if !reaches || !decide_by_identity(question, &signer.caller).allows() {
            return Err(denied(signer, &name, &target));
        }
        let root_keys = snapshot
            .keys
            .iter()
            .filter(|(_, key)| {
                key.tenant == signer.tenant && key.account == info.number && key.user.is_none()
            })
            .map(|(id, key)| (id.clone(), KeyInfo { created: key.created, active: key.active }))
            .collect();
        let performed = {
            let mut random = |bytes: &mut [u8]| {
                getrandom::fill(bytes).expect("the kernel gives random bytes once it is up");
            };
            let mut facts = iam::Facts {
                account,
                caller: &signer.caller,
                root_keys,
                now: identities.now_millis(),
                random: &mut random,
            };
            iam::perform(action, params, &mut facts)?
        };
        if performed.change == iam::Change::default() {
            return Ok(performed.result);
        }
        match identities.change(signer.tenant, info.number, performed.change).await {
            Ok(()) => return Ok(performed.result),
            Err(ChangeError::Conflict) => {}
            Err(ChangeError::Limit(said)) => return Err(IamError::new("LimitExceeded", 409, said)),
            Err(ChangeError::Unavailable(said)) => return Err(unavailable(said)),
        }
    }
    Err(IamError::new(
        "ConcurrentModification",
        409,
        "The request was rejected because multiple requests to change this object were submitted simultaneously.",
    ))
}

fn xml(status: StatusCode, text: String) -> Response<s3s::Body> {
    let mut response = Response::new(s3s::Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    response
}

fn namespace(service: Service) -> &'static str {
    match service {
        Service::Iam => IAM_NAMESPACE,
        Service::Sts => STS_NAMESPACE,
    }
}

fn success(service: Service, action: &str, result: Option<&str>, id: &str) -> Response<s3s::Body> {
    let namespace = namespace(service);
    let result = result.map_or_else(String::new, |inner| format!("<{action}Result>{inner}</{action}Result>"));
    xml(
        StatusCode::OK,
        format!(
            "<{action}Response xmlns=\"{namespace}\">{result}<ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{action}Response>"
        ),
    )
}

fn failure(service: Service, error: &IamError, id: &str) -> Response<s3s::Body> {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    let kind = if status.is_server_error() { "Receiver" } else { "Sender" };
    let inner = iam::Xml::new()
        .inside("Error", |xml| {
            xml.text("Type", kind).text("Code", error.code).text("Message", &error.message)
        })
        .text("RequestId", id);
    let namespace = namespace(service);
    xml(status, format!("<ErrorResponse xmlns=\"{namespace}\">{}</ErrorResponse>", inner.done()))
}
