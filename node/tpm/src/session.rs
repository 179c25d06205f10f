//! Commands in a session: proven, answered with proof, the first parameter encrypted both ways.
//!
//! Layout (Part 1, 18.9 and 18.10): command = header ‖ handles ‖ size⁴ ‖ session ‖ parameters; answer = header ‖
//! handles ‖ size⁴ ‖ parameters ‖ session. The session is used alone, for authorization and for encryption.

use holdfast_crypt::{TpmSession, tpm_hash};

use crate::{
    error::TpmError,
    transport::Transport,
    wire::{Reader, joined, put_sized},
};

/// The session stays after the command (Part 2, 8.4).
const CONTINUE: u8 = 0x01;
/// The first parameter of the command is encrypted.
const DECRYPT: u8 = 0x20;
/// The first parameter of the answer is encrypted.
const ENCRYPT: u8 = 0x40;

/// TPM_ST_NO_SESSIONS.
pub(crate) const PLAIN: u16 = 0x8001;
/// TPM_ST_SESSIONS.
pub(crate) const WITH_SESSIONS: u16 = 0x8002;

/// A handle, and the name by which proofs refer to what it stands for.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) handle: u32,
    pub(crate) name: Vec<u8>,
}

/// Which way a secret goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secret {
    /// In the first parameter of the command.
    Sent,
    /// In the first parameter of the answer.
    Received,
    /// None.
    Neither,
}

/// A command that acts on one object.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) name: &'static str,
    pub(crate) code: u32,
    pub(crate) on: &'a Named,
    pub(crate) secret: Secret,
    /// Handles that come before the parameters of the answer.
    pub(crate) answered_handles: usize,
}

/// What came back: the first handle, and the parameters.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) handle: Option<u32>,
    pub(crate) parameters: zeroize::Zeroizing<Vec<u8>>,
}

/// A session in the chip.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) handle: u32,
    pub(crate) keys: TpmSession,
}

/// A whole command.
pub(crate) fn frame(tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(10 + body.len()).expect("commands have a few hundred bytes");
    joined(&[&tag.to_be_bytes(), &size.to_be_bytes(), &code.to_be_bytes(), body])
}

impl Session {
    /// Sends a command; `first` and `rest` are its parameters, the first a sized buffer without its size.
    pub(crate) fn send(
        &mut self,
        line: &mut Transport,
        request: &Request<'_>,
        first: Option<&mut Vec<u8>>,
        rest: &[u8],
    ) -> Result<Answer, TpmError> {
        let attributes = CONTINUE
            | match request.secret {
                Secret::Sent => DECRYPT,
                Secret::Received => ENCRYPT,
                Secret::Neither => 0,
            };
        let nonce = self.keys.begin();
        let mut parameters = Vec::new();
        if let Some(first) = first {
            if request.secret == Secret::Sent {
                self.keys.encrypt(first);
            }
            put_sized(&mut parameters, first);
        }
        parameters.extend_from_slice(rest);
        let hash = tpm_hash(&[&request.code.to_be_bytes(), &request.on.name, &parameters]);
        let mut area = self.handle.to_be_bytes().to_vec();
        put_sized(&mut area, &nonce);
        area.push(attributes);
        put_sized(&mut area, &self.keys.prove(&hash, attributes));
        let area_size = u32::try_from(area.len()).expect("the area of one session has about 80 bytes");
        let body = joined(&[&request.on.handle.to_be_bytes(), &area_size.to_be_bytes(), &area, &parameters]);
        let answer = line.ask(request.name, &frame(WITH_SESSIONS, request.code, &body))?;
        self.check(request, &answer)
    }

    fn check(&mut self, request: &Request<'_>, answer: &[u8]) -> Result<Answer, TpmError> {
        let malformed = TpmError::Malformed { command: request.name };
        let parsed = parse(answer, request.answered_handles).ok_or(malformed)?;
        let hash = tpm_hash(&[&0_u32.to_be_bytes(), &request.code.to_be_bytes(), parsed.parameters]);
        self.keys
            .check(&hash, parsed.nonce, parsed.attributes, parsed.proof)
            .map_err(|_| TpmError::Tampered { command: request.name })?;
        let mut parameters = zeroize::Zeroizing::new(parsed.parameters.to_vec());
        if request.secret == Secret::Received {
            // The attributes are under the proof: an answer that was not encrypted does not say it was.
            let [_, _, secret @ ..] = parameters.as_mut_slice() else {
                return Err(TpmError::Malformed { command: request.name });
            };
            self.keys.decrypt(secret);
        }
        Ok(Answer { handle: parsed.handle, parameters })
    }
}

/// What follows the header of an answer.
pub(crate) struct Parsed<'a> {
    pub(crate) handle: Option<u32>,
    pub(crate) parameters: &'a [u8],
    pub(crate) nonce: &'a [u8],
    pub(crate) attributes: u8,
    pub(crate) proof: &'a [u8],
}

/// Splits what follows the header of an answer that has so many handles.
pub(crate) fn parse(answer: &[u8], handles: usize) -> Option<Parsed<'_>> {
    let mut reader = Reader::new(answer);
    let mut handle = None;
    for _ in 0..handles {
        handle = handle.or(Some(reader.u32()?));
    }
    let size = usize::try_from(reader.u32()?).ok()?;
    let parameters = reader.take(size)?;
    let (nonce, attributes, proof) = (reader.sized()?, reader.u8()?, reader.sized()?);
    reader.end()?;
    Some(Parsed { handle, parameters, nonce, attributes, proof })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_cut_short_is_refused() {
        let answer = [&[0x80, 0, 0, 1][..], &[0, 0, 0, 2, 7, 7], &[0, 1, 9], &[1], &[0, 2, 5, 5]].concat();
        let parsed = parse(&answer, 1).unwrap();
        assert_eq!(
            (parsed.handle, parsed.parameters, parsed.proof),
            (Some(0x8000_0001), &[7, 7][..], &[5, 5][..])
        );
        for length in 0..answer.len() {
            assert!(parse(&answer[..length], 1).is_none(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            handles in 0_usize..3,
        ) {
            let _ = parse(&bytes, handles);
        }
    }
}
