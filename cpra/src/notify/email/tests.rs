use super::*;
use crate::domain::{Color, Provider};
use crate::notify::line::tests::notice;

fn email() -> Email {
    Email {
        host: "mail.example".into(),
        port: 587,
        security: MailSecurity::StartTls,
        username: Some("cpra".into()),
        password: Some(Secret::new("hunter2")),
        from: "Monitoring <cpra@shop.example>".into(),
        to: ["ops@shop.example".into(), "Än Ops <oncall@shop.example>".into()].into(),
        cc: ["boss@shop.example".into(), "ops@shop.example".into()].into(),
    }
}

fn destination(name: &str) -> Destination {
    Destination::new(name, Provider::Email(Box::new(email())))
}

fn letter(raise: Raise, n: u32, title: &str) -> Letter {
    let mut notice = notice(n, None);
    notice.key.raise = raise;
    notice.monitor_name = title.into();
    notice.incident = crate::domain::Incident::new("mon-1", title, notice.key.episode);
    Letter::new(&notice, &destination("mail"), &email()).unwrap_or_else(|error| panic!("{error}"))
}

/// The header's value, unfolded.
fn header(letter: &Letter, name: &str) -> Option<String> {
    let text = String::from_utf8(letter.text.clone()).unwrap();
    let head = text.split_once("\r\n\r\n").unwrap().0.replace("\r\n ", " ");
    let prefix = format!("{name}: ");
    let mut found = head.lines().filter_map(|line| line.strip_prefix(&prefix).map(str::to_owned));
    let value = found.next();
    assert_eq!(found.next(), None, "{name} twice");
    value
}

#[test]
fn a_mail_says_who_what_and_when_and_is_the_same_at_every_attempt() {
    let one = letter(Raise::Red, 0, "shop/web");
    assert_eq!(one.text, letter(Raise::Red, 0, "shop/web").text);
    assert!(header(&one, "Subject").unwrap().contains("shop/web"));
    assert_eq!(header(&one, "Date").unwrap(), "Sun, 22 Nov 2026 03:00:00 +0000");
    assert_eq!(header(&one, "Auto-Submitted").unwrap(), "auto-generated");
    assert_eq!(header(&one, "Content-Type").unwrap(), "text/plain; charset=utf-8");
    assert_eq!(header(&one, "MIME-Version").unwrap(), "1.0");
    assert_eq!(header(&one, "Message-ID").unwrap(), one.id);
    assert!(one.id.starts_with("<0000000000000000000000001A.red.0.") && one.id.ends_with("@mon-1>"), "{}", one.id);
    // Each once, however often it is named.
    assert_eq!(one.to.len(), 3);
    assert!(one.text.is_ascii(), "what is not ASCII is encoded: no server needs 8BITMIME for it");
}

#[test]
fn what_comes_later_belongs_to_what_came_first() {
    let id = |raise, n| letter(raise, n, "web").id;
    let (yellow, red) = (id(Raise::Yellow, 0), id(Raise::Red, 0));
    let both = Some(format!("{yellow} {red}"));
    let first = letter(Raise::Yellow, 0, "web");
    assert_eq!((header(&first, "References"), header(&first, "In-Reply-To")), (None, None));
    let second = letter(Raise::Red, 0, "web");
    assert_eq!((header(&second, "References"), header(&second, "In-Reply-To")), (Some(yellow), None));
    for (raise, n) in [(Raise::Resolve, 0), (Raise::Cyan, 0), (Raise::Red, 2)] {
        let later = letter(raise, n, "web");
        assert_eq!((header(&later, "References"), header(&later, "In-Reply-To")), (both.clone(), both.clone()));
    }
    let window = letter(Raise::Gray, 1, "web");
    assert_eq!(header(&window, "In-Reply-To"), Some(id(Raise::Gray, 0)));
}

#[test]
fn two_destinations_have_keys_of_their_own_whatever_else_of_them_changes() {
    let key = notice(0, None).key;
    let of = |name: &str| message_id(&key, &hash(name), "a");
    assert_ne!(of("mail"), of("mail-2"));
    assert_eq!(of("mail"), of("mail"));
}

#[test]
fn no_text_makes_a_header_of_its_own() {
    let evil = "web\r\nBcc: everyone@shop.example\r\n\r\nbody \u{7f}\u{2028}";
    let letter = letter(Raise::Red, 0, evil);
    let text = String::from_utf8(letter.text.clone()).unwrap();
    assert_eq!(header(&letter, "Bcc"), None, "{text}");
    assert!(!text.split_once("\r\n\r\n").unwrap().0.to_lowercase().contains("\nbcc"), "{text}");
    for address in ["ops@shop.example\r\nBcc: x@y.example", "no address", "", "a@b.example, c@d.example"] {
        let email = Email { to: [address.into()].into(), ..email() };
        let error = Letter::new(&notice(0, None), &destination("mail"), &email).err().expect(address);
        assert!(error.contains("is no mail address") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn an_instance_is_written_as_a_domain() {
    let long = "a".repeat(400);
    for (instance, written) in [
        ("mon-1", "mon-1"),
        ("mon-1.shop.example", "mon-1.shop.example"),
        ("..mon 1\r\n.", "mon-1"),
        ("größe", "gr--e"),
        ("-", "cpra"),
        ("", "cpra"),
        (&long, &long[..INSTANCE_MAX]),
    ] {
        assert_eq!(domain(instance), written);
    }
}

#[test]
fn what_a_server_repeats_of_the_password_is_not_told() {
    let outlet = EmailOutlet::new(&email(), &destination("mail"), &Web::default());
    let plain = BASE64_STANDARD.encode("\0cpra\0hunter2");
    let said = outlet.bounded(&format!("535 bad hunter2, {plain}, {}\r\nnext", BASE64_STANDARD.encode("hunter2")));
    assert_eq!(&*said, "535 bad (secret), (secret), (secret)  next");
    assert_eq!(outlet.bounded(&"x".repeat(10_000)).len(), EVIDENCE_MAX);
    assert!(!format!("{outlet:?}").contains("hunter2"));
}

#[test]
fn colors_are_told_apart_in_the_subject() {
    let of = |color| {
        let mut notice = notice(0, None);
        notice.color = color;
        header(
            &Letter::new(&notice, &destination("mail"), &email()).map_err(|error| panic!("{error}")).unwrap(),
            "Subject",
        )
    };
    assert_ne!(of(Color::Red), of(Color::Green));
}
