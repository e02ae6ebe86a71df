//! Binding the API's address, with an error that says who has it and what to do.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use crate::units::limits::OWNER_SCAN_MAX;

/// The flag that moves the API elsewhere.
pub const FLAG: &str = "--api.listen";

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on {address}: {}; choose another address with {FLAG} HOST:PORT", owner_text(owner.as_ref()))]
    Taken { address: SocketAddr, owner: Option<Owner> },
    #[error("cannot listen on {address}: this host has no such address; choose another one with {FLAG} HOST:PORT")]
    NoSuchAddress { address: SocketAddr },
    #[error(
        "cannot listen on {address}: port {} is not allowed to this user; choose one above 1023 with {FLAG} HOST:PORT",
        address.port()
    )]
    Forbidden { address: SocketAddr },
    #[error("cannot listen on {address}: {source}; choose another address with {FLAG} HOST:PORT")]
    Other { address: SocketAddr, source: io::Error },
}

/// The process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub pid: u32,
    pub command: String,
}

fn owner_text(owner: Option<&Owner>) -> String {
    match owner {
        Some(owner) => format!("{owner} has the port"),
        None => "another process has the port (of another user: `ss -ltnp` as root names it)".to_owned(),
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

/// Listens.
///
/// # Errors
/// See [`BindError`].
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { address, owner: owner_of(address) },
        io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress { address },
        io::ErrorKind::PermissionDenied => BindError::Forbidden { address },
        _ => BindError::Other { address, source: error },
    })
}

/// Who listens on an address, where this user may know.
pub fn owner_of(address: SocketAddr) -> Option<Owner> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let inodes: Vec<String> = tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(listener)
        .filter(|(taken, _)| collides(*taken, address))
        .map(|(_, inode)| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let mut looked_at = 0;
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Processes of other users cannot be looked into.
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        for file in files.flatten() {
            looked_at += 1;
            if looked_at > OWNER_SCAN_MAX {
                return None;
            }
            let link = fs::read_link(file.path()).unwrap_or_default();
            if inodes.iter().any(|inode| link.as_os_str() == inode.as_str()) {
                return Some(Owner { pid, command: command_of(pid) });
            }
        }
    }
    None
}

/// A line of `/proc/net/tcp`: `sl local rem st tx:rx tr:when retrnsmt uid timeout inode`, where state 0A listens.
fn listener(line: &str) -> Option<(SocketAddr, &str)> {
    let mut fields = line.split_whitespace().skip(1);
    let local = fields.next()?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    let (ip, port) = local.split_once(':')?;
    (state == "0A").then_some((SocketAddr::new(hex_ip(ip)?, u16::from_str_radix(port, 16).ok()?), inode))
}

/// The kernel prints addresses as words in the host's byte order.
fn hex_ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (index, four) in octets.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(index * 8)?);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

fn collides(taken: SocketAddr, wanted: SocketAddr) -> bool {
    let (mine, theirs) = (wanted.ip().to_canonical(), taken.ip().to_canonical());
    taken.port() == wanted.port() && (mine == theirs || mine.is_unspecified() || theirs.is_unspecified())
}

fn command_of(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let line = if line.trim().is_empty() {
        fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_else(|_| "unknown".to_owned())
    } else {
        line
    };
    crate::domain::outcome::bounded_text(&line, 120).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_owner_and_the_flag() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(first) = TcpListener::bind(address) else { continue };
            let address = first.local_addr().expect("it is bound");
            let error = bind(address).expect_err("it is taken");
            let BindError::Taken { owner: Some(owner), .. } = &error else { panic!("{error}") };
            assert_eq!(owner.pid, std::process::id());
            let text = error.to_string();
            assert!(text.contains("--api.listen") && text.contains(&address.to_string()), "{text}");
            assert!(text.contains(&std::process::id().to_string()), "{text}");
        }
    }

    #[test]
    fn the_kernels_table_is_read_in_its_own_byte_order() {
        let line = "   0: 0100007F:2684 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1";
        let loopback = if cfg!(target_endian = "little") { "127.0.0.1:9860" } else { "1.0.0.127:9860" };
        assert_eq!(listener(line), Some((loopback.parse().expect("an address"), "4242")));
        assert_eq!(listener("  sl  local_address rem_address   st tx_queue rx_queue"), None);
        assert_eq!(listener(""), None);
    }

    #[test]
    fn an_address_of_nobody_says_so() {
        let error = bind("192.0.2.1:9860".parse().expect("an address")).expect_err("TEST-NET is not ours");
        assert!(error.to_string().contains("no such address"), "{error}");
    }
}
