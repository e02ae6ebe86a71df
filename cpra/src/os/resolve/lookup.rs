//! Where names are looked up: /etc/hosts, then the name servers, by hickory-resolver, which this file alone names.
//!
//! What is asked is decided here and not by hickory: one server after the other, each with its own patience, beginning
//! with the one that answered last; one family after the other, the other one only if the preferred has no address. So a
//! name that is well costs one question, and a server that is down costs its patience once.

use std::cell::Cell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, Resolver, TokioResolver};

use super::Settings;
use crate::ring::Family;
use crate::units::Span;
use crate::units::limits::{
    NAME_ADDRESSES_MAX, NAME_TTL_HOSTS, NAME_TTL_MAX, NAME_TTL_MIN, NAME_TTL_NEGATIVE_MAX, NAME_TTL_NEGATIVE_MIN,
    RESOLVE_CONCURRENT_MAX, RESOLVE_SERVERS_MAX,
};

/// What was found out about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// At least one address, each once.
    Found {
        addresses: Vec<IpAddr>,
        ttl: Span,
    },
    NotFound {
        ttl: Span,
    },
    Failed(Box<str>),
}

/// Everything that is read from files, as they were at one time.
pub(super) struct Source {
    hosts: Hosts,
    /// At least one, or why there is none.
    servers: Result<Vec<Server>, Box<str>>,
    /// The server that answered last.
    first: Cell<usize>,
    search: Vec<Name>,
    prefer: Family,
    files: Files,
}

struct Server {
    address: SocketAddr,
    resolver: TokioResolver,
}

/// By what a changed file is noticed: its time, size and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Files([Option<(i64, i64, u64, u64)>; 2]);

impl Files {
    fn of(settings: &Settings) -> Self {
        let look = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            Some((found.mtime(), found.mtime_nsec(), found.size(), found.ino()))
        };
        Self([look(&settings.resolv_conf), look(&settings.hosts)])
    }
}

impl Source {
    pub(super) fn load(settings: &Settings) -> Self {
        // Looked at before they are read: a change in between is noticed the next time.
        let files = Files::of(settings);
        let (configured, search) = servers(settings);
        let servers = configured.and_then(|addresses| {
            let wait = settings.timeout;
            addresses.into_iter().take(RESOLVE_SERVERS_MAX).map(|address| Server::new(address, wait)).collect()
        });
        if let Err(why) = &servers {
            tracing::warn!(%why, "no name can be looked up but those of the hosts file");
        }
        Self { hosts: hosts(&settings.hosts), servers, first: Cell::new(0), search, prefer: settings.prefer, files }
    }

    /// Whether a file has changed since.
    pub(super) fn is_outdated(&self, settings: &Settings) -> bool {
        Files::of(settings) != self.files
    }

    /// What needs no server: names of the hosts file, `localhost`, and what can be no name.
    pub(super) fn local(&self, name: &str) -> Option<Finding> {
        let Some(absolute) = absolute(name) else { return Some(Finding::NotFound { ttl: NAME_TTL_NEGATIVE_MAX }) };
        let of = |record| {
            let found = self.hosts.lookup_static_host(&Query::query(absolute.clone(), record));
            found.map(|found| addresses(found.answers().iter().map(|record| &record.data))).unwrap_or_default()
        };
        let in_hosts = self.in_order().into_iter().map(of).find(|found| !found.is_empty());
        let addresses = in_hosts.or_else(|| {
            // RFC 6761 §6.3: never asked for.
            absolute.is_localhost().then(|| match self.prefer {
                Family::V4 => vec![Ipv4Addr::LOCALHOST.into()],
                Family::V6 => vec![Ipv6Addr::LOCALHOST.into()],
            })
        })?;
        Some(Finding::Found { addresses, ttl: NAME_TTL_HOSTS })
    }

    /// Asks the servers. A name with a dot is looked up as it stands; one without is tried in the domains of the search
    /// list first.
    pub(super) async fn look_up(&self, name: &str) -> Finding {
        let servers = match &self.servers {
            Ok(servers) => servers,
            Err(why) => return Finding::Failed(why.clone()),
        };
        let Some(absolute) = absolute(name) else { return Finding::NotFound { ttl: NAME_TTL_NEGATIVE_MAX } };
        let mut candidates = Vec::new();
        if absolute.num_labels() == 1 {
            let mut relative = absolute.clone();
            relative.set_fqdn(false);
            candidates.extend(self.search.iter().filter_map(|domain| relative.clone().append_domain(domain).ok()));
        }
        candidates.push(absolute);
        let mut shortest = NAME_TTL_NEGATIVE_MAX;
        let mut failed = None;
        for candidate in candidates {
            match self.addresses_of(servers, &candidate).await {
                Finding::NotFound { ttl } => shortest = shortest.min(ttl),
                // Found further down the list is found, as in glibc; else nobody knows.
                failure @ Finding::Failed(_) => failed = failed.or(Some(failure)),
                found => return found,
            }
        }
        failed.unwrap_or(Finding::NotFound { ttl: shortest })
    }

    async fn addresses_of(&self, servers: &[Server], name: &Name) -> Finding {
        let mut shortest = NAME_TTL_NEGATIVE_MAX;
        for record in self.in_order() {
            match self.ask(servers, name, record).await {
                (Finding::NotFound { ttl }, exists) => {
                    shortest = shortest.min(ttl);
                    // Some servers deny a name that has A but no AAAA records (RFC 4074 §4.2); none does so for A.
                    if !exists && record == RecordType::A {
                        break;
                    }
                }
                (finding, _) => return finding,
            }
        }
        Finding::NotFound { ttl: shortest }
    }

    fn in_order(&self) -> [RecordType; 2] {
        match self.prefer {
            Family::V4 => [RecordType::A, RecordType::AAAA],
            Family::V6 => [RecordType::AAAA, RecordType::A],
        }
    }

    /// One question to one server after the other, until one answers it; and whether the name exists at all.
    async fn ask(&self, servers: &[Server], name: &Name, record: RecordType) -> (Finding, bool) {
        let first = self.first.get();
        let mut troubles: Vec<String> = Vec::new();
        for turn in 0..servers.len() {
            let position = (first + turn) % servers.len();
            let server = &servers[position];
            let trouble = match server.resolver.lookup(name.clone(), record).await {
                Ok(found) => {
                    self.first.set(position);
                    let answers = found.answers();
                    let addresses = addresses(answers.iter().map(|record| &record.data));
                    let ttl = answers.iter().map(|record| record.ttl).min().unwrap_or(0);
                    let ttl = Span::from_secs(ttl.into()).clamp(NAME_TTL_MIN, NAME_TTL_MAX);
                    let nothing = Finding::NotFound { ttl: ttl.min(NAME_TTL_NEGATIVE_MAX) };
                    return (if addresses.is_empty() { nothing } else { Finding::Found { addresses, ttl } }, true);
                }
                Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => {
                    self.first.set(position);
                    let ttl = nothing.negative_ttl.map_or(NAME_TTL_NEGATIVE_MIN, |ttl| Span::from_secs(ttl.into()));
                    let ttl = ttl.clamp(NAME_TTL_NEGATIVE_MIN, NAME_TTL_NEGATIVE_MAX);
                    return (Finding::NotFound { ttl }, nothing.response_code != ResponseCode::NXDomain);
                }
                Err(error) => error,
            };
            troubles.push(format!("{} {}", address_text(server.address), words(&trouble)));
        }
        (Finding::Failed(troubles.join("; ").into()), true)
    }
}

impl Server {
    fn new(address: SocketAddr, wait: Span) -> Result<Self, Box<str>> {
        let over = |mut connection: ConnectionConfig| {
            connection.port = address.port();
            connection
        };
        let connections = vec![over(ConnectionConfig::udp()), over(ConnectionConfig::tcp())];
        let server = NameServerConfig::new(address.ip(), true, connections);
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        let mut options = ResolverOpts::default();
        options.timeout = wait.into();
        // It asks again by itself when a datagram gets lost; a server that fails is followed by the next one.
        options.attempts = 0;
        // The memory is ours: it knows about stale answers.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = RESOLVE_CONCURRENT_MAX;
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(|error| format!("{}: {error}", address_text(address)))?;
        Ok(Self { address, resolver })
    }
}

/// The servers, or why there are none; and the search list.
fn servers(settings: &Settings) -> (Result<Vec<SocketAddr>, Box<str>>, Vec<Name>) {
    let path = settings.resolv_conf.display();
    let parsed = |more: &[u8]| {
        let text = fs::read(&settings.resolv_conf).map_err(|error| error.to_string())?;
        parse_resolv_conf([&text, more].concat()).map_err(|error| error.to_string())
    };
    if !settings.servers.is_empty() {
        // A file without a server is refused, and here its search list is all that counts.
        let search = parsed(b"\nnameserver 127.0.0.1\n").map(|(config, _)| config.search().to_vec());
        return (Ok(settings.servers.clone()), search.unwrap_or_default());
    }
    let parsed = parsed(b"");
    let search = parsed.as_ref().map(|(config, _)| config.search().to_vec()).unwrap_or_default();
    let servers = parsed.map(|(config, _)| config.name_servers().iter().map(|server| (server.ip, 53).into()).collect());
    (servers.map_err(|why| format!("{path}: {why}").into()), search)
}

fn hosts(path: &Path) -> Hosts {
    let mut hosts = Hosts::default();
    let read = fs::File::open(path).and_then(|file| hosts.read_hosts_conf(file));
    if let Err(error) = read {
        tracing::warn!(path = %path.display(), %error, "the hosts file cannot be read to its end");
    }
    hosts
}

/// `None` for what can be no name.
fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_utf8(name).or_else(|_| Name::from_ascii(name)).ok()?;
    name.set_fqdn(true);
    (name.num_labels() > 0).then_some(name)
}

/// Each once, in the order of the answer, and no more than [`NAME_ADDRESSES_MAX`].
fn addresses<'a>(data: impl Iterator<Item = &'a RData>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in data.filter_map(RData::ip_addr) {
        if addresses.len() == NAME_ADDRESSES_MAX {
            break;
        }
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn address_text(address: SocketAddr) -> String {
    if address.port() == 53 { address.ip().to_string() } else { address.to_string() }
}

/// What a server did wrong, as the rest of a sentence that begins with its address.
fn words(error: &NetError) -> String {
    match error {
        NetError::Timeout => "did not answer in time".into(),
        NetError::NoConnections => "cannot be reached".into(),
        NetError::Busy => "has too many questions to answer".into(),
        NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)) => "answered SERVFAIL".into(),
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => "answered REFUSED".into(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("answered: {code}"),
        NetError::Io(error) => format!("cannot be asked: {error}"),
        error => format!("answered nothing of use: {error}"),
    }
}
