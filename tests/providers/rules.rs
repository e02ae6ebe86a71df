//! Each rule of those who take alerts: the fake refuses the request that breaks it, with the vendor's own words.

use serde_json::{Value, json};

use super::counterparts::provider::{Provider, post};
use super::counterparts::vendors::{BODY_MAX, HOOK};

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];

/// A value with one thing changed: `null` takes it away.
fn changed(value: &Value, path: &str, to: Value) -> Value {
    let mut value = value.clone();
    let (parent, name) = path.rsplit_once('/').expect("a path");
    let parent = value.pointer_mut(parent).expect("it is there").as_object_mut().expect("an object");
    if to.is_null() {
        parent.remove(name)
    } else {
        parent.insert(name.to_owned(), to)
    };
    value
}

#[test]
fn pagerduty() {
    let fake = Provider::start();
    let send = |event: &Value| post(&fake, "/v2/enqueue", JSON, event.to_string().as_bytes());
    let sound = json!({"routing_key": "0123456789abcdef0123456789abcdef", "event_action": "trigger", "dedup_key": "k",
        "payload": {"summary": "s", "source": "x", "severity": "critical", "timestamp": "2026-11-22T03:00:00Z"}});
    let (status, body) = send(&sound);
    assert_eq!(status, 202, "{body}");
    assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON")["dedup_key"], "k");
    assert_eq!(fake.vendors(|vendors| vendors.open()), ["k"]);
    let long = |count| Value::from("x".repeat(count));
    for (path, to, says) in [
        ("/routing_key", json!("short"), "32 characters"),
        ("/routing_key", Value::Null, "32 characters"),
        ("/event_action", json!("raise"), "event_action"),
        ("/dedup_key", long(256), "maximum is 255"),
        ("/payload", Value::Null, "payload.summary"),
        ("/payload/summary", json!(""), "payload.summary"),
        ("/payload/summary", long(1_025), "maximum is 1024"),
        ("/payload/source", Value::Null, "payload.source"),
        ("/payload/severity", Value::Null, "payload.severity"),
        ("/payload/severity", json!("fatal"), "payload.severity"),
        ("/payload/timestamp", json!("yesterday"), "payload.timestamp"),
        // The same thing, under another key.
        ("/dedup_key", json!("other"), "another dedup_key"),
    ] {
        let (status, body) = send(&changed(&sound, path, to));
        assert_eq!(status, 400, "{path}: {body}");
        assert!(body.contains("invalid event") && body.contains(says), "{path}: {body}");
    }
    let huge = changed(&sound, "/payload/custom_details", long(BODY_MAX));
    assert_eq!(send(&huge).0, 413);
    assert_eq!(post(&fake, "/v2/enqueue", JSON, b"{").0, 400);
    assert_eq!(post(&fake, "/v2/enqueue", &[("Content-Type", "text/plain")], sound.to_string().as_bytes()).0, 400);
    // A resolve needs its key, and a trigger before it.
    let resolve = json!({"routing_key": sound["routing_key"], "event_action": "resolve", "dedup_key": "k"});
    assert_eq!(send(&changed(&resolve, "/dedup_key", Value::Null)).0, 400);
    assert!(send(&changed(&resolve, "/dedup_key", json!("unknown"))).1.contains("never triggered"));
    assert_eq!(send(&resolve).0, 202);
    assert!(fake.vendors(|vendors| vendors.open()).is_empty());
}

#[test]
fn slack() {
    let fake = Provider::start();
    let send = |path: &str, headers, body: &str| post(&fake, path, headers, body.as_bytes());
    let says = |answer: (u16, String), status: u16, word: &str| assert_eq!(answer, (status, word.to_owned()));
    says(send(HOOK, JSON, r#"{"text":"it"}"#), 200, "ok");
    says(send(HOOK, JSON, r#"{"text":" "}"#), 400, "no_text");
    says(send(HOOK, JSON, "text=it"), 400, "invalid_payload");
    says(send(HOOK, JSON, "[]"), 400, "invalid_payload");
    says(send(HOOK, &[("Content-Type", "text/plain")], r#"{"text":"it"}"#), 400, "invalid_payload");
    says(send("/services/T1/B1/wrong", JSON, r#"{"text":"it"}"#), 403, "invalid_token");
    says(send("/services/nobody", JSON, r#"{"text":"it"}"#), 404, "no_service");
    let long = json!({"text": "x".repeat(40_001)}).to_string();
    says(send(HOOK, JSON, &long), 400, "msg_too_long");
    // About one a second: the first of these was taken above.
    let statuses: Vec<u16> = (0..4).map(|_| send(HOOK, JSON, r#"{"text":"it"}"#).0).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(fake.requests().last().is_some_and(|last| last.status == 429));
}

#[test]
fn twilio() {
    use base64::Engine as _;
    let fake = Provider::start();
    let (path, sid, token) =
        fake.vendors(|vendors| (vendors.messages_path(), vendors.account_sid.clone(), vendors.auth_token.clone()));
    let basic = |token: &str| format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(format!("{sid}:{token}")));
    let (right, wrong) = (basic(&token), basic("guess"));
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let send = |path: &str, authorization: &str, body: &str| {
        post(&fake, path, &[form, ("Authorization", authorization)], body.as_bytes())
    };
    let sound = "To=%2B15550100&From=%2B15550199&Body=it";
    let (status, body) = send(&path, &right, sound);
    assert_eq!(status, 201, "{body}");
    assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON")["status"], "queued");
    for (body, code) in [
        ("From=%2B15550199&Body=it", 21604),
        ("To=15550100&From=%2B15550199&Body=it", 21211),
        ("To=%2B15550100&Body=it", 21603),
        ("To=%2B15550100&From=%2B15550199&MessagingServiceSid=MG1&Body=it", 21603),
        ("To=%2B15550100&From=%2B15550199&Body=", 21602),
        (&format!("To=%2B15550100&From=%2B15550199&Body={}", "x".repeat(1_601)), 21617),
    ] {
        let (status, answer) = send(&path, &right, body);
        assert_eq!(status, 400, "{body}");
        assert_eq!(serde_json::from_str::<Value>(&answer).expect("JSON")["code"], code, "{body}");
    }
    assert_eq!(send(&path, &wrong, sound).0, 401);
    assert_eq!(post(&fake, &path, &[form], sound.as_bytes()).0, 401);
    assert_eq!(send("/2010-04-01/Accounts/AC1/Messages.json", &right, sound).0, 404);
    assert_eq!(post(&fake, &path, &[("Authorization", &right), JSON[0]], b"{}").0, 400);
}

#[test]
fn standard_webhooks() {
    use base64::Engine as _;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let fake = Provider::start();
    let base64 = base64::prelude::BASE64_STANDARD;
    let secret = |text: &str| format!("whsec_{}", base64.encode(text));
    fake.vendors(|vendors| vendors.secrets = vec![secret("new secret of the receiver")]);
    let now = cpra::os::clock::Clock.wall().as_micros() / 1_000_000;
    let signature = |key: &str, id: &str, stamp: i64, body: &str| {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).expect("any length");
        mac.update(format!("{id}.{stamp}.{body}").as_bytes());
        format!("v1,{}", base64.encode(mac.finalize().into_bytes()))
    };
    let send = |id: &str, stamp: i64, signatures: &str, body: &str| {
        let stamp = stamp.to_string();
        let headers = [JSON[0], ("webhook-id", id), ("webhook-timestamp", &stamp), ("webhook-signature", signatures)];
        post(&fake, "/hook", &headers, body.as_bytes())
    };
    let (key, body) = ("new secret of the receiver", r#"{"it":1}"#);
    let sound = signature(key, "id-1", now, body);
    assert_eq!(send("id-1", now, &sound, body).0, 204);
    // While secrets are rotated, several sign.
    let both = format!("{} {sound}", signature("old", "id-1", now, body));
    assert_eq!(send("id-1", now, &both, body).0, 204);
    assert_eq!(send("id-1", now, &signature("old", "id-1", now, body), body).0, 401);
    assert_eq!(send("id-2", now, &sound, body).0, 401, "the id is signed");
    assert_eq!(send("id-1", now - 1, &sound, body).0, 401, "the time is signed");
    assert_eq!(send("id-1", now, &sound, r#"{"it":2}"#).0, 401, "the body is signed");
    let old = now - 301;
    assert_eq!(send("id-1", old, &signature(key, "id-1", old, body), body).0, 401, "too old");
    assert_eq!(send("", now, &signature(key, "", now, body), body).0, 401);
    assert_eq!(send("id-2", now, &signature(key, "id-2", now, body), body).0, 401, "the same under another id");
    assert_eq!(send("id-3", now, &signature(key, "id-3", now, "it"), "it").0, 401, "no JSON");
}

/// What the fake and the real one are asked, and what both must say.
pub const ALERTS: [(&str, u16); 9] = [
    (r#"[{"labels":{"alertname":"it"}}]"#, 200),
    (
        r#"[{"labels":{"alertname":"it"},"annotations":{"a":"b"},"startsAt":"2026-11-22T03:00:00.000001Z","generatorURL":"http://x.example/"}]"#,
        200,
    ),
    ("[]", 200),
    (r#"{"labels":{"alertname":"it"}}"#, 400),
    ("[{", 400),
    (r#"[{"annotations":{"a":"b"}}]"#, 422),
    (r#"[{"labels":{}}]"#, 400),
    (r#"[{"labels":{"alertname":"it"},"startsAt":"yesterday"}]"#, 400),
    (r#"[{"labels":{"alertname":"it"},"startsAt":"2026-11-22T03:00:00Z","endsAt":"2026-11-22T02:00:00Z"}]"#, 400),
];

#[test]
fn alertmanager() {
    let fake = Provider::start();
    for (body, status) in ALERTS {
        assert_eq!(post(&fake, "/api/v2/alerts", JSON, body.as_bytes()).0, status, "{body}");
    }
    assert_eq!(post(&fake, "/api/v2/alerts", &[("Content-Type", "text/plain")], b"[]").0, 415);
}

#[test]
fn the_real_alertmanager_agrees_with_the_fake() {
    let Some(real) = super::counterparts::alertmanager::Alertmanager::start() else { return };
    for (body, status) in ALERTS {
        let answer = real.post(body);
        assert_eq!(answer.0, status, "{body}: {}", answer.1);
    }
}
