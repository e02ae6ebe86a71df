use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::super::line::tests::notice;
use super::super::{LogDirs, Outlet, Stderr, Surroundings};
use super::*;
use crate::domain::destination::{Slack, Webhook};
use crate::domain::monitor::{About, Secret};
use crate::domain::{Color, Provider, Raise};
use crate::os::lane::{Disk, block_on};
use crate::os::web::tests::{Reply, Seen, Server, answer};
use crate::units::Span;

/// What one provider, whose server answers like this, makes of notices.
pub(in super::super) fn deliver(
    provider: impl FnOnce(String) -> Provider,
    reply: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static,
    notices: Vec<Notice>,
) -> (Vec<Delivered>, Vec<Seen>) {
    let server = Server::new(reply);
    let mut destination = Destination::new("there", provider(server.url("")));
    destination.transport.timeout = Span::from_millis(1_000);
    let delivered = deliver_to(&destination, notices);
    (delivered, server.seen())
}

pub(in super::super) fn deliver_to(destination: &Destination, mut notices: Vec<Notice>) -> Vec<Delivered> {
    let folder = tempfile::tempdir().unwrap();
    let (_reader, writer) = nix::unistd::pipe().unwrap();
    let surroundings = Surroundings {
        disk: Disk::Uring,
        log_dirs: Arc::new(LogDirs::new([], folder.path().to_owned())),
        stderr: Rc::new(Stderr::with(writer)),
        web: Web::default(),
        scripts: None,
    };
    let shared = Arc::new(destination.clone());
    for notice in &mut notices {
        notice.key.destination = Arc::clone(&shared);
    }
    block_on(Disk::Uring, async move {
        let mut outlet = Outlet::new(&shared, &surroundings);
        let delivered = outlet.deliver(&notices.iter().collect::<Vec<_>>()).await;
        outlet.close().await;
        delivered
    })
}

/// One notice, one answer: what it means, what is said of it, and whether nothing at all is wanted for a time.
pub(in super::super) fn means(
    provider: impl FnOnce(String) -> Provider,
    reply: Reply,
) -> (DeliveryResult, String, Option<Span>) {
    let reply = std::sync::Mutex::new(Some(reply));
    let once = move |_: usize, _: &Seen| reply.lock().unwrap().take().unwrap_or(Reply::Last(String::new()));
    let (delivered, _) = deliver(provider, once, vec![of(Color::Red)]);
    let [Delivered { result, said, after }] = &delivered[..] else { panic!("one answer") };
    (*result, said.to_string(), *after)
}

/// A notice as the desk would make it.
pub(in super::super) fn of(color: Color) -> Notice {
    let mut notice = notice(0, None);
    notice.key.raise = match color {
        Color::Yellow => Raise::Yellow,
        Color::Red => Raise::Red,
        Color::Cyan => Raise::Cyan,
        Color::Green => Raise::Resolve,
        Color::Gray => Raise::Gray,
    };
    notice.color = color;
    notice.summary = "shop/web is down: <503> & \"more\"".into();
    notice.about = About {
        labels: [("cost centre".into(), "7".into()), ("team".into(), "shop".into())].into(),
        description: Some("The shop's\nfront door".into()),
        runbook: Some("https://wiki.example.com/shop-web".into()),
    };
    notice
}

#[expect(clippy::needless_pass_by_value, reason = "one signature for all providers")]
fn slack(url: String) -> Provider {
    Provider::Slack(Slack { hook: Secret::new(format!("{url}/T0/tellnobody")), channel: None, username: None })
}

#[expect(clippy::needless_pass_by_value, reason = "one signature for all providers")]
fn webhook(url: String) -> Provider {
    let headers = [("X-Token".into(), Secret::new("sesame"))].into();
    let url = Secret::new(format!("{url}/hooks/tellnobody?key=quietplease"));
    Provider::Webhook(Webhook { url, method: "POST".into(), headers, secrets: Box::default() })
}

#[test]
fn a_status_means_what_it_means_everywhere() {
    use DeliveryResult::{Failed, Refused, Sent};
    let secs = |secs| Some(Span::from_secs(secs));
    let cases = [
        (200, "", Sent, None),
        (204, "", Sent, None),
        (302, "Location: https://login.example/tellnobody\r\n", Refused, None),
        (400, "", Refused, None),
        (401, "", Refused, None),
        (404, "", Refused, None),
        (408, "", Failed, None),
        (429, "", Failed, secs(0)),
        (429, "Retry-After: 30\r\n", Failed, secs(30)),
        (429, "Retry-After: 1000000\r\n", Failed, secs(3_600)),
        (429, "Retry-After: Sun, 06 Nov 1994 08:50:37 GMT\r\n", Failed, secs(0)),
        (500, "", Failed, None),
        (502, "", Failed, None),
        (503, "Retry-After: 5\r\n", Failed, secs(5)),
        (504, "", Failed, None),
    ];
    for (status, headers, result, after) in cases {
        let got = means(webhook, answer(status, headers, "the word"));
        let words = if status == 302 { "redirected to https://login.example: give that address" } else { "the word" };
        let said = if status == 204 { "204".to_owned() } else { format!("{status} {words}") };
        assert_eq!(got, (result, said, after), "{status} {headers}");
    }
}

#[test]
fn no_secret_is_said_whatever_the_other_side_repeats() {
    let body = "Cannot POST /hooks/tellnobody?key=quietplease\nx-token: sesame\u{1b}[31m";
    let (_, said, _) = means(webhook, answer(404, "", body));
    assert_eq!(said, "404 Cannot POST /hooks/(secret)?key=(secret) x-token: (secret) [31m");
    // Also where the bound would cut it in half.
    let (_, said, _) = means(webhook, answer(404, "", &format!("{}tellnobody", "x".repeat(EVIDENCE_MAX - 10))));
    assert!(said.len() <= EVIDENCE_MAX && !said.contains("tell"), "{said}");
    let (_, said, _) = means(webhook, answer(404, "", "<html>a page</html>"));
    assert_eq!(said, "404", "nobody reads pages here");
    let shown = format!("{:?}", Secrets::new(["tellnobody"]));
    assert!(!shown.contains("tellnobody"), "{shown}");
}

#[test]
fn what_goes_unanswered_may_have_arrived_where_a_second_one_is_not_known() {
    for (reply, words) in [
        (Reply::Last(String::new()), ": the connection was closed before the answer"),
        (Reply::Hang(String::new(), Duration::from_secs(5)), ": no answer within 1 s"),
    ] {
        let (result, said, after) = means(slack, reply);
        assert_eq!((result, after), (DeliveryResult::Unsure, None), "{said}");
        assert!(said.ends_with(words) && !said.contains("tellnobody"), "{said}");
    }
    let (result, said, _) = means(webhook, Reply::Last(String::new()));
    assert_eq!(result, DeliveryResult::Failed, "{said}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let destination = Destination::new("there", slack(format!("http://{nobody}")));
    let delivered = deliver_to(&destination, vec![of(Color::Red)]);
    assert_eq!(delivered, [Delivered::new(DeliveryResult::Failed, format!("http://{nobody}: connection refused"))]);
}

#[test]
fn as_many_go_at_a_time_as_the_pace_says_and_answers_keep_their_order() {
    let together = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let most = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (now, max) = (Arc::clone(&together), Arc::clone(&most));
    let reply = move |_: usize, seen: &Seen| {
        use std::sync::atomic::Ordering::SeqCst;
        max.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        now.fetch_sub(1, SeqCst);
        answer(200, "", seen.header("webhook-id").unwrap())
    };
    let notices: Vec<Notice> = (0..20).map(|n| notice(n, None)).collect();
    let (delivered, seen) = deliver(webhook, reply, notices);
    let said: Vec<String> = delivered.iter().map(|delivered| delivered.said.to_string()).collect();
    let expected: Vec<String> = (0..20).map(|n| format!("200 0000000000000000000000001A/red/{n}")).collect();
    assert_eq!(said, expected);
    assert_eq!(seen.len(), 20);
    let most = most.load(std::sync::atomic::Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most} at a time, of 8");
}

#[test]
fn the_rest_of_a_batch_is_not_tried_where_one_was_told_to_wait() {
    let (delivered, seen) = deliver(
        slack,
        |number, _| if number == 0 { answer(200, "", "ok") } else { answer(429, "Retry-After: 9\r\n", "slow_down") },
        (0..4).map(|n| notice(n, None)).collect(),
    );
    let results: Vec<_> = delivered.iter().map(|delivered| (delivered.result, delivered.after)).collect();
    let wait = (DeliveryResult::Failed, Some(Span::from_secs(9)));
    assert_eq!(results, [(DeliveryResult::Sent, None), wait, wait, wait]);
    assert_eq!(seen.len(), 2);

    let (delivered, seen) = deliver(slack, |_, _| Reply::Last(String::new()), vec![of(Color::Red), of(Color::Green)]);
    let results: Vec<_> = delivered.iter().map(|delivered| delivered.result).collect();
    assert_eq!(results, [DeliveryResult::Unsure, DeliveryResult::Failed], "what was not tried did not arrive");
    assert_eq!(seen.len(), 1);
}
