//! The vendors' own clients send the same content to the same fake, and both requests are compared field by field. Where they
//! differ stands in the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use cpra::desk::protocol::DeliveryResult::Sent;
use cpra::domain::Raise;
use serde_json::{Value, json};

use super::counterparts::authority::{Authority, Wish};
use super::counterparts::provider::{Provider, Request};
use super::counterparts::support::skip;
use super::counterparts::vendors::HOOK;
use super::lane::{Lane, later, red};
use super::web::{ROUTING_KEY, SECRETS, Who};

/// Python with the package, from where `cargo xtask packages` puts it or from the system; else a skip.
fn python(module: &str) -> Option<Command> {
    let binary = Path::new(env!("CARGO_BIN_EXE_cpra"));
    let brought = binary.ancestors().nth(2).expect("a target folder").join("python");
    for path in [Some(brought), None] {
        let command = || {
            let mut python = Command::new("python3");
            if let Some(path) = &path {
                python.env("PYTHONPATH", path);
            }
            python
        };
        if command().args(["-c", &format!("import {module}")]).output().is_ok_and(|output| output.status.success()) {
            return Some(command());
        }
    }
    skip(module, &format!("needs python3 with the package {module} (cargo xtask packages)"));
    None
}

/// Has the vendor's client send that, and answers with what it made of the answer.
fn drive(mut python: Command, kind: &str, url: &str, ca: &Path, content: &Value) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/providers/clients.py");
    let pipes = python.arg(script).args([kind, url]).arg(ca).stdin(Stdio::piped()).stdout(Stdio::piped());
    // Nothing of this machine's proxies is meant for the fake.
    let mut child = pipes.env("NO_PROXY", "*").stderr(Stdio::piped()).spawn().expect("python starts");
    child.stdin.take().expect("a pipe").write_all(content.to_string().as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{kind}: {told}{errors}");
    let said: Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"));
    said["said"].clone()
}

/// What every HTTP client has of its own.
const OF_CLIENTS: [&str; 8] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "connection",
    "content-length",
    "host",
    "transfer-encoding",
    "user-agent",
];

/// Names of headers that only one of them has, but for those.
fn headers_of_one(ours: &Request, theirs: &Request) -> BTreeSet<String> {
    let names = |request: &Request| -> BTreeSet<String> {
        let names = request.headers.iter().map(|(name, _)| name.clone());
        names.filter(|name| !OF_CLIENTS.contains(&&**name)).collect()
    };
    names(ours).symmetric_difference(&names(theirs)).cloned().collect()
}

fn media_type(request: &Request) -> Option<&str> {
    request.header("content-type").and_then(|value| value.split(';').next())
}

/// The last two requests: ours and theirs, alike in method, path and kind of content.
fn both(fake: &Provider) -> (Request, Request) {
    fake.assert_rules_kept();
    let mut requests = fake.requests();
    let theirs = requests.pop().expect("a request");
    let ours = requests.pop().expect("two requests");
    assert_eq!((&ours.method, &ours.path), (&theirs.method, &theirs.path));
    assert_eq!(media_type(&ours), media_type(&theirs));
    assert_eq!(ours.header("authorization"), theirs.header("authorization"));
    assert_eq!(ours.status, theirs.status);
    (ours, theirs)
}

#[test]
fn pagerduty() {
    let Some(python) = python("pagerduty") else { return };
    drop(python);
    let Some(authority) = Authority::start() else { return };
    // The client insists on https.
    let fake = Provider::start_tls(&authority.issue("pd", Wish::of("DNS:localhost,IP:127.0.0.1")));
    let root = authority.root();
    let to = Arc::new(Who::PagerDuty.at(&fake, Some(&root)));
    let mut lane = Lane::start();
    let first = red(&to);
    for (notice, only_ours) in [(&first, &["client"][..]), (&later(&first, Raise::Resolve, 0), &[])] {
        let delivered = lane.deliver(notice);
        assert_eq!(delivered.result, Sent, "{}", delivered.said);
        let content = fake.requests().pop().expect("ours").json();
        let python = self::python("pagerduty").expect("it was there");
        let key = drive(python, "pagerduty", &fake.url(""), &root, &content);
        assert_eq!(key, content["dedup_key"]);
        let (ours, theirs) = both(&fake);
        // It tells who the client is by its user agent; we by the field that PagerDuty shows to people.
        let (mut own, other) = (ours.json(), theirs.json());
        for name in only_ours {
            assert!(own.as_object_mut().expect("an object").remove(*name).is_some(), "{name}");
        }
        assert_eq!(own, other);
        assert_eq!(other["routing_key"], ROUTING_KEY);
        assert_eq!(headers_of_one(&ours, &theirs), BTreeSet::new());
    }
}

#[test]
fn slack() {
    let Some(python) = python("slack_sdk") else { return };
    let fake = Provider::start();
    let delivered = Lane::start().deliver(&red(&Who::Slack.told(&fake)));
    assert_eq!(delivered.result, Sent, "{}", delivered.said);
    let content = fake.requests().pop().expect("ours").json();
    assert_eq!(drive(python, "slack", &fake.url(HOOK), &PathBuf::new(), &content), "ok");
    // It says `charset=utf-8` to the type, which JSON is in any case.
    let (ours, theirs) = both(&fake);
    assert_eq!(ours.json(), theirs.json());
    assert_eq!(headers_of_one(&ours, &theirs), BTreeSet::new());
}

#[test]
fn twilio() {
    let Some(python) = python("twilio") else { return };
    let fake = Provider::start();
    let delivered = Lane::start().deliver(&red(&Who::Sms.told(&fake)));
    assert_eq!(delivered.result, Sent, "{}", delivered.said);
    let form: BTreeMap<String, String> = fake.requests().pop().expect("ours").form().into_iter().collect();
    let mut content = json!(form);
    content["account_sid"] = fake.vendors(|vendors| vendors.account_sid.clone()).into();
    content["auth_token"] = fake.vendors(|vendors| vendors.auth_token.clone()).into();
    let sid = drive(python, "twilio", &fake.url(""), &PathBuf::new(), &content);
    assert!(sid.as_str().is_some_and(|sid| sid.starts_with("SM")), "{sid}");
    let (ours, theirs) = both(&fake);
    let sorted = |request: &Request| request.form().into_iter().collect::<BTreeMap<_, _>>();
    assert_eq!(sorted(&ours), sorted(&theirs));
    // It says so as well.
    let own = headers_of_one(&ours, &theirs);
    assert!(own.iter().all(|name| name == "x-twilio-client"), "{own:?}");
}

#[test]
fn signatures_are_verified_by_the_package_of_the_standard() {
    let Some(python) = python("standardwebhooks") else { return };
    let fake = Provider::start();
    let delivered = Lane::start().deliver(&red(&Who::Webhook.told(&fake)));
    assert_eq!(delivered.result, Sent, "{}", delivered.said);
    let ours = fake.requests().pop().expect("ours");
    let headers: BTreeMap<String, String> = ours.headers.iter().cloned().collect();
    let content = json!({"headers": headers, "body": ours.text(), "secrets": SECRETS});
    let told = drive(python, "standardwebhooks", "", &PathBuf::new(), &content);
    assert_eq!(told, "notice.red");
}
