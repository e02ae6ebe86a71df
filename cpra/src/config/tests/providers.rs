//! Whom notices go to: `[providers.NAME]` of the daemon file and `config` of rules, as destinations.

use std::sync::Arc;

use super::grammar::{Ground, document};
use super::*;
use crate::config::daemon::Flags;
use crate::config::providers::ProviderKind;
use crate::config::{Settings, Severity};
use crate::domain::destination::{
    Alertmanager, Authorization, Email, MailSecurity, Pace, PagerDuty, Provider, Script, Severity as Gravity, Slack,
    Sms, SmsSender, Transport, Webhook, Wording, Words,
};
use crate::domain::monitor::Secret;
use crate::domain::{Color, Destination};
use crate::units::Span;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const SIGN: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn secret(text: &str) -> Secret {
    Secret::new(text)
}

/// A daemon file with `[providers.x]`, read as a load does it: its destinations and what is said, a line each.
fn declared(ground: &mut Ground, table: &str) -> (Vec<Arc<Destination>>, Vec<String>) {
    let table = table.replace("@/", &ground.path(""));
    let environment = |name: &str| match name {
        "KEY" => Some(KEY.to_owned()),
        "HOOK" => Some("https://hooks.example.com/fourth-secret-0004".to_owned()),
        "LINES" => Some("a\nb".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    let text = format!("[providers.x]\n{table}\n");
    let (settings, diagnostics) = Settings::compose("c.toml", &text, environment, &Flags::default());
    assert_eq!(diagnostics.to_string(), "", "{text}");
    ground.folders.providers = settings.providers;
    let report = ground.load("- {name: a, pulse: {type: icmp, interval: 30s, timeout: 5s, config: {host: h}}, codes: {red: {notify: x}}}").1;
    let said = report.diagnostics.iter().map(|said| said.to_string().lines().next().unwrap_or_default().to_owned());
    (report.receivers.named, said.collect())
}

/// What a rule for red comes to, and what is said.
fn told(ground: &Ground, rule: &str) -> (Vec<Arc<Destination>>, Report) {
    let (monitors, report) = ground.load(&(document("icmp", "host: h") + &format!("  codes: {{red: {rule}}}\n")));
    let red = monitors.first().map_or_else(Vec::new, |monitor| monitor.policy.codes.destinations(Color::Red).to_vec());
    (red, report)
}

fn pager() -> Provider {
    Provider::PagerDuty(PagerDuty {
        routing_key: secret(KEY),
        url: "https://events.pagerduty.com/v2/enqueue".into(),
        severity: None,
    })
}

fn slack(hook: &str) -> Provider {
    Provider::Slack(Slack { hook: secret(hook), channel: None, username: None })
}

fn email(change: impl FnOnce(&mut Email)) -> Provider {
    let mut email = Email {
        host: "mail.example.com".into(),
        port: 587,
        security: MailSecurity::StartTls,
        username: None,
        password: None,
        from: "cpra@example.com".into(),
        to: ["ops@example.com".into()].into(),
        cc: Box::default(),
    };
    change(&mut email);
    Provider::Email(Box::new(email))
}

fn sms(to: &str) -> Provider {
    Provider::Sms(Box::new(Sms {
        url: "https://api.twilio.com".into(),
        account_sid: "AC01".into(),
        auth_token: secret("first-secret-0001"),
        sender: SmsSender::Number("+15550100".into()),
        to: to.into(),
    }))
}

fn webhook(change: impl FnOnce(&mut Webhook)) -> Provider {
    let mut webhook =
        Webhook { url: secret("https://h/x"), method: "POST".into(), headers: Box::default(), secrets: Box::default() };
    change(&mut webhook);
    Provider::Webhook(webhook)
}

fn manager(change: impl FnOnce(&mut Alertmanager)) -> Provider {
    let mut manager = Alertmanager {
        url: "http://127.0.0.1:9093".into(),
        authorization: None,
        labels: Box::default(),
        annotations: Box::default(),
        generator_url: None,
    };
    change(&mut manager);
    Provider::Alertmanager(manager)
}

const MAIL: &str =
    "type = \"email\"\nhost = \"mail.example.com\"\nfrom = \"cpra@example.com\"\nto = \"ops@example.com\"";
const TEXT: &str = "type = \"sms\"\naccount_sid = \"AC01\"\nauth_token_file = \"@/a\"\nfrom = \"+15550100\"";

#[test]
fn every_key_of_a_declared_provider_says_something() {
    let mut ground = Ground::new();
    let pairs = |pairs: &[(&str, &str)]| -> Box<[(Box<str>, Box<str>)]> {
        pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect()
    };
    let rows: Vec<(String, Vec<Provider>)> = vec![
        ("type = \"log\"\nfile = \"/var/log/x\"".into(), vec![Provider::Log { file: Some("/var/log/x".into()) }]),
        ("type = \"log\"".into(), vec![Provider::Log { file: None }]),
        ("type = \"pagerduty\"\nrouting_key_file = \"@/pager\"".into(), vec![pager()]),
        ("type = \"pagerduty\"\nrouting_key_env = \"KEY\"".into(), vec![pager()]),
        (
            "type = \"pagerduty\"\nrouting_key_env = \"KEY\"\nurl = \"https://p/X\"\nseverity = \"warning\"".into(),
            vec![Provider::PagerDuty(PagerDuty {
                routing_key: secret(KEY),
                url: "https://p/X".into(),
                severity: Some(Gravity::Warning),
            })],
        ),
        (
            "type = \"slack\"\nhook_file = \"@/hook\"".into(),
            vec![slack("https://hooks.example.com/services/T0/B0/third-secret-0003")],
        ),
        (
            "type = \"slack\"\nhook_env = \"HOOK\"\nchannel = \"#a\"\nusername = \"b\"".into(),
            vec![Provider::Slack(Slack {
                hook: secret("https://hooks.example.com/fourth-secret-0004"),
                channel: Some("#a".into()),
                username: Some("b".into()),
            })],
        ),
        (MAIL.into(), vec![email(|_| {})]),
        (format!("{MAIL}\nsecurity = \"tls\""), vec![email(|e| (e.security, e.port) = (MailSecurity::Tls, 465))]),
        (format!("{MAIL}\nsecurity = \"none\""), vec![email(|e| (e.security, e.port) = (MailSecurity::Plain, 25))]),
        (format!("{MAIL}\ntls = false"), vec![email(|e| (e.security, e.port) = (MailSecurity::Plain, 25))]),
        (format!("{MAIL}\ntls = true"), vec![email(|_| {})]),
        (format!("{MAIL}\nport = 465"), vec![email(|e| (e.security, e.port) = (MailSecurity::Tls, 465))]),
        (MAIL.replace("example.com\"\nfrom", "example.com:2525\"\nfrom"), vec![email(|e| e.port = 2525)]),
        (MAIL.replace("host", "server"), vec![email(|_| {})]),
        (format!("{MAIL}\ncc = [\"a@b\", \"C <c@d>\"]"), vec![email(|e| e.cc = ["a@b".into(), "C <c@d>".into()].into())]),
        (
            format!("{MAIL}\nusername = \"me\"\npassword_file = \"@/a\""),
            vec![email(|e| {
                e.username = Some("me".into());
                e.password = Some(secret("first-secret-0001"));
            })],
        ),
        (format!("{TEXT}\nto = \"+15550111\""), vec![sms("+15550111")]),
        // A destination for each number.
        (format!("{TEXT}\nto = [\"+15550112\", \"+15550111\", \"+15550112\"]"), vec![sms("+15550111"), sms("+15550112")]),
        (
            format!("{TEXT}\nto = \"+15550111\"\nurl = \"https://t\"").replace("from = \"+15550100\"", "messaging_service_sid = \"MG1\""),
            vec![match sms("+15550111") {
                Provider::Sms(mut sms) => {
                    sms.sender = SmsSender::Service("MG1".into());
                    sms.url = "https://t".into();
                    Provider::Sms(sms)
                }
                other => other,
            }],
        ),
        ("type = \"webhook\"\nurl = \"https://h/x\"".into(), vec![webhook(|_| {})]),
        (
            "type = \"webhook\"\nurl_env = \"HOOK\"\nmethod = \"put\"".into(),
            vec![webhook(|w| {
                w.url = secret("https://hooks.example.com/fourth-secret-0004");
                w.method = "PUT".into();
            })],
        ),
        (
            "type = \"webhook\"\nurl = \"https://h/x\"\nsecret_file = \"@/sign\"\nsecret_files = [\"@/sign\"]".into(),
            vec![webhook(|w| w.secrets = [secret(SIGN), secret(SIGN)].into())],
        ),
        (
            "type = \"webhook\"\nurl = \"https://h/x\"\nheaders = {X-A = \"1\", Authorization = {file = \"@/a\"}, X-Key = {env = \"KEY\"}}".into(),
            vec![webhook(|w| {
                w.headers = [
                    ("Authorization".into(), secret("first-secret-0001")),
                    ("X-A".into(), secret("1")),
                    ("X-Key".into(), secret(KEY)),
                ]
                .into();
            })],
        ),
        ("type = \"alertmanager\"\nurl = \"http://127.0.0.1:9093\"".into(), vec![manager(|_| {})]),
        (
            "type = \"alertmanager\"\nurl = \"http://127.0.0.1:9093\"\nusername = \"u\"\npassword_file = \"@/a\"".into(),
            vec![manager(|m| {
                let password = secret("first-secret-0001");
                m.authorization = Some(Authorization::Basic { username: "u".into(), password });
            })],
        ),
        (
            "type = \"alertmanager\"\nurl = \"http://127.0.0.1:9093\"\nbearer_token_env = \"KEY\"".into(),
            vec![manager(|m| m.authorization = Some(Authorization::Bearer(secret(KEY))))],
        ),
        (
            "type = \"alertmanager\"\nurl = \"http://127.0.0.1:9093\"\nlabels = {b = \"2\", a = \"1\"}\n\
             annotations.c = \"3\"\ngenerator_url = \"https://c/\""
                .into(),
            vec![manager(|m| {
                m.labels = pairs(&[("a", "1"), ("b", "2")]);
                m.annotations = pairs(&[("c", "3")]);
                m.generator_url = Some("https://c/".into());
            })],
        ),
        (
            "type = \"script\"\ncommand = [\"/bin/sh\", \"-c\", \"true\"]\nenv = {A = \"b\", TOKEN = {file = \"@/a\"}}".into(),
            vec![Provider::Script(Script {
                argv: ["/bin/sh".into(), "-c".into(), "true".into()].into(),
                env: [("A".into(), secret("b")), ("TOKEN".into(), secret("first-secret-0001"))].into(),
            })],
        ),
        (
            "type = \"script\"\npath = \"/bin/sh\"\nargs = [\"x\"]".into(),
            vec![Provider::Script(Script { argv: ["/bin/sh".into(), "x".into()].into(), env: Box::default() })],
        ),
    ];
    for (table, providers) in rows {
        let expected: Vec<Destination> =
            providers.into_iter().map(|provider| Destination::new("x", provider)).collect();
        let (found, said) = declared(&mut ground, &table);
        assert_eq!(said, Vec::<String>::new(), "{table}");
        assert_eq!(found.len(), expected.len(), "{table}");
        for (found, expected) in found.iter().zip(&expected) {
            // Secrets are equal or not, and not shown.
            assert!(**found == *expected, "{table}\n{found:#?}\n{expected:#?}");
        }
    }
}

#[test]
fn pace_transport_and_wording_are_of_all_that_are_reached_over_a_net() {
    let mut ground = Ground::new();
    let base = "type = \"pagerduty\"\nrouting_key_env = \"KEY\"\n";
    let ca = ground.path("ca.pem");
    type Change = Box<dyn Fn(&mut Destination)>;
    let all = |title: Option<&str>, text: Option<&str>| {
        let words = Words { title: title.map(Into::into), text: text.map(Into::into) };
        Wording::new(Color::ALL.map(|color| (color, words.clone())))
    };
    let (titled, worded) = (all(Some("t"), None), all(None, Some("a\n")));
    let rows: Vec<(String, Change)> = vec![
        ("rate = \"20/m\"".into(), Box::new(|d| d.pace.every = Span::from_secs(3))),
        ("burst = 7".into(), Box::new(|d| d.pace.burst = 7)),
        ("concurrency = 9".into(), Box::new(|d| d.pace.concurrency = 9)),
        ("raises_per_minute = 3".into(), Box::new(|d| d.pace.raises_per_minute = 3)),
        ("timeout = \"5s\"".into(), Box::new(|d| d.transport.timeout = Span::from_secs(5))),
        (format!("ca_file = \"{ca}\""), Box::new(move |d| d.transport.ca_file = Some(ca.clone().into()))),
        ("proxy = \"http://p:3128\"".into(), Box::new(|d| d.transport.proxy = Some(secret("http://p:3128")))),
        ("title = \"t\"".into(), Box::new(move |d| d.wording = titled.clone())),
        ("text = \"a\\n\"".into(), Box::new(move |d| d.wording = worded.clone())),
        (
            "text.red = \"r\"\ntext.Green = \"g\"\ntitle = {red = \"t\"}".into(),
            Box::new(|d| {
                let words =
                    |title: Option<&str>, text: &str| Words { title: title.map(Into::into), text: Some(text.into()) };
                d.wording = Wording::new([(Color::Red, words(Some("t"), "r")), (Color::Green, words(None, "g"))]);
            }),
        ),
    ];
    for (keys, change) in rows {
        let mut expected = Destination::new("x", pager());
        change(&mut expected);
        let (found, said) = declared(&mut ground, &format!("{base}{keys}"));
        assert_eq!(said, Vec::<String>::new(), "{keys}");
        assert_eq!(found.iter().map(|d| (**d).clone()).collect::<Vec<_>>(), [expected], "{keys}");
    }
    let defaults = Destination::new("x", pager());
    assert_eq!((defaults.pace, defaults.transport), (pager().pace(), Transport::default()));
    assert_eq!(Pace { burst: 7, ..defaults.pace }.burst, 7);
}

#[test]
fn what_a_daemon_file_has_wrong_is_said_with_its_place() {
    let mut ground = Ground::new();
    let outside = "is outside of the secret folders";
    for (table, expected) in [
        ("type = \"slak\"", "2:8: type \"slak\" is unknown, did you mean \"slack\"?"),
        ("url = \"x\"", "1:12: type is missing: add \"type = \\\"slack\\\"\", or another"),
        ("type = \"slack\"", "1:12: hook_file is missing: slack needs hook_file or hook_env"),
        (
            "type = \"slack\"\nhook = \"https://h\"",
            "3:1: hook is a secret, and does not stand here: put it into a file, and name that with hook_file",
        ),
        (
            "type = \"webhook\"\nurl = \"https://h/x\"\nsecrets = [\"a\"]",
            "4:1: secrets is a secret, and does not stand here: put it into a file, and name that with secret_files",
        ),
        (
            "type = \"slack\"\nhook_fle = \"/s\"\nhook_env = \"HOOK\"",
            "3:1: unknown key \"hook_fle\", did you mean \"hook_file\"?",
        ),
        (
            "type = \"pagerduty\"\nrouting_key_file = \"key\"",
            "3:20: routing_key_file \"key\" is not absolute: write the whole path, without \"..\"",
        ),
        (
            "type = \"pagerduty\"\nrouting_key_file = \"/etc/shadow\"",
            &format!("3:20: routing_key_file \"/etc/shadow\" {outside}"),
        ),
        ("type = \"slack\"\nhook_file = \"@/a\"", "3:13: hook_file is no http or https address"),
        (
            "type = \"slack\"\nhook_env = \"NOT_THERE\"",
            "3:12: hook_env names the variable \"NOT_THERE\", which is empty or not set",
        ),
        (
            "type = \"slack\"\nhook_env = \"EMPTY\"",
            "3:12: hook_env names the variable \"EMPTY\", which is empty or not set",
        ),
        (
            "type = \"slack\"\nhook_env = \"LINES\"",
            "3:12: hook_env names the variable \"LINES\", in which there is a line break",
        ),
        (
            "type = \"slack\"\nhook_env = \"HOOK\"\nhook_file = \"@/hook\"",
            "4:1: \"hook_env\" and \"hook_file\" are two names of one key",
        ),
        (
            "type = \"slack\"\nhook_env = \"HOOK\"\nrate = \"1\"",
            "4:8: rate \"1\" is no rate: write it like 1/s, 20/m or 100/h",
        ),
        ("type = \"slack\"\nhook_env = \"HOOK\"\nburst = 0", "4:9: burst 0 is out of range: 1 to 10000"),
        ("type = \"slack\"\nhook_env = \"HOOK\"\ntimeout = \"1h\"", "4:11: timeout 1h is too long: at most 2m"),
        ("type = \"slack\"\nhook_env = \"HOOK\"\nca_file = \"@/a\"", "4:11: ca_file names a file without a"),
        (
            "type = \"slack\"\nhook_env = \"HOOK\"\nproxy = \"http://u:p@h:1\"",
            "4:9: proxy has a password in it, which does not stand here",
        ),
        ("type = \"slack\"\nhook_env = \"HOOK\"\nproxy = \"socks5://h:1\"", "4:9: proxy has the scheme \"socks5\""),
        (
            "type = \"slack\"\nhook_env = \"HOOK\"\ntext.rad = \"x\"",
            "4:6: unknown color \"rad\", did you mean \"red\"?",
        ),
        ("type = \"slack\"\nhook_env = \"HOOK\"\ntext.red = \"\"", "4:12: text.red is empty"),
        (
            "type = \"slack\"\nhook_env = \"HOOK\"\ntext = \"{{ monitr }}\"",
            "4:8: text is no template that can be used: there is no \"monitr\"",
        ),
        (
            "type = \"slack\"\nhook_env = \"HOOK\"\ntitle = \"a\\nb\"",
            "4:9: title contains the control character U+000A",
        ),
        ("type = \"email\"\nfrom = \"a@b\"\nto = \"c@d\"", "1:12: host is missing: email needs host or server"),
        (
            "type = \"email\"\nhost = \"h\"\nfrom = \"a@b\\nBcc: x@y\"\nto = \"c@d\"",
            "4:8: from contains the control character U+000A",
        ),
        ("type = \"email\"\nhost = \"h\"\nfrom = \"a\"\nto = \"c@d\"", "4:8: from \"a\" is no mail address"),
        ("type = \"email\"\nhost = \"h\"\nfrom = \"a@b\"\nto = [\"c@d\", \"e\"]", "5:14: to \"e\" is no mail address"),
        (
            "type = \"email\"\nhost = \"h\"\nfrom = \"a@b\"\nto = \"c@d\"\nusername = \"u\"",
            "6:12: username comes alone: add password_file",
        ),
        (
            "type = \"email\"\nhost = \"h:1\"\nport = 2\nfrom = \"a@b\"\nto = \"c@d\"",
            "4:8: port stands in host as well (1)",
        ),
        (
            "type = \"email\"\nhost = \"h\"\nsecurity = \"tls\"\ntls = true\nfrom = \"a@b\"\nto = \"c@d\"",
            "5:7: security and tls say the same thing: remove tls",
        ),
        (
            "type = \"sms\"\nfrom = \"+15550100\"\naccount_sid = \"AC1\"\nauth_token_file = \"@/a\"\nto = \"0151\"",
            "6:6: to \"0151\" is no telephone number",
        ),
        (
            "type = \"sms\"\nfrom = \"?\"\naccount_sid = \"AC1\"\nauth_token_file = \"@/a\"\nto = \"+15550101\"",
            "3:8: from \"?\" is no sender",
        ),
        (
            "type = \"webhook\"\nurl = \"https://h/x\"\nsecret_file = \"@/a\"",
            "4:15: secret_file does not begin with \"whsec_\"",
        ),
        ("type = \"webhook\"\nurl = \"https://u:p@h/x\"", "3:7: url has a user or a password in it"),
        (
            "type = \"webhook\"\nurl = \"https://h/x\"\nheaders = {webhook-id = \"1\"}",
            "4:12: the header \"webhook-id\" is set by the delivery itself",
        ),
        ("type = \"webhook\"\nurl = \"https://h/x\"\nheaders = {\"a b\" = \"1\"}", "4:12: \"a b\" is no header name"),
        (
            "type = \"webhook\"\nurl = \"https://h/x\"\nheaders = {Authorization = \"1\"}",
            "4:12: the header \"Authorization\" is a secret, and does not stand here",
        ),
        (
            "type = \"webhook\"\nurl = \"https://h/x\"\nmethod = \"GET\"",
            "4:10: method \"GET\" is unknown: write POST or PUT or PATCH",
        ),
        (
            "type = \"alertmanager\"\nurl = \"http://127.0.0.1\"\nlabels = {a-b = \"1\"}",
            "4:11: \"a-b\" is no name of a label",
        ),
        (
            "type = \"alertmanager\"\nurl = \"https://h\"\nusername = \"u\"",
            "1:12: password_file is missing: username comes alone",
        ),
        ("type = \"script\"\ncommand = \"true\"", "3:11: command \"true\" is not absolute"),
        ("type = \"script\"\ncommand = \"/nowhere/at-all\"", "3:11: command is not run: "),
        ("type = \"log\"\nfile = \"/etc/x\"", "3:8: file \"/etc/x\" is outside of the allowed folders"),
        ("type = \"telegram\"\nbot_token_file = \"@/a\"", "1:12: chat_id is missing: telegram needs chat_id"),
    ] {
        let (named, said) = declared(&mut ground, table);
        let expected = format!("c.toml:{expected}");
        assert!(said.iter().any(|said| said.starts_with(&expected)), "{table}\n{expected}\n{said:#?}");
        assert!(named.is_empty(), "{table}");
    }
    for (table, expected) in [
        (
            "type = \"pagerduty\"\nrouting_key_file = \"@/a\"",
            "3:20: warning: routing_key_file has 17 characters, and the key",
        ),
        ("type = \"slack\"\nhook_env = \"HOOK\"", ""),
        (
            "type = \"pagerduty\"\nrouting_key_env = \"KEY\"\nurl = \"http://p/x\"",
            "4:7: warning: url is plain http: who is on the way reads the routing key",
        ),
        (
            "type = \"email\"\nhost = \"h\"\nsecurity = \"none\"\nusername = \"u\"\npassword_file = \"@/a\"\nfrom = \"a@b\"\nto = \"c@d\"",
            "6:17: warning: the password leaves this host in plain text",
        ),
    ] {
        let (named, said) = declared(&mut ground, table);
        let is_said = said.iter().any(|said| said.starts_with(&format!("c.toml:{expected}")));
        assert!(named.len() == 1 && (expected.is_empty() && said.is_empty() || is_said), "{table}\n{said:#?}");
    }
    let (named, said) = declared(&mut ground, "type = \"opsgenie\"\napi_key_file = \"@/a\"");
    assert_eq!(said[0], "c.toml:1:12: warning: opsgenie is not in this version: no effect, notices go to the fallback");
    assert!(named.is_empty());
}

#[test]
fn names_of_types_are_no_names_and_nobody_is_declared_in_vain() {
    let mut ground = Ground::new();
    ground.declare("[providers.slack]\ntype = \"log\"\n");
    let monitor = document("icmp", "host: h");
    let (_, report) = ground.load(&monitor);
    assert_eq!(report.provider_errors, 1);
    assert!(
        report.diagnostics.to_string().contains("c.toml:1:12: \"slack\" is the name of a type"),
        "{}",
        report.diagnostics
    );
    ground.declare("[providers.a]\ntype = \"log\"\n[providers.b]\ntype = \"log\"\n[code]\nfallback = \"b\"\n");
    let (_, report) = ground.load(&monitor);
    let said: Vec<_> = report.unused.iter().map(|said| said.message.to_string()).collect();
    assert_eq!(said, ["no monitor notifies \"a\": name it in a rule, or remove it"]);
    assert!(ground.load("[]").1.unused.is_empty());
}

#[test]
fn the_fallback_is_the_log_or_one_named_destination() {
    let mut ground = Ground::new();
    let (pager, token) = (ground.path("pager"), ground.path("a"));
    let oncall = format!("[providers.oncall]\ntype = \"pagerduty\"\nrouting_key_file = \"{pager}\"\n");
    ground.declare(&format!("{oncall}[code]\nfallback = \"oncall\"\n"));
    let (monitors, report) = ground.load(&document("icmp", "host: h"));
    assert_eq!((report.diagnostics.to_string(), report.reds_to_fallback), (String::new(), 1));
    assert!(*report.receivers.fallback == Destination::new("oncall", self::pager()));
    let red = monitors[0].policy.codes.destinations(Color::Red);
    assert!(Arc::ptr_eq(&red[0], &report.receivers.fallback), "equal destinations are one");
    let phones = format!(
        "[providers.phones]\ntype = \"sms\"\naccount_sid = \"AC1\"\nauth_token_file = \"{token}\"\nfrom = \"+15550100\"\n\
         to = [\"+15550101\", \"+15550102\"]\n[code]\nfallback = \"phones\"\n"
    );
    ground.declare(&phones);
    let (_, report) = ground.load(&document("icmp", "host: h"));
    assert_eq!(
        headlines(&report)[0],
        "c.toml:1:12: \"phones\" is the [code] fallback, which has one number: leave one in \"to\""
    );
    for (text, expected) in [
        (
            format!("{oncall}[code]\nfallback = \"onkall\""),
            "[code] fallback \"onkall\" is unknown, did you mean \"oncall\"?",
        ),
        (
            "[code]\nfallback = \"pagerduty\"".to_owned(),
            "[code] fallback \"pagerduty\" is unknown: write log, or the name of a [providers.NAME]",
        ),
        (
            "[providers.t]\ntype = \"teams\"\nhook_file = \"/x\"\n[code]\nfallback = \"t\"".to_owned(),
            "[code] fallback \"t\" is of type teams, which comes with a later version: name another one",
        ),
    ] {
        let (_, diagnostics) = Settings::compose("c.toml", &text, |_| None, &Flags::default());
        assert_eq!(diagnostics.to_string(), format!("c.toml: {expected}\n"));
    }
}

#[test]
fn a_rule_names_a_type_with_all_that_it_takes() {
    let ground = Ground::new();
    let rows: Vec<(String, Vec<Destination>)> = vec![
        (
            format!("{{notify: pagerduty, config: {{routing_key: {KEY}, severity: error}}}}"),
            vec![Destination::new("pagerduty", match pager() {
                Provider::PagerDuty(pager) => Provider::PagerDuty(PagerDuty { severity: Some(Gravity::Error), ..pager }),
                other => other,
            })],
        ),
        (
            "{notify: slack, config: {hook: 'https://h/x'}}".into(),
            vec![Destination::new("slack", slack("https://h/x"))],
        ),
        ("{notify: slack, config: {url: 'https://h/x'}}".into(), vec![Destination::new("slack", slack("https://h/x"))]),
        (
            "{notify: smtp, config: {to: ops@example.com, from: cpra@example.com, server: mail.example.com}}".into(),
            vec![Destination::new("email", email(|_| {}))],
        ),
        (
            "{notify: twilio, config: {to: ['+15550112', '+15550111'], from: '+15550100', account_sid: AC01, auth_token_file: a}}"
                .into(),
            vec![Destination::new("sms", sms("+15550111")), Destination::new("sms", sms("+15550112"))],
        ),
        (
            format!("{{notify: [webhook, log], config: {{url: 'https://h/x', secrets: [{SIGN}], secret_file: sign}}}}"),
            vec![
                Destination::new("webhook", webhook(|w| w.secrets = [secret(SIGN), secret(SIGN)].into())),
                Destination::log(None),
            ],
        ),
        (
            "{notify: alertmanager, config: {url: 'http://127.0.0.1:9093', labels: {a: 1}}}".into(),
            vec![Destination::new("alertmanager", manager(|m| m.labels = [("a".into(), "1".into())].into()))],
        ),
        (
            "{notify: script, config: {command: /bin/x -y, env: {A: b}, timeout: 5s}}".into(),
            vec![Destination {
                transport: Transport { timeout: Span::from_secs(5), ..Transport::default() },
                ..Destination::new(
                    "script",
                    Provider::Script(Script {
                        argv: ["/bin/x".into(), "-y".into()].into(),
                        env: [("A".into(), secret("b"))].into(),
                    }),
                )
            }],
        ),
    ];
    for (rule, expected) in rows {
        let (found, report) = told(&ground, &rule);
        let warnings: Vec<_> =
            headlines(&report).into_iter().filter(|said| !said.contains("no monitor notifies")).collect();
        assert_eq!(warnings, Vec::<String>::new(), "{rule}");
        assert_eq!(found.iter().map(|d| (**d).clone()).collect::<Vec<_>>(), expected, "{rule}");
        assert_eq!(report.reds_to_fallback, 0, "{rule}");
    }
}

#[test]
fn a_rule_changes_of_a_named_provider_whom_it_is_for_and_how_it_is_put() {
    let mut ground = Ground::new();
    let path = ground.path("");
    ground.declare(
        &format!(
            "[providers.chat]\n{}\n[providers.mail]\n{MAIL}\n[providers.phone]\n{TEXT}\nto = \"+15550111\"\n\
             [providers.am]\ntype = \"alertmanager\"\nurl = \"http://127.0.0.1:9093\"\nlabels = {{a = \"1\", b = \"1\"}}\n\
             [providers.oncall]\ntype = \"pagerduty\"\nrouting_key_file = \"@/pager\"\n\
             [providers.out]\ntype = \"log\"\n",
            "type = \"slack\"\nhook_file = \"@/hook\"\nchannel = \"#all\"\ntext.red = \"down\""
        )
        .replace("@/", &path),
    );
    let of = |rule: &str| {
        let (found, report) = told(&ground, rule);
        assert!(report.is_sound(), "{rule}\n{}", report.diagnostics);
        assert_eq!(found.len(), 1, "{rule}");
        found[0].clone()
    };
    let chat = of("{notify: chat}");
    assert_eq!(chat.wording.of(Color::Red).and_then(|words| words.text.as_deref()), Some("down"));
    let shop = of("{notify: chat, config: {channel: '#shop', title: 'T'}}");
    let Provider::Slack(slack) = &shop.provider else { panic!("{shop:?}") };
    assert_eq!(slack.channel.as_deref(), Some("#shop"));
    let words = Words { title: Some("T".into()), text: Some("down".into()) };
    assert_eq!((shop.wording.of(Color::Red), &*shop.name), (Some(&words), "chat"));
    let mail = of("{notify: mail, config: {to: [a@b], subject: S}}");
    assert!(mail.provider == email(|e| e.to = ["a@b".into()].into()));
    assert_eq!(mail.wording.of(Color::Red).and_then(|words| words.title.as_deref()), Some("S"));
    assert!(of("{notify: phone, config: {to: '+15550199'}}").provider == sms("+15550199"));
    let labels = |labels: &[(&str, &str)]| labels.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
    assert!(
        of("{notify: am, config: {labels: {b: 2, c: 3}}}").provider
            == manager(|m| m.labels = labels(&[("a", "1"), ("b", "2"), ("c", "3")]))
    );
    let Provider::PagerDuty(pager) = &of("{notify: oncall, config: {severity: info}}").provider else { panic!() };
    assert_eq!(pager.severity, Some(Gravity::Info));
    for (rule, expected) in [
        (
            "{notify: chat, config: {hook: 'https://h/'}}",
            "7:40: a: hook belongs to \"chat\": say it in the daemon file, and remove it here; a rule may say channel, \
             username, title, text",
        ),
        ("{notify: out, config: {file: x}}", "file belongs to \"out\": say it in the daemon file, and remove it here"),
        ("{notify: [chat, phone], config: {rate: 1/s}}", "rate belongs to \"chat\": "),
        ("{notify: mail, config: {to: nobody}}", "to \"nobody\" is no mail address"),
    ] {
        let (_, report) = told(&ground, rule);
        let errors: Vec<_> = report.diagnostics.iter().filter(|said| said.severity == Severity::Error).collect();
        assert_eq!(errors.len(), 1, "{rule}\n{}", report.diagnostics);
        assert!(errors[0].to_string().contains(expected), "{rule}\n{}", errors[0]);
    }
    // A type beside it takes what the named one does not.
    let (found, report) = told(&ground, "{notify: [chat, slack], config: {hook: 'https://h/x'}}");
    assert!(report.is_sound() && found.len() == 2, "{}", report.diagnostics);
}

#[test]
fn one_place_is_one_destination_whatever_its_colors_say() {
    let ground = Ground::new();
    let codes = "  codes:\n    red: {notify: oncall, config: {text: R}}\n    yellow: {notify: oncall}\n    green: {notify: oncall, config: {title: G, text: g}}\n";
    let monitor = ground.one(&(document("icmp", "host: h") + codes));
    let of = |color| monitor.policy.codes.destinations(color)[0].clone();
    assert!(
        Arc::ptr_eq(&of(Color::Red), &of(Color::Green)) && Arc::ptr_eq(&of(Color::Red), &of(Color::Yellow))
            || of(Color::Red) == of(Color::Yellow)
    );
    let wording = &of(Color::Yellow).wording;
    assert_eq!(wording.iter().count(), 2);
    assert_eq!(wording.of(Color::Green).and_then(|words| words.title.as_deref()), Some("G"));
    let twice = "  codes:\n    red: {notify: oncall}\n    yellow: {notify: oncall, config: {severity: info}}\n";
    let (_, report) = ground.load(&(document("icmp", "host: h") + twice));
    let said = headlines(&report);
    assert!(
        said.iter()
            .any(|said| said.starts_with("9:5: warning: a: yellow pages the service of red with other settings")),
        "{said:?}"
    );
}

#[test]
fn a_red_that_nobody_receives_goes_to_the_fallback_and_is_counted() {
    let ground = Ground::new();
    let none: &[&str] = &[];
    for (codes, counted, warnings) in [
        ("{}", 1, none),
        ("{yellow: {notify: log}}", 1, &[]),
        ("{red: {notify: log}}", 0, &[]),
        ("{red: {notify: log, dispatch: false}}", 1, &[]),
        ("{red: {notify: journal}}", 0, &[]),
        ("{red: {notify: oncall}}", 0, &[]),
        (
            "{red: {notify: pagerduty, config: {url: pager}}}",
            1,
            &[
                "red: no routing key is known for \"pagerduty\" (a url alone names no service): add routing_key_file; its notices go to the fallback",
            ],
        ),
        ("{red: {notify: slack, config: {hook: 'https://hooks.slack.com/services/T/B/x'}}}", 0, &[]),
        (
            "{red: {notify: [sms, journal], config: {to: '+49'}}}",
            0,
            &[
                "red: notify \"sms\" lacks account_sid, auth_token, from: add that to config, or name one of [providers]; its notices go to the fallback",
            ],
        ),
        (
            "{red: {notify: webhook}}",
            1,
            &[
                "red: notify \"webhook\" lacks url: add that to config, or name one of [providers]; its notices go to the fallback",
            ],
        ),
        (
            "{red: {notify: teams, config: {hook: 'https://h/x'}}}",
            1,
            &["red: notify \"teams\" comes with a later version: its notices go to the fallback"],
        ),
        (
            "{red: {notify: slack, config: {hook: 'https://h/x', payload: {a: b}}}}",
            0,
            &["payload has no effect: write what is to be said into title and text"],
        ),
        (
            "{red: {notify: slack, config: {hook: 'http://h/x'}}}",
            0,
            &["hook is plain http: who is on the way reads the address, which is a password; write https://"],
        ),
    ] {
        let (monitors, report) = ground.load(&(document("icmp", "host: h") + &format!("  codes: {codes}\n")));
        assert_eq!(report.reds_to_fallback, counted, "{codes}");
        let warned: Vec<&str> = report.diagnostics.iter().map(|diagnostic| &*diagnostic.message).collect();
        let warned: Vec<&str> = warned.into_iter().filter(|said| !said.starts_with("no monitor notifies")).collect();
        assert_eq!(warned, warnings, "{codes}");
        let red = monitors[0].policy.codes.destinations(Color::Red);
        assert_eq!(
            red[0] == report.receivers.fallback,
            codes != "{red: {notify: journal}}" && (counted == 1 || red.len() == 2 || codes.contains("log}")),
            "{codes}"
        );
    }
    let journal = ground.one(&(document("icmp", "host: h") + "  codes: {red: {notify: journal}}\n"));
    let file = Provider::Log { file: Some("/var/log/j.jsonl".into()) };
    assert!(*journal.policy.codes.destinations(Color::Red)[0] == Destination::new("journal", file));
    let unverified = document("http", "url: https://h/, tls: {insecure_skip_verify: true}");
    assert_eq!(ground.load(&unverified).1.unverified, 1);
}

#[test]
fn every_key_of_a_provider_is_known_to_its_type_and_to_no_other() {
    let ground = Ground::new();
    for (name, kind) in ProviderKind::NAMES {
        for key in kind.keys() {
            let value = match key {
                "file" => "x.jsonl",
                "url" | "hook" | "generator_url" => "https://h/x",
                "hook_file" | "url_file" => "hook",
                "secret_file" | "secret_files" => "sign",
                "secret" | "secrets" => SIGN,
                "ca_file" => "ca.pem",
                "proxy_file" => "a",
                "proxy" => "http://p:3128",
                "port" => "25",
                "burst" | "concurrency" | "raises_per_minute" => "2",
                "rate" => "1/s",
                "timeout" => "5s",
                "tls" => "true",
                "security" => "starttls",
                "severity" => "critical",
                "method" => "put",
                "host" | "server" => "mail",
                "command" | "path" | "script" => "/bin/true",
                "payload" | "labels" | "annotations" | "headers" | "env" => "{a: b}",
                file if file.ends_with("_file") => "a",
                _ => "x",
            };
            // Not the proxy of the file, which holds none.
            if key == "proxy_file" || (key == "from" && kind == ProviderKind::Email) {
                continue;
            }
            let rule = |name: &str| format!("  codes: {{yellow: {{notify: {name}, config: {{{key}: {value}}}}}}}\n");
            let load = |name: &str| ground.load(&(document("icmp", "host: h") + &rule(name))).1;
            assert!(load(name).is_sound(), "{name} {key}\n{}", load(name).diagnostics);
            for (other, kind) in ProviderKind::NAMES {
                let is_unknown = |said: &crate::config::Diagnostic| said.message.starts_with("unknown key");
                assert_eq!(
                    !load(other).diagnostics.iter().any(is_unknown),
                    kind.keys().contains(&key),
                    "{other} {key}"
                );
            }
        }
    }
}

/// What is refused of a rule, and how what is said begins.
#[test]
fn what_a_rule_has_wrong_is_said_with_its_place() {
    let ground = Ground::new();
    let mut wrong = Vec::new();
    for (rule, expected) in [
        ("{notify: slack, config: {file: x}}", "7:41: a: unknown key \"file\""),
        ("{notify: slack, config: {hook: nowhere}}", "7:47: a: hook is no http or https address"),
        ("{notify: slack, config: {hook: 'https://h/x', channel_env: X}}", "unknown key \"channel_env\""),
        ("{notify: slack, config: {hook: [a]}}", "hook takes one text"),
        ("{notify: slack, config: {hook: 'https://h/x', text: {red: x}}}", "text takes one value, this is a map"),
        ("{notify: slack, config: {payload: [a]}}", "payload takes a map of keys, this is a list"),
        ("{notify: pagerduty, config: {severity: loud}}", "severity \"loud\" is unknown"),
        ("{notify: pagerduty, config: {routing_key: 'a b'}}", "routing_key has a space or a letter beyond ASCII"),
        ("{notify: pagerduty, config: {routing_key: a, url: pager}}", "url is no http or https address"),
        ("{notify: email, config: {to: a, port: 0}}", "port 0 is out of range"),
        ("{notify: email, config: {to: a, from: b@c, host: d}}", "to \"a\" is no mail address"),
        ("{notify: webhook, config: {url: 'https://h/x', secret: hush}}", "secret does not begin with \"whsec_\""),
        ("{notify: webhook, config: {url: 'https://h/x', headers: {A: {env: X}}}}", "env belongs into the daemon file"),
        ("{notify: script, config: {command: 'a | b'}}", "command contains \"|\""),
        ("{notify: script, config: {command: /bin/x, env: {1a: b}}}", "\"1a\" is no name of a variable"),
        (
            "{notify: sms, config: {to: '+49', from: CPRA, account_sid: AC1, auth_token: x}}",
            "to \"+49\" is no telephone number",
        ),
    ] {
        let (red, report) = told(&ground, rule);
        let errors: Vec<String> = report
            .diagnostics
            .iter()
            .filter(|said| said.severity == Severity::Error)
            .map(|said| said.to_string().lines().next().unwrap_or_default().to_owned())
            .collect();
        let is_said = errors.len() == 1 && errors[0].contains(expected);
        if !is_said || !red.is_empty() || errors.iter().any(|said| said.contains("hush")) {
            wrong.push(format!("{rule}\n{expected}\n{errors:#?} {red:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_script_of_an_untrusted_file_is_not_run_and_its_check_is() {
    use std::os::unix::fs::PermissionsExt;
    let mut ground = Ground::new();
    ground.folders.is_root = false;
    let path = ground.folders.working.join("m.yaml");
    let text = document("icmp", "host: h") + "  codes: {red: {notify: [script, log], config: {command: /bin/sh}}}\n";
    std::fs::write(&path, text).expect("a file");
    for (mode, is_run) in [(0o644, true), (0o666, false)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
        let mut monitors = Vec::new();
        let report = crate::config::read(&path, &ground.folders, &mut |monitor| monitors.push(monitor));
        assert_eq!(
            (report.diagnostics.refusals(), monitors.len()),
            (usize::from(!is_run), 1),
            "{}",
            report.diagnostics
        );
        let red = monitors[0].policy.codes.destinations(Color::Red);
        assert_eq!(red.iter().any(|one| matches!(one.provider, Provider::Script(_))), is_run, "{red:?}");
    }
}

/// One secret at every place that takes one, and at those where somebody might put one.
#[test]
fn no_secret_is_shown_anywhere() {
    const SENTINEL: &str = "hunter2-hunter2";
    let mut ground = Ground::new();
    let hook = format!("https://hooks.example.com/x/{SENTINEL}");
    for (name, text) in [("s", SENTINEL), ("shook", &*hook), ("sproxy", &format!("http://me:{SENTINEL}@p:1"))] {
        std::fs::write(ground.path(name), text).expect("a file");
    }
    let path = ground.path("");
    let environment = |name: &str| (name == "S").then(|| SENTINEL.to_owned());
    let wrong = ["", "\nrate = \"often\"", "\nfile = \"x\"", "\ntext = \"\""];
    for table in [
        "type = \"pagerduty\"\nrouting_key_env = \"S\"",
        "type = \"pagerduty\"\nrouting_key = \"S\"",
        "type = \"slack\"\nhook_file = \"@/shook\"\nproxy_file = \"@/sproxy\"",
        "type = \"slack\"\nhook = \"https://hooks.example.com/S\"",
        "type = \"slack\"\nurl = \"https://hooks.example.com/S\"",
        "type = \"webhook\"\nurl = \"https://h/S\"\nheaders = {Authorization = \"S\", X = {env = \"S\"}}",
        "type = \"webhook\"\nurl = \"https://h/S\"\nsecret_env = \"S\"\nsecrets = [\"S\"]",
        "type = \"webhook\"\nurl = \"https://me:S@h/\"\nproxy = \"http://me:S@p:1\"",
        "type = \"sms\"\naccount_sid = \"AC1\"\nauth_token_env = \"S\"\nfrom = \"?\"\nto = \"0\"",
        "type = \"email\"\nhost = \"h\"\nfrom = \"a@b\"\nto = \"c@d\"\nusername = \"u\"\npassword = \"S\"",
        "type = \"email\"\nhost = \"h\"\nfrom = \"a@b\"\nto = \"c@d\"\nusername = \"u\"\npassword_file = \"@/s\"",
        "type = \"alertmanager\"\nurl = \"http://h/\"\nusername = \"u\"\npassword_env = \"S\"",
        "type = \"alertmanager\"\nurl = \"http://h/\"\nbearer_token = \"S\"",
        "type = \"script\"\ncommand = \"/bin/sh\"\nenv = {TOKEN = \"S\", A = {env = \"S\"}}",
    ] {
        for wrong in wrong {
            // The names of the file and of the variable are no secret.
            let table = (table.replace("@/", &path) + wrong)
                .replace("env = \"S\"", "env = \u{1}")
                .replace("_env = \"S\"", "_env = \u{1}")
                .replace('S', SENTINEL)
                .replace('\u{1}', "\"S\"");
            let text = format!("[providers.x]\n{table}\n[watchdog]\nurl = \"https://hc/{SENTINEL}\"\n");
            let (settings, diagnostics) = Settings::compose("c.toml", &text, environment, &Flags::default());
            ground.folders.providers = settings.providers.clone();
            let (monitors, report) = ground.load(&(document("icmp", "host: h") + "  codes: {red: {notify: x}}\n"));
            for shown in [
                format!("{diagnostics}{settings:?}{:?}", ground.folders),
                format!("{}{:?}{:?}", report.diagnostics, report.receivers, report),
                format!("{monitors:?}"),
            ] {
                assert!(!shown.contains(SENTINEL), "{text}\n{shown}");
            }
        }
    }
}
