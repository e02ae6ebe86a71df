//! Scripts and interventions that are not run, since somebody else may say what they do. The rule is in [`trust`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::folders::Folders;
use super::node::Findings;
use super::providers::ProviderKind;
use super::section::Section;
use super::trust::{self, Disk};
use crate::domain::destination::{Provider, Script};
use crate::domain::monitor::CodeRule;
use crate::domain::{Check, Codes, Color, Destination, Monitor};
use crate::units::limits::PROGRAMS_KNOWN_MAX;

/// Where a text comes from, as far as it may say what is executed.
#[derive(Clone)]
pub(super) enum Origin {
    /// A test, or another program's text: not asked.
    Memory,
    Stdin,
    File(PathBuf),
}

/// Why a program must not run, by its path; asked once for all that name it, up to a bound.
#[derive(Default)]
pub(super) struct Programs(BTreeMap<PathBuf, Option<String>>);

/// A text, as far as it is trusted.
pub(super) struct Vouched {
    origin: Origin,
    /// Why the file must not say what is executed, once that was asked.
    distrust: Option<Option<String>>,
}

impl Vouched {
    pub(super) const fn new(origin: Origin) -> Self {
        Self { origin, distrust: None }
    }

    /// Why the programs that the monitor's codes name must not run.
    pub(super) fn notify_refusal(
        &mut self,
        monitor: &Monitor,
        folders: &Folders,
        programs: &mut Programs,
    ) -> Option<String> {
        let mut scripts = scripts(&monitor.policy.codes).peekable();
        scripts.peek()?;
        let fault = match &self.origin {
            Origin::Memory => return None,
            Origin::Stdin => Some("the text comes from the standard input, which nobody vouches for".to_owned()),
            Origin::File(path) => {
                let known = self.distrust.get_or_insert_with(|| trust::distrust(path, folders.is_root, &Disk));
                known.clone().or_else(|| {
                    let paths = scripts.flat_map(|script| trust::programs(&script.argv));
                    paths
                        .filter(|program| program.contains('/'))
                        .find_map(|program| programs.fault(folders.working.join(program), folders.is_root))
                })
            }
        };
        fault.map(|fault| format!("notify script is not run, its notices go to the fallback: {fault}"))
    }

    /// Why the monitor may not have what it says is executed, and at which key.
    pub(super) fn refusal(
        &mut self,
        section: &Section<'_>,
        monitor: &Monitor,
        folders: &Folders,
        programs: &mut Programs,
    ) -> Option<(&'static str, String)> {
        let script = match &monitor.policy.check {
            Check::Script(script) => Some(script),
            Check::Http(_) | Check::Tcp(_) | Check::Icmp(_) | Check::Dns(_) | Check::Push(_) => None,
        };
        let (key, what) = match script {
            Some(_) => ("pulse", "the script"),
            None => {
                let _ = section.find(&mut Findings::default(), &["intervention"])?;
                ("intervention", "the intervention")
            }
        };
        let refused = |fault: String| Some((key, format!("{what} is not run: {fault}")));
        match &self.origin {
            Origin::Memory => return None,
            Origin::Stdin => {
                let message = "comes from the standard input, which nobody vouches for: put the monitor into a file";
                return Some((key, format!("{what} {message}")));
            }
            Origin::File(path) => {
                let known = self.distrust.get_or_insert_with(|| trust::distrust(path, folders.is_root, &Disk));
                if let Some(fault) = known {
                    return refused(fault.clone());
                }
            }
        }
        let script = script?;
        let folder = script.cwd.as_deref().unwrap_or(&folders.working);
        let paths = trust::programs(&script.argv).into_iter().filter(|program| program.contains('/'));
        paths
            .map(|program| folder.join(program))
            .find_map(|path| programs.fault(path, folders.is_root))
            .and_then(refused)
    }
}

/// The destinations of a monitor that are programs which its own file names.
fn scripts(codes: &Codes) -> impl Iterator<Item = &Script> {
    let all = Color::ALL.into_iter().filter_map(|color| codes.rule(color)).flat_map(|rule| rule.notify.iter());
    all.filter_map(|destination| match &destination.provider {
        // The daemon file's have other names.
        Provider::Script(script) if &*destination.name == ProviderKind::Script.as_str() => Some(script),
        _ => None,
    })
}

/// The codes with the fallback instead of the programs that are not run.
pub(super) fn without_scripts(codes: &Codes, fallback: &Arc<Destination>) -> Codes {
    let mut kept = Codes::default();
    for color in Color::ALL {
        let Some(CodeRule { dispatch, notify }) = codes.rule(color) else { continue };
        let is_refused = |destination: &Destination| {
            matches!(destination.provider, Provider::Script(_)) && &*destination.name == ProviderKind::Script.as_str()
        };
        let notify =
            notify.iter().map(|destination| if is_refused(destination) { fallback } else { destination }).cloned();
        kept.set(color, CodeRule { dispatch: *dispatch, notify: notify.collect() });
    }
    kept
}

impl Programs {
    fn fault(&mut self, path: PathBuf, is_root: bool) -> Option<String> {
        if let Some(known) = self.0.get(&path) {
            return known.clone();
        }
        let found = trust::distrust(&path, is_root, &Disk);
        if self.0.len() < PROGRAMS_KNOWN_MAX {
            self.0.insert(path, found.clone());
        }
        found
    }
}
