//! Each way in which a provider can fail, and what ours makes of it.

use std::sync::Arc;
use std::time::Duration;

use cpra::desk::protocol::DeliveryResult::{self, Failed, Refused, Sent, Unsure};
use cpra::domain::notice::{EpisodeId, Incident};
use cpra::domain::{Notice, Raise};
use cpra::units::Span;

use super::counterparts::authority::{Authority, Signer, Wish};
use super::counterparts::provider::{Mode, Provider};
use super::lane::{INSTANCE, Lane, later, red};
use super::web::Who;

/// A fresh fake and lane, a red, and what its attempts came to.
fn attempts(who: Who, modes: impl IntoIterator<Item = Mode>) -> (Provider, Vec<DeliveryResult>) {
    let fake = Provider::start();
    fake.next(modes);
    let results = Lane::start().deliver_until_done(&red(&who.told(&fake)));
    fake.assert_rules_kept();
    (fake, results)
}

/// What no answer means.
const fn lost(who: Who) -> DeliveryResult {
    if who.knows_again() { Failed } else { Unsure }
}

#[test]
fn a_trigger_and_its_resolve_are_taken() {
    for who in Who::ALL {
        let fake = Provider::start();
        let mut lane = Lane::start();
        let first = red(&who.told(&fake));
        for notice in [&first, &later(&first, Raise::Resolve, 0)] {
            let delivered = lane.deliver(notice);
            assert_eq!(delivered.result, Sent, "{who:?}: {}", delivered.said);
        }
        assert_eq!(fake.taken().len(), 2, "{who:?}");
        fake.assert_rules_kept();
        assert!(fake.vendors(|vendors| vendors.open()).is_empty());
    }
}

#[test]
fn what_was_throttled_comes_again_when_it_may() {
    for who in Who::ALL {
        for (header, after) in [(Some("7"), Some(Span::from_secs(7))), (None, Some(Span::ZERO))] {
            let fake = Provider::start();
            fake.next([Mode::Throttled(header)]);
            let mut lane = Lane::start();
            let notice = red(&who.told(&fake));
            let delivered = lane.deliver(&notice);
            assert_eq!((delivered.result, delivered.after), (Failed, after), "{who:?}: {}", delivered.said);
            assert!(delivered.said.contains("429"), "{who:?}: {}", delivered.said);
            assert!(fake.taken().is_empty());
            assert_eq!(lane.deliver(&notice).result, Sent, "{who:?}");
            assert_eq!(fake.taken().len(), 1);
            fake.assert_rules_kept();
        }
    }
}

#[test]
fn errors_of_the_server_come_again() {
    for who in Who::ALL {
        let (fake, results) = attempts(who, [Mode::Status(503), Mode::Status(503)]);
        assert_eq!((results, fake.taken().len()), (vec![Failed, Failed, Sent], 1), "{who:?}");
        // Twilio may have processed what it says 500 to.
        let again = if who == Who::Sms { Unsure } else { Failed };
        let (_, results) = attempts(who, [Mode::Status(500)]);
        assert_eq!(results, [again, Sent], "{who:?}");
    }
}

#[test]
fn what_would_be_wrong_again_does_not_come_again() {
    for (who, status) in
        [(Who::Slack, 404), (Who::Slack, 410), (Who::Webhook, 410), (Who::PagerDuty, 400), (Who::Sms, 403)]
    {
        let (fake, results) = attempts(who, [Mode::Status(status)]);
        assert_eq!(results, [Refused], "{who:?} {status}");
        assert!(fake.taken().is_empty());
    }
}

#[test]
fn a_lost_answer_brings_the_same_again_under_its_key() {
    for who in Who::ALL {
        let (fake, results) = attempts(who, [Mode::Dropped]);
        assert_eq!(results, [lost(who), Sent], "{who:?}");
        let taken = fake.taken();
        assert_eq!(taken.len(), 2, "{who:?}: it had been processed");
        match who {
            Who::Webhook => {
                assert_eq!(taken[0].header("webhook-id"), taken[1].header("webhook-id"));
                assert_eq!(taken[0].body, taken[1].body);
            }
            Who::PagerDuty => assert_eq!(taken[0].body, taken[1].body),
            Who::Alertmanager => assert_eq!(taken[0].json()[0]["labels"], taken[1].json()[0]["labels"]),
            Who::Slack | Who::Sms => {}
        }
    }
}

#[test]
fn an_answer_that_ends_in_its_middle_counts_for_what_it_says() {
    for who in Who::ALL {
        let (fake, results) = attempts(who, [Mode::Reset]);
        // Slack's word is in the part that never came.
        let expected = if who == Who::Slack { vec![Unsure, Sent] } else { vec![Sent] };
        let known = results == expected || results == [lost(who), Sent];
        assert!(known, "{who:?}: {results:?}");
        assert_eq!(fake.taken().len(), results.len(), "{who:?}");
    }
}

#[test]
fn nobody_waits_longer_than_the_timeout() {
    for who in Who::ALL {
        let fake = Provider::start();
        fake.next([Mode::Slow(Duration::from_secs(60))]);
        let mut to = who.at(&fake, None);
        to.transport.timeout = Span::from_millis(400);
        let mut lane = Lane::start();
        let notice = red(&Arc::new(to));
        assert_eq!(lane.deliver(&notice).result, lost(who), "{who:?}");
        // A busy machine may take as long for a good answer.
        assert!(lane.deliver_until_done(&notice).ends_with(&[Sent]), "{who:?}");
        fake.assert_rules_kept();
    }
}

#[test]
fn somebody_else_s_word_is_no_success() {
    for who in [Who::PagerDuty, Who::Slack, Who::Sms, Who::Alertmanager] {
        let (fake, results) = attempts(who, [Mode::WrongBody]);
        assert_eq!((results, fake.taken().len()), (vec![Failed, Sent], 1), "{who:?}");
    }
}

#[test]
fn tls_is_spoken_with_whom_can_be_trusted_alone() {
    let Some(authority) = Authority::start() else { return };
    let root = authority.root();
    let names = Wish::of("DNS:alerts.example,IP:127.0.0.1");
    let good = authority.issue("good", names);
    let own = authority.issue("own", Wish { by: Signer::Itself, ..names });
    let other = authority.issue("other", Wish { names: "DNS:other.example", ..names });
    for who in Who::ALL {
        let fake = Provider::start_tls(&good);
        let delivered = Lane::start().deliver(&red(&Arc::new(who.at(&fake, Some(&root)))));
        assert_eq!(delivered.result, Sent, "{who:?}: {}", delivered.said);
        fake.assert_rules_kept();
        for (issued, ca_file) in [(&good, None), (&own, Some(&*root)), (&other, Some(&*root))] {
            let fake = Provider::start_tls(issued);
            let delivered = Lane::start().deliver(&red(&Arc::new(who.at(&fake, ca_file))));
            assert_eq!(delivered.result, Failed, "{who:?}: {}", delivered.said);
            assert!(fake.requests().is_empty(), "{who:?}");
        }
    }
}

#[test]
fn texts_of_any_length_keep_the_bounds() {
    for who in Who::ALL {
        let fake = Provider::start();
        let mut lane = Lane::start();
        let name = "n".repeat(255);
        let mut notice: Notice = red(&who.told(&fake));
        notice.incident = Incident::new(INSTANCE, &name, EpisodeId(notice.key.episode.0));
        notice.monitor_name = name.into();
        notice.summary = "\u{fc}<&>\"\\\u{1f6d2}\r\n ".repeat(8_000).into();
        for notice in [&notice, &later(&notice, Raise::Resolve, 0)] {
            let delivered = lane.deliver(notice);
            assert_eq!(delivered.result, Sent, "{who:?}: {}", delivered.said);
        }
        fake.assert_rules_kept();
    }
}

#[test]
fn no_secret_is_in_what_is_said_of_a_failure() {
    let fake = Provider::start();
    let destinations = Who::ALL.map(|who| who.told(&fake));
    let secrets = fake.vendors(|vendors| {
        [vendors.auth_token.clone(), "abcdefghijklmnopqrstuvwx".into(), super::web::ROUTING_KEY.into()]
    });
    drop(fake);
    let mut lane = Lane::start();
    for destination in destinations {
        let delivered = lane.deliver(&red(&destination));
        assert_eq!(delivered.result, Failed, "{}: {}", destination.name, delivered.said);
        let leaks = secrets.iter().any(|secret| delivered.said.contains(&**secret));
        assert!(!leaks && !delivered.said.is_empty(), "{}: {}", destination.name, delivered.said);
    }
}
