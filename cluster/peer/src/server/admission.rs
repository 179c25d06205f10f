//! One connection of someone without a certificate: reads one request to join, answers it, closes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{io::split, time::timeout};

use super::{HANDSHAKE_TIMEOUT, Shared, Stream, session::outgoing, strangers::Stranger};
use crate::{
    Method, Refusal, Reply, Role,
    frame::{Header, JOIN_BODY_SIZE_MAX, Kind, check_size},
    join::{ADMISSION_TIMEOUT, JoinRequest, code},
    stream::{FrameReader, FrameWriter, LinkError},
};

/// How long a joiner may take to say what it wants.
const REQUEST_TIMEOUT: Duration = HANDSHAKE_TIMEOUT;

pub(super) async fn serve(shared: &Arc<Shared>, stream: Stream, from: SocketAddr, stranger: Stranger) {
    let (reader, writer) = split(stream);
    let mut reader = FrameReader::new(reader, REQUEST_TIMEOUT, Arc::default());
    let mut writer = FrameWriter::new(writer, Arc::default());
    let read = tokio::select! {
        read = timeout(REQUEST_TIMEOUT, read(&mut reader)) => read,
        () = stranger.sent_away() => return,
    };
    let (header, request) = match read {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => return tracing::warn!(%from, %error, "a joiner broke the protocol"),
        Err(_) => return tracing::debug!(%from, "a joiner said nothing"),
    };
    drop(stranger);
    let Ok(permit) = Arc::clone(&shared.admissions).try_acquire_owned() else {
        return tracing::warn!(%from, "too many nodes want to join at once");
    };
    let result = match request {
        Ok(body) => admit(shared, from, &body).await,
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = &result {
        tracing::warn!(%from, %refusal, "a request to join was refused");
    }
    let answer = outgoing(&header, result, permit);
    let written = async {
        writer.frame(&answer).await?;
        writer.flush().await
    };
    if let Err(error) = written.await {
        tracing::warn!(%from, %error, "a joiner left before its answer");
    }
    writer.close().await;
}

/// The header, and the body if it is one that a joiner may send; otherwise nothing more is read.
async fn read<R: tokio::io::AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
) -> Result<(Header, Result<Bytes, Refusal>), LinkError> {
    let header = reader.header().await?;
    if header.kind != Kind::Request {
        return Err(LinkError::Unexpected(header.kind));
    }
    match Method::from_code(header.method) {
        Some(method) if Role::Joiner.permits(method) => {}
        _ => {
            let message =
                format!("without a certificate only joining is possible, not method {}", header.method);
            return Ok((header, Err(Refusal::new(Refusal::NOT_PERMITTED, message))));
        }
    }
    check_size("request to join", header.body_len as usize, JOIN_BODY_SIZE_MAX)?;
    check_size("payload of a request to join", header.payload_len as usize, 0)?;
    Ok((header, Ok(reader.body(header.body_len as usize).await?)))
}

async fn admit(shared: &Arc<Shared>, from: SocketAddr, body: &[u8]) -> Result<Reply, Refusal> {
    let request: JoinRequest = postcard::from_bytes(body)
        .map_err(|e| Refusal::new(code::BAD_REQUEST, format!("the request does not parse: {e}")))?;
    tracing::info!(%from, name = %request.name, advertises = %request.advertise_peer, "a node asks to join");
    let authority = shared.authority.read().clone();
    let authority = authority
        .ok_or_else(|| Refusal::new(code::NOT_READY, "this node cannot admit others yet; try again"))?;
    let grant = timeout(ADMISSION_TIMEOUT, authority.admit(request)).await.map_err(|_| {
        Refusal::new(code::NOT_READY, "the cluster did not decide in time; try again with the same token")
    })??;
    let encoded = postcard::to_stdvec(&grant)
        .map_err(|e| Refusal::new(Refusal::INTERNAL, format!("the grant does not encode: {e}")))?;
    check_size("grant", encoded.len(), JOIN_BODY_SIZE_MAX)
        .map_err(|e| Refusal::new(Refusal::INTERNAL, e.to_string()))?;
    Ok(Reply::with_body(encoded))
}
