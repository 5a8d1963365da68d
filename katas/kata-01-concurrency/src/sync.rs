//! The primitive that stock is kept behind, as a parameter: std's in the program, shuttle's where
//! a test plays every interleaving.
//!
//! A mutex of std cannot be explored: only the operating system knows when its threads are
//! interrupted. So whatever is to be explored names the mutex by this trait, and nothing else
//! changes: `LockedShelf<M: Mutex<Stock>>`.

use std::{ops::DerefMut, sync::PoisonError};

/// A mutex around a value.
pub trait Mutex<T>: Send + Sync + 'static {
    /// One that nobody holds.
    fn new(value: T) -> Self;

    /// Waits until nobody else holds it; it is held until the guard is dropped.
    fn lock(&self) -> impl DerefMut<Target = T>;
}

impl<T: Send + 'static> Mutex<T> for std::sync::Mutex<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    // A poisoned mutex is one whose holder panicked. What is kept here is changed in one
    // assignment, so there is no half of a change to be afraid of.
    fn lock(&self) -> impl DerefMut<Target = T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
