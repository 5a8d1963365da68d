//! The routes that a check asks for.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use http::Method;

/// The routes that were asked for until now, over all instances and scenes of a check.
///
/// A route is a method and the first part of a path, `GET /accounts`: what comes after it is mostly
/// an id. Cloning gives another handle to the same set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes(Arc<Mutex<BTreeSet<String>>>);

impl Routes {
    pub(crate) fn note(&self, method: &Method, path: &str) {
        let first = path.split(['/', '?']).nth(1).unwrap_or_default();
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        routes.insert(format!("{method} /{first}"));
    }

    pub(crate) fn all(&self) -> BTreeSet<String> {
        let routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        routes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_neither_id_nor_query() {
        let routes = Routes::default();
        for path in ["/pay/7/refund", "/pay/8", "/pay?all=true"] {
            routes.note(&Method::GET, path);
        }
        routes.note(&Method::POST, "/pay");
        assert_eq!(Vec::from_iter(routes.all()), ["GET /pay", "POST /pay"]);
    }
}
