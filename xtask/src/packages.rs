//! `cargo xtask packages`: the programs that tests run against.
//!
//! As root on a Debian-like system the missing ones are installed; elsewhere the command is printed, and the tests
//! that need them skip aloud.

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::steps::is_installed;
use crate::target_folder;

struct Package {
    name: &'static str,
    /// The program whose presence proves it.
    binary: &'static str,
    why: &'static str,
}

const PACKAGES: &[Package] = &[
    Package { name: "nginx", binary: "nginx", why: "a real HTTP server to check: keep-alive, close, large heads" },
    Package { name: "haproxy", binary: "haproxy", why: "the reference for check results by layer, and a TCP peer" },
    Package {
        name: "nsd",
        binary: "nsd",
        why: "a real name server to ask: every record, errors, answers that are cut",
    },
    Package { name: "iproute2", binary: "ip", why: "network namespaces and veth pairs for unreachable targets" },
    Package {
        name: "monitoring-plugins-basic",
        binary: "/usr/lib/nagios/plugins/check_dummy",
        why: "real plugins to run as scripts",
    },
    Package { name: "iputils-ping", binary: "ping", why: "echo requests of somebody else, beside ours" },
    Package { name: "openssl", binary: "openssl", why: "certificates of every kind, and a TLS server that shows them" },
    Package { name: "exim4-daemon-light", binary: "exim4", why: "a real SMTP server with STARTTLS" },
    Package { name: "dovecot-imapd", binary: "dovecot", why: "a real IMAP server with STARTTLS" },
    Package { name: "postgresql", binary: "pg_ctlcluster", why: "a database that is asked for TLS in its own way" },
    Package { name: "tinyproxy", binary: "tinyproxy", why: "a real HTTP proxy, plain and with CONNECT" },
    Package {
        name: "prometheus-blackbox-exporter",
        binary: "prometheus-blackbox-exporter",
        why: "the prober that many come from: both judge the same targets",
    },
    Package { name: "fping", binary: "fping", why: "beside our echo requests in a benchmark" },
    Package { name: "masscan", binary: "masscan", why: "beside our half-open checks in a benchmark" },
    Package {
        name: "prometheus-alertmanager",
        binary: "prometheus-alertmanager",
        why: "alerts are raised and resolved at a real one",
    },
    Package { name: "python3-pip", binary: "pip3", why: "brings what others wrote for the same protocols and formats" },
    Package { name: "nftables", binary: "nft", why: "drops and rejects packets, fills conntrack" },
];

/// Packages of PyPI, in a folder of their own, each with the module whose presence proves it.
const PYTHON: [(&str, &str); 5] = [
    ("hdrhistogram==0.10.8", "hdrh.log"),
    // The vendors' own clients, whose requests are compared with ours.
    ("pagerduty==7.2.0", "pagerduty"),
    ("slack_sdk==3.47.0", "slack_sdk.webhook"),
    ("twilio==9.13.0", "twilio.rest"),
    // Verifies our signatures.
    ("standardwebhooks==1.1.0", "standardwebhooks"),
];

/// `apt-get install` starts the services that it brings; a `policy-rc.d` of 101 forbids it. One that is already
/// there is the administrator's and stays. The trap removes ours also when the installation is interrupted.
const INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update
apt-get install --yes --no-install-recommends "$@"
"#;

pub(crate) fn run() -> anyhow::Result<()> {
    println!("{}", bring()?);
    Ok(())
}

/// Brings what is missing and says in one line what was done.
pub(crate) fn bring() -> anyhow::Result<String> {
    let programs = bring_programs()?;
    Ok(format!("{programs}; Python: {}", bring_python()?))
}

/// What tests compare with, into the target folder: neither the system nor the user is changed.
fn bring_python() -> anyhow::Result<String> {
    let folder = target_folder()?.join("python");
    let is_there = |module: &str| {
        let import = format!("import {module}");
        let output = Command::new("python3").args(["-c", &import]).env("PYTHONPATH", &folder).output();
        output.is_ok_and(|output| output.status.success())
    };
    if PYTHON.iter().all(|(_, module)| is_there(module)) {
        return Ok("all there".into());
    }
    // All at once, so that what they share is one version.
    let packages = PYTHON.map(|(package, _)| package);
    println!("installing {} into {}", packages.join(", "), folder.display());
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"]);
    let installed = pip.arg(&folder).args(packages).status().is_ok_and(|status| status.success());
    if !installed || !PYTHON.iter().all(|(_, module)| is_there(module)) {
        println!("the tests that need them will skip");
        return Ok(format!("NOT installed: {}", packages.join(", ")));
    }
    Ok(format!("installed {}", packages.join(", ")))
}

fn bring_programs() -> anyhow::Result<String> {
    let missing: Vec<&Package> = PACKAGES.iter().filter(|package| !is_installed(package.binary)).collect();
    if missing.is_empty() {
        return Ok("all there".into());
    }
    for package in &missing {
        println!("missing: {} ({}): {}", package.name, package.binary, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let is_debian_like = Path::new("/etc/debian_version").exists() && is_installed("apt-get");
    if !is_debian_like || !nix::unistd::geteuid().is_root() {
        println!("tests that need them will skip; on a Debian-like system install them with:");
        println!("  sudo apt-get install --no-install-recommends {}", names.join(" "));
        return Ok(format!("NOT installed: {}", names.join(", ")));
    }
    println!("installing {} (their services are not started)", names.join(", "));
    let status = Command::new("sh").args(["-c", INSTALL, "sh"]).args(&names).status()?;
    if !status.success() {
        bail!("apt-get could not install {}: {status}", names.join(", "));
    }
    if let Some(package) = missing.iter().find(|package| !is_installed(package.binary)) {
        bail!("package {} was installed, and still there is no {}", package.name, package.binary);
    }
    Ok(format!("installed {}", names.join(", ")))
}
