//! The real Alertmanager: what it shows of our alerts.

use std::sync::Arc;

use cpra::desk::protocol::DeliveryResult::Sent;
use cpra::domain::{Destination, Notice, Raise};
use serde_json::Value;

use super::counterparts::alertmanager::Alertmanager;
use super::counterparts::support::eventually;
use super::lane::{Lane, later, red};
use super::web::alertmanager as provider;

/// An alert for the monitor of that name, in that group.
fn of(destination: &Arc<Destination>, name: &str, group: &str) -> Notice {
    let mut notice = red(destination);
    notice.monitor_name = name.into();
    notice.groups = [group.into()].into();
    notice.about.labels = [("group".into(), group.into())].into();
    notice
}

fn names(alerts: &Value) -> Vec<String> {
    let alerts = alerts.as_array().expect("a list");
    let mut names: Vec<String> =
        alerts.iter().map(|alert| alert["labels"]["monitor"].as_str().unwrap_or("?").to_owned()).collect();
    names.sort();
    names
}

fn time(alert: &Value, name: &str) -> jiff::Timestamp {
    alert[name].as_str().and_then(|time| time.parse().ok()).unwrap_or_else(|| panic!("no {name}: {alert}"))
}

#[test]
fn alerts_are_raised_grouped_refreshed_and_resolved() {
    let Some(real) = Alertmanager::start() else { return };
    let to = Arc::new(Destination::new("alertmanager", provider(&real.url())));
    let mut lane = Lane::start();
    let raised = [of(&to, "web-1", "shop"), of(&to, "web-2", "shop"), of(&to, "db", "store")];
    for delivered in lane.deliver_all(&raised) {
        assert_eq!(delivered.result, Sent, "{}", delivered.said);
    }
    let active = || real.ask("?active=true");
    eventually("three are active", || names(&active()) == ["db", "web-1", "web-2"]);
    let alerts = active();
    let find = |alerts: &Value, name: &str| -> Value {
        let mut alerts = alerts.as_array().expect("a list").iter();
        alerts.find(|alert| alert["labels"]["monitor"] == name).expect("it is there").clone()
    };
    let web = find(&alerts, "web-1");
    assert_eq!(web["labels"]["severity"], "critical");
    assert_eq!(web["labels"]["region"], "eu");
    assert!(web["annotations"]["summary"].as_str().is_some_and(|text| text.contains("503 Service Unavailable")));
    assert_eq!(web["generatorURL"], "http://cpra.shop.example/");
    let ends = time(&web, "endsAt");
    assert!(ends > jiff::Timestamp::now(), "it lasts");

    // Its own groups, by the label that its route names.
    eventually("two groups", || {
        let groups = real.ask("/groups");
        let mut sizes: Vec<(String, usize)> = groups
            .as_array()
            .expect("a list")
            .iter()
            .map(|group| {
                let label = group["labels"]["group"].as_str().unwrap_or("?").to_owned();
                (label, group["alerts"].as_array().map_or(0, Vec::len))
            })
            .collect();
        sizes.sort();
        sizes == [("shop".to_owned(), 2), ("store".to_owned(), 1)]
    });

    // Sent again, it is the same alert, and lasts longer.
    assert_eq!(lane.deliver(&raised[0]).result, Sent);
    eventually("it is refreshed", || time(&find(&active(), "web-1"), "endsAt") > ends);
    assert_eq!(names(&active()).len(), 3);
    assert_eq!(find(&active(), "web-1")["fingerprint"], web["fingerprint"]);
    assert_eq!(time(&find(&active(), "web-1"), "startsAt"), time(&web, "startsAt"));

    for notice in &raised[..2] {
        assert_eq!(lane.deliver(&later(notice, Raise::Resolve, 0)).result, Sent);
    }
    eventually("one is left", || names(&active()) == ["db"]);
    // Once more does no harm.
    assert_eq!(lane.deliver(&later(&raised[0], Raise::Resolve, 0)).result, Sent);
    assert_eq!(names(&active()), ["db"]);
}
