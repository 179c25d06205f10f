//! Panics of a run's tasks: a broken invariant is a broken promise, wherever it is noticed.

use std::{cell::RefCell, panic, sync::Once};

thread_local! {
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
    static WATCHED: RefCell<bool> = const { RefCell::new(false) };
}

static HOOK: Once = Once::new();

/// Notes panics of this thread from now on in place of printing them.
pub fn watch() {
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !WATCHED.with_borrow(|watched| *watched) {
                return usual(info);
            }
            let text = info.to_string().replace('\n', " ");
            FIRST.with_borrow_mut(|first| {
                first.get_or_insert(text);
            });
        }));
    });
    WATCHED.set(true);
    FIRST.set(None);
}

/// Panics are printed again; returns the first one that was noted.
#[must_use]
pub fn first() -> Option<String> {
    WATCHED.set(false);
    FIRST.take()
}
