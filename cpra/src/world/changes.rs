//! What a reload changes: the differences between two catalogs, monitor by monitor.
//!
//! Indices are stable ([`super::catalog`]), so that the two are compared index by index. What many monitors share is
//! compared once per pair of policies, by content: a hundred thousand monitors that did not change cost a walk.
//!
//! | what | check and target | the rest of the policy | what follows |
//! | --- | --- | --- | --- |
//! | unchanged | same | same | nothing |
//! | adjusted | same | differs | streak, phase and episode stay |
//! | redefined | differ | either | what was known of it is known no more |
//!
//! Whether a monitor is to be watched at all is a matter apart: it can change together with any of the three.

use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::Catalog;
use crate::domain::Policy;
use crate::units::MonitorId;

/// One monitor that is not as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub index: u32,
    pub what: What,
    /// The file says otherwise than before whether it is to be watched.
    pub switched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    Added,
    Removed,
    Redefined,
    Adjusted,
    /// Neither: it is switched only.
    Same,
}

/// All differences, shard by shard, each in the order of the indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    shards: Vec<Box<[Change]>>,
    pub counts: Counts,
}

/// How many of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub added: usize,
    pub removed: usize,
    pub redefined: usize,
    pub adjusted: usize,
    /// The file has them watched, or not watched any more; they may be redefined or adjusted as well.
    pub enabled: usize,
    pub disabled: usize,
    pub unchanged: usize,
}

impl Counts {
    /// By name, in the order in which they are told.
    pub const fn named(&self) -> [(&'static str, usize); 7] {
        let Self { added, removed, redefined, adjusted, enabled, disabled, unchanged } = *self;
        [
            ("added", added),
            ("removed", removed),
            ("redefined", redefined),
            ("adjusted", adjusted),
            ("enabled", enabled),
            ("disabled", disabled),
            ("unchanged", unchanged),
        ]
    }
}

impl fmt::Display for Counts {
    /// `3 added, 2 removed, 95 unchanged`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.named().into_iter().filter(|(_, count)| *count > 0);
        let Some((name, count)) = told.next() else { return f.write_str("no monitors") };
        write!(f, "{count} {name}")?;
        told.try_for_each(|(name, count)| write!(f, ", {count} {name}"))
    }
}

impl Changes {
    /// `new` was made with [`super::catalog::CatalogBuilder::finish_after`] of `old`.
    pub fn between(old: &Catalog, new: &Catalog) -> Self {
        let mut changes = Self::default();
        let mut compared = Compared { old, new, pairs: HashMap::with_hasher(FxBuildHasher) };
        for shard in 0..new.shards() {
            let (was, is) = (old.roster(shard), new.roster(shard));
            let mut found = Vec::new();
            for index in 0..is.index_end().max(was.index_end()) {
                let what = match (was.knows(index), is.knows(index)) {
                    (false, false) => continue,
                    (false, true) => What::Added,
                    (true, false) => What::Removed,
                    (true, true) => compared.what(MonitorId::new(shard, index)),
                };
                let stays = !matches!(what, What::Added | What::Removed);
                let switched = stays && was.is_enabled(index) != is.is_enabled(index);
                if switched && is.is_enabled(index) {
                    changes.counts.enabled += 1;
                } else if switched {
                    changes.counts.disabled += 1;
                }
                *match what {
                    What::Added => &mut changes.counts.added,
                    What::Removed => &mut changes.counts.removed,
                    What::Redefined => &mut changes.counts.redefined,
                    What::Adjusted => &mut changes.counts.adjusted,
                    What::Same if switched => {
                        found.push(Change { index, what, switched });
                        continue;
                    }
                    What::Same => {
                        changes.counts.unchanged += 1;
                        continue;
                    }
                } += 1;
                found.push(Change { index, what, switched });
            }
            changes.shards.push(found.into_boxed_slice());
        }
        changes
    }

    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|changes| changes.is_empty())
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|changes| changes.len()).sum()
    }

    /// Those of one shard, in the order of the indices.
    pub fn of_shard(&self, shard: u8) -> &[Change] {
        self.shards.get(usize::from(shard)).map_or(&[], |changes| changes)
    }

    pub fn iter(&self) -> impl Iterator<Item = (MonitorId, Change)> + '_ {
        let shards = (0_u8..).zip(&self.shards);
        shards.flat_map(|(shard, changes)| {
            changes.iter().map(move |&change| (MonitorId::new(shard, change.index), change))
        })
    }
}

/// Policies that were compared, by their numbers in the two catalogs.
struct Compared<'a> {
    old: &'a Catalog,
    new: &'a Catalog,
    pairs: HashMap<(u32, u32), What, FxBuildHasher>,
}

impl Compared<'_> {
    /// Of a monitor that is in both.
    fn what(&mut self, id: MonitorId) -> What {
        if self.old.target(id) != self.new.target(id) {
            return What::Redefined;
        }
        let of = |catalog: &Catalog| catalog.roster(id.shard()).policy_id(id.index());
        let (was, is) = (of(self.old), of(self.new));
        let (old, new) = (self.old, self.new);
        *self.pairs.entry((was.0, is.0)).or_insert_with(|| difference(old.policy_of(was), new.policy_of(is)))
    }
}

fn difference(old: &Arc<Policy>, new: &Arc<Policy>) -> What {
    if old == new {
        What::Same
    } else if old.check == new.check {
        What::Adjusted
    } else {
        What::Redefined
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Check, Host, Monitor, Target, TcpCheck};
    use crate::units::Span;
    use crate::world::catalog::CatalogBuilder;

    /// What a file says of a monitor: its port, its interval, whether it is watched.
    type Said = (u16, u64, bool);

    fn monitor(name: &str, &(port, seconds, enabled): &Said) -> Monitor {
        let interval = Span::from_secs(seconds);
        let policy = Policy::new(Check::Tcp(TcpCheck::default()), interval, Span::from_secs(1));
        let target = Target { host: Host::Literal([127, 0, 0, 1].into()), port, path: "".into() };
        Monitor { name: name.into(), enabled, target, policy }
    }

    fn builder<'a>(said: impl IntoIterator<Item = (&'a String, &'a Said)>) -> CatalogBuilder {
        let mut builder = CatalogBuilder::new(2);
        for (name, said) in said {
            builder.add(monitor(name, said)).expect("it fits");
        }
        builder
    }

    /// A small world of names, so that they come, go and come again.
    fn said() -> impl Strategy<Value = BTreeMap<String, Said>> {
        let name = (0..24_u32).prop_map(|n| format!("m{n:02}"));
        prop::collection::btree_map(name, (1..3_u16, 1..3_u64, any::<bool>()), 0..20)
    }

    proptest! {
        /// Over any sequence of files: names find their monitors, the listing is sorted, who stays keeps the index, an
        /// index changes hands only over a catalog in which it was nobody's, and the changes are what a comparison of
        /// the files finds.
        #[test]
        fn indices_stay_and_changes_are_those_of_the_files(files in prop::collection::vec(said(), 1..8)) {
            let mut last: Option<(Catalog, BTreeMap<String, Said>)> = None;
            for (round, file) in files.into_iter().enumerate() {
                let catalog = match &last {
                    None => builder(&file).finish(),
                    // The order in the file means nothing.
                    Some((old, _)) => builder(file.iter().rev()).finish_after(old),
                }.expect("it builds");
                prop_assert_eq!(catalog.generation(), round as u64);
                prop_assert_eq!(catalog.len(), file.len());
                let listed: Vec<&str> = catalog.ids_after(None).map(|id| catalog.name(id)).collect();
                prop_assert_eq!(&listed, &file.keys().map(String::as_str).collect::<Vec<_>>());
                let mut ids = BTreeSet::new();
                for (name, said) in &file {
                    let id = catalog.find(name).expect("it is there");
                    prop_assert!(catalog.knows(id) && ids.insert(id));
                    prop_assert_eq!((catalog.name(id), catalog.target(id).port), (name.as_str(), said.0));
                    prop_assert_eq!(catalog.policy(id).interval, Span::from_secs(said.1));
                    let after: Vec<&str> = catalog.ids_after(Some(name)).map(|id| catalog.name(id)).collect();
                    prop_assert!(after.iter().eq(file.range::<str, _>((
                        std::ops::Bound::Excluded(name.as_str()), std::ops::Bound::Unbounded)).map(|(name, _)| name)));
                }
                prop_assert_eq!(catalog.find("m99"), None);
                if let Some((old, was)) = &last {
                    for id in ids.iter().filter(|id| old.knows(**id)) {
                        prop_assert_eq!(old.name(*id), catalog.name(*id));
                    }
                    let changes = Changes::between(old, &catalog);
                    let mut expected = BTreeMap::new();
                    for name in was.keys().chain(file.keys()) {
                        let (what, switched) = match (was.get(name), file.get(name)) {
                            (Some(_), None) => (What::Removed, false),
                            (None, Some(_)) => (What::Added, false),
                            (Some(was), Some(is)) if was.0 != is.0 => (What::Redefined, was.2 != is.2),
                            (Some(was), Some(is)) if was.1 != is.1 => (What::Adjusted, was.2 != is.2),
                            (Some(was), Some(is)) => (What::Same, was.2 != is.2),
                            (None, None) => unreachable!("it is one of the two files'"),
                        };
                        if what != What::Same || switched {
                            expected.insert(name.as_str(), (what, switched));
                        }
                    }
                    let found: BTreeMap<&str, (What, bool)> = changes.iter().map(|(id, change)| {
                        let of = if change.what == What::Removed { old } else { &catalog };
                        (of.name(id), (change.what, change.switched))
                    }).collect();
                    prop_assert_eq!(changes.len(), expected.len());
                    prop_assert_eq!(&found, &expected);
                    let Counts { added, removed, unchanged, .. } = changes.counts;
                    prop_assert_eq!(was.len() - removed + added, file.len());
                    prop_assert_eq!(unchanged + expected.len() - removed, file.len());
                }
                last = Some((catalog, file));
            }
        }
    }

    #[test]
    fn counts_are_told_in_words() {
        let counts = Counts { added: 3, removed: 2, unchanged: 95, ..Counts::default() };
        assert_eq!(counts.to_string(), "3 added, 2 removed, 95 unchanged");
        assert_eq!(Counts::default().to_string(), "no monitors");
    }

    #[test]
    fn the_same_monitors_in_another_order_are_no_change() {
        let file: BTreeMap<String, Said> = (0..500).map(|n| (format!("s{n:03}"), (1, 5, true))).collect();
        let old = builder(&file).finish().expect("it builds");
        let new = builder(file.iter().rev()).finish_after(&old).expect("it builds");
        let changes = Changes::between(&old, &new);
        assert!(changes.is_empty());
        assert_eq!(changes.counts, Counts { unchanged: 500, ..Counts::default() });
        assert_eq!(new.heap_bytes(), old.heap_bytes(), "no order is kept where the names are in order");
    }
}
