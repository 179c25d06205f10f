//! The commands: CreatePrimary, StartAuthSession, Create, Load, Unseal, FlushContext (Part 3).

use std::path::Path;

use holdfast_crypt::{TPM_FIELD_SIZE, TpmOffer, tpm_hash};
use zeroize::Zeroizing;

use crate::{
    error::TpmError,
    sealed::SealedKey,
    session::{Named, PLAIN, Request, Secret, Session, WITH_SESSIONS, frame},
    transport::Transport,
    wire::{Reader, joined, put_sized},
};

/// Size of a key that is sealed, in bytes.
pub(crate) const KEY_SIZE: usize = 32;

const CREATE_PRIMARY: u32 = 0x131;
const CREATE: u32 = 0x153;
const LOAD: u32 = 0x157;
const UNSEAL: u32 = 0x15e;
const FLUSH_CONTEXT: u32 = 0x165;
const START_AUTH_SESSION: u32 = 0x176;

/// The owner hierarchy: its seed outlives power cycles, and ends with TPM2_Clear.
const OWNER: u32 = 0x4000_0001;
/// No object.
const NULL: u32 = 0x4000_0007;
/// Authorization by a password, which here is the empty one.
const PASSWORD: u32 = 0x4000_0009;

const ALG_AES: u16 = 0x0006;
const ALG_KEYED_HASH: u16 = 0x0008;
const ALG_SHA256: u16 = 0x000b;
const ALG_NULL: u16 = 0x0010;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;
const CURVE_P256: u16 = 0x0003;
const KEY_BITS: u16 = 128;

/// Storage key: fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt (Part 2, 8.3).
const STORAGE_ATTRIBUTES: u32 = 0x0003_0472;
/// Sealed data: fixedTPM, fixedParent, userWithAuth, noDA.
const SEALED_ATTRIBUTES: u32 = 0x0000_0452;

/// What TPM2_Load says of an object that this parent did not make: TPM_RC_INTEGRITY, parameter 1.
const NOT_OUR_CHILD: u32 = 0x1df;

/// The storage key, in the chip.
#[derive(Debug)]
pub(crate) struct StorageKey {
    pub(crate) handle: u32,
    /// TPMT_PUBLIC.
    pub(crate) public: Vec<u8>,
}

impl StorageKey {
    /// From what follows the header of the answer to CreatePrimary.
    pub(crate) fn parse(answer: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(answer);
        let handle = reader.u32()?;
        let _parameters_size = reader.u32()?;
        Some(Self { handle, public: reader.sized()?.to_vec() })
    }

    fn named(&self) -> Named {
        Named { handle: self.handle, name: name_of(&self.public) }
    }
}

/// An open TPM.
#[derive(Debug)]
pub(crate) struct Chip(Transport);

impl Chip {
    pub(crate) fn open(path: &Path) -> Result<Self, TpmError> {
        Transport::open(path).map(Self)
    }

    /// The storage key: derived from the hierarchy's seed, so that it is the same whenever it is asked for.
    pub(crate) fn storage_key(&mut self) -> Result<StorageKey, TpmError> {
        const NAME: &str = "TPM2_CreatePrimary";
        let mut area = PASSWORD.to_be_bytes().to_vec();
        put_sized(&mut area, &[]);
        area.push(0);
        put_sized(&mut area, &[]);
        let mut parameters = Vec::new();
        // TPMS_SENSITIVE_CREATE: no authorization, no data.
        put_sized(&mut parameters, &[0; 4]);
        put_sized(&mut parameters, &storage_template());
        put_creation(&mut parameters);
        let area_size = 9_u32;
        let body = joined(&[&OWNER.to_be_bytes(), &area_size.to_be_bytes(), &area, &parameters]);
        let answer = self.0.ask(NAME, &frame(WITH_SESSIONS, CREATE_PRIMARY, &body))?;
        StorageKey::parse(&answer).ok_or(TpmError::Malformed { command: NAME })
    }

    /// A session whose salt only the storage key opens.
    pub(crate) fn session(&mut self, storage: &StorageKey) -> Result<Session, TpmError> {
        const NAME: &str = "TPM2_StartAuthSession";
        let (x, y) =
            point_of(&storage.public).ok_or(TpmError::Malformed { command: "TPM2_CreatePrimary" })?;
        let offer = TpmOffer::to(&x, &y)?;
        let mut point = Vec::new();
        put_sized(&mut point, &offer.point.0);
        put_sized(&mut point, &offer.point.1);
        let mut body = joined(&[&storage.handle.to_be_bytes(), &NULL.to_be_bytes()]);
        put_sized(&mut body, &offer.nonce);
        put_sized(&mut body, &point);
        // TPM_SE_HMAC.
        body.push(0);
        [ALG_AES, KEY_BITS, ALG_CFB, ALG_SHA256].iter().for_each(|value| body.extend(value.to_be_bytes()));
        let answer = self.0.ask(NAME, &frame(PLAIN, START_AUTH_SESSION, &body))?;
        let (handle, nonce) = parse_started(&answer).ok_or(TpmError::Malformed { command: NAME })?;
        Ok(Session { handle, keys: offer.accepted(nonce) })
    }

    /// Seals a key: public and private area of the object.
    pub(crate) fn create(
        &mut self,
        storage: &StorageKey,
        session: &mut Session,
        key: &[u8; KEY_SIZE],
    ) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        const NAME: &str = "TPM2_Create";
        let on = storage.named();
        let request =
            Request { name: NAME, code: CREATE, on: &on, secret: Secret::Sent, answered_handles: 0 };
        // TPMS_SENSITIVE_CREATE: no authorization, the key.
        let mut sensitive = Zeroizing::new(vec![0; 2]);
        put_sized(&mut sensitive, key);
        let mut rest = Vec::new();
        put_sized(&mut rest, &sealed_template());
        put_creation(&mut rest);
        let answer = session.send(&mut self.0, &request, Some(&mut *sensitive), &rest);
        self.flush(session.handle);
        let (private, public) =
            parse_created(&answer?.parameters).ok_or(TpmError::Malformed { command: NAME })?;
        Ok((public, private))
    }

    /// Loads a sealed key and opens it.
    pub(crate) fn open_sealed(
        &mut self,
        storage: &StorageKey,
        sealed: &SealedKey,
    ) -> Result<Zeroizing<[u8; KEY_SIZE]>, TpmError> {
        let mut session = self.session(storage)?;
        let opened = self.load(storage, &mut session, sealed).and_then(|object| {
            let opened = self.unseal(&object, &mut session);
            self.flush(object.handle);
            opened
        });
        self.flush(session.handle);
        opened
    }

    fn load(
        &mut self,
        storage: &StorageKey,
        session: &mut Session,
        sealed: &SealedKey,
    ) -> Result<Named, TpmError> {
        const NAME: &str = "TPM2_Load";
        let on = storage.named();
        let request =
            Request { name: NAME, code: LOAD, on: &on, secret: Secret::Neither, answered_handles: 1 };
        let mut public = Vec::new();
        put_sized(&mut public, &sealed.public);
        let answer = session
            .send(&mut self.0, &request, Some(&mut sealed.private.clone()), &public)
            .map_err(|error| match error {
                TpmError::Refused { code: NOT_OUR_CHILD, .. } => TpmError::NotSealed,
                other => other,
            })?;
        let handle = answer.handle.ok_or(TpmError::Malformed { command: NAME })?;
        Ok(Named { handle, name: name_of(&sealed.public) })
    }

    fn unseal(
        &mut self,
        object: &Named,
        session: &mut Session,
    ) -> Result<Zeroizing<[u8; KEY_SIZE]>, TpmError> {
        const NAME: &str = "TPM2_Unseal";
        let request =
            Request { name: NAME, code: UNSEAL, on: object, secret: Secret::Received, answered_handles: 0 };
        let answer = session.send(&mut self.0, &request, None, &[])?;
        let mut key = Zeroizing::new([0; KEY_SIZE]);
        match Reader::new(&answer.parameters).sized() {
            Some(bytes) if bytes.len() == KEY_SIZE => key.copy_from_slice(bytes),
            _ => return Err(TpmError::Malformed { command: NAME }),
        }
        Ok(key)
    }

    /// Frees the chip's memory. A failure is left: Linux frees it too, when the device is closed.
    pub(crate) fn flush(&mut self, handle: u32) {
        let command = frame(PLAIN, FLUSH_CONTEXT, &handle.to_be_bytes());
        drop(self.0.ask("TPM2_FlushContext", &command));
    }
}

/// Handle and nonce of a session, from what follows the header of the answer to StartAuthSession.
pub(crate) fn parse_started(answer: &[u8]) -> Option<(u32, &[u8])> {
    let mut reader = Reader::new(answer);
    Some((reader.u32()?, reader.sized()?))
}

/// Private and public area, from the parameters of the answer to Create.
pub(crate) fn parse_created(parameters: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut reader = Reader::new(parameters);
    Some((reader.sized()?.to_vec(), reader.sized()?.to_vec()))
}

/// TPMT_PUBLIC of the storage key: the ECC template of the TCG's provisioning guidance (version 1.0, 7.5.1).
fn storage_template() -> Vec<u8> {
    let mut public = public_head(ALG_ECC, STORAGE_ATTRIBUTES);
    for value in [ALG_AES, KEY_BITS, ALG_CFB, ALG_NULL, CURVE_P256, ALG_NULL] {
        public.extend(value.to_be_bytes());
    }
    // The point, which the TPM fills in.
    public.extend([0; 4]);
    public
}

/// TPMT_PUBLIC of sealed data.
fn sealed_template() -> Vec<u8> {
    let mut public = public_head(ALG_KEYED_HASH, SEALED_ATTRIBUTES);
    public.extend(ALG_NULL.to_be_bytes());
    put_sized(&mut public, &[]);
    public
}

/// Type, name algorithm, attributes, and no policy.
fn public_head(kind: u16, attributes: u32) -> Vec<u8> {
    joined(&[&kind.to_be_bytes(), &ALG_SHA256.to_be_bytes(), &attributes.to_be_bytes(), &[0, 0]])
}

/// No outside information, no PCRs in the creation data.
fn put_creation(to: &mut Vec<u8>) {
    put_sized(to, &[]);
    to.extend(0_u32.to_be_bytes());
}

/// The name of an object: its name algorithm and the hash of its public area (Part 1, 16).
fn name_of(public: &[u8]) -> Vec<u8> {
    joined(&[&ALG_SHA256.to_be_bytes(), &tpm_hash(&[public])])
}

/// The point of a storage key; `None` when its public area is not what the template asked for.
pub(crate) fn point_of(public: &[u8]) -> Option<([u8; TPM_FIELD_SIZE], [u8; TPM_FIELD_SIZE])> {
    let template = storage_template();
    let mut reader = Reader::new(public);
    (reader.take(template.len() - 4)? == &template[..template.len() - 4]).then_some(())?;
    let mut field = || {
        let bytes = reader.sized().filter(|bytes| bytes.len() <= TPM_FIELD_SIZE)?;
        // Some chips leave leading zeros out.
        let mut field = [0; TPM_FIELD_SIZE];
        field[TPM_FIELD_SIZE - bytes.len()..].copy_from_slice(bytes);
        Some(field)
    };
    let point = (field()?, field()?);
    reader.end()?;
    Some(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_that_was_asked_for_is_taken_for_the_storage_key() {
        let mut public = storage_template();
        public.truncate(public.len() - 4);
        put_sized(&mut public, &[1; 32]);
        put_sized(&mut public, &[2; 31]);
        let (x, y) = point_of(&public).unwrap();
        assert_eq!((x, y[0], y[1]), ([1; 32], 0, 2));
        for at in 0..16 {
            let mut other = public.clone();
            other[at] ^= 1;
            assert!(point_of(&other).is_none(), "byte {at}");
        }
        for length in 0..public.len() {
            assert!(point_of(&public[..length]).is_none());
        }
    }
}
