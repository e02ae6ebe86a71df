use std::sync::Arc;

use super::*;
use crate::domain::destination::{Wording, Words};
use crate::domain::monitor::About;
use crate::domain::notice::EpisodeId;
use crate::domain::{DeliveryKey, Incident, Raise};
use crate::units::limits::TEMPLATE_MAX;
use crate::units::{MonitorId, Span};

fn destination(color: Color, title: Option<&str>, text: Option<&str>) -> Destination {
    let words = Words { title: title.map(Into::into), text: text.map(Into::into) };
    Destination { wording: Wording::new([(color, words)]), ..Destination::log(None) }
}

fn notice(color: Color) -> Notice {
    let episode = EpisodeId(42);
    Notice {
        key: DeliveryKey { episode, raise: Raise::Red, destination: Arc::new(Destination::log(None)), n: 0 },
        incident: Incident::new("mon-1", "shop/web", episode),
        monitor: Some(MonitorId::new(0, 1)),
        monitor_name: "shop/web".into(),
        color,
        summary: "shop/web is down: 503 {{ color }} \u{1b}[31m\u{202e}x\r\ny".into(),
        outcome: Some(Code::L7Sts),
        at: Timestamp::from_micros(1_795_316_400_000_042),
        lasted: Span::from_millis(6_500),
        groups: ["shop".into(), "frontend".into()].into(),
        about: About {
            labels: [("cost centre".into(), "7".into()), ("team".into(), "shop".into())].into(),
            description: Some("The shop's\r\nfront door\u{7}".into()),
            runbook: Some("https://wiki.example.com/shop-web".into()),
        },
        test: false,
    }
}

#[test]
fn the_built_in_words_say_what_there_is_to_say() {
    let said = render(&notice(Color::Red), &Destination::log(None));
    assert_eq!(said.title, "CRITICAL ALERT: shop/web");
    assert_eq!(
        said.text,
        "shop/web is down: 503 {{ color }}  [31m x  y\n\
         Status: FAILED (critical), L7STS\n\
         At: 2026-11-22T03:00:00Z, after 6.5 s\n\
         Groups: shop, frontend\n\
         Labels: cost centre=7, team=shop\n\
         The shop's\nfront door \n\
         Runbook: https://wiki.example.com/shop-web\n\
         Incident: mon-1/shop/web/0000000000000000000000001A"
    );
    let bare = Notice {
        outcome: None,
        lasted: Span::ZERO,
        groups: Box::default(),
        about: About::default(),
        color: Color::Green,
        ..notice(Color::Green)
    };
    let said = render(&bare, &Destination::log(None));
    assert_eq!(said.title, "RECOVERY NOTICE: shop/web");
    assert!(said.text.contains("\nStatus: RECOVERED (info)\nAt: 2026-11-22T03:00:00Z\nIncident: "), "{}", said.text);
}

#[test]
fn a_template_has_the_data_and_evidence_is_never_template() {
    let to = destination(
        Color::Red,
        Some("{{ status|lower }}: {{ monitor }}\nand more"),
        Some(
            "{{ summary }} {{ labels.team }}{{ labels.none.at.all }}{% for g in groups %} #{{ g }}{% endfor %} {{ lasted }} <&> ",
        ),
    );
    let said = render(&notice(Color::Red), &to);
    assert_eq!(said.title, "failed: shop/web and more", "one line");
    assert_eq!(said.text, "shop/web is down: 503 {{ color }}  [31m x  y shop #shop #frontend 6.5 s <&>");
    let other = render(&notice(Color::Yellow), &to);
    assert_eq!(other.title, "DEGRADED ALERT: shop/web", "the words are of one color");
}

#[test]
fn a_template_that_fails_gives_way_and_says_so() {
    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
    for bad in ["{{ 1 / 0 }}", "{{ summary|shout }}", "{% if %}", loops, "{{ 'x' * 90000000 }}"] {
        let said = render(&notice(Color::Red), &destination(Color::Red, Some(bad), Some(bad)));
        assert_eq!(said.title, "CRITICAL ALERT: shop/web", "{bad}");
        assert!(said.text.starts_with("shop/web is down: 503"), "{bad}: {}", said.text);
        assert!(said.text.contains("\n(the template of the title for red failed: line 1: "), "{bad}: {}", said.text);
        assert!(said.text.contains("\n(the template of the text for red failed: line 1: "), "{bad}: {}", said.text);
        assert!(check(bad).is_err(), "{bad}");
    }
    let said = render(&notice(Color::Red), &destination(Color::Red, Some(" "), Some("{% if test %}x{% endif %}\n")));
    assert!(
        said.title == "CRITICAL ALERT: shop/web" && said.text.starts_with("shop/web is down"),
        "nothing is nothing"
    );
}

#[test]
fn a_test_is_marked_whatever_the_template() {
    let notice = Notice { test: true, ..notice(Color::Red) };
    for to in [Destination::log(None), destination(Color::Red, Some("quiet"), Some("nothing to see"))] {
        let said = render(&notice, &to);
        assert!(said.title.starts_with("[TEST] ") && said.text.starts_with("TEST: nothing has happened"), "{said:?}");
    }
}

#[test]
fn words_are_cut_between_characters() {
    let to = destination(Color::Red, Some("{{ '🛒' * 400 }}"), Some("a{{ '🛒' * 10000 }}"));
    let said = render(&notice(Color::Red), &to);
    assert_eq!(said.title, format!("{}…", "🛒".repeat(127)), "509 bytes of 512 are left for whole ones");
    assert!(said.text.len() <= WORDING_TEXT_MAX && said.text.ends_with("🛒…"), "{}", said.text.len());
    assert_eq!(cut("🛒🛒".into(), 8), "🛒🛒");
    assert_eq!(cut("🛒🛒".into(), 7), "🛒…");
    assert_eq!(cut("🛒🛒".into(), 6), "…");
}

#[test]
fn a_check_finds_what_would_fail() {
    assert_eq!(check("{{ labels.team|default('-') }} {{ groups|join(', ') }}{% if test %}!{% endif %}"), Ok(()));
    assert_eq!(check("{% for n in range(3) %}{{ n }}{{ loop.index }}{% endfor %}{% set a = 1 %}{{ a }}"), Ok(()));
    let fault = check("\n{{ sumary }}").expect_err("there is none");
    assert!(fault.starts_with("there is no \"sumary\"; there are ") && fault.contains("summary"), "{fault}");
    assert!(fault.contains("instance") && fault.contains("outcome"), "all are named: {fault}");
    assert_eq!(check("\n\n{{ color|shout }}").expect_err("no filter").split(':').next(), Some("line 3"));
    assert!(check(&"x".repeat(TEMPLATE_MAX + 1)).expect_err("too long").contains("16384"));
    assert!(check("{% include 'x' %}").is_err());
}

#[test]
fn the_documented_template_is_the_built_in_text() {
    let page = include_str!("../../../docs/templates.md");
    let template = page.split("```jinja\n").nth(1).and_then(|rest| rest.split("```").next()).expect("it is there");
    assert_eq!(check(template), Ok(()));
    for data in Color::ALL.into_iter().flat_map(Data::samples) {
        assert_eq!(template::render(template, &data).expect("it runs").trim_end(), data.text());
    }
}
