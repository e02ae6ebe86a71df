//! Who calls in with which token.
//!
//! Found by a keyed hash, so that the time of a look-up says nothing about the tokens there are, and then compared whole
//! in constant time. Nothing here prints a token.

use std::hash::Hasher as _;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use siphasher::sip::SipHasher13;
use subtle::ConstantTimeEq as _;

use super::Catalog;
use crate::domain::Check;
use crate::units::MonitorId;

/// The monitors of one catalog that wait for calls, by token.
pub struct Tokens {
    key: [u64; 2],
    /// By the token's hash; of two tokens with one hash the second is in `rest`.
    monitors: HashMap<u64, MonitorId, FxBuildHasher>,
    rest: Vec<MonitorId>,
}

impl Tokens {
    /// `key` must not be known outside of the process.
    pub fn of(catalog: &Catalog, key: [u64; 2]) -> Self {
        let mut tokens = Self { key, monitors: HashMap::with_hasher(FxBuildHasher), rest: Vec::new() };
        for id in catalog.push_ids() {
            let hash = tokens.hash(catalog.target(id).path);
            if tokens.monitors.contains_key(&hash) {
                tokens.rest.push(id);
            } else {
                tokens.monitors.insert(hash, id);
            }
        }
        tokens
    }

    /// `catalog` is the one that this was made of.
    pub fn find(&self, catalog: &Catalog, token: &str) -> Option<MonitorId> {
        let first = self.monitors.get(&self.hash(token)).copied();
        let candidates = first.into_iter().chain(self.rest.iter().copied());
        let mut found = None;
        for id in candidates {
            if bool::from(catalog.target(id).path.as_bytes().ct_eq(token.as_bytes())) {
                found = Some(id);
            }
        }
        found
    }

    pub fn len(&self) -> usize {
        self.monitors.len() + self.rest.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn hash(&self, token: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        hasher.write(token.as_bytes());
        hasher.finish()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Catalog {
    /// The monitors that wait for calls, watched or not.
    pub fn push_ids(&self) -> impl Iterator<Item = MonitorId> + '_ {
        let any = self.policies().iter().any(|policy| matches!(policy.check, Check::Push(_)));
        // Most catalogs have none, and a walk over a million monitors for that is one too many.
        let shards = if any { 0..self.shards() } else { 0..0 };
        let ids = shards.flat_map(|shard| self.roster(shard).indices().map(move |index| MonitorId::new(shard, index)));
        ids.filter(|&id| matches!(self.policy(id).check, Check::Push(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::monitor::PushCheck;
    use crate::domain::{Host, Monitor, Policy, Target, TcpCheck};
    use crate::units::Span;
    use crate::world::catalog::CatalogError;

    fn monitor(name: &str, token: Option<&str>) -> Monitor {
        let check = match token {
            Some(_) => Check::Push(PushCheck { grace: Span::ZERO }),
            None => Check::Tcp(TcpCheck::default()),
        };
        let policy = Policy::new(check, Span::from_secs(1), Span::from_secs(1));
        let host = Host::Literal("127.0.0.1".parse().expect("an address"));
        let target = Target { host, port: 1, path: token.unwrap_or("").into() };
        Monitor { name: name.into(), enabled: true, target, policy }
    }

    #[test]
    fn a_token_finds_its_monitor_and_nothing_else_does() {
        let monitors = (0..500).map(|n| monitor(&format!("job-{n}"), Some(&format!("token-{n:04}"))));
        let catalog = Catalog::build(monitors.chain([monitor("web", None)]), 3).expect("they fit");
        let tokens = Tokens::of(&catalog, [1, 2]);
        assert_eq!(tokens.len(), 500);
        for n in 0..500 {
            let found = tokens.find(&catalog, &format!("token-{n:04}")).expect("it is there");
            assert_eq!(catalog.name(found), format!("job-{n}"));
        }
        for wrong in ["", "token-", "token-0500", "token-00000", "Token-0001"] {
            assert_eq!(tokens.find(&catalog, wrong), None, "{wrong}");
        }
        assert!(!format!("{tokens:?}").contains("token-"));
    }

    #[test]
    fn tokens_with_one_hash_are_told_apart() {
        let catalog = Catalog::build([monitor("a", Some("x")), monitor("b", Some("y"))], 1).expect("they fit");
        let mut tokens = Tokens::of(&catalog, [1, 2]);
        let second = catalog.find("b").expect("it is there");
        tokens.monitors.retain(|_, id| *id != second);
        tokens.rest.push(second);
        assert_eq!(tokens.find(&catalog, "y"), Some(second));
        assert_eq!(tokens.find(&catalog, "x"), catalog.find("a"));
    }

    #[test]
    fn one_token_for_two_jobs_is_refused() {
        let twice = [monitor("b", Some("same")), monitor("a", Some("same")), monitor("c", Some("other"))];
        let error = Catalog::build(twice, 2).expect_err("whose call would it be?");
        assert_eq!(error, CatalogError::SharedToken { first: "a".into(), second: "b".into() });
        assert!(!error.to_string().contains("same\""), "{error}");
    }

    #[test]
    fn without_such_monitors_nothing_is_kept() {
        let catalog = Catalog::build([monitor("web", None)], 1).expect("it fits");
        let tokens = Tokens::of(&catalog, [1, 2]);
        assert!(tokens.is_empty() && tokens.find(&catalog, "").is_none());
    }
}
