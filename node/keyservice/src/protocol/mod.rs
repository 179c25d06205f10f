//! What a node program and its key service say to each other, over a pair of connected sockets.
//!
//! A frame is its length (4 bytes, little-endian, of what follows), the number of the request (8, little-endian) and
//! postcard of [`Request`] or of a result of [`Reply`] and [`KeyError`]. Both ends are of one program: there are no
//! versions. Answers may come in another order than their requests.

mod error;
mod frame;
mod hidden;
mod names;
mod reply;
mod request;
mod state;

pub use error::KeyError;
pub use frame::{FRAME_SIZE_MAX, receive, send};
pub use hidden::Hidden;
pub(crate) use hidden::wipe;
pub use names::{BodyPlace, Opening, Protect, Purpose, RootName, Standing};
pub use reply::{Derived, Issued, Reply, Rolled};
pub use request::Request;
pub use state::{Closed, Confinement, KeyState};
