use super::*;

fn answers(resolver: &mut Resolver, count: usize) -> Vec<(Box<str>, Resolution)> {
    let deadline = Clock.now() + Span::from_secs(30);
    let mut answers = vec![];
    while answers.len() < count {
        assert!(Clock.now() < deadline, "{answers:?}");
        resolver.answers.drain_into(&mut answers, count);
        thread::sleep(std::time::Duration::from_millis(1));
    }
    answers
}

#[test]
fn knows_this_host_and_numbers_and_what_cannot_exist() {
    let (mut resolvers, thread) = spawn(8, vec![Bell::mute()]).unwrap();
    for name in ["localhost", "192.0.2.7", "2001:db8::7", "nul\0byte", "two words.invalid"] {
        resolvers[0].requests.send(name.into()).unwrap();
    }
    for (name, resolution) in answers(&mut resolvers[0], 5) {
        let one = |address: &str| Resolution::Found { addresses: vec![address.parse().unwrap()], ttl: TTL };
        match &*name {
            "localhost" => {
                let Resolution::Found { addresses, .. } = resolution else { panic!("{resolution:?}") };
                assert!(addresses.iter().all(IpAddr::is_loopback) && !addresses.is_empty());
                assert!(addresses.is_sorted_by_key(IpAddr::is_ipv6));
            }
            "192.0.2.7" | "2001:db8::7" => assert_eq!(resolution, one(&name)),
            "nul\0byte" => assert_eq!(resolution, Resolution::NotFound),
            // Without a network nobody knows; with one it does not exist. It is never found.
            _ => assert!(!matches!(resolution, Resolution::Found { .. }), "{resolution:?}"),
        }
    }
    drop(resolvers);
    thread.join().unwrap();
}

#[test]
fn a_hanging_lookup_is_answered_in_time_and_others_go_on() {
    fn look_up(name: &str) -> Resolution {
        if name.starts_with("hangs") {
            thread::sleep(std::time::Duration::from_millis(2_000));
        }
        found(vec![[192, 0, 2, 1].into()])
    }
    let patience = Span::from_millis(1_000);
    let (mut resolvers, thread) = spawn_with(64, vec![Bell::mute(), Bell::mute()], patience, look_up).unwrap();
    for name in ["hangs-1", "hangs-2", "hangs-3"] {
        resolvers[0].requests.send(name.into()).unwrap();
    }
    for n in 0..50 {
        resolvers[1].requests.send(format!("fine-{n}").into()).unwrap();
    }
    let begin = Clock.now();
    assert!(answers(&mut resolvers[1], 50).iter().all(|(_, answer)| matches!(answer, Resolution::Found { .. })));
    assert!(Clock.now().since(begin) < patience, "one lookup is left, and it is enough");
    let late = answers(&mut resolvers[0], 3);
    assert!(late.iter().all(|(_, answer)| matches!(answer, Resolution::Failed(_))), "{late:?}");
    assert!(Clock.now().since(begin) < Span::from_millis(1_800));

    // All lookups hang: what waits for one has its time all the same, and nothing is answered twice.
    for n in 0..10 {
        resolvers[0].requests.send(format!("hangs-{n}").into()).unwrap();
    }
    let begin = Clock.now();
    assert_eq!(answers(&mut resolvers[0], 10).len(), 10);
    assert!(Clock.now().since(begin) < Span::from_millis(1_800));
    thread::sleep(std::time::Duration::from_millis(2_500));
    assert!(resolvers[0].answers.is_empty());
    resolvers[0].requests.send("fine".into()).unwrap();
    assert!(matches!(answers(&mut resolvers[0], 1)[0].1, Resolution::Found { .. }));
    drop(resolvers);
    thread.join().unwrap();
}

#[test]
fn addresses_come_once_and_ipv4_first() {
    let addresses = ["2001:db8::1", "192.0.2.2", "2001:db8::1", "192.0.2.1"].map(|text| text.parse().unwrap());
    let Resolution::Found { addresses, .. } = found(addresses.to_vec()) else { unreachable!() };
    let wanted: Vec<IpAddr> = ["192.0.2.2", "192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap()).to_vec();
    assert_eq!(addresses, wanted);
}
