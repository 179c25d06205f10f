//! Who says that they pay for requests to a bucket: read and set. What it asks of them is in [`crate::authorize`].
//!
//! Nobody is billed here. The setting is served because programs are written for it: who is not told to pay at AWS is
//! not let in there, and is not let in here.

use bytes::Bytes;
use holdfast_object::versioned::DocumentKind;
use s3s::{
    S3Request, S3Response,
    dto::{
        GetBucketRequestPaymentInput, GetBucketRequestPaymentOutput, Payer, PutBucketRequestPaymentInput,
        PutBucketRequestPaymentOutput,
    },
};

use crate::{authorize::REQUESTER, errors::Refusal, ops::documents, service::Context};

pub(crate) async fn get(
    cx: Context,
    _: S3Request<GetBucketRequestPaymentInput>,
) -> Result<S3Response<GetBucketRequestPaymentOutput>, Refusal> {
    let requester = cx.call.access()?.bucket()?.requester_pays;
    let payer = Payer::from_static(if requester { Payer::REQUESTER } else { Payer::BUCKET_OWNER });
    Ok(S3Response::new(GetBucketRequestPaymentOutput { payer: Some(payer) }))
}

pub(crate) async fn put(
    cx: Context,
    request: S3Request<PutBucketRequestPaymentInput>,
) -> Result<S3Response<PutBucketRequestPaymentOutput>, Refusal> {
    let input = request.input;
    let kind = DocumentKind::RequestPayment;
    match input.request_payment_configuration.payer.as_str() {
        Payer::BUCKET_OWNER => documents::remove(&cx, &input.bucket, kind).await?,
        Payer::REQUESTER => {
            let body = Bytes::from_static(REQUESTER.as_bytes());
            documents::store(&cx, &input.bucket, kind, body).await?;
        }
        _ => return Err(Refusal::new("MalformedXML")),
    }
    Ok(S3Response::new(PutBucketRequestPaymentOutput {}))
}
