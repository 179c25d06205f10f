//! One request's context: what is known about it before and beside the protocol library's types.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock, atomic::AtomicBool},
};

use holdfast_model::{TenantId, TenantLimits};
use http::HeaderMap;
use parking_lot::Mutex;

use crate::{
    authorize::Access,
    errors::Refusal,
    identities::{Identities, Signer},
    intake::{Intake, Outcome, Source, plan::Plan},
    lent::{Lent, Unread},
    logs::LogTo,
    operations::Operation,
    sigv4::{ChunkSigner, Signed},
    target::Target,
    throttle::{Admission, Direction, Throttle, Toll},
};

tokio::task_local! {
    /// The call this task serves, for the hooks of the protocol library, which are given no context.
    pub(crate) static CALL: Arc<Call>;
}

/// See the module.
pub struct Call {
    /// Answered as `x-amz-request-id`.
    pub id: String,
    /// What was recognised.
    pub operation: &'static Operation,
    /// On what.
    pub target: Target,
    /// The signature's claims, verified by the time a handler runs. `None`: anonymous.
    pub signed: Option<Signed>,
    /// Address of the connection's other end.
    pub peer: IpAddr,
    /// `x-amz-date`, for chunk signatures.
    pub date: String,
    /// Headers as they were sent.
    pub headers: HeaderMap,
    /// Query parameters as they were sent, decoded.
    pub query: Vec<(String, String)>,
    /// What the head declares about the body.
    pub plan: Plan,
    /// The body on its way in, until somebody takes it.
    pub content: Mutex<Option<Source>>,
    /// What is left of it when who took it gave up.
    pub(crate) unread: Unread,
    /// What became of the body.
    pub outcome: Arc<Outcome>,
    /// Whose access key it is; set when the secret was looked up.
    pub signer: OnceLock<Signer>,
    /// What was decided about it, and on what; set before a handler runs.
    pub(crate) access: OnceLock<Access>,
    /// Where a line about it goes, once its bucket was found and has a log.
    pub(crate) log: OnceLock<LogTo>,
    /// That its tenant's limits let it in, once they did; held until the last byte of the answer.
    pub(crate) admission: OnceLock<Arc<Admission>>,
    /// Whether who asked had to say that they pay, and did.
    pub(crate) charged: AtomicBool,
    /// Why it was refused, if it was.
    pub refusal: Mutex<Option<Refusal>>,
    /// Whether the signature was verified.
    pub verified: AtomicBool,
    /// Whether it came as a browser's form.
    pub posted: bool,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("id", &self.id)
            .field("operation", &self.operation.name)
            .finish_non_exhaustive()
    }
}

impl Call {
    /// A request that the gateway makes of what it was asked otherwise: a form's PUT, a website's GET.
    pub(crate) fn made(
        (id, peer): (&str, IpAddr),
        operation: &'static Operation,
        target: Target,
        headers: HeaderMap,
        plan: Plan,
    ) -> Self {
        Self {
            id: id.to_owned(),
            operation,
            target,
            signed: None,
            peer,
            date: String::new(),
            headers,
            query: Vec::new(),
            plan,
            content: Mutex::new(None),
            unread: Unread::default(),
            outcome: Arc::new(Outcome::default()),
            signer: OnceLock::new(),
            access: OnceLock::new(),
            log: OnceLock::new(),
            admission: OnceLock::new(),
            charged: AtomicBool::new(false),
            refusal: Mutex::new(None),
            verified: AtomicBool::new(false),
            posted: false,
        }
    }

    /// What was decided before the handler was called.
    pub(crate) fn access(&self) -> Result<&Access, Refusal> {
        self.access.get().ok_or_else(|| Refusal::new("AccessDenied"))
    }

    /// Whether a refusal would tell who may not list which keys there are.
    pub(crate) fn hides(&self, refusal: &Refusal) -> bool {
        let known = self.access.get().zip(self.target.bucket());
        refusal.code == "NoSuchKey"
            && known.is_some_and(|(access, bucket)| !access.may_list(bucket, self.target.key()))
    }

    /// Asks the limits of the tenant whose key signed it, before anything is looked up for it.
    pub(crate) fn admit_signer(
        &self,
        throttle: &Throttle,
        identities: &dyn Identities,
    ) -> Result<(), Refusal> {
        let Some(signer) = self.signer.get() else { return Ok(()) };
        let limits = identities.snapshot().tenants.get(&signer.tenant).map(|tenant| tenant.limits);
        self.admit(throttle, signer.tenant, limits.unwrap_or_default())
    }

    /// Asks the limits of the tenant whose bucket it is about, when nobody signed it.
    pub(crate) fn admit_anonymous(&self, throttle: &Throttle) -> Result<(), Refusal> {
        let Some(access) = self.access.get().filter(|_| self.signer.get().is_none()) else { return Ok(()) };
        let limits = access.identities.tenants.get(&access.tenant).map(|tenant| tenant.limits);
        self.admit(throttle, access.tenant, limits.unwrap_or_default())
    }

    fn admit(&self, throttle: &Throttle, tenant: TenantId, limits: TenantLimits) -> Result<(), Refusal> {
        if let Some(admission) = throttle.admit(tenant, limits)? {
            // Asked once a request; a second admission would end here and not count.
            let _ = self.admission.set(Arc::new(admission));
        }
        Ok(())
    }

    /// What is owed for its body, or for the answer's.
    pub(crate) fn toll(&self, direction: Direction) -> Toll {
        Toll::new(self.admission.get().cloned(), direction)
    }

    /// What of the body nobody has read.
    pub(crate) fn take_unread(&self) -> Option<Source> {
        let content = self.content.lock().take();
        content.or_else(|| self.unread.lock().take())
    }

    /// The body, verified as it is read. Once: a second call finds nothing.
    pub(crate) fn take_content(&self) -> Result<Intake, Refusal> {
        let source = self.content.lock().take();
        let source = source.ok_or_else(|| Refusal::because("InternalError", "content was already taken"))?;
        let signer = match (self.signer.get(), &self.signed) {
            (Some(signer), Some(signed)) => {
                Some(ChunkSigner::new(&signer.secret, &self.date, &signed.scope, &signed.signature))
            }
            _ => None,
        };
        let source = Box::pin(Lent::new(source, Arc::clone(&self.unread)));
        let intake = Intake::new(source, &self.plan, signer, Arc::clone(&self.outcome));
        Ok(intake.paying(self.toll(Direction::In)))
    }
}
