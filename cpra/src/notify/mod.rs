//! Providers: they take complete notices to their destinations. They run on the code lane ([`lane`]), which keeps
//! the order per destination and calls a destination with one batch at a time.

pub mod alertmanager;
pub mod dirs;
pub mod email;
pub mod exchange;
pub mod lane;
pub mod line;
pub mod log;
pub mod pagerduty;
pub mod script;
pub mod slack;
pub mod sms;
pub mod stderr;
pub mod webhook;

use std::rc::Rc;
use std::sync::Arc;

pub use dirs::LogDirs;
pub use stderr::Stderr;

use crate::desk::protocol::Delivered;
use crate::domain::{Destination, Notice, Provider};
use crate::os::lane::Disk;
use crate::os::spawn::Runner;
use crate::os::web::Web;

/// What all providers of a lane share.
#[derive(Clone, Debug)]
pub struct Surroundings {
    pub disk: Disk,
    pub log_dirs: Arc<LogDirs>,
    /// The last resort.
    pub stderr: Rc<Stderr>,
    pub web: Web,
    /// Who runs scripts, if anybody does.
    pub scripts: Option<Rc<Runner>>,
}

/// A destination with what is kept open towards it.
#[derive(Debug)]
pub enum Outlet {
    Log(log::LogOutlet),
    PagerDuty(pagerduty::PagerDutyOutlet),
    Slack(slack::SlackOutlet),
    Webhook(webhook::WebhookOutlet),
    Sms(sms::SmsOutlet),
    Alertmanager(alertmanager::AlertmanagerOutlet),
    Email(Box<email::EmailOutlet>),
    Script(script::ScriptOutlet),
}

impl Outlet {
    pub fn new(destination: &Destination, surroundings: &Surroundings) -> Self {
        let web = &surroundings.web;
        match &destination.provider {
            Provider::Log { file } => Self::Log(log::LogOutlet::new(file.clone(), surroundings.clone())),
            Provider::PagerDuty(to) => Self::PagerDuty(pagerduty::PagerDutyOutlet::new(to, destination, web)),
            Provider::Slack(to) => Self::Slack(slack::SlackOutlet::new(to, destination, web)),
            Provider::Webhook(to) => Self::Webhook(webhook::WebhookOutlet::new(to, destination, web)),
            Provider::Sms(to) => Self::Sms(sms::SmsOutlet::new(to, destination, web)),
            Provider::Alertmanager(to) => {
                Self::Alertmanager(alertmanager::AlertmanagerOutlet::new(to, destination, web))
            }
            Provider::Email(email) => Self::Email(Box::new(email::EmailOutlet::new(email, destination, web))),
            Provider::Script(script) => {
                Self::Script(script::ScriptOutlet::new(script, destination, surroundings.scripts.clone()))
            }
        }
    }

    /// Delivers in order and answers for each notice, in the same order. Fails only by answering so.
    pub async fn deliver(&mut self, notices: &[&Notice]) -> Vec<Delivered> {
        match self {
            Self::Log(outlet) => outlet.deliver(notices).await,
            Self::PagerDuty(outlet) => outlet.deliver(notices).await,
            Self::Slack(outlet) => outlet.deliver(notices).await,
            Self::Webhook(outlet) => outlet.deliver(notices).await,
            Self::Sms(outlet) => outlet.deliver(notices).await,
            Self::Alertmanager(outlet) => outlet.deliver(notices).await,
            Self::Email(outlet) => outlet.deliver(notices).await,
            Self::Script(outlet) => outlet.deliver(notices).await,
        }
    }

    /// Lets go of what is open. To drop it does the same, but the thread waits for it.
    pub async fn close(self) {
        match self {
            Self::Log(outlet) => outlet.close().await,
            // Their connections end with them.
            Self::PagerDuty(_) | Self::Slack(_) | Self::Webhook(_) | Self::Sms(_) | Self::Alertmanager(_) => {}
            Self::Email(outlet) => outlet.close().await,
            Self::Script(_) => {}
        }
    }
}
