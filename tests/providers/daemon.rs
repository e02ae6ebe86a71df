//! The whole daemon: one target that fails and recovers, and everybody who is told of it, over a provider that is not always
//! well.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::counterparts::postbox::{Postbox, Security, Stage, What};
use super::counterparts::provider::{Mode, Provider, Request};
use super::counterparts::vendors::HOOK;
use super::process::{Cpra, Setup, eventually};
use super::targets::{Targets, file, http};
use super::web::{FROM, ROUTING_KEY, SECRETS, TO};

const CADENCE: &str = "interval: 200ms, timeout: 150ms, unhealthy_threshold: 2, healthy_threshold: 2";
/// Keeps what it is given, and would rather be asked again the first time.
const PROGRAM: &str = "#!/bin/sh\ncat > \"$1/$CPRA_COLOR.$$\"\nmkdir \"$1/asked\" 2>/dev/null && exit 75\necho kept\n";

/// A daemon in front of the target, with a destination of each kind.
fn start(fake: &Provider, postbox: &Postbox, targets: &Targets) -> Cpra {
    let setup = Setup::new();
    let folder = setup.folder().to_owned();
    // Whom scripts run as when this is root must come here, and write there.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    fs::create_dir(folder.join("told")).expect("a folder");
    fs::set_permissions(folder.join("told"), fs::Permissions::from_mode(0o777)).expect("it is ours");
    fs::write(folder.join("program"), PROGRAM).expect("a file");
    fs::set_permissions(folder.join("program"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let (sid, token) = fake.vendors(|vendors| {
        vendors.secrets = vec![SECRETS[0].to_owned()];
        (vendors.account_sid.clone(), vendors.auth_token.clone())
    });
    let settings = format!(
        "[ebpf]\nmode = \"off\"\n\
         [providers.oncall]\ntype = \"pagerduty\"\nrouting_key_env = \"TEST_ROUTING_KEY\"\nurl = \"{}\"\n\
         [providers.chat]\ntype = \"slack\"\nhook_env = \"TEST_HOOK\"\n\
         [providers.mail]\ntype = \"email\"\nto = [\"ops@shop.example\"]\nfrom = \"cpra@shop.example\"\n\
         host = \"127.0.0.1\"\nport = {}\nsecurity = \"none\"\n\
         [providers.phone]\ntype = \"sms\"\nto = [\"{TO}\"]\nfrom = \"{FROM}\"\naccount_sid = \"{sid}\"\n\
         auth_token_env = \"TEST_TOKEN\"\nurl = \"{}\"\n\
         [providers.hook]\ntype = \"webhook\"\nurl_env = \"TEST_URL\"\nsecret_env = \"TEST_SECRET\"\n\
         [providers.prometheus]\ntype = \"alertmanager\"\nurl = \"{}\"\n\
         [providers.program]\ntype = \"script\"\ncommand = [\"{}\", \"{}\"]\n",
        fake.url("/v2/enqueue"),
        postbox.address().port(),
        fake.url(""),
        fake.url(""),
        folder.join("program").display(),
        folder.join("told").display(),
    );
    let everyone = "{notify: [oncall, chat, mail, phone, hook, prometheus, program]}";
    let monitors = file(CADENCE, &http("shop/web", targets.addresses[0]));
    let monitors = monitors
        .lines()
        .map(|line| match line.trim().split(':').next() {
            Some(color @ ("red" | "green")) => format!("    {color}: {everyone}\n"),
            Some("yellow" | "gray") => String::new(),
            _ => format!("{line}\n"),
        })
        .collect::<String>();
    setup
        .settings(&settings)
        .monitors(&monitors)
        .environment("TEST_ROUTING_KEY", ROUTING_KEY)
        .environment("TEST_HOOK", &fake.url(HOOK))
        .environment("TEST_TOKEN", &token)
        .environment("TEST_URL", &fake.url("/hook/x"))
        .environment("TEST_SECRET", SECRETS[0])
        .run()
}

/// What was processed for this path.
fn taken(fake: &Provider, path: &str) -> Vec<Request> {
    fake.taken().into_iter().filter(|request| request.path.starts_with(path)).collect()
}

fn programs(cpra: &Cpra, color: &str) -> usize {
    let entries = fs::read_dir(cpra.path("told")).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    names.filter(|name| name.starts_with(&format!("{color}."))).count()
}

#[test]
fn everybody_is_told_the_red_and_the_green() {
    let (fake, postbox) = (Provider::start(), Postbox::start(Security::Plain, None, None));
    let targets = Targets::start(1, Duration::ZERO);
    let mut cpra = start(&fake, &postbox, &targets);
    eventually("it has seen the target", || cpra.stdout().contains("UP"));
    // Whom these befall, chance says: each of them gets it all the same.
    fake.next([Mode::Throttled(Some("1")), Mode::Status(503), Mode::Throttled(Some("1"))]);
    postbox.next([(Stage::Message, What::Drops)]);
    targets.set_well(false);
    let paths = ["/v2/enqueue", "/services/", "/2010-04-01/", "/hook", "/api/v2/alerts"];
    let all_told = |count: usize, color: &str| {
        paths.iter().all(|path| taken(&fake, path).len() >= count)
            // The first answer was lost.
            && postbox.taken().len() > count
            && programs(&cpra, color) >= if color == "red" { 2 } else { 1 }
    };
    eventually("everybody has the red", || all_told(1, "red"));
    targets.set_well(true);
    eventually("everybody has the green", || all_told(2, "green"));
    fake.assert_rules_kept();
    postbox.assert_rules_kept();

    let events: Vec<_> = taken(&fake, "/v2/enqueue").iter().map(Request::json).collect();
    let keys: BTreeSet<_> = events.iter().map(|event| event["dedup_key"].to_string()).collect();
    assert_eq!(keys.len(), 1, "{events:#?}");
    assert_eq!(events.last().expect("a resolve")["event_action"], "resolve");
    assert!(fake.vendors(|vendors| vendors.open()).is_empty());

    let hooks = taken(&fake, "/hook");
    let ids: BTreeSet<_> = hooks.iter().map(|request| request.header("webhook-id").map(str::to_owned)).collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    let types: Vec<_> = hooks.iter().map(|request| request.json()["type"].clone()).collect();
    assert_eq!((types.first(), types.last()), (Some(&"notice.red".into()), Some(&"notice.green".into())));

    let mails = postbox.taken();
    let ids: BTreeSet<_> = mails.iter().map(|mail| mail.header("Message-ID")).collect();
    assert_eq!((mails.len(), ids.len()), (3, 2), "the red came twice, as the same mail");
    assert_eq!(mails[0].text, mails[1].text);
    assert!(
        mails[2].header("In-Reply-To").is_some_and(|to| to.contains(&mails[0].header("Message-ID").expect("an id")))
    );

    let alerts: Vec<_> = taken(&fake, "/api/v2/alerts").iter().map(Request::json).collect();
    let ends = |alert: &serde_json::Value| -> jiff::Timestamp {
        alert["endsAt"].as_str().and_then(|time| time.parse().ok()).expect("a time")
    };
    assert!(ends(&alerts.last().expect("a resolve")[0]) <= jiff::Timestamp::now());

    // No secret is in what the daemon said.
    let said = cpra.said();
    for secret in [ROUTING_KEY, "abcdefghijklmnopqrstuvwx", SECRETS[0], "twilio-auth-token"] {
        assert!(!said.contains(secret), "{said}");
    }
    cpra.signal(Signal::SIGINT);
    assert_eq!(cpra.ends_within(Duration::from_secs(20)).code(), Some(0), "{}", cpra.said());
}
