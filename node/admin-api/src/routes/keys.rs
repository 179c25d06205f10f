//! Keys of the cluster, and the lock.

use axum::routing;

use super::{Access, Answer, Method, OPERATOR, Route, VIEWER};
use crate::{LockStatus, keys, openapi::shape};

pub(super) static ROUTES: &[Route] = &[
    Route {
        method: Method::Get,
        path: "/api/v1/lock",
        id: "lock",
        summary: "Whether this node has its keys, and what it waits for if it has not.",
        access: Access::Anyone,
        reason: "A locked node cannot check sessions, and must say what it waits for all the same.",
        request: None,
        answer: Answer::Json(200, shape::<LockStatus>()),
        handler: || routing::get(keys::lock),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/keys",
        id: "keys",
        summary: "The root key's version, who holds shares of it, and recovery shares given out.",
        access: VIEWER,
        reason: "Says how the cluster is kept, gives no key away; changes nothing.",
        request: None,
        answer: Answer::Json(200, shape::<keys::KeysStatus>()),
        handler: || routing::get(keys::show),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/keys/threshold",
        id: "set_threshold",
        summary: "Sets how many nodes' shares give the root; the root is split anew.",
        access: OPERATOR,
        reason: "Decides how many stolen nodes are too many.",
        request: Some(shape::<keys::NewThreshold>()),
        answer: Answer::Nothing,
        handler: || routing::post(keys::set_threshold),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/keys/recovery-shares",
        id: "issue_recovery",
        summary: "Makes recovery shares for operators, shown this one time.",
        access: OPERATOR,
        reason: "Enough of them are the root key.",
        request: Some(shape::<keys::NewRecovery>()),
        answer: Answer::Json(201, shape::<keys::RecoveryShares>()),
        handler: || routing::post(keys::issue_recovery),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/keys/rotation",
        id: "rotate_root",
        summary: "Puts a new root key in the place of the current one; recovery shares lose their worth.",
        access: OPERATOR,
        reason: "Changes what everything is wrapped by.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::post(keys::rotate_root),
    },
];
