//! The OpenAPI document: made from the route table and the types of its bodies, checked in as
//! `openapi.json`, compared by a test.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use axum::Json;
use serde_json::{Map, Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

use crate::{
    guard::{COOKIE, CSRF_HEADER},
    problem::{self, Problem},
    routes::{self, Access, Answer, Method, Route},
};

type Schemas = Vec<(String, RefOr<Schema>)>;

/// The type of a body, as the document needs it.
pub(crate) struct Shape {
    name: fn() -> Cow<'static, str>,
    collect: fn(&mut Schemas),
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&(self.name)())
    }
}

pub(crate) const fn shape<T: ToSchema>() -> Shape {
    Shape {
        name: T::name,
        collect: |schemas| {
            schemas.push((T::name().into_owned(), T::schema()));
            T::schemas(schemas);
        },
    }
}

pub(crate) async fn serve() -> Json<Value> {
    Json(document())
}

/// The document, OpenAPI 3.1.
#[must_use]
pub fn document() -> Value {
    let mut schemas = Schemas::new();
    (shape::<Problem>().collect)(&mut schemas);
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in routes::all() {
        if let Some(request) = &route.request {
            (request.collect)(&mut schemas);
        }
        if let Answer::Json(_, answer) = &route.answer {
            (answer.collect)(&mut schemas);
        }
        paths.entry(route.path).or_default().insert(route.method.name().to_lowercase(), operation(route));
    }
    let schemas: BTreeMap<_, _> = schemas.into_iter().collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast admin API",
            "version": "1",
            "description": "Every node answers for the whole cluster. Errors are problem+json (RFC 9457). \
                Quantities carry their unit in the field's name; byte counts are 64-bit integers.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "The token of POST /api/v1/session." },
                "cookie": {
                    "type": "apiKey", "in": "cookie", "name": COOKIE,
                    "description": format!("Set by POST /api/v1/session. Writes also carry `{CSRF_HEADER}: 1`."),
                },
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "description": match route.access {
            Access::Anyone => format!("For anyone. {}", route.reason),
            Access::Session(role) => format!("Role: {}. {}", role.name(), route.reason),
        },
        "security": match route.access {
            Access::Anyone => json!([]),
            Access::Session(_) => json!([{ "bearer": [] }, { "cookie": [] }]),
        },
        "responses": responses(route),
    });
    let parameters: Vec<Value> = parameters(route.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(request) = &route.request {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": reference(request) } } });
    }
    operation
}

fn responses(route: &Route) -> Value {
    let mut responses = Map::new();
    let (status, success) = match &route.answer {
        Answer::Json(status, answer) => {
            let content = json!({ "application/json": { "schema": reference(answer) } });
            (*status, json!({ "description": "Done.", "content": content }))
        }
        Answer::Document => {
            let content = json!({ "application/json": { "schema": { "type": "object" } } });
            (200, json!({ "description": "The document.", "content": content }))
        }
        Answer::Text => {
            let content = json!({ "text/plain": { "schema": { "type": "string" } } });
            (200, json!({ "description": "Yes.", "content": content }))
        }
        Answer::Nothing => (204, json!({ "description": "Done." })),
    };
    responses.insert(status.to_string(), success);
    if route.id == "readyz" {
        responses.insert("503".into(), json!({ "description": "No." }));
    }
    if route.path.starts_with("/api/") {
        let content =
            json!({ problem::CONTENT_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" } } });
        let refused = |description: &str| json!({ "description": description, "content": content });
        if matches!(route.access, Access::Session(_)) {
            responses.insert("401".into(), refused("No session, or one that is over."));
        }
        if route.method != Method::Get {
            responses.insert("403".into(), refused("The account may not do this, or another site asked."));
        }
        responses.insert("default".into(), refused("Why it was not done."));
    }
    responses.into()
}

fn reference(shape: &Shape) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", (shape.name)()) })
}

fn parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_document_is_the_one_the_code_describes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let text = format!("{:#}\n", document());
        if std::env::var_os("HOLDFAST_BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(
            written == text,
            "openapi.json is stale: run `HOLDFAST_BLESS=1 cargo test -p holdfast-admin-api`"
        );
    }

    #[test]
    fn every_reference_has_its_schema() {
        fn walk(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|value| walk(value, found));
                }
                Value::Array(values) => values.iter().for_each(|value| walk(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        walk(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }

    #[test]
    fn parameters_are_found_in_paths() {
        assert_eq!(parameters("/a/{b}/c/{d}").collect::<Vec<_>>(), ["b", "d"]);
    }
}
