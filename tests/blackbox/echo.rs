//! Echo requests, and the faults of our own host: in a network of the test's own.

use super::counterparts::net::{Net, ip, isolated, nft};
use super::{Ground, Row};

#[test]
fn echoes() {
    isolated("blackbox_echoes", || {
        let net = Net::new()?;
        net.router.within(|| {
            nft("table inet t {
                   chain forward {
                     type filter hook forward priority 0; policy accept;
                     ip daddr 10.78.0.2 drop
                     ip6 daddr fd78::2 drop
                   }
                 }")
        })?;
        ip("route add unreachable 10.66.0.0/16")?;
        let row = |name, target: &str, protocol: &str| {
            let module = format!("prober: icmp, icmp: {{preferred_ip_protocol: {protocol}}}");
            Row::new(name, target, module, format!("type: icmp, config: {{host: \"{target}\"}}"))
        };
        Ground::new().compare(&[
            row("v4", "10.78.0.1", "ip4"),
            row("v6", "fd78::1", "ip6"),
            row("v4-silent", "10.78.0.2", "ip4").soon().down("L3TOUT", "i/o timeout"),
            row("v6-silent", "fd78::2", "ip6").soon().down("L3TOUT", "i/o timeout"),
            row("v4-gone", "10.78.0.99", "ip4").soon_for_the_exporter().down("L3CON", "timeout"),
            row("no-route", "10.66.0.1", "ip4").differs(
                ("void", "VOID:ENETUNREACH"),
                Err("no route to host"),
                "Our own fault",
            ),
            Row::new("tcp-no-route", "10.66.0.1:80", "prober: tcp", "type: tcp, config: {host: 10.66.0.1, port: 80}")
                .differs(("void", "VOID:ENETUNREACH"), Err("no route to host"), "Our own fault"),
            // Nobody needs a name server to know this one.
            Row::http("no-such-name", "http://nothing.invalid/", "", "")
                .soon_for_the_exporter()
                .down("L4DNS", "nothing.invalid"),
            Row::http("no-resolver", "http://nothing.example/", "", "").soon_for_the_exporter().differs(
                ("void", "VOID:RESOLVER"),
                Err("nothing.example"),
                "Our own fault",
            ),
        ]);
        Ok(())
    });
}
