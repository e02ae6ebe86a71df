//! Which network interfaces there are, and when that changes (rtnetlink(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::{InfoPortKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::units::Span;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    /// Of a bridge, a bond or a team: what comes for this host passes that one's hooks as well.
    pub(super) is_port: bool,
    /// Its packets begin with an Ethernet header; those of a tunnel do not.
    pub(super) is_framed: bool,
}

/// A link came, went or changed: `RTNLGRP_LINK`.
const GROUP_LINK: u32 = 1;

/// One dump's part, at most; the kernel cuts it to what it is given.
const PART: usize = 64 << 10;

pub(super) struct Interfaces {
    notices: Socket,
    questions: Socket,
}

/// Why [`Interfaces::wait`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    Changed,
    Stopped,
    Late,
}

impl Interfaces {
    pub(super) fn new() -> io::Result<Self> {
        let mut notices = Socket::new(NETLINK_ROUTE)?;
        notices.bind_auto()?;
        notices.add_membership(GROUP_LINK)?;
        notices.set_non_blocking(true)?;
        let mut questions = Socket::new(NETLINK_ROUTE)?;
        questions.bind_auto()?;
        questions.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { notices, questions })
    }

    /// All that there are now.
    pub(super) fn list(&mut self) -> io::Result<Vec<Interface>> {
        let mut question = NetlinkMessage::new(
            NetlinkHeader::default(),
            NetlinkPayload::from(RouteNetlinkMessage::GetLink(LinkMessage::default())),
        );
        question.header.flags = NLM_F_DUMP | NLM_F_REQUEST;
        question.finalize();
        let mut bytes = vec![0; question.buffer_len()];
        question.serialize(&mut bytes);
        self.questions.send(&bytes, 0)?;
        let mut found = Vec::new();
        loop {
            let mut part = Vec::with_capacity(PART);
            self.questions.recv(&mut part, 0)?;
            let mut rest = &part[..];
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|_| io::ErrorKind::InvalidData)?;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => found.extend(interface(&link)),
                    _ => {}
                }
                // Each begins at a multiple of four.
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(4)..).unwrap_or_default();
            }
        }
    }

    /// Waits until something has changed, `stop` is readable, or the time is over. What changed is to be seen by
    /// [`Self::list`]: also when so much did that notices were lost. It does not show that there is another interface by
    /// the same index: `gone` gets those that went.
    pub(super) fn wait(
        &mut self,
        stop: BorrowedFd<'_>,
        patience: Option<Span>,
        gone: &mut Vec<u32>,
    ) -> io::Result<Woken> {
        let timeout = patience.map_or(PollTimeout::NONE, |patience| {
            PollTimeout::try_from(patience.as_millis()).unwrap_or(PollTimeout::MAX)
        });
        // SAFETY: the socket is open as long as `self`.
        let notices = unsafe { BorrowedFd::borrow_raw(self.notices.as_raw_fd()) };
        let mut fds = [PollFd::new(notices, PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) => return Ok(Woken::Late),
            ready => ready?,
        };
        if fds[1].any() == Some(true) {
            return Ok(Woken::Stopped);
        }
        if fds[0].any() != Some(true) {
            return Ok(Woken::Late);
        }
        // An error says that some were lost.
        let mut buffer = Vec::with_capacity(PART);
        while self.notices.recv(&mut buffer, 0).is_ok() {
            gone.extend(went(&buffer));
            buffer.clear();
        }
        Ok(Woken::Changed)
    }
}

/// The index of the interface that a notice says to have gone. One of a bridge's, by the same name, says that it is no port
/// any more.
fn went(notice: &[u8]) -> Option<u32> {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(notice).ok()?.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))
            if link.header.interface_family == AddressFamily::Unspec =>
        {
            Some(link.header.index)
        }
        _ => None,
    }
}

fn interface(link: &LinkMessage) -> Option<Interface> {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    let is_port = link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().any(|info| {
            matches!(info, LinkInfo::PortKind(InfoPortKind::Bridge | InfoPortKind::Bond | InfoPortKind::Team))
        }),
        _ => false,
    });
    let is_framed = matches!(link.header.link_layer_type, LinkLayerType::Ether | LinkLayerType::Loopback);
    Some(Interface { index: link.header.index, name, is_port, is_framed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_there_and_no_port() {
        let mut interfaces = Interfaces::new().expect("everyone may ask");
        let found = interfaces.list().expect("the kernel answers");
        let loopback = found.iter().find(|interface| interface.name == "lo").expect("there is one");
        assert_eq!((loopback.index, loopback.is_port, loopback.is_framed), (1, false, true));
        assert_eq!(interfaces.list().expect("again"), found);
    }
}
