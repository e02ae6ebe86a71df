//! Destinations of every kind come back as they were.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::domain::Color;
use crate::domain::destination::{
    Alertmanager, Authorization, Destination, Email, MailSecurity, Pace, PagerDuty, Provider, Script, Severity, Slack,
    Sms, SmsSender, Transport, Webhook, Wording, Words,
};
use crate::domain::monitor::Secret;
use crate::store::mirror;
use crate::units::Span;

fn text() -> impl Strategy<Value = Box<str>> {
    any::<String>().prop_map(Box::from)
}

fn secret() -> impl Strategy<Value = Secret> {
    text().prop_map(Secret::new)
}

fn pairs() -> impl Strategy<Value = Box<[(Box<str>, Box<str>)]>> {
    vec((text(), text()), 0..3).prop_map(Box::from)
}

fn secret_pairs() -> impl Strategy<Value = Box<[(Box<str>, Secret)]>> {
    vec((text(), secret()), 0..3).prop_map(Box::from)
}

fn texts() -> impl Strategy<Value = Box<[Box<str>]>> {
    vec(text(), 0..3).prop_map(Box::from)
}

fn provider() -> impl Strategy<Value = Provider> {
    let severities = prop::sample::select(Severity::ALL.map(|(_, severity)| severity).to_vec());
    let security = prop::sample::select(vec![MailSecurity::StartTls, MailSecurity::Tls, MailSecurity::Plain]);
    let email = (text(), any::<u16>(), security, option::of(text()), option::of(secret()), text(), texts(), texts());
    let sender = prop_oneof![text().prop_map(SmsSender::Number), text().prop_map(SmsSender::Service)];
    let authorization = prop_oneof![
        (text(), secret()).prop_map(|(username, password)| Authorization::Basic { username, password }),
        secret().prop_map(Authorization::Bearer),
    ];
    prop_oneof![
        option::of(text()).prop_map(|file| Provider::Log { file: file.map(|file| file.to_string().into()) }),
        (secret(), text(), option::of(severities))
            .prop_map(|(routing_key, url, severity)| Provider::PagerDuty(PagerDuty { routing_key, url, severity })),
        (secret(), option::of(text()), option::of(text()))
            .prop_map(|(hook, channel, username)| Provider::Slack(Slack { hook, channel, username })),
        email.prop_map(|(host, port, security, username, password, from, to, cc)| {
            Provider::Email(Box::new(Email { host, port, security, username, password, from, to, cc }))
        }),
        (secret(), text(), secret_pairs(), vec(secret(), 0..3)).prop_map(|(url, method, headers, secrets)| {
            Provider::Webhook(Webhook { url, method, headers, secrets: secrets.into() })
        }),
        (text(), text(), secret(), sender, text()).prop_map(|(url, account_sid, auth_token, sender, to)| {
            Provider::Sms(Box::new(Sms { url, account_sid, auth_token, sender, to }))
        }),
        (text(), option::of(authorization), pairs(), pairs(), option::of(text())).prop_map(
            |(url, authorization, labels, annotations, generator_url)| {
                Provider::Alertmanager(Alertmanager { url, authorization, labels, annotations, generator_url })
            }
        ),
        (texts(), secret_pairs()).prop_map(|(argv, env)| Provider::Script(Script { argv, env })),
    ]
}

fn destination() -> impl Strategy<Value = Destination> {
    let pace = (any::<u32>(), any::<u64>(), any::<u32>(), any::<u32>()).prop_map(
        |(concurrency, every, burst, raises_per_minute)| Pace {
            concurrency,
            every: Span::from_nanos(every),
            burst,
            raises_per_minute,
        },
    );
    let transport = (any::<u64>(), option::of(text()), option::of(secret())).prop_map(|(timeout, ca_file, proxy)| {
        Transport { timeout: Span::from_nanos(timeout), ca_file: ca_file.map(|file| file.to_string().into()), proxy }
    });
    let words = (option::of(text()), option::of(text())).prop_map(|(title, text)| Words { title, text });
    let wording = vec((prop::sample::select(Color::ALL.to_vec()), words), 0..4).prop_map(Wording::new);
    (text(), provider(), pace, transport, wording).prop_map(|(name, provider, pace, transport, wording)| Destination {
        name,
        provider,
        pace,
        transport,
        wording,
    })
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(destination in destination()) {
        let written = mirror::written(&destination).expect("it is plain text");
        prop_assert_eq!(mirror::read(&written), Ok(destination));
    }

    #[test]
    fn what_nobody_wrote_is_refused(text in "[\\[\\]{}:,\"a-z0-9 ]{0,60}") {
        prop_assert!(mirror::read(&text).is_err());
    }
}
