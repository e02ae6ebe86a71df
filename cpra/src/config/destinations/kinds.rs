//! What each type of provider needs to be reached. Every value is read before one that is missing ends the reading, so that
//! all faults are told at once.

use std::path::PathBuf;

use super::super::diagnostic::{Severity, quoted};
use super::super::folders::log_path_allowed;
use super::super::providers::ProviderKind;
use super::super::trust::{self, Disk};
use super::super::{address, http, script, value};
use super::values::{self, is_here, mailbox, phone, web_address};
use super::{Form, Place, is_whole};
use crate::domain::destination::{
    Alertmanager, Authorization, Email, MailSecurity, PagerDuty, Provider, Script, Severity as Gravity, Slack, Sms,
    SmsSender, Webhook,
};
use crate::domain::monitor::Secret;
use crate::units::limits::PATH_MAX;

/// Where PagerDuty and Twilio are, unless `url` says otherwise.
const PAGER_DUTY: &str = "https://events.pagerduty.com/v2/enqueue";
const TWILIO: &str = "https://api.twilio.com";

/// Characters of a routing key.
const ROUTING_KEY: usize = 32;

const MAILBOXES_MAX: usize = 64;
const NUMBERS_MAX: usize = 16;

impl Form<'_, '_> {
    /// One, or several where a key names several; none where something is missing or wrong, which was said.
    pub(super) fn providers(&mut self) -> Vec<Provider> {
        match self.kind {
            ProviderKind::Log => vec![self.log()],
            ProviderKind::PagerDuty => self.pager_duty().map(Provider::PagerDuty).into_iter().collect(),
            ProviderKind::Slack => self.slack().map(Provider::Slack).into_iter().collect(),
            ProviderKind::Email => self.email().map(|email| Provider::Email(Box::new(email))).into_iter().collect(),
            ProviderKind::Sms => self.sms().into_iter().map(|sms| Provider::Sms(Box::new(sms))).collect(),
            ProviderKind::Webhook => self.webhook().map(Provider::Webhook).into_iter().collect(),
            ProviderKind::Alertmanager => self.alertmanager().map(Provider::Alertmanager).into_iter().collect(),
            ProviderKind::Script => self.script().map(Provider::Script).into_iter().collect(),
            ProviderKind::Opsgenie | ProviderKind::Telegram | ProviderKind::Discord | ProviderKind::Teams => {
                self.later();
                Vec::new()
            }
        }
    }

    fn log(&mut self) -> Provider {
        let (place, folders) = (self.place, self.folders);
        let file = self.value(&["file"], |node| {
            let file = value::line(PATH_MAX)(node)?;
            if matches!(place, Place::Declared(_)) && !is_whole(file) {
                return Err(format!("{} is not absolute: write the whole path, without \"..\"", quoted(file)));
            }
            log_path_allowed(&PathBuf::from(file), folders).map_err(|error| format!("{} {error}", quoted(file)))
        });
        Provider::Log { file }
    }

    fn pager_duty(&mut self) -> Option<PagerDuty> {
        let names = ["routing_key", "routing_key_file", "routing_key_env"];
        let routing_key = self.secret(&names, values::routing_key);
        if let Some(key) = &routing_key
            && key.expose().len() != ROUTING_KEY
            && let Some(field) = self.section.find(&mut Default::default(), &names)
        {
            let length = key.expose().len();
            let message = format!(
                "{} has {length} characters, and the key of an integration has {ROUTING_KEY}: check it",
                field.key
            );
            self.say(Severity::Warning, &field, message);
        }
        let severity = self.severity();
        // The original takes anything here, even a name: nobody can be paged by it.
        let url = if self.is_complete { self.web("url") } else { self.line("url") };
        self.warn_of_open("url", url.as_deref(), "the routing key");
        Some(PagerDuty { routing_key: routing_key?, url: url.unwrap_or_else(|| PAGER_DUTY.into()), severity })
    }

    pub(super) fn severity(&mut self) -> Option<Gravity> {
        self.value(&["severity"], value::choice(&Gravity::ALL))
    }

    fn slack(&mut self) -> Option<Slack> {
        let names = ["hook", "hook_file", "hook_env", "url"];
        let hook = self.secret(&names, |text| web_address(text).map(drop));
        if let Some(hook) = &hook
            && let Some(field) = self.section.find(&mut Default::default(), &names)
        {
            self.warn_of_open(field.key, Some(hook.expose()), "the address, which is a password");
        }
        let (channel, username) = (self.line("channel"), self.line("username"));
        Some(Slack { hook: hook?, channel, username })
    }

    fn email(&mut self) -> Option<Email> {
        let host = self.value(&["host", "server"], |node| {
            let (host, port) = address::host_port(value::line(300)(node)?)?;
            Ok((host, port))
        });
        let mut port = self.value(&["port"], value::integer(1..=u64::from(u16::MAX)));
        if let Some((_, Some(in_host))) = &host
            && let Some(field) = self.section.find(&mut Default::default(), &["port"])
        {
            let message = format!("port stands in host as well ({in_host}): remove one of them");
            self.say(Severity::Error, &field, message);
        } else if let Some((_, Some(in_host))) = &host {
            port = Some(u64::from(*in_host));
        }
        let port = port.and_then(|port| u16::try_from(port).ok());
        let security = self.mail_security(port);
        let username = self.line("username");
        let names = ["password", "password_file", "password_env"];
        let password = self.secret(&names, |_| Ok(()));
        let password_field = self.section.find(&mut Default::default(), &names);
        match (&password_field, self.section.find(&mut Default::default(), &["username"])) {
            (Some(_), None) if self.is_complete => {
                self.section.missing(self.findings, "username", "a password goes with it");
            }
            (None, Some(field)) if self.is_complete => {
                let message = "username comes alone: add password_file, a server wants both".to_owned();
                self.say(Severity::Error, &field, message);
            }
            _ => {}
        }
        let is_here = host.as_ref().is_some_and(|(host, _)| is_here(host));
        if security == MailSecurity::Plain
            && !is_here
            && let (Some(_), Some(field)) = (&password, password_field)
        {
            let message = "the password leaves this host in plain text: write security: starttls, or tls".to_owned();
            self.say(Severity::Warning, &field, message);
        }
        let from = self.value(&["from"], mailbox);
        let (to, cc) = (self.mailboxes("to"), self.mailboxes("cc"));
        let host = match host?.0 {
            crate::domain::Host::Name(name) => name,
            crate::domain::Host::Literal(address) => address.to_string().into(),
        };
        let port = port.unwrap_or(match security {
            MailSecurity::StartTls => 587,
            MailSecurity::Tls => 465,
            MailSecurity::Plain => 25,
        });
        let from = from?;
        (!to.is_empty()).then_some(Email { host, port, security, username, password, from, to, cc })
    }

    /// `security`, or the original's `tls`: `true` is whatever the port stands for.
    fn mail_security(&mut self, port: Option<u16>) -> MailSecurity {
        let choices = [("starttls", MailSecurity::StartTls), ("tls", MailSecurity::Tls), ("none", MailSecurity::Plain)];
        let by_port = if port == Some(465) { MailSecurity::Tls } else { MailSecurity::StartTls };
        let said = self.value(&["security"], value::choice(&choices));
        let tls = self.value(&["tls"], value::boolean);
        let mut quiet = Default::default();
        if let (Some(_), Some(field)) =
            (self.section.find(&mut quiet, &["security"]), self.section.find(&mut quiet, &["tls"]))
        {
            let message = "security and tls say the same thing: remove tls".to_owned();
            self.say(Severity::Error, &field, message);
        }
        match (said, tls) {
            (Some(security), _) => security,
            (None, Some(false)) => MailSecurity::Plain,
            (None, Some(true) | None) => by_port,
        }
    }

    pub(super) fn mailboxes(&mut self, key: &str) -> Box<[Box<str>]> {
        let Self { section, is_complete, findings, .. } = self;
        // Addresses of several types in one list are no fault where nobody is reached by it anyway.
        let parse = |node| if *is_complete { mailbox(node) } else { value::line(998)(node).map(Box::from) };
        section.list(findings, &[key], MAILBOXES_MAX, parse).unwrap_or_default().into()
    }

    fn sms(&mut self) -> Vec<Sms> {
        let url = self.web("url");
        self.warn_of_open("url", url.as_deref(), "the token");
        let account_sid = self.value(&["account_sid"], values::sid);
        let auth_token = self.secret(&["auth_token", "auth_token_file", "auth_token_env"], |_| Ok(()));
        let from = self.value(&["from"], values::sender).map(SmsSender::Number);
        let service = self.value(&["messaging_service_sid"], values::sid).map(SmsSender::Service);
        if let (Some(_), Some(field)) = (&from, self.section.find(&mut Default::default(), &["messaging_service_sid"]))
        {
            let message = "messaging_service_sid and from both say who it is from: remove one of them".to_owned();
            self.say(Severity::Error, &field, message);
        }
        let numbers = self.numbers();
        let (Some(account_sid), Some(auth_token), Some(sender)) = (account_sid, auth_token, from.or(service)) else {
            return Vec::new();
        };
        let url: Box<str> = url.unwrap_or_else(|| TWILIO.into());
        let sms = |to| Sms {
            url: url.clone(),
            account_sid: account_sid.clone(),
            auth_token: auth_token.clone(),
            sender: sender.clone(),
            to,
        };
        numbers.into_iter().map(sms).collect()
    }

    pub(super) fn numbers(&mut self) -> Vec<Box<str>> {
        let Self { section, is_complete, findings, .. } = self;
        let parse = |node| if *is_complete { phone(node) } else { value::line(998)(node).map(Box::from) };
        let mut numbers = section.list(findings, &["to"], NUMBERS_MAX, parse).unwrap_or_default();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    fn webhook(&mut self) -> Option<Webhook> {
        let names = ["url", "url_file", "url_env"];
        let url = self.secret(&names, |text| web_address(text).map(drop));
        let method = self.value(&["method"], values::method).unwrap_or("POST").into();
        let headers = self.secret_map("headers", "header", super::header_fault, http::header_value);
        let one = self.secret(&["secret", "secret_file", "secret_env"], values::signing_secret);
        let mut secrets: Vec<Secret> = one.into_iter().collect();
        secrets.extend(self.secrets("secrets", "secret_files", values::signing_secret));
        if headers.iter().any(|(name, _)| super::secret::is_secret(name))
            && let Some(field) = self.section.find(&mut Default::default(), &names)
        {
            let text = url.as_ref().map(|url| url.expose().to_owned());
            self.warn_of_open(field.key, text.as_deref(), "the headers");
        }
        Some(Webhook { url: url?, method, headers: headers.into(), secrets: secrets.into() })
    }

    fn alertmanager(&mut self) -> Option<Alertmanager> {
        let url = self.web("url");
        let username = self.line("username");
        let password = self.secret(&["password", "password_file", "password_env"], |_| Ok(()));
        let bearer = self.secret(&["bearer_token", "bearer_token_file", "bearer_token_env"], |_| Ok(()));
        if let (Some(_), Some(field)) = (&bearer, self.section.find(&mut Default::default(), &["username"])) {
            let message = "username and a bearer token are two ways to say who asks: remove one of them".to_owned();
            self.say(Severity::Error, &field, message);
        }
        if username.is_some() != password.is_some() && self.is_complete && bearer.is_none() {
            let (has, lacks) =
                if username.is_some() { ("username", "password_file") } else { ("password", "username") };
            self.section.missing(self.findings, lacks, &format!("{has} comes alone, a server wants both"));
        }
        let authorization = match (username, password) {
            (Some(username), Some(password)) => Some(Authorization::Basic { username, password }),
            _ => bearer.map(Authorization::Bearer),
        };
        if authorization.is_some() {
            self.warn_of_open("url", url.as_deref(), "who asks, and by what password");
        }
        let (labels, annotations) = (self.label_map("labels").into(), self.label_map("annotations").into());
        let generator_url = self.web("generator_url");
        Some(Alertmanager { url: url?, authorization, labels, annotations, generator_url })
    }

    fn script(&mut self) -> Option<Script> {
        // What is missing has been said.
        let has_program = ["command", "path", "script"].iter().any(|key| self.has(key));
        let argv = has_program.then(|| script::argv(&self.section, self.findings)).flatten();
        let mut env = self.secret_map("env", "variable", script::variable_fault, |node| match script::argument(node) {
            Ok(_) => value::text(node).or(Ok("")),
            Err(message) => Err(message),
        });
        env.sort();
        let argv = argv?;
        // Of a rule it is asked together with the file that the rule stands in.
        if matches!(self.place, Place::Declared(_)) {
            let folders = self.folders;
            let programs = trust::programs(&argv).into_iter().filter(|program| program.contains('/'));
            let fault = programs
                .map(|program| folders.working.join(program))
                .find_map(|path| trust::distrust(&path, folders.is_root, &Disk));
            if let (Some(fault), Some(field)) =
                (fault, self.section.find(&mut Default::default(), &["command", "path", "script"]))
            {
                self.say(Severity::Error, &field, format!("{} is not run: {fault}", field.key));
                return None;
            }
        }
        Some(Script { argv: argv.into(), env: env.into() })
    }

    /// A type that this version does not speak to: the form of its values is judged.
    fn later(&mut self) {
        let (section, known) = (self.section, self.kind.keys());
        for field in section.fields().filter(|field| known.contains(&field.key)) {
            let names = [field.key];
            match field.key {
                key if key.ends_with("_file") => {
                    self.secret(&names, |_| Ok(()));
                }
                "hook" | "url" => {
                    self.secret(&names, |text| web_address(text).map(drop));
                }
                "tags" => {
                    self.section.list(self.findings, &names, 64, |node| value::line(255)(node).map(drop));
                }
                key if self.kind.secrets().contains(&key) => {
                    self.secret(&names, |_| Ok(()));
                }
                "payload" => {}
                key => {
                    self.line(key);
                }
            }
        }
    }

    /// Who is on the way reads what goes in plain text.
    fn warn_of_open(&mut self, key: &str, address: Option<&str>, what: &str) {
        let is_open = address.is_some_and(|address| web_address(address).is_ok_and(|address| address.is_open));
        if let Some(field) = self.section.find(&mut Default::default(), &[key])
            && is_open
            && self.is_complete
        {
            let message = format!("{key} is plain http: who is on the way reads {what}; write https://");
            self.say(Severity::Warning, &field, message);
        }
    }
}
