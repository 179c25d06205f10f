//! What clients do in more than one request: conditional writes on top of what they saw, copies, uploads in parts.

use std::{collections::BTreeMap, time::Duration};

use holdfast_blackbox::linear::Did;
use holdfast_model::UploadId;
use holdfast_object::{
    api::{ObjectError, PutOptions, RangeChoice, WriteCondition},
    versioned::{Extras, UploadListQuery, VersionedObjects},
};
use tokio::time::sleep;

use crate::{
    bodies::{Content, Piece},
    clients::{AFTER_REFUSAL, Answer, BUCKET, Client, Deeds, Pending, body_of, name, number_of, numbered},
    plan::{End, PART_SIZE_MIN, Part, Upload},
};

/// Numbers of the pieces that parts are made of begin here: above all numbers of writes.
const PIECES: u64 = 1_000_000;

/// Pieces of one upload at most.
const PIECES_MAX: u64 = 32;

/// Requests that do the same, when the first was refused.
const ATTEMPTS: usize = 2;

/// Uploads and parts listed at once.
const LISTED_MAX: usize = 100;

/// Attempts to abort an upload when faults have ended.
const ABORTS_MAX: usize = 10;

/// An upload that is under way.
struct Under<'a> {
    tenant: &'a dyn VersionedObjects,
    key: u64,
    id: UploadId,
    /// What is there by number: the content and its ETag.
    parts: BTreeMap<u32, (Vec<Piece>, String)>,
    /// Of one of these numbers an attempt was refused: other bytes of it may come later.
    unsure: bool,
}

impl Under<'_> {
    fn size(&self, number: u32) -> usize {
        self.parts.get(&number).map_or(0, |(pieces, _)| pieces.iter().map(|piece| piece.size).sum())
    }
}

impl Client {
    /// Writes when nothing is there, or when the ETag of write `on` is.
    pub(crate) async fn put_if(
        &self,
        tenant: &dyn VersionedObjects,
        key: u64,
        (size, write): (usize, u64),
        on: Option<(u64, String)>,
        pending: &Pending,
    ) -> Answer {
        let (body, mut options) = self.sends(write, size);
        let from = on.as_ref().map(|(number, _)| *number);
        options.condition = WriteCondition { if_absent: on.is_none(), if_etag: on.map(|(_, etag)| etag) };
        let swapped = Deeds::Key(key, Did::Swapped { from, to: write });
        *pending.lock() = Some(swapped.clone());
        match tenant.put(BUCKET, &name(key), body, options, Extras::default(), None).await {
            Ok(_) => Answer::Done(swapped),
            Err(ObjectError::PreconditionFailed) => Answer::Done(Deeds::Key(key, Did::Missed(from))),
            Err(ObjectError::NoSuchKey(_)) if from.is_some() => {
                Answer::Done(Deeds::Key(key, Did::Found(None)))
            }
            Err(error) => self.refused("conditional put", &error),
        }
    }

    /// Looks at what is there, and writes if that still is.
    pub(crate) async fn put_on_top(
        &self,
        tenant: &dyn VersionedObjects,
        key: u64,
        wanted: (usize, u64),
        pending: &Pending,
    ) -> Answer {
        let start = self.now();
        let info = match tenant.head(BUCKET, &name(key), None).await {
            Ok(found) => found.info,
            Err(ObjectError::NoSuchKey(_)) => return Answer::Done(Deeds::Key(key, Did::Found(None))),
            Err(error) => return self.refused("head", &error),
        };
        let Some((number, content)) = self.written(&info) else { return Answer::Refused };
        let found = Deeds::Key(key, Did::Found(Some(number)));
        if content.copied {
            // The ETag of a copy says too little.
            return Answer::Done(found);
        }
        self.note(found, start, Some(self.now()));
        self.put_if(tenant, key, wanted, Some((number, info.etag)), pending).await
    }

    pub(crate) async fn copy(
        &self,
        tenant: &dyn VersionedObjects,
        from: u64,
        to: u64,
        write: u64,
        pending: &Pending,
    ) -> Answer {
        let start = self.now();
        let source = tenant.for_copying().get(BUCKET, &name(from), None, RangeChoice::All).await;
        let (info, range, body) = match source {
            Ok(got) => got,
            Err(ObjectError::NoSuchKey(_)) => return Answer::Done(Deeds::Key(from, Did::Found(None))),
            Err(error) => return self.refused("copy", &error),
        };
        let Some((number, content)) = self.written(&info.info) else { return Answer::Refused };
        self.note(Deeds::Key(from, Did::Found(Some(number))), start, Some(self.now()));
        self.ledger.contents.lock().insert(write, Content { copied: true, ..content });
        let wrote = Deeds::Key(to, Did::Wrote(write));
        *pending.lock() = Some(wrote.clone());
        let length = Some(range.end - range.start);
        let options = PutOptions { length, attributes: numbered(write), ..PutOptions::default() };
        match tenant.put(BUCKET, &name(to), body, options, Extras::default(), None).await {
            Ok(_) => Answer::Done(wrote),
            Err(error) => self.unread_or_refused("copy", &error),
        }
    }

    /// As [`Client::refused`]; what is copied may end before its time, as any body.
    fn unread_or_refused(&self, what: &str, error: &ObjectError) -> Answer {
        match error {
            ObjectError::Body(error) => {
                self.world.trace.note(format_args!("c{} {what}: {error}", self.number));
                Answer::Refused
            }
            other => self.refused(what, other),
        }
    }

    pub(crate) async fn upload(
        &self,
        tenant: &dyn VersionedObjects,
        upload: &Upload,
        write: u64,
        pending: &Pending,
    ) -> Answer {
        let key = upload.key;
        let created = tenant.create_upload(BUCKET, &name(key), numbered(write), Extras::default()).await;
        let id = match created {
            Ok((id, _)) => id,
            Err(error) => return self.refused("create upload", &error),
        };
        let mut under = Under { tenant, key, id, parts: BTreeMap::new(), unsure: false };
        let own =
            |at: usize, size: usize| vec![Piece { number: PIECES + write * PIECES_MAX + at as u64, size }];
        // Numbers have gaps.
        let mut order: Vec<(u32, Part)> =
            upload.parts.iter().enumerate().map(|(at, part)| (2 * at as u32 + 1, *part)).collect();
        if upload.backwards {
            order.reverse();
        }
        if upload.again
            && let Some((number, Part::Bytes(size))) = order.first()
            && !self.put_part(&mut under, *number, own(PIECES_MAX as usize - 1, size + 1), None).await
        {
            return Answer::Refused;
        }
        if upload.unnamed && !self.put_part(&mut under, 2, own(PIECES_MAX as usize - 2, 30_000), None).await {
            return Answer::Refused;
        }
        for (number, part) in &order {
            let sent = match *part {
                Part::Bytes(size) => {
                    self.put_part(&mut under, *number, own(*number as usize, size), None).await
                }
                Part::CopyOf(from) => self.copy_part(&mut under, *number, from).await,
            };
            if !sent {
                return Answer::Refused;
            }
        }
        if !self.lists_parts(&under).await {
            return Answer::Refused;
        }
        match upload.end {
            End::Leave => Answer::Answered,
            End::Abort => self.abort(&under).await,
            End::Complete => self.complete(&mut under, write, false, pending).await,
            End::CompleteIfAbsent => self.complete(&mut under, write, true, pending).await,
        }
    }

    /// Sends a part, or what is read from elsewhere as that part; whether it is there.
    async fn put_part(
        &self,
        under: &mut Under<'_>,
        number: u32,
        pieces: Vec<Piece>,
        copied: Option<holdfast_object::api::Body>,
    ) -> bool {
        let size = pieces.iter().map(|piece| piece.size).sum::<usize>() as u64;
        let attempts = if copied.is_some() { 1 } else { ATTEMPTS };
        let mut copied = copied;
        for attempt in 0..attempts {
            if attempt > 0 {
                sleep(AFTER_REFUSAL).await;
            }
            let body = copied
                .take()
                .unwrap_or_else(|| body_of(Content { pieces: pieces.clone(), copied: false }.bytes()));
            let options = PutOptions { length: Some(size), ..PutOptions::default() };
            let name = name(under.key);
            match under.tenant.put_part(BUCKET, &name, under.id, number, body, options, None).await {
                Ok(info) => {
                    if info.size != size {
                        let what =
                            format_args!("part {number} of {size} bytes is told to have {}", info.size);
                        self.world.trace.violation("parts", what);
                    }
                    under.parts.insert(number, (pieces, info.etag));
                    return true;
                }
                Err(error) => {
                    under.unsure = true;
                    drop(self.unread_or_refused("put part", &error));
                }
            }
        }
        false
    }

    async fn copy_part(&self, under: &mut Under<'_>, number: u32, from: u64) -> bool {
        let start = self.now();
        let source = under.tenant.for_copying().get(BUCKET, &name(from), None, RangeChoice::All).await;
        let (info, _, body) = match source {
            Ok(got) => got,
            Err(ObjectError::NoSuchKey(_)) => {
                self.note(Deeds::Key(from, Did::Found(None)), start, Some(self.now()));
                return true;
            }
            Err(error) => {
                drop(self.refused("copy part", &error));
                return false;
            }
        };
        let Some((found, content)) = self.written(&info.info) else { return false };
        self.note(Deeds::Key(from, Did::Found(Some(found))), start, Some(self.now()));
        self.put_part(under, number, content.pieces, Some(body)).await
    }

    /// What is listed of an upload is what was sent.
    async fn lists_parts(&self, under: &Under<'_>) -> bool {
        let name = name(under.key);
        let listed = match under.tenant.list_parts(BUCKET, &name, under.id, 0, LISTED_MAX).await {
            Ok((_, parts)) => parts,
            Err(error) => {
                drop(self.refused("list parts", &error));
                return false;
            }
        };
        let listed: Vec<_> = listed.into_iter().map(|part| (part.number, part.size, part.etag)).collect();
        let sent: Vec<_> = under
            .parts
            .iter()
            .map(|(number, (_, etag))| (*number, under.size(*number) as u64, etag.clone()))
            .collect();
        if listed != sent && !under.unsure {
            self.world.trace.violation("parts", format_args!("{listed:?} are listed, {sent:?} were sent"));
        }
        true
    }

    async fn complete(&self, under: &mut Under<'_>, write: u64, absent: bool, pending: &Pending) -> Answer {
        // Part 2 is not named.
        under.parts.remove(&2);
        let numbers: Vec<u32> = under.parts.keys().copied().collect();
        let Some((_, but_last)) = numbers.split_last() else { return self.abort(under).await };
        let too_small = but_last.iter().any(|number| under.size(*number) < PART_SIZE_MIN);
        let pieces = under.parts.values().flat_map(|(pieces, _)| pieces.iter().copied()).collect();
        let own = |(pieces, _): &(Vec<Piece>, String)| {
            pieces.iter().any(|piece| (piece.number.wrapping_sub(PIECES)) / PIECES_MAX == write)
        };
        let copied = !under.parts.values().any(own);
        let content = Content { pieces, copied };
        let size = content.size() as u64;
        self.ledger.contents.lock().insert(write, content);
        let named: Vec<(u32, String)> =
            under.parts.iter().map(|(number, (_, etag))| (*number, etag.clone())).collect();
        let did = if absent { Did::Swapped { from: None, to: write } } else { Did::Wrote(write) };
        let wrote = Deeds::Key(under.key, did);
        let start = self.now();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                sleep(AFTER_REFUSAL).await;
            }
            *pending.lock() = Some(wrote.clone());
            let condition = WriteCondition { if_absent: absent, if_etag: None };
            let name = name(under.key);
            let completed =
                under.tenant.complete_upload(BUCKET, &name, under.id, &named, BTreeMap::new(), condition);
            match completed.await {
                Ok(done) => {
                    if too_small || done.info.size != size {
                        let told = done.info.size;
                        let what = format_args!("{size} bytes, a part too small: {too_small}; made {told}");
                        self.world.trace.violation("parts", what);
                    }
                    return Answer::Done(wrote);
                }
                Err(ObjectError::PreconditionFailed) if absent => {
                    if attempt > 0 {
                        // What was refused before may yet be decided.
                        self.note(wrote, start, None);
                    }
                    *pending.lock() = None;
                    self.note(Deeds::Key(under.key, Did::Missed(None)), start, Some(self.now()));
                    return self.abort(under).await;
                }
                Err(ObjectError::PartTooSmall { .. }) if too_small => {
                    *pending.lock() = None;
                    return self.abort(under).await;
                }
                Err(ObjectError::InvalidPart(_)) if under.unsure => {
                    self.world.trace.note(format_args!("c{}: an older part came later", self.number));
                    return Answer::Refused;
                }
                // It was completed before, and what it made is gone already.
                Err(ObjectError::NoSuchUpload(_)) if attempt > 0 => return Answer::Refused,
                Err(error) => drop(self.refused("complete", &error)),
            }
        }
        Answer::Refused
    }

    async fn abort(&self, under: &Under<'_>) -> Answer {
        let name = name(under.key);
        match under.tenant.abort_upload(BUCKET, &name, under.id).await {
            Ok(()) => {}
            Err(error) => return self.refused("abort", &error),
        }
        match under.tenant.list_parts(BUCKET, &name, under.id, 0, LISTED_MAX).await {
            Err(ObjectError::NoSuchUpload(_)) => Answer::Answered,
            Ok(_) => {
                self.world.trace.violation("parts", format_args!("an upload is there after its abort"));
                Answer::Refused
            }
            Err(error) => self.refused("list parts", &error),
        }
    }

    /// Aborts what clients have left of uploads, when faults have ended: all of it is listed, and it is theirs.
    pub(crate) async fn abort_what_is_left(&self, tenant: &dyn VersionedObjects) {
        for _ in 0..ABORTS_MAX {
            let query = UploadListQuery { limit: LISTED_MAX, ..UploadListQuery::default() };
            let left = match tenant.list_uploads(BUCKET, query).await {
                Ok(page) => page.uploads,
                Err(error) => {
                    self.world.trace.note(format_args!("uploads are not listed: {error}"));
                    sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            if left.is_empty() {
                return;
            }
            for upload in left {
                if number_of(&upload.attributes).is_none() {
                    self.world
                        .trace
                        .violation("parts", format_args!("an upload of nobody, of {}", upload.key));
                }
                if let Err(error) = tenant.abort_upload(BUCKET, &upload.key, upload.upload).await {
                    self.world.trace.note(format_args!("an upload is not aborted: {error}"));
                }
            }
        }
        self.world.trace.violation("parts", format_args!("uploads are left after {ABORTS_MAX} aborts"));
    }
}
