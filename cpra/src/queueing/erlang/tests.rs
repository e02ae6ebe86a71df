use super::*;

/// The recursion as it stands in every textbook: B₀ = 1, Bₙ = a·Bₙ₋₁ / (n + a·Bₙ₋₁).
fn from_zero(offered: f64, servers: u32) -> f64 {
    (1..=servers).fold(1.0, |blocked, n| offered * blocked / (f64::from(n) + offered * blocked))
}

/// The definition, `(aᶜ/c!) / Σ aⁿ/n!`, summed in logarithms.
fn by_definition(offered: f64, servers: u32) -> f64 {
    let mut log = 0.0;
    let mut logs = vec![log];
    for n in 1..=servers {
        log += (offered / f64::from(n)).ln();
        logs.push(log);
    }
    let greatest = logs.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = logs.iter().map(|each| (each - greatest).exp()).sum();
    (log - greatest).exp() / sum
}

fn erlang(offered: f64, servers: u32) -> ErlangB {
    ErlangB::new(offered).grown_to(servers)
}

/// Published tables of Erlang B give the load for a blocking: ITU-D Study Group 2, *Teletraffic Engineering Handbook* (V. B.
/// Iversen, 2010), ch. 4, and the common tables of 1 %, 2 % and 5 %.
#[test]
fn blocking_is_that_of_the_published_tables() {
    for (servers, offered, blocked) in [
        (1, 0.0101, 0.01),
        (5, 1.36, 0.01),
        (10, 4.46, 0.01),
        (20, 12.03, 0.01),
        (50, 37.90, 0.01),
        (100, 84.06, 0.01),
        (10, 5.08, 0.02),
        (20, 13.18, 0.02),
        (10, 6.22, 0.05),
        (100, 95.24, 0.05),
    ] {
        let found = erlang(offered, servers).blocked();
        assert!((found / blocked - 1.0).abs() < 0.01, "{servers} servers, {offered} erlangs: {found}, not {blocked}");
    }
    // Exact fractions for two erlangs, by hand.
    for (servers, blocked) in [(1, 2.0 / 3.0), (2, 2.0 / 5.0), (3, 4.0 / 19.0), (4, 2.0 / 21.0), (5, 4.0 / 109.0)] {
        assert!((erlang(2.0, servers).blocked() - blocked).abs() < 1e-15, "{servers} servers");
    }
}

/// The published table of Erlang C in J. Dunlop, D. Girma and J. Irvine, *Digital Mobile Communications and the TETRA
/// System* (Wiley 1999), A.4, p. 424, gives the load for a share that waits, in hundredths of an erlang. Its example: eight channels and 5 %, then
/// ten and 1 %. The others are four digits of the formula, as many books print them, and the closed forms for one and two servers.
#[test]
fn waiting_is_that_of_the_published_tables() {
    for (servers, offered, waits) in [(8, 3.87, 0.05), (10, 4.08, 0.01)] {
        let found = |offered| erlang(offered, servers).waits();
        assert!(found(offered - 0.01) < waits && found(offered + 0.01) > waits, "{servers}: {}", found(offered));
    }
    for (servers, used, waits) in [
        (1, 0.5, 0.5),
        (2, 0.5, 0.3333),
        (2, 0.8, 0.7111),
        (5, 0.5, 0.1304),
        (5, 0.8, 0.5541),
        (10, 0.5, 0.0361),
        (10, 0.8, 0.4092),
        (10, 0.9, 0.6687),
    ] {
        let found = erlang(f64::from(servers) * used, servers).waits();
        assert!((found - waits).abs() < 0.000_06, "{servers} servers at {used}: {found}, not {waits}");
    }
    for used in [0.01, 0.3, 0.77, 0.999] {
        assert!((erlang(used, 1).waits() - used).abs() < 1e-12);
        assert!((erlang(2.0 * used, 2).waits() - 2.0 * used * used / (1.0 + used)).abs() < 1e-12);
    }
}

#[test]
fn the_shortened_recursion_is_exact() {
    for offered in [0.001, 0.5, 3.0, 99.0, 101.5, 120.0, 710.0, 1_234.5, 20_000.0, 300_000.0, 1_000_000.0] {
        let first = offered as u32 + 1;
        for more in [0, 1, 10, 3 * f64::sqrt(offered) as u32] {
            let (short, long) = (erlang(offered, first + more).blocked(), from_zero(offered, first + more));
            assert!((short / long - 1.0).abs() < 1e-9, "{offered} erlangs, {more} more: {short}, not {long}");
        }
    }
}

#[test]
fn the_recursion_is_the_definition() {
    for (offered, servers) in [(0.3, 1), (5.0, 9), (80.0, 84), (709.0, 720), (2_000.0, 2_050), (9_000.0, 9_001)] {
        let (found, exact) = (erlang(offered, servers).blocked(), by_definition(offered, servers));
        assert!((found / exact - 1.0).abs() < 1e-9, "{offered} on {servers}: {found}, not {exact}");
    }
}

#[test]
fn growing_in_steps_is_growing_at_once() {
    let steps = (0..50).fold(ErlangB::new(400.0), |erlang, step| erlang.grown_to(380 + step * 3));
    assert_eq!(steps, erlang(400.0, 380 + 49 * 3));
}

#[test]
fn extremes_are_answered() {
    // Far too many servers: nobody waits, and counting up to them takes no time.
    let idle = erlang(1e-9, u32::MAX);
    assert_eq!((idle.servers(), idle.waits()), (u32::MAX, 0.0));
    // Too few.
    assert_eq!(erlang(10.0, 10).waits(), 1.0);
    assert_eq!(erlang(10.0, 3).waits(), 1.0);
    assert_eq!(erlang(1e9, 3).waits(), 1.0);
    assert!(erlang(0.0, 1).waits() <= 0.0);
}
