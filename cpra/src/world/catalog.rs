//! What the files say, packed: names, targets and interned policies of all monitors.
//!
//! A catalog is built once per load and then shared, immutable, by the shards, the desk and the API (an `Arc` per
//! reload epoch), so that no reader needs a lock and no question about a name disturbs a shard.
//!
//! Each shard has a [`Roster`]: its monitors, by index. At the start they are *sorted by name*, so that an index is also a
//! position in the listing and a look-up is a binary search; no index structure is kept. A record in the byte arena is
//! `name length (1) · name · target kind (1) · host (4, 16 or 4: an interned name) · port (2) · path length (2) · path`.
//!
//! **An index is a monitor's for as long as the process knows its name.** A reload makes a new catalog beside the old one
//! ([`CatalogBuilder::finish_after`]): who stays keeps the index, who goes leaves a *hole*, who comes takes a hole of the
//! *old* catalog, or a new index. So an index is never one monitor's in the old catalog and another's in the new one, and
//! whoever still asks by an old index is told that nobody is there. The order of the names is then kept beside the records
//! (four bytes per monitor, after the first reload that adds or removes any).

use std::hash::{Hash as _, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::domain::monitor::CheckKind;
use crate::domain::{Host, HostRef, Monitor, Policy, Target, TargetRef};
use crate::units::{MonitorId, PolicyId, Span, limits};
use hashbrown::HashMap;
use rustc_hash::{FxBuildHasher, FxHasher};

/// Everything that was loaded.
#[derive(Debug, Default)]
pub struct Catalog {
    /// How many reloads there were before.
    generation: u64,
    policies: Vec<Arc<Policy>>,
    hosts: Vec<Box<str>>,
    rosters: Vec<Roster>,
}

/// The monitors of one shard.
#[derive(Debug, Default)]
pub struct Roster {
    /// By index; some may be holes.
    records: Vec<Record>,
    bytes: Vec<u8>,
    holes: usize,
    /// The indices in the order of the names; `None` where that is the order of the records.
    order: Option<Box<[u32]>>,
}

/// Eight bytes per monitor, beside its bytes in the arena.
#[derive(Clone, Copy, Debug)]
struct Record {
    offset: u32,
    /// The policy in the lower 31 bits, `enabled` in the upper one.
    policy: u32,
}

const _: () = assert!(size_of::<Record>() == 8);
const ENABLED: u32 = 1 << 31;

impl Record {
    /// An index that is nobody's. No record has such an offset: an arena ends below it.
    const HOLE: Self = Self { offset: u32::MAX, policy: 0 };

    const fn is_hole(self) -> bool {
        self.offset == u32::MAX
    }
}

/// Why monitors cannot be put together into one catalog.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CatalogError {
    #[error("monitor \"{name}\" is defined twice")]
    Duplicate { name: Box<str> },
    #[error("monitors \"{first}\" and \"{second}\" have the same push token: give each its own")]
    SharedToken { first: Box<str>, second: Box<str> },
    #[error("{count} monitors are more than {max} per shard: use more shards")]
    TooMany { count: usize, max: usize },
    #[error("names and targets of one shard are longer than 4 GiB in sum: use more shards")]
    TooLong,
}

impl Catalog {
    /// Packs `monitors` into `shards` rosters.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn build(monitors: impl IntoIterator<Item = Monitor>, shards: u8) -> Result<Self, CatalogError> {
        let mut builder = CatalogBuilder::new(shards);
        for monitor in monitors {
            builder.add(monitor)?;
        }
        builder.finish()
    }

    pub fn len(&self) -> usize {
        self.rosters.iter().map(Roster::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn enabled(&self) -> usize {
        self.rosters
            .iter()
            .map(|roster| roster.records.iter().filter(|record| record.policy & ENABLED != 0).count())
            .sum()
    }

    /// The ids of all monitors that are to be watched, roster by roster.
    pub fn enabled_ids(&self) -> impl Iterator<Item = MonitorId> + '_ {
        self.rosters.iter().enumerate().flat_map(|(shard, roster)| {
            let enabled = roster.indices().filter(|&index| roster.is_enabled(index));
            enabled.map(move |index| MonitorId::new(shard as u8, index))
        })
    }

    /// Checks a second that a shard's enabled monitors ask for, by kind. A job that calls in (`push`) takes no worker, and
    /// counts for nothing.
    pub fn check_rates(&self, shard: u8) -> [f64; CheckKind::ALL.len()] {
        let roster = self.roster(shard);
        let mut by_policy = vec![0_u64; self.policies.len()];
        for index in roster.indices().filter(|&index| roster.is_enabled(index)) {
            by_policy[roster.policy_id(index).0 as usize] += 1;
        }
        let mut rates = [0.0; CheckKind::ALL.len()];
        for (policy, monitors) in self.policies.iter().zip(by_policy) {
            rates[policy.check.kind() as usize] += monitors as f64 / policy.interval.as_secs_f64();
        }
        rates[CheckKind::Push as usize] = 0.0;
        rates
    }

    /// 0 for what was loaded at the start, one more with each reload.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the id is that of a monitor.
    pub fn knows(&self, id: MonitorId) -> bool {
        self.rosters.get(usize::from(id.shard())).is_some_and(|roster| roster.knows(id.index()))
    }

    /// How many different host names the targets have.
    pub fn host_names(&self) -> usize {
        self.hosts.len()
    }

    pub fn shards(&self) -> u8 {
        self.rosters.len() as u8
    }

    pub fn roster(&self, shard: u8) -> &Roster {
        &self.rosters[usize::from(shard)]
    }

    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    pub fn policy(&self, id: MonitorId) -> &Arc<Policy> {
        &self.policies[self.roster(id.shard()).policy_id(id.index()).0 as usize]
    }

    pub fn policy_of(&self, id: PolicyId) -> &Arc<Policy> {
        &self.policies[id.0 as usize]
    }

    pub fn name(&self, id: MonitorId) -> &str {
        self.roster(id.shard()).name(id.index())
    }

    pub fn target(&self, id: MonitorId) -> TargetRef<'_> {
        self.roster(id.shard()).target(id.index(), &self.hosts)
    }

    /// What a monitor checks, as a number: another one, and what was known of the monitor is known no more. It need not be
    /// the same in another version of this program.
    pub fn definition(&self, id: MonitorId) -> u64 {
        let mut hasher = FxHasher::default();
        let target = self.target(id);
        self.policy(id).check.hash(&mut hasher);
        (target.host, target.port, target.path).hash(&mut hasher);
        mixed(hasher.finish())
    }

    pub fn find(&self, name: &str) -> Option<MonitorId> {
        let shard = shard_of(name, self.shards())?;
        let roster = self.roster(shard);
        let position = roster.position(name).ok()?;
        Some(MonitorId::new(shard, roster.at(position)))
    }

    /// All ids in the order of their names, from the first name that is greater than `after`.
    pub fn ids_after<'a>(&'a self, after: Option<&str>) -> impl Iterator<Item = MonitorId> + use<'a> {
        let mut next: Vec<usize> = self
            .rosters
            .iter()
            .map(|roster| match after {
                None => 0,
                Some(name) => roster.position(name).map_or_else(|position| position, |position| position + 1),
            })
            .collect();
        std::iter::from_fn(move || {
            let shard = (0..self.rosters.len()).filter(|&shard| next[shard] < self.rosters[shard].len()).min_by_key(
                |&shard| {
                    let roster = &self.rosters[shard];
                    roster.name(roster.at(next[shard]))
                },
            )?;
            let index = self.rosters[shard].at(next[shard]);
            next[shard] += 1;
            Some(MonitorId::new(shard as u8, index))
        })
    }

    /// Bytes of heap that names, targets and records take.
    pub fn heap_bytes(&self) -> usize {
        self.rosters
            .iter()
            .map(|roster| {
                let order = roster.order.as_ref().map_or(0, |order| size_of_val::<[u32]>(order));
                roster.records.capacity() * size_of::<Record>() + roster.bytes.capacity() + order
            })
            .sum()
    }
}

impl Roster {
    /// How many monitors there are.
    pub fn len(&self) -> usize {
        self.records.len() - self.holes
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Greater than every index, holes included.
    pub fn index_end(&self) -> u32 {
        self.records.len() as u32
    }

    /// The indices of the monitors, ascending.
    pub fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.index_end()).filter(|&index| self.knows(index))
    }

    pub fn knows(&self, index: u32) -> bool {
        self.records.get(index as usize).is_some_and(|record| !record.is_hole())
    }

    pub fn policy_id(&self, index: u32) -> PolicyId {
        PolicyId(self.records[index as usize].policy & !ENABLED)
    }

    pub fn is_enabled(&self, index: u32) -> bool {
        self.records[index as usize].policy & ENABLED != 0
    }

    pub fn name(&self, index: u32) -> &str {
        name_at(&self.bytes, self.records[index as usize].offset)
    }

    /// Brings what stands about these monitors into the cache. They lie anywhere, and a processor waits for many places at
    /// once where it knows of them early; one by one, this wait is a good part of what a check costs us.
    pub fn read_ahead(&self, indices: impl Iterator<Item = u32>) {
        for index in indices {
            let offset = self.records.get(index as usize).map_or(u32::MAX, |record| record.offset);
            std::hint::black_box(self.bytes.get(offset as usize));
        }
    }

    fn target<'a>(&'a self, index: u32, hosts: &'a [Box<str>]) -> TargetRef<'a> {
        let offset = self.records[index as usize].offset as usize;
        let after_name = offset + 1 + usize::from(self.bytes[offset]);
        let (host, rest) = match self.bytes[after_name] {
            0 => {
                let octets: [u8; 4] = bytes_at(&self.bytes, after_name + 1);
                (HostRef::Literal(IpAddr::V4(Ipv4Addr::from(octets))), after_name + 5)
            }
            1 => {
                let octets: [u8; 16] = bytes_at(&self.bytes, after_name + 1);
                (HostRef::Literal(IpAddr::V6(Ipv6Addr::from(octets))), after_name + 17)
            }
            _ => {
                let host = u32::from_le_bytes(bytes_at(&self.bytes, after_name + 1));
                (HostRef::Name(&hosts[host as usize]), after_name + 5)
            }
        };
        let port = u16::from_le_bytes(bytes_at(&self.bytes, rest));
        let length = usize::from(u16::from_le_bytes(bytes_at(&self.bytes, rest + 2)));
        TargetRef { host, port, path: text(&self.bytes[rest + 4..rest + 4 + length]) }
    }

    /// Where a name stands in the order of the names, or would stand.
    fn position(&self, name: &str) -> Result<usize, usize> {
        match &self.order {
            None => self.records.binary_search_by(|record| name_at(&self.bytes, record.offset).cmp(name)),
            Some(order) => order.binary_search_by(|&index| self.name(index).cmp(name)),
        }
    }

    /// The index of the monitor at a place in the order of the names.
    fn at(&self, position: usize) -> u32 {
        self.order.as_ref().map_or(position as u32, |order| order[position])
    }

    /// Gives the records, which are sorted by name, their indices: those of the same names in `old`, where they were
    /// there.
    fn settle(&mut self, old: &Self) -> Result<(), CatalogError> {
        let mut sorted = std::mem::take(&mut self.records);
        let mut kept = vec![Record::HOLE; old.records.len()];
        let mut order = vec![u32::MAX; sorted.len()];
        let mut next = 0;
        for (record, place) in sorted.iter_mut().zip(&mut order) {
            let name = name_at(&self.bytes, record.offset);
            let was = |next: usize| (next < old.len()).then(|| old.name(old.at(next)).cmp(name));
            while was(next).is_some_and(std::cmp::Ordering::is_lt) {
                next += 1;
            }
            if was(next).is_some_and(std::cmp::Ordering::is_eq) {
                *place = old.at(next);
                kept[*place as usize] = *record;
                next += 1;
            }
        }
        let mut free = (0..old.index_end()).filter(|&index| old.records[index as usize].is_hole());
        for (record, place) in sorted.iter().zip(&mut order).filter(|(_, place)| **place == u32::MAX) {
            if let Some(index) = free.next() {
                *place = index;
                kept[index as usize] = *record;
            } else {
                *place = kept.len() as u32;
                kept.push(*record);
            }
        }
        if kept.len() > MonitorId::PER_SHARD_MAX {
            return Err(CatalogError::TooMany { count: kept.len(), max: MonitorId::PER_SHARD_MAX });
        }
        kept.shrink_to_fit();
        self.holes = kept.len() - order.len();
        let is_sorted =
            self.holes == 0 && order.iter().enumerate().all(|(position, &index)| position == index as usize);
        self.order = (!is_sorted).then(|| order.into_boxed_slice());
        self.records = kept;
        Ok(())
    }
}

fn name_at(bytes: &[u8], offset: u32) -> &str {
    let offset = offset as usize;
    text(&bytes[offset + 1..offset + 1 + usize::from(bytes[offset])])
}

fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[offset + index])
}

/// The arena holds only what came out of a `str`; the check costs a few nanoseconds and keeps this file safe.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the arena holds what was a str")
}

/// Which shard owns a name: by hash, so that neither the file's order nor other monitors matter.
pub fn shard_of(name: &str, shards: u8) -> Option<u8> {
    (shards > 0).then(|| (name_hash(name) >> 32) as u32 % u32::from(shards)).map(|shard| shard as u8)
}

/// A stable hash of a name: the same in every process and on every machine.
pub fn name_hash(name: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(name.as_bytes());
    mixed(hasher.finish())
}

/// Fx leaves the low bits weak: splitmix64's mixer.
const fn mixed(mut mixed: u64) -> u64 {
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A monitor's place within its interval: uniform over names, the same after every restart.
pub fn phase_of(name: &str, interval: Span) -> Span {
    interval.scaled(name_hash(name) >> 32, 1 << 32)
}

/// Packs monitors one at a time, so that a loader never has to hold them all unpacked.
#[derive(Debug)]
pub struct CatalogBuilder {
    policies: Vec<Arc<Policy>>,
    policy_ids: HashMap<Arc<Policy>, u32, FxBuildHasher>,
    hosts: Vec<Box<str>>,
    host_ids: HashMap<Box<str>, u32, FxBuildHasher>,
    rosters: Vec<Roster>,
}

impl CatalogBuilder {
    /// # Panics
    /// If `shards` is zero.
    pub fn new(shards: u8) -> Self {
        assert!(shards > 0, "at least one shard");
        Self {
            policies: Vec::new(),
            policy_ids: HashMap::with_hasher(FxBuildHasher),
            hosts: Vec::new(),
            host_ids: HashMap::with_hasher(FxBuildHasher),
            rosters: (0..shards).map(|_| Roster::default()).collect(),
        }
    }

    /// # Errors
    /// [`CatalogError::TooMany`] or [`CatalogError::TooLong`].
    ///
    /// # Panics
    /// If a name is empty or longer than 255 bytes, or a path than 65,535: the configuration refuses those first.
    pub fn add(&mut self, monitor: Monitor) -> Result<(), CatalogError> {
        let Monitor { name, enabled, target, policy } = monitor;
        let policy = self.intern_policy(policy);
        let host = match &target.host {
            Host::Literal(_) => 0,
            Host::Name(name) => self.intern_host(name),
        };
        let shards = self.rosters.len() as u8;
        let shard = shard_of(&name, shards).expect("there is at least one shard");
        let roster = &mut self.rosters[usize::from(shard)];
        if roster.len() >= MonitorId::PER_SHARD_MAX {
            return Err(CatalogError::TooMany { count: roster.len() + 1, max: MonitorId::PER_SHARD_MAX });
        }
        let offset = u32::try_from(roster.bytes.len()).ok().filter(|offset| *offset != u32::MAX);
        let offset = offset.ok_or(CatalogError::TooLong)?;
        assert!(!name.is_empty() && name.len() <= limits::MONITOR_NAME_MAX, "names are 1 to 255 bytes");
        let path_length = u16::try_from(target.path.len()).expect("paths are bounded by the configuration");
        let bytes = &mut roster.bytes;
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        push_host(bytes, &target, host);
        bytes.extend_from_slice(&target.port.to_le_bytes());
        bytes.extend_from_slice(&path_length.to_le_bytes());
        bytes.extend_from_slice(target.path.as_bytes());
        roster.records.push(Record { offset, policy: policy | if enabled { ENABLED } else { 0 } });
        Ok(())
    }

    /// The first catalog of a process.
    ///
    /// # Errors
    /// [`CatalogError::Duplicate`] or [`CatalogError::SharedToken`].
    pub fn finish(self) -> Result<Catalog, CatalogError> {
        self.sorted()
    }

    /// What follows `old`, with as many shards: every name that is in both keeps its index.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn finish_after(self, old: &Catalog) -> Result<Catalog, CatalogError> {
        debug_assert_eq!(self.rosters.len(), old.rosters.len(), "the shards of a process stay");
        let mut catalog = self.sorted()?;
        for (roster, old) in catalog.rosters.iter_mut().zip(&old.rosters) {
            roster.settle(old)?;
        }
        catalog.generation = old.generation + 1;
        Ok(catalog)
    }

    fn sorted(mut self) -> Result<Catalog, CatalogError> {
        for roster in &mut self.rosters {
            let bytes = &roster.bytes;
            roster.records.sort_unstable_by(|a, b| name_at(bytes, a.offset).cmp(name_at(bytes, b.offset)));
            let twins =
                roster.records.windows(2).find(|pair| name_at(bytes, pair[0].offset) == name_at(bytes, pair[1].offset));
            if let Some(pair) = twins {
                return Err(CatalogError::Duplicate { name: name_at(bytes, pair[0].offset).into() });
            }
            roster.records.shrink_to_fit();
            roster.bytes.shrink_to_fit();
        }
        let catalog = Catalog { generation: 0, policies: self.policies, hosts: self.hosts, rosters: self.rosters };
        let mut jobs: Vec<MonitorId> = catalog.push_ids().collect();
        let key = |id: &MonitorId| (catalog.target(*id).path, catalog.name(*id));
        jobs.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        if let Some(pair) = jobs.windows(2).find(|pair| catalog.target(pair[0]).path == catalog.target(pair[1]).path) {
            let [first, second] = [pair[0], pair[1]].map(|id| catalog.name(id).into());
            return Err(CatalogError::SharedToken { first, second });
        }
        Ok(catalog)
    }

    fn intern_policy(&mut self, policy: Policy) -> u32 {
        if let Some(&id) = self.policy_ids.get(&policy) {
            return id;
        }
        let policy = Arc::new(policy);
        let id = self.policies.len() as u32;
        self.policies.push(policy.clone());
        self.policy_ids.insert(policy, id);
        id
    }

    fn intern_host(&mut self, name: &str) -> u32 {
        if let Some(&id) = self.host_ids.get(name) {
            return id;
        }
        let id = self.hosts.len() as u32;
        self.hosts.push(name.into());
        self.host_ids.insert(name.into(), id);
        id
    }
}

fn push_host(bytes: &mut Vec<u8>, target: &Target, interned: u32) {
    match &target.host {
        Host::Literal(IpAddr::V4(address)) => {
            bytes.push(0);
            bytes.extend_from_slice(&address.octets());
        }
        Host::Literal(IpAddr::V6(address)) => {
            bytes.push(1);
            bytes.extend_from_slice(&address.octets());
        }
        Host::Name(_) => {
            bytes.push(2);
            bytes.extend_from_slice(&interned.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::domain::monitor::PushCheck;
    use crate::domain::{Check, HttpCheck, TcpCheck};

    fn monitor(name: &str, target: Target) -> Monitor {
        let policy = Policy::new(Check::Tcp(TcpCheck::default()), Span::from_secs(1), Span::from_secs(1));
        Monitor { name: name.into(), enabled: true, target, policy }
    }

    fn literal(text: &str, port: u16, path: &str) -> Target {
        Target { host: Host::Literal(text.parse().expect("an address")), port, path: path.into() }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let named = Target { host: Host::Name("db.internal".into()), port: 5432, path: "".into() };
        let catalog = Catalog::build(
            [
                monitor("b", literal("10.0.0.1", 80, "/health?x=1")),
                monitor("a", literal("2001:db8::1", 443, "")),
                monitor("ü/☃", named),
            ],
            3,
        )
        .expect("it builds");
        assert_eq!(catalog.policies().len(), 1, "equal policies are kept once");
        let target = |name: &str| catalog.target(catalog.find(name).expect("it is there"));
        assert_eq!(
            target("b"),
            TargetRef {
                host: HostRef::Literal("10.0.0.1".parse().expect("an address")),
                port: 80,
                path: "/health?x=1"
            }
        );
        assert_eq!(target("a").host, HostRef::Literal("2001:db8::1".parse().expect("an address")));
        assert_eq!(target("ü/☃"), TargetRef { host: HostRef::Name("db.internal"), port: 5432, path: "" });
        assert_eq!(catalog.find("c"), None);
        let names: Vec<_> = catalog.ids_after(None).map(|id| catalog.name(id)).collect();
        assert_eq!(names, ["a", "b", "ü/☃"]);
        let names: Vec<_> = catalog.ids_after(Some("a")).map(|id| catalog.name(id)).collect();
        assert_eq!(names, ["b", "ü/☃"]);
        let names: Vec<_> = catalog.ids_after(Some("aa")).map(|id| catalog.name(id)).collect();
        assert_eq!(names, ["b", "ü/☃"]);
    }

    #[test]
    fn rates_are_those_of_enabled_monitors_by_type() {
        let of = |name: &str, check, seconds, enabled| {
            let policy = Policy::new(check, Span::from_secs(seconds), Span::from_secs(1));
            Monitor { name: name.into(), enabled, target: literal("10.0.0.1", 1, name), policy }
        };
        let tcp = || Check::Tcp(TcpCheck::default());
        let monitors = [
            of("a", tcp(), 2, true),
            of("b", tcp(), 4, true),
            of("c", tcp(), 1, false),
            of("d", Check::Http(HttpCheck::default()), 10, true),
            of("e", Check::Push(PushCheck { grace: Span::from_secs(1) }), 1, true),
        ];
        let catalog = Catalog::build(monitors, 3).expect("it builds");
        let mut sum = [0.0; CheckKind::ALL.len()];
        for shard in 0..3 {
            for (sum, rate) in sum.iter_mut().zip(catalog.check_rates(shard)) {
                *sum += rate;
            }
        }
        let mut expected = [0.0; CheckKind::ALL.len()];
        expected[CheckKind::Tcp as usize] = 0.75;
        expected[CheckKind::Http as usize] = 0.1;
        assert_eq!(sum, expected);
    }

    #[test]
    fn two_of_one_name_are_refused() {
        let twice = [monitor("x", literal("10.0.0.1", 1, "")), monitor("x", literal("10.0.0.2", 1, ""))];
        assert_eq!(Catalog::build(twice, 1).unwrap_err(), CatalogError::Duplicate { name: "x".into() });
    }

    #[test]
    fn phases_are_spread_evenly_and_do_not_depend_on_order() {
        let interval = Span::from_secs(10);
        let mut counts = [0_u32; 10];
        for number in 0..10_000 {
            let phase = phase_of(&format!("service-{number:06}"), interval);
            counts[phase.as_secs() as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
