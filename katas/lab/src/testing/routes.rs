//! Golden file for routes: which of them each check asks for.
//!
//! Most flawed variants differ from the reference at one route or two. What is asked elsewhere is
//! answered by the reference's own code, so a check that asks for no other route would judge the
//! reference once more: half of a test run's time. The file says which checks those are
//! (`tests/routes.txt`), and the reference proves anew each time it is judged that nothing is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::{
    kata::{Kata, Kind, Variant},
    runner::Outcome,
    testing::{UPDATE, is_set},
    verdict::Verdict,
};

/// From the package's folder, where cargo runs its tests.
const FILE: &str = "tests/routes.txt";

/// The routes of each check, as they are kept.
#[derive(Debug)]
pub(super) struct Kept(BTreeMap<String, BTreeSet<String>>);

impl Kept {
    /// Without a file every check is asked.
    pub(super) fn read() -> Self {
        Self::parse(&fs::read_to_string(FILE).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        let routes = |listed: &str| listed.split(", ").map(str::to_owned).collect();
        Self(
            lines
                .map(|(check, listed)| (check.to_owned(), routes(listed)))
                .collect(),
        )
    }

    fn written(&self) -> String {
        let line = |(check, routes): (&String, &BTreeSet<String>)| {
            let routes: Vec<_> = routes.iter().map(String::as_str).collect();
            format!("{check}: {}\n", routes.join(", "))
        };
        self.0.iter().map(line).collect()
    }

    /// Whether a check asks for a route at which the variant is not the reference.
    pub(super) fn reaches(&self, variant: &Variant, check: &str) -> bool {
        match (variant.only_at, self.0.get(check)) {
            (Some(own), Some(asked)) => own.iter().any(|route| asked.contains(*route)),
            _ => true,
        }
    }

    /// What was seen and is not kept, of the routes at which some variant differs. What is kept and
    /// was not seen this time costs a verdict and hides none.
    fn unknown(&self, seen: &Kept, is_own: impl Fn(&str) -> bool) -> impl Iterator<Item = String> {
        let asked = seen
            .0
            .iter()
            .flat_map(|(check, routes)| routes.iter().map(move |route| (check, route)));
        asked.filter_map(move |(check, route)| {
            let is_kept = self.0.get(check).is_some_and(|kept| kept.contains(route));
            (is_own(route) && !is_kept).then(|| format!("{check}: {route}"))
        })
    }
}

/// What is wrong with the file, if anything, by what the reference was asked for.
pub(super) fn strange(kata: &Kata, variant: &Variant, outcomes: &[Outcome]) -> Option<String> {
    let is_used = kata
        .variants
        .iter()
        .any(|variant| variant.only_at.is_some());
    if variant.kind != Kind::Reference || !is_used {
        return None;
    }
    let passed = |outcome: &&Outcome| matches!(outcome.verdict, Verdict::Passed(_));
    let seen = outcomes.iter().filter(passed);
    let seen = Kept(
        seen.map(|outcome| (outcome.check.name.to_owned(), outcome.routes.clone()))
            .collect(),
    );
    if is_set(UPDATE) {
        let written = fs::write(FILE, seen.written());
        return written.err().map(|error| format!("{FILE}: {error}"));
    }
    let kept = Kept::read();
    let own = kata.variants.iter().filter_map(|variant| variant.only_at);
    let own: BTreeSet<_> = own.flatten().copied().collect();
    let unknown: Vec<_> = kept.unknown(&seen, |route| own.contains(route)).collect();
    (!unknown.is_empty()).then(|| {
        format!(
            "{FILE} does not say that these checks ask for these routes. Write it with {UPDATE}=1.\n\n{}\n",
            unknown.join("\n")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{App, BoxError, Env};

    async fn app(_: Env) -> Result<App, BoxError> {
        Err("never started".into())
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = "pays: GET /payments, POST /payments\nreads: GET /accounts\n";
        assert_eq!(Kept::parse(text).written(), text);
    }

    #[test]
    fn a_route_that_no_variant_changes_may_be_asked_for_or_not() {
        let kept = Kept::parse("pays: POST /payments, POST /accounts\nreads: GET /accounts\n");
        let seen = Kept::parse("pays: GET /health, POST /payments\nreads: GET /payments\n");
        let unknown = kept.unknown(&seen, |route| route != "GET /health");
        assert_eq!(Vec::from_iter(unknown), ["reads: GET /payments"]);
    }

    #[test]
    fn a_check_is_left_out_only_if_it_asks_for_none_of_a_variants_own_routes() {
        let kept = Kept::parse("pays: POST /accounts, POST /payments\nreads: GET /accounts\n");
        let variant = || Variant::new("v", "v", Kind::Flawed(&["pays"]), app);
        let own = variant().only_at(&["POST /payments"]);
        assert!(kept.reaches(&own, "pays"));
        assert!(!kept.reaches(&own, "reads"));
        assert!(kept.reaches(&own, "a check that is new"));
        assert!(kept.reaches(&variant(), "reads"));
    }
}
