//! Where a redirect leads, and whether it is followed there (RFC 9110 §15.4).
//!
//! A hop is one more request of the same attempt: its target stands in for the monitor's own. What may not happen:
//! - Nobody but the origin that the monitor names hears its credentials. Across origins (scheme, host, port) only
//!   fields that every browser sends to everyone go along, a body does not, and what was dropped stays dropped.
//! - From https it never goes back to http: whoever sits between could have written the rest of the answer.
//! - Link-local addresses are not for checks to be led to: the metadata services of clouds live there, and hand out
//!   credentials to whoever asks from this host. They are recognised in the address as written, and once its name has
//!   been resolved. (A proxy resolves names by itself: what it may reach is its own to decide.)
//! - Hops are counted, and one that was made before is a loop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::Url;

use super::super::Request;
use super::{check, wire};
use crate::domain::outcome::bounded_text;
use crate::domain::{Host, HostRef, Target, TargetRef};
use crate::units::limits::{HOST_MAX, PATH_MAX};

/// What a reason shows of one address.
const SHOWN: usize = 100;
/// A way of more steps than this is shown without its middle.
const CHAIN_SHOWN: usize = 5;

/// One step of the way, in the place of the monitor's own target.
#[derive(Clone, Debug)]
pub struct Hop {
    target: Target,
    secure: bool,
    /// The `Host` that the monitor overrides, where it still holds.
    host_field: Option<Box<str>>,
    method: Box<str>,
    carry: wire::Carry,
    /// What was asked so far, this one last: `GET http://a/b`.
    asked: Vec<Box<str>>,
}

impl Hop {
    pub fn target(&self) -> TargetRef<'_> {
        let host = match &self.target.host {
            Host::Literal(address) => HostRef::Literal(*address),
            Host::Name(name) => HostRef::Name(name),
        };
        TargetRef { host, port: self.target.port, path: &self.target.path }
    }

    /// Whether it speaks TLS.
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether it left the origin that the monitor names: its credentials, a client certificate among them, do not go
    /// along.
    pub const fn is_foreign(&self) -> bool {
        self.carry.foreign
    }

    pub(super) fn method(&self) -> &str {
        &self.method
    }

    pub(super) const fn carry(&self) -> wire::Carry {
        self.carry
    }

    pub(super) fn host_field(&self) -> Option<&str> {
        self.host_field.as_deref()
    }

    /// How many redirects led here.
    pub(super) fn count(&self) -> usize {
        self.asked.len() - 1
    }

    /// The address, for people: without its query, which may hold secrets.
    pub fn url(&self) -> Box<str> {
        self.asked.last().map_or_else(Box::default, |asked| shown(asked))
    }
}

/// Statuses that name another place to ask.
pub(super) const fn redirects(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// The hop that an answer with this status and location asks for.
///
/// # Errors
/// Why it is not made, in words.
pub(super) fn follow(request: &Request<'_>, status: u16, location: &str) -> Result<Hop, String> {
    let check = check(request);
    let here = address_of(request);
    let method = request.hop.map_or(&*check.method, |hop| &*hop.method);
    let mut asked = request.hop.map_or_else(|| vec![step(method, &here)], |hop| hop.asked.clone());
    let broken = |why: &dyn std::fmt::Display| format!("redirect to {}: {why}", shown_location(location));

    let there = match Url::parse(&here) {
        Ok(base) => base.join(location),
        // A host that works in DNS need not be one in an address.
        Err(_) => Url::parse(location),
    };
    let mut there = there.map_err(|error| broken(&error))?;
    let secure = match there.scheme() {
        "http" => false,
        "https" => true,
        other => return Err(broken(&format_args!("{other} is not followed, only http and https are"))),
    };
    there.set_fragment(None);
    // Credentials in a location are somebody else's. Setting them fails for addresses that can have none.
    let _ = (there.set_username(""), there.set_password(None));
    if is_secure(request) && !secure {
        return Err(broken(&"from https to http is not followed"));
    }
    let port = there.port_or_known_default().unwrap_or(0);
    if port == 0 {
        return Err(broken(&"port 0"));
    }
    let host = match there.host() {
        Some(url::Host::Ipv4(address)) => Host::Literal(address.into()),
        Some(url::Host::Ipv6(address)) => Host::Literal(address.into()),
        Some(url::Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            if name.is_empty() || name.len() > HOST_MAX {
                return Err(broken(&"no host"));
            }
            Host::Name(name.into())
        }
        None => return Err(broken(&"no host")),
    };
    let path = match there.query() {
        Some(query) => format!("{}?{query}", there.path()),
        None => there.path().to_owned(),
    };
    if path.len() > PATH_MAX {
        return Err(broken(&format_args!("longer than {PATH_MAX} bytes")));
    }
    let target = Target { host, port, path: path.into() };
    let (target, host_field) = at_home(request, target, secure);

    let own = origin(request.target, check.tls.is_some());
    let mut hop = Hop {
        target,
        secure,
        host_field,
        method: method.into(),
        carry: request.hop.map_or_else(wire::Carry::default, |hop| hop.carry),
        asked: Vec::new(),
    };
    if origin(hop.target(), secure) != own {
        hop.carry.foreign = true;
        hop.host_field = None;
    }
    if let HostRef::Literal(address) = hop.target().host
        && is_link_local(address)
    {
        return Err(broken(&guarded(address)));
    }
    if let HostRef::Name(name) = hop.target().host
        && METADATA_NAMES.contains(&name)
    {
        return Err(broken(&"the metadata service of a cloud is not asked"));
    }
    rewrite(&mut hop, status);
    if hop.carry.foreign && !hop.carry.bodiless && !check.body.is_empty() && !same_host(request.target, hop.target()) {
        return Err(broken(&"the request's body is not sent to another host"));
    }

    let next = step(&hop.method, there.as_str());
    if asked.contains(&next) {
        asked.push(next);
        return Err(format!("redirect loop: {}", chain(&asked)));
    }
    let made = asked.len();
    asked.push(next);
    if made > usize::from(check.redirects) {
        let s = if check.redirects == 1 { "" } else { "s" };
        return Err(format!("more than {} redirect{s}: {}", check.redirects, chain(&asked)));
    }
    hop.asked = asked;
    Ok(hop)
}

/// RFC 9110 §15.4: what 303 leads to is got, and so is, by custom, what a POST is led to by 301 and 302.
fn rewrite(hop: &mut Hop, status: u16) {
    let gets = status == 303 && &*hop.method != "HEAD" || matches!(status, 301 | 302) && &*hop.method == "POST";
    if gets {
        hop.method = "GET".into();
        hop.carry.bodiless = true;
    }
}

/// A server that is asked under an overridden `Host` redirects to itself by that name. Where the monitor says to find
/// it is where it is; the name need not even resolve.
fn at_home(request: &Request<'_>, target: Target, secure: bool) -> (Target, Option<Box<str>>) {
    let Some(field) = super::host_field(request) else { return (target, None) };
    let own = request.destination();
    let here = TargetRef { host: as_ref(&target.host), port: target.port, path: "" };
    if origin(here, secure) == origin(own, is_secure(request)) {
        return (target, Some(field.into()));
    }
    let (name, port) = match field.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port.parse().ok()),
        _ => (field, None),
    };
    let default = if is_secure(request) { 443 } else { 80 };
    let is_named = matches!(&target.host, Host::Name(there) if there.eq_ignore_ascii_case(name));
    if !is_named || secure != is_secure(request) || target.port != port.unwrap_or(default) {
        return (target, None);
    }
    let host = match own.host {
        HostRef::Literal(address) => Host::Literal(address),
        HostRef::Name(name) => Host::Name(name.into()),
    };
    (Target { host, port: own.port, path: target.path }, Some(field.into()))
}

fn as_ref(host: &Host) -> HostRef<'_> {
    match host {
        Host::Literal(address) => HostRef::Literal(*address),
        Host::Name(name) => HostRef::Name(name),
    }
}

fn origin(target: TargetRef<'_>, secure: bool) -> (bool, HostRef<'_>, u16) {
    (secure, target.host, target.port)
}

fn same_host(left: TargetRef<'_>, right: TargetRef<'_>) -> bool {
    left.host == right.host
}

/// Whether the request goes over TLS.
pub(super) fn is_secure(request: &Request<'_>) -> bool {
    request.hop.map_or_else(|| check(request).tls.is_some(), Hop::is_secure)
}

/// The address of a request, whole.
fn address_of(request: &Request<'_>) -> String {
    let scheme = if is_secure(request) { "https" } else { "http" };
    let TargetRef { host, port, path } = request.destination();
    match host {
        HostRef::Name(name) => format!("{scheme}://{name}:{port}{path}"),
        HostRef::Literal(IpAddr::V4(address)) => format!("{scheme}://{address}:{port}{path}"),
        HostRef::Literal(IpAddr::V6(address)) => format!("{scheme}://[{address}]:{port}{path}"),
    }
}

fn step(method: &str, url: &str) -> Box<str> {
    // As the url crate spells it, so that steps can be compared.
    match Url::parse(url) {
        Ok(url) => format!("{method} {url}").into(),
        Err(_) => format!("{method} {url}").into(),
    }
}

/// The way, as short as can be: an origin is named once, and of a long way the middle is left out.
fn chain(asked: &[Box<str>]) -> String {
    let mut before = String::new();
    let mut steps = Vec::new();
    for step in asked {
        let url = shown(step);
        let path = url.match_indices('/').nth(2).map_or(url.len(), |(at, _)| at);
        let (origin, path) = url.split_at(path);
        steps.push(if origin == before { path.to_owned() } else { url.clone().into_string() });
        before = origin.to_owned();
    }
    // The ends say most, and the evidence is bounded.
    if steps.len() > CHAIN_SHOWN {
        steps.splice(2..steps.len() - 2, ["…".to_owned()]);
    }
    steps.join(" -> ")
}

/// A step without its method and the text of its query.
fn shown(step: &str) -> Box<str> {
    shown_location(step.split_once(' ').map_or(step, |(_, url)| url))
}

/// A location as evidence shows it: queries hold tokens, and user names passwords.
pub(super) fn shown_location(location: &str) -> Box<str> {
    let (location, _) = location.split_once('#').unwrap_or((location, ""));
    let (before, query) = location.split_once('?').map_or((location, ""), |(before, _)| (before, "?…"));
    let before = match before.split_once("//") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}//{host}{path}")
        }
        None => before.to_owned(),
    };
    let mut shown = bounded_text(&before, SHOWN).into_string();
    shown.push_str(query);
    shown.into()
}

/// Names under which clouds serve metadata.
const METADATA_NAMES: [&str; 2] = ["instance-data.ec2.internal", "metadata.google.internal"];

/// Why an address is not asked.
pub fn guarded(address: IpAddr) -> String {
    format!("{address} is link-local, where clouds serve their metadata: not asked")
}

/// Whether redirects must not lead there: 169.254.0.0/16 in all its spellings, fe80::/10, and fd00:ec2::254.
pub fn is_link_local(address: IpAddr) -> bool {
    const EC2: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || address == EC2 || within(address).is_some_and(|v4| v4.is_link_local())
        }
    }
}

/// The IPv4 address that an IPv6 one leads to: mapped, compatible, or by way of NAT64 (RFC 6052) or 6to4.
fn within(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let join = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0 | 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => Some(join(g, h)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}
