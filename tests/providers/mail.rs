//! Mails: what servers may say and do, and a real one.

use std::path::Path;
use std::sync::Arc;

use cpra::desk::protocol::DeliveryResult::{Failed, Refused, Sent};
use cpra::domain::destination::{Email, MailSecurity};
use cpra::domain::monitor::Secret;
use cpra::domain::{Destination, Provider, Raise};
use cpra::units::Span;

use super::counterparts::authority::{Authority, Issued, Signer, Wish};
use super::counterparts::mailhost::MailHost;
use super::counterparts::postbox::{Postbox, Security, Stage, What, breaks};
use super::counterparts::raw::{RawServer, Script};
use super::lane::{INSTANCE, Lane, later, red};

const CREDENTIALS: (&str, &str) = ("cpra", "correct horse battery staple");
const NAMES: Wish<'_> = Wish::of("DNS:mail.example,IP:127.0.0.1");

fn email(port: u16, security: MailSecurity) -> Email {
    Email {
        host: "127.0.0.1".into(),
        port,
        security,
        username: None,
        password: None,
        from: "Monitoring <cpra@shop.example>".into(),
        to: ["ops@shop.example".into(), "oncall@shop.example".into()].into(),
        cc: [].into(),
    }
}

fn destination(email: Email, ca_file: Option<&Path>) -> Arc<Destination> {
    let mut destination = Destination::new("mail", Provider::Email(Box::new(email)));
    destination.transport.ca_file = ca_file.map(Path::to_owned);
    Arc::new(destination)
}

fn plain(postbox: &Postbox) -> Arc<Destination> {
    destination(email(postbox.address().port(), MailSecurity::Plain), None)
}

fn authority() -> Option<(Authority, Issued)> {
    let authority = Authority::start()?;
    let issued = authority.issue("mail", NAMES);
    Some((authority, issued))
}

#[test]
fn an_incident_is_one_thread_over_one_connection() {
    let postbox = Postbox::start(Security::Plain, None, None);
    let to = plain(&postbox);
    let mut lane = Lane::start();
    let first = red(&to);
    let resolve = later(&first, Raise::Resolve, 0);
    assert_eq!(lane.deliver(&first).result, Sent);
    assert_eq!(lane.deliver(&resolve).result, Sent);
    let taken = postbox.taken();
    assert_eq!(taken.len(), 2);
    assert_eq!(taken[0].to, ["ops@shop.example", "oncall@shop.example"]);
    let id = taken[0].header("Message-ID").expect("it has one");
    assert!(id.ends_with(&format!("@{INSTANCE}>")), "{id}");
    assert_ne!(taken[1].header("Message-ID"), Some(id.clone()));
    assert!(taken[1].header("In-Reply-To").is_some_and(|ids| ids.contains(&id)), "{}", taken[1].text);
    assert!(taken[1].header("References").is_some_and(|ids| ids.contains(&id)), "{}", taken[1].text);
    assert!(taken[0].header("Subject").is_some_and(|subject| subject.contains("shop/web")), "{}", taken[0].text);
    assert_eq!((postbox.connections(), postbox.hellos()), (1, vec![INSTANCE.to_owned()]));
    postbox.assert_rules_kept();
}

#[test]
fn what_the_server_says_decides_whether_it_comes_again() {
    let postbox = Postbox::start(Security::Plain, None, None);
    let to = plain(&postbox);
    let mut lane = Lane::start();
    for (stage, says, result) in [
        (Stage::Greeting, "421 4.3.2 too busy", Failed),
        (Stage::Hello, "421 4.3.2 closing", Failed),
        (Stage::Mail, "451 4.3.0 local error", Failed),
        (Stage::Mail, "550 5.7.1 go away", Refused),
        (Stage::Data, "451 4.3.0 no room", Failed),
        (Stage::Data, "554 5.5.1 no", Refused),
        (Stage::Message, "451 4.7.1 greylisted", Failed),
        (Stage::Message, "552 5.3.4 too large", Refused),
        (Stage::Greeting, "554 5.3.2 no service", Refused),
    ] {
        // A greeting is met by those who come without a connection.
        if matches!(stage, Stage::Greeting | Stage::Hello) {
            lane.end();
            lane = Lane::start();
        }
        postbox.next([(stage.clone(), What::Says(says))]);
        let delivered = lane.deliver(&red(&to));
        assert_eq!(delivered.result, result, "{stage:?} {says}: {}", delivered.said);
        assert!(
            delivered.said.contains(&says[..3]) && delivered.said.contains(&says[10..]),
            "{says}: {}",
            delivered.said
        );
    }
    assert!(postbox.taken().is_empty());
    assert_eq!(lane.deliver(&red(&to)).result, Sent);
    postbox.assert_rules_kept();
}

#[test]
fn a_lost_answer_brings_the_same_mail_again() {
    let postbox = Postbox::start(Security::Plain, None, None);
    let mut lane = Lane::start();
    let notice = red(&plain(&postbox));
    postbox.next([(Stage::Message, What::Drops)]);
    assert_eq!(lane.deliver_until_done(&notice), [Failed, Sent]);
    let taken = postbox.taken();
    assert_eq!(taken.len(), 2, "the server had taken the first one");
    assert_eq!(taken[0].text, taken[1].text);
    assert_eq!(taken[0].header("Message-ID"), taken[1].header("Message-ID"));
}

#[test]
fn a_connection_that_the_server_ended_meanwhile_is_made_again() {
    let postbox = Postbox::start(Security::Plain, None, None);
    let mut lane = Lane::start();
    let to = plain(&postbox);
    assert_eq!(lane.deliver(&red(&to)).result, Sent);
    for what in [What::Drops, What::Says("421 4.4.2 timeout exceeded")] {
        postbox.next([(Stage::Mail, what)]);
        assert_eq!(lane.deliver(&red(&to)).result, Sent);
    }
    assert_eq!((postbox.connections(), postbox.taken().len()), (3, 3));
    postbox.assert_rules_kept();
}

#[test]
fn nobody_waits_for_a_server_that_hangs_or_is_not_there() {
    let mut lane = Lane::start();
    for stage in [Stage::Greeting, Stage::Data, Stage::Message] {
        let postbox = Postbox::start(Security::Plain, None, None);
        let mut to = (*plain(&postbox)).clone();
        to.transport.timeout = Span::from_millis(300);
        postbox.next([(stage, What::Hangs)]);
        let delivered = lane.deliver(&red(&Arc::new(to)));
        assert_eq!((delivered.result, &*delivered.said), (Failed, "not done within 300 ms"));
    }
    let gone = Postbox::start(Security::Plain, None, None);
    let to = plain(&gone);
    drop(gone);
    let delivered = lane.deliver(&red(&to));
    assert_eq!(delivered.result, Failed);
    assert!(delivered.said.contains("refused"), "{}", delivered.said);
}

#[test]
fn each_recipient_gets_it_once_whatever_becomes_of_the_others() {
    let postbox = Postbox::start(Security::Plain, None, None);
    let mut lane = Lane::start();
    let notice = red(&plain(&postbox));
    postbox.next([(Stage::Recipient("ops@shop.example"), What::Says("450 4.2.2 mailbox full"))]);
    assert_eq!(lane.deliver_until_done(&notice), [Failed, Sent]);
    let to: Vec<Vec<String>> = postbox.taken().into_iter().map(|mail| mail.to).collect();
    assert_eq!(to, [["oncall@shop.example"], ["ops@shop.example"]]);

    // Refused for good: the others have it, and it is said who has not.
    postbox.next([(Stage::Recipient("oncall@shop.example"), What::Says("550 5.1.1 no such user"))]);
    let delivered = lane.deliver(&red(&plain(&postbox)));
    assert_eq!(delivered.result, Sent);
    assert!(delivered.said.contains("not to oncall@shop.example: 550"), "{}", delivered.said);

    postbox.next([
        (Stage::Recipient("ops@shop.example"), What::Says("550 5.1.1 no such user")),
        (Stage::Recipient("oncall@shop.example"), What::Says("550 5.1.1 no such user")),
    ]);
    assert_eq!(lane.deliver(&red(&plain(&postbox))).result, Refused);
    postbox.assert_rules_kept();
}

#[test]
fn passwords_go_over_tls_alone_and_are_told_to_nobody() {
    let Some((authority, issued)) = authority() else { return };
    for (security, ours) in [(Security::StartTls, MailSecurity::StartTls), (Security::Tls, MailSecurity::Tls)] {
        let postbox = Postbox::start(security, Some(&issued), Some(CREDENTIALS));
        let with = |password: &str| Email {
            username: Some(CREDENTIALS.0.into()),
            password: Some(Secret::new(password)),
            ..email(postbox.address().port(), ours)
        };
        let mut lane = Lane::start();
        let to = destination(with(CREDENTIALS.1), Some(&authority.root()));
        let delivered = lane.deliver(&red(&to));
        assert_eq!(delivered.result, Sent, "{security:?}: {}", delivered.said);
        let mail = postbox.taken().remove(0);
        assert!(mail.is_encrypted && mail.user.as_deref() == Some(CREDENTIALS.0));

        // The fake repeats what it was sent.
        let wrong = "wrong horse battery staple";
        let delivered = lane.deliver(&red(&destination(with(wrong), Some(&authority.root()))));
        assert_eq!(delivered.result, Refused, "{}", delivered.said);
        assert!(delivered.said.starts_with("535") && !delivered.said.contains(wrong), "{}", delivered.said);
        assert!(delivered.said.contains("PLAIN (secret)"), "{}", delivered.said);
    }
}

#[test]
fn nothing_is_sent_to_whom_cannot_be_trusted() {
    let Some((authority, issued)) = authority() else { return };
    let root = authority.root();
    let no_tls = Postbox::start(Security::StartTls, None, None);
    let wished = |name, wish| authority.issue(name, wish);
    let other = wished("other", Wish { names: "DNS:other.example", ..NAMES });
    let expired = wished("expired", Wish { begins: -48, ends: -24, ..NAMES });
    let own = wished("own", Wish { by: Signer::Itself, ..NAMES });
    let mut lane = Lane::start();
    let mut refuses = |postbox: &Postbox, ours, ca_file: Option<&Path>, why: &str| {
        let delivered = lane.deliver(&red(&destination(email(postbox.address().port(), ours), ca_file)));
        assert_eq!(delivered.result, Failed, "{}", delivered.said);
        assert!(delivered.said.contains(why), "{why}: {}", delivered.said);
        assert!(postbox.taken().is_empty());
    };
    refuses(&no_tls, MailSecurity::StartTls, Some(&root), "STARTTLS");
    for (security, ours) in [(Security::StartTls, MailSecurity::StartTls), (Security::Tls, MailSecurity::Tls)] {
        refuses(&Postbox::start(security, Some(&other), None), ours, Some(&root), "ertificate");
        refuses(&Postbox::start(security, Some(&expired), None), ours, Some(&root), "ertificate");
        refuses(&Postbox::start(security, Some(&own), None), ours, Some(&root), "ertificate");
        refuses(&Postbox::start(security, Some(&issued), None), ours, None, "ertificate");
    }
    let missing = Path::new("/nonexistent/ca.pem");
    refuses(
        &Postbox::start(Security::Tls, Some(&issued), None),
        MailSecurity::Tls,
        Some(missing),
        "/nonexistent/ca.pem",
    );
    // No TLS at all behind the port.
    let raw = RawServer::start(Script::AnswerEarly(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()));
    let delivered = lane.deliver(&red(&destination(email(raw.address().port(), MailSecurity::Tls), Some(&root))));
    assert_eq!(delivered.result, Failed, "{}", delivered.said);
}

#[test]
fn a_real_server_delivers_it_once_to_each() {
    let Some((authority, issued)) = authority() else { return };
    for (implicit, ours) in [(false, MailSecurity::StartTls), (true, MailSecurity::Tls)] {
        let Some(host) = MailHost::start(&issued, implicit) else { return };
        let to = destination(email(host.address().port(), ours), Some(&authority.root()));
        let mut lane = Lane::start();
        let first = red(&to);
        let resolve = later(&first, Raise::Resolve, 0);
        for notice in [&first, &resolve] {
            let delivered = lane.deliver(notice);
            assert_eq!(delivered.result, Sent, "{}", delivered.said);
        }
        // Which of the two it puts down first is its own affair: each is delivered by a process of its own.
        let mut mails = host.mails(2);
        mails.sort_by_key(|mail| mail.contains("\nIn-Reply-To: "));
        let [red, green] = &mails[..] else { panic!("two mails: {mails:#?}") };
        let header = |mail: &str, name: &str| {
            let head = mail.split_once("\n\n").expect("a head").0.replace("\n ", " ").replace("\n\t", " ");
            let prefix = format!("{}: ", name.to_lowercase());
            let found = head.lines().find(|line| line.to_lowercase().starts_with(&prefix)).map(str::to_owned);
            found.map(|line| line[prefix.len()..].to_owned())
        };
        let id = header(red, "Message-ID").expect("it has one");
        assert!(header(green, "In-Reply-To").is_some_and(|ids| ids.contains(&id)), "{green}");
        assert!(header(red, "Envelope-To").is_some_and(|to| to.contains("ops@") && to.contains("oncall@")), "{red}");
        // exim says how it came: over TLS, from whom we say we are.
        assert!(header(red, "Received").is_some_and(|by| by.contains("esmtps") && by.contains(INSTANCE)), "{red}");
        let ids: Vec<_> = mails.iter().map(|mail| header(mail, "Message-ID")).collect();
        assert_ne!(ids[0], ids[1]);

        let nobody = Email { to: ["nobody@shop.example".into()].into(), ..email(host.address().port(), ours) };
        let delivered = lane.deliver(&super::lane::red(&destination(nobody, Some(&authority.root()))));
        assert_eq!(delivered.result, Refused, "{}", delivered.said);
        assert!(delivered.said.contains("no such user"), "{}", delivered.said);
    }
}

#[test]
fn the_fake_refuses_mails_that_break_the_rules() {
    let sound = "Date: Sun, 22 Nov 2026 03:00:00 +0000\r\nFrom: a@b.example\r\nMessage-ID: <1@b.example>\r\n\
                 Subject: it\r\nTo: c@d.example\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\r\ntext\r\n";
    assert_eq!(breaks(sound.as_bytes()), None);
    for (from, to) in [
        ("Message-ID: <1@b.example>\r\n", ""),
        ("<1@b.example>", "1"),
        ("Subject: it", "Subject: it\r\nSubject: again"),
        ("Date: Sun, 22 Nov 2026 03:00:00 +0000\r\n", ""),
        ("Auto-Submitted: auto-generated\r\n", ""),
        ("auto-generated", "no"),
        ("text", "te\nxt"),
        ("text", "t\u{e4}xt"),
        ("To: c@d.example", "To: c@d.example\r\nReferences: yesterday"),
    ] {
        assert!(breaks(sound.replace(from, to).as_bytes()).is_some(), "{from:?} as {to:?}");
    }
    assert!(breaks(sound.replace("text", &"x".repeat(999)).as_bytes()).is_some());
}
