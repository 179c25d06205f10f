//! A real gateway on loopback, asked as clients ask: one program, because each would link everything again.

mod access_keys;
mod bodies;
mod connections;
mod denials;
mod encryption;
mod grants;
mod inventory;
mod lifecycle;
mod locks;
mod logs;
mod multipart;
mod notifications;
mod objects;
mod page;
mod signatures;
mod support;
mod versions;
mod websites;
