//! What people want of programs in the kernel (`[ebpf]` of the daemon file).

pub use crate::config::daemon::{EbpfHook as Hook, EbpfMode as Mode};

/// Whether, where, and at which interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub mode: Mode,
    pub hook: Hook,
    pub interfaces: Interfaces,
}

/// The interfaces that people have named. Empty: all of them, but for those that are ports of a bridge or a bond, whose
/// packets pass the bridge or the bond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces(Vec<Box<str>>);

impl Interfaces {
    /// Names, in which a `*` at the end stands for any ending.
    pub fn named(names: impl IntoIterator<Item = Box<str>>) -> Self {
        Self(names.into_iter().collect())
    }

    /// Whether programs of ours belong to the interface `name`; `is_port` where it is one of a bridge or a bond.
    pub fn wants(&self, name: &str, is_port: bool) -> bool {
        let is_meant = |wanted: &str| match wanted.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == wanted,
        };
        // Who names a port wants the port.
        if self.0.is_empty() { !is_port } else { self.0.iter().any(|wanted| is_meant(wanted)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_meant_by_name_by_beginning_or_all() {
        let of = |names: &[&str]| Interfaces::named(names.iter().map(|name| Box::from(*name)));
        for (names, name, is_port, expected) in [
            (&[][..], "eth0", false, true),
            (&[], "eth0", true, false),
            (&["eth0"], "eth0", false, true),
            (&["eth0"], "eth0", true, true),
            (&["eth0"], "eth01", false, false),
            (&["lo", "veth*"], "veth12", false, true),
            (&["lo", "veth*"], "veth", false, true),
            (&["lo", "veth*"], "eth0", false, false),
            (&["*"], "br0", true, true),
        ] {
            assert_eq!(of(names).wants(name, is_port), expected, "{names:?} {name} {is_port}");
        }
    }
}
