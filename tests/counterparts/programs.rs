//! Which of our programs are at an interface of this thread's namespace, by the kernel's word.

use std::process::Command;

use aya::programs::SchedClassifier;
use aya::programs::tc::TcAttachType;

/// How many of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ours {
    pub tcx: usize,
    pub clsact: usize,
    pub xdp: usize,
}

pub const NONE: Ours = Ours { tcx: 0, clsact: 0, xdp: 0 };
/// In and out.
pub const TCX: Ours = Ours { tcx: 2, ..NONE };
pub const CLSACT: Ours = Ours { clsact: 2, ..NONE };
pub const XDP: Ours = Ours { tcx: 1, xdp: 1, ..NONE };

/// What the names of our programs begin with.
const PREFIX: &str = "cpra_";

/// `None` where there is no such interface.
pub fn ours(interface: &str) -> Option<Ours> {
    let link = said("ip", &["-details", "link", "show", "dev", interface])?;
    let hooks = [TcAttachType::Ingress, TcAttachType::Egress];
    // A kernel before 6.6 has none.
    let tcx = hooks.iter().filter_map(|hook| SchedClassifier::query_tcx(interface, *hook).ok());
    let is_ours = |name: Option<&str>| name.is_some_and(|name| name.starts_with(PREFIX));
    let tcx = tcx.map(|(_, programs)| programs.iter().filter(|program| is_ours(program.name_as_str())).count()).sum();
    let clsact = filters(interface).lines().filter(|line| line.contains(PREFIX)).count();
    Some(Ours { tcx, clsact, xdp: usize::from(link.contains("prog/xdp")) })
}

/// What `tc` shows of an interface's filters, one per line and their actions below.
pub fn filters(interface: &str) -> String {
    let show = |hook| said("tc", &["-statistics", "filter", "show", "dev", interface, hook]).unwrap_or_default();
    show("ingress") + &show("egress")
}

fn said(program: &str, words: &[&str]) -> Option<String> {
    let output = Command::new(program).args(words).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
