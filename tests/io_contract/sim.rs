//! The contract on the simulated ring: what the simulation proves of the shard holds only as far as this ring is like
//! the kernel's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use cpra::ring::{Errno, Family};
use cpra::sim::network::{self, Network, Target};
use cpra::sim::ring::{SimRing, Weather};

use crate::contract;
use crate::rig::{Behaviour, HTTP_RESPONSE, Rig, pattern};

struct SimRig {
    ring: SimRing,
    targets: u16,
}

impl SimRig {
    fn new(seed: u64) -> Self {
        Self { ring: SimRing::new(Network::new(), seed), targets: 0 }
    }
}

impl Rig for SimRig {
    type Ring = SimRing;

    fn ring(&mut self) -> &mut SimRing {
        &mut self.ring
    }

    fn target(&mut self, family: Family, behaviour: Behaviour) -> Result<SocketAddr, String> {
        self.targets += 1;
        let ip = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 0, 0, self.targets as u8)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, self.targets)),
        };
        let address = SocketAddr::new(ip, 80);
        let behaviour = match behaviour {
            Behaviour::Echo | Behaviour::SlowEcho => network::Behaviour::Echo,
            Behaviour::Greet(byte) => network::Behaviour::Banner(Vec::leak(vec![byte])),
            Behaviour::Sum => network::Behaviour::Sum,
            Behaviour::Flood(length) => network::Behaviour::BannerFin(Vec::leak((0..length).map(pattern).collect())),
            Behaviour::Stuck => network::Behaviour::Deaf,
            Behaviour::Fin => network::Behaviour::BannerFin(b""),
            Behaviour::Reset => network::Behaviour::Slams,
            Behaviour::ResetMidBody => network::Behaviour::Half(&HTTP_RESPONSE[..HTTP_RESPONSE.len() / 2]),
            Behaviour::Http => network::Behaviour::Replies(HTTP_RESPONSE),
            Behaviour::Refused => network::Behaviour::Refused,
            Behaviour::Blackhole => network::Behaviour::Blackhole,
        };
        self.ring.network().add([address], Target::always(behaviour));
        Ok(address)
    }

    fn starve(&mut self, on: bool) -> Result<(), String> {
        self.ring.set_weather(Weather { open: on.then_some(Errno::EMFILE), ..Weather::default() });
        Ok(())
    }
}

/// No case breaks the contract itself, but for the one that is about just that.
impl Drop for SimRig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let violations = self.ring.violations().iter();
            let breaches: Vec<&String> = violations.filter(|text| !text.contains("was not opened")).collect();
            assert!(breaches.is_empty(), "{breaches:?}");
        }
    }
}

contract!(SimRig::new(1));

#[test]
fn open_failing() {
    crate::cases::open_failing(SimRig::new(1));
}

/// The races come out differently with each seed.
#[test]
fn races_of_many_seeds() {
    for seed in 2..100 {
        crate::cases::disconnect_races_connect(SimRig::new(seed));
        crate::cases::disconnect_races_receive(SimRig::new(seed));
        crate::cases::reset(SimRig::new(seed));
        crate::cases::mixed_traffic(SimRig::new(seed));
    }
}
