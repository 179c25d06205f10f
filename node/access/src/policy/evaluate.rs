//! What a policy says about one request.

use std::collections::BTreeMap;

use super::{Policy, Principal, Selection, Statement, condition::normal_key};
use crate::{
    identity::{Caller, Who},
    text::matches,
};

/// Condition keys of a request and their values. Only what this server knows by itself or was signed:
/// headers never set a key that the server derives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    /// Sets a key's only value.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(normal_key(key), vec![value.into()]);
    }

    /// Sets all of a key's values.
    pub fn set_all(&mut self, key: &str, values: Vec<String>) {
        self.0.insert(normal_key(key), values);
    }

    /// A key's values.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[String]> {
        self.0.get(key).map(Vec::as_slice)
    }

    fn variable(&self, name: &str) -> Option<&str> {
        match self.0.get(&normal_key(name))?.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }
}

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// `s3:GetObject`
    pub action: &'a str,
    /// `arn:aws:s3:::bucket/key`; empty for actions without one.
    pub resource: &'a str,
    /// Condition keys.
    pub context: &'a Context,
}

/// Whether the allowing statement names the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matched {
    /// Nothing allows it.
    No,
    /// The caller's account is named: its own policies decide further.
    Account,
    /// The caller itself is named, or everybody.
    Itself,
}

/// What a policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effects {
    /// A statement denies it: final.
    pub denied: bool,
    /// The best of the statements that allow it.
    pub allowed: Matched,
}

impl Policy {
    /// Asks a policy that is attached to the caller.
    #[must_use]
    pub fn of_identity(&self, question: Question<'_>) -> Effects {
        self.effects(question, |_| Some(Matched::Itself))
    }

    /// Asks a policy that names principals.
    #[must_use]
    pub fn of_resource(&self, question: Question<'_>, caller: &Caller) -> Effects {
        self.effects(question, |statement| {
            let principals = statement.principals.as_ref()?;
            let named = principals.of.iter().map(|one| names(one, caller)).max().unwrap_or(Matched::No);
            match (principals.not, named) {
                (false, Matched::No) => None,
                (false, named) => Some(named),
                // `NotPrincipal` excepts whoever is named, and those whose account is.
                (true, Matched::No) => Some(Matched::Itself),
                (true, _) => None,
            }
        })
    }

    fn effects(&self, question: Question<'_>, who: impl Fn(&Statement) -> Option<Matched>) -> Effects {
        let mut effects = Effects { denied: false, allowed: Matched::No };
        for statement in &self.statements {
            let Some(matched) = who(statement) else { continue };
            if !statement.is_about(self.variables, question) {
                continue;
            }
            if statement.allow {
                effects.allowed = effects.allowed.max(matched);
            } else {
                effects.denied = true;
            }
        }
        effects
    }

    /// Whether a condition reads this key (lower case): tells whether the fact has to be looked up.
    #[must_use]
    pub fn reads(&self, prefix: &str) -> bool {
        let has = |text: &String| text.to_ascii_lowercase().contains(prefix);
        self.statements.iter().any(|statement| {
            statement.conditions.iter().any(|one| one.key.starts_with(prefix) || one.values.iter().any(&has))
                || statement.resources.iter().flat_map(|selection| &selection.of).any(&has)
        })
    }
}

/// How a principal names the caller.
fn names(principal: &Principal, caller: &Caller) -> Matched {
    let Some(account) = caller.account() else {
        return if *principal == Principal::Anyone { Matched::Itself } else { Matched::No };
    };
    match principal {
        Principal::Anyone => Matched::Itself,
        Principal::Account(number) if *number == account.number => {
            if matches!(caller.who, Who::Root) {
                Matched::Itself
            } else {
                Matched::Account
            }
        }
        Principal::Canonical(id) if *id == account.canonical => {
            if matches!(caller.who, Who::Root) {
                Matched::Itself
            } else {
                Matched::Account
            }
        }
        Principal::Arn(arn) if caller.arns().any(|own| own == *arn) => Matched::Itself,
        _ => Matched::No,
    }
}

impl Statement {
    fn is_about(&self, variables: bool, question: Question<'_>) -> bool {
        let action = question.action.to_ascii_lowercase();
        let about_action = self.actions.selects(|pattern| matches(&pattern.to_ascii_lowercase(), &action));
        let resource = |pattern: &String| {
            replaced(pattern, variables, question.context)
                .is_some_and(|pattern| matches_literally(&pattern, question.resource))
        };
        about_action
            && self.resources.as_ref().is_none_or(|resources| resources.selects(resource))
            && self.conditions.iter().all(|condition| {
                let values: Vec<Option<String>> = condition
                    .values
                    .iter()
                    .map(|value| replaced(value, variables, question.context).map(|p| p.unescaped()))
                    .collect();
                condition.holds(question.context.get(&condition.key), &values)
            })
    }
}

impl<T> Selection<T> {
    fn selects(&self, mut is: impl FnMut(&T) -> bool) -> bool {
        self.of.iter().any(&mut is) != self.not
    }
}

/// A pattern whose variables were replaced. What a variable brought in is literal: a star in a user's
/// name is no wildcard.
struct Replaced(Vec<(bool, String)>);

impl Replaced {
    fn unescaped(self) -> String {
        self.0.into_iter().map(|(_, piece)| piece).collect()
    }
}

fn matches_literally(pattern: &Replaced, text: &str) -> bool {
    if pattern.0.iter().all(|(literal, piece)| !*literal || !piece.contains(['*', '?'])) {
        let whole: String = pattern.0.iter().map(|(_, piece)| piece.as_str()).collect();
        return matches(&whole, text);
    }
    // Rare: wildcards inside a value. Both sides get stand-ins that no ARN holds.
    let hide = |text: &str| text.replace('*', "\u{1}").replace('?', "\u{2}");
    let whole: String =
        pattern.0.iter().map(|(literal, piece)| if *literal { hide(piece) } else { piece.clone() }).collect();
    matches(&whole, &hide(text))
}

/// Replaces `${key}`, `${key, 'default'}`, `${*}`, `${?}` and `${$}`; `None` when a variable has no value.
fn replaced(text: &str, variables: bool, context: &Context) -> Option<Replaced> {
    if !variables || !text.contains("${") {
        return Some(Replaced(vec![(false, text.to_owned())]));
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let Some(end) = rest[at..].find('}') else { break };
        pieces.push((false, rest[..at].to_owned()));
        let inner = &rest[at + 2..at + end];
        let (name, default) = match inner.split_once(',') {
            Some((name, default)) => (name.trim(), Some(default.trim().trim_matches('\''))),
            None => (inner, None),
        };
        let value = match name {
            "*" | "?" | "$" => name,
            name => context.variable(name).or(default)?,
        };
        pieces.push((true, value.to_owned()));
        rest = &rest[at + end + 1..];
    }
    pieces.push((false, rest.to_owned()));
    Some(Replaced(pieces))
}
