//! Whether a file may say what is executed.
//!
//! A monitors file is often edited by those who own an application; below a daemon that is root, a script in it would
//! make them root too. So whoever may write the file, the script it names, or a folder on the way to either, has to be
//! somebody who could do as much anyway: root alone where the daemon is root, and not just anybody where it is not. A
//! sticky folder (the temporary one) may be written by all, since nobody else's file can be replaced in it.
//!
//! The rule is pure; what the disk says comes through [`Stats`]. It judges what is there now: who starts a script looks
//! at the file again when it is opened.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::diagnostic::quoted;

/// Links that are followed one after the other; the kernel's own bound.
const LINKS_MAX: usize = 40;

const STICKY: u32 = 0o1000;

/// Who owns something, and who may write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub owner: u32,
    /// The permission bits.
    pub mode: u32,
    pub is_folder: bool,
}

/// What the disk says of a path.
pub trait Stats {
    /// Links followed.
    ///
    /// # Errors
    /// As the system's.
    fn standing(&self, path: &Path) -> io::Result<Standing>;

    /// Where a link points and who owns the link, if it is one.
    fn link(&self, path: &Path) -> Option<(PathBuf, u32)>;

    /// Without links.
    ///
    /// # Errors
    /// As the system's.
    fn real(&self, path: &Path) -> io::Result<PathBuf>;
}

/// The disk itself.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl Stats for Disk {
    fn standing(&self, path: &Path) -> io::Result<Standing> {
        std::fs::metadata(path).map(|metadata| Standing::of(&metadata))
    }

    fn link(&self, path: &Path) -> Option<(PathBuf, u32)> {
        use std::os::unix::fs::MetadataExt;
        let target = std::fs::read_link(path).ok()?;
        Some((target, std::fs::symlink_metadata(path).ok()?.uid()))
    }

    fn real(&self, path: &Path) -> io::Result<PathBuf> {
        std::fs::canonicalize(path)
    }
}

impl Standing {
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { owner: metadata.uid(), mode: metadata.mode() & 0o7777, is_folder: metadata.is_dir() }
    }

    /// What is wrong with it and what to do, if somebody else may change it.
    fn fault(self, path: &Path, is_root: bool) -> Option<String> {
        let shown = quoted(&path.to_string_lossy());
        let what = if self.is_folder { "the folder" } else { "the file" };
        let Self { owner, mode, .. } = self;
        if is_root && owner != 0 {
            return Some(format!(
                "{what} {shown} belongs to user {owner}, and cpra runs as root: \"chown root\" it, or run cpra as another user"
            ));
        }
        let forbidden = if is_root { 0o022 } else { 0o002 };
        let is_held = self.is_folder && mode & STICKY != 0;
        if mode & forbidden != 0 && !is_held {
            let who = if is_root { "others than root" } else { "everybody" };
            let bits = if is_root { "go-w" } else { "o-w" };
            return Some(format!("{what} {shown} may be written by {who} (mode {mode:04o}): \"chmod {bits}\" it"));
        }
        None
    }
}

/// Why the file at the absolute path `path` must not say what is executed, or be executed. `None` if it may.
pub fn distrust(path: &Path, is_root: bool, stats: &dyn Stats) -> Option<String> {
    let unseen = |path: &Path, error: &io::Error| {
        Some(format!("{} cannot be looked at ({error}): check the path", quoted(&path.to_string_lossy())))
    };
    let mut current = path.to_owned();
    for _ in 0..LINKS_MAX {
        let (Some(parent), Some(name)) = (current.parent(), current.file_name()) else {
            return Some(format!("{} names no file", quoted(&current.to_string_lossy())));
        };
        // As written, since whoever owns a link on the way may point it elsewhere; and where it really is.
        if let Some(fault) = folders_fault(parent, is_root, stats) {
            return Some(fault);
        }
        let real = match stats.real(parent) {
            Ok(real) => real,
            Err(error) => return unseen(parent, &error),
        };
        if real != parent
            && let Some(fault) = folders_fault(&real, is_root, stats)
        {
            return Some(fault);
        }
        let place = real.join(name);
        match stats.link(&place) {
            Some((_, owner)) if is_root && owner != 0 => {
                let shown = quoted(&place.to_string_lossy());
                return Some(format!(
                    "the link {shown} belongs to user {owner}, and cpra runs as root: name the file itself"
                ));
            }
            Some((target, _)) => current = real.join(target),
            None => {
                return match stats.standing(&place) {
                    Ok(standing) => standing.fault(&place, is_root),
                    Err(error) => unseen(&place, &error),
                };
            }
        }
    }
    Some(format!("{} leads through more than {LINKS_MAX} links", quoted(&path.to_string_lossy())))
}

fn folders_fault(folder: &Path, is_root: bool, stats: &dyn Stats) -> Option<String> {
    let is_plain = folder.is_absolute() && !folder.components().any(|part| part == Component::ParentDir);
    let climbing = if is_plain { None } else { stats.real(folder).ok() };
    let folder = climbing.as_deref().unwrap_or(folder);
    folder.ancestors().find_map(|folder| match stats.standing(folder) {
        Ok(standing) => standing.fault(folder, is_root),
        Err(error) => {
            Some(format!("{} cannot be looked at ({error}): check the path", quoted(&folder.to_string_lossy())))
        }
    })
}

/// Which of a command's words are programs: the first one, and behind an interpreter the first that is no option.
pub(super) fn programs(argv: &[Box<str>]) -> Vec<&str> {
    const INTERPRETERS: [&str; 12] =
        ["sh", "bash", "dash", "ash", "zsh", "ksh", "python", "python3", "perl", "ruby", "node", "php"];
    let Some((first, rest)) = argv.split_first() else { return Vec::new() };
    let mut programs = vec![&**first];
    let name = first.rsplit('/').next().unwrap_or(first);
    if INTERPRETERS.contains(&name) {
        programs.extend(
            rest.iter().map(|word| &**word).find(|word| !word.starts_with('-')).filter(|word| word.contains('/')),
        );
    }
    programs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A disk of folders and files by path, with links.
    #[derive(Default)]
    struct Fake {
        standings: BTreeMap<PathBuf, Standing>,
        links: BTreeMap<PathBuf, (PathBuf, u32)>,
    }

    impl Fake {
        fn with(mut self, path: &str, owner: u32, mode: u32) -> Self {
            self.standings.insert(path.into(), Standing { owner, mode, is_folder: !path.contains('.') });
            self
        }

        fn linked(mut self, path: &str, target: &str, owner: u32) -> Self {
            self.links.insert(path.into(), (target.into(), owner));
            self
        }
    }

    impl Stats for Fake {
        fn standing(&self, path: &Path) -> io::Result<Standing> {
            let real = self.real(path)?;
            self.standings.get(&real).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn link(&self, path: &Path) -> Option<(PathBuf, u32)> {
            self.links.get(path).cloned()
        }

        fn real(&self, path: &Path) -> io::Result<PathBuf> {
            let mut real = PathBuf::new();
            for part in path.components() {
                real.push(part);
                if let Some((target, _)) = self.links.get(&real) {
                    real.clone_from(target);
                }
            }
            Ok(real)
        }
    }

    fn disk() -> Fake {
        Fake::default()
            .with("/", 0, 0o755)
            .with("/etc", 0, 0o755)
            .with("/etc/m.yaml", 0, 0o644)
            .with("/etc/group.yaml", 0, 0o664)
            .with("/etc/all.yaml", 0, 0o666)
            .with("/etc/bob.yaml", 1000, 0o644)
            .with("/tmp", 0, 0o1777)
            .with("/tmp/m.yaml", 0, 0o644)
            .with("/tmp/bob.sh", 1000, 0o755)
            .with("/open", 0, 0o777)
            .with("/open/m.yaml", 0, 0o644)
            .with("/home", 0, 0o755)
            .with("/home/bob", 1000, 0o755)
            .with("/home/bob/m.yaml", 0, 0o644)
            .linked("/home/bob/etc", "/etc", 0)
            .linked("/tmp/link.yaml", "/etc/m.yaml", 1000)
            .linked("/etc/link.yaml", "m.yaml", 0)
            .linked("/etc/far.yaml", "/open/m.yaml", 0)
            .linked("/etc/round.yaml", "round.yaml", 0)
    }

    #[test]
    fn only_who_could_do_as_much_anyway_may_write() {
        // The path, what is said as root, and what otherwise.
        let rows: [(&str, Option<&str>, Option<&str>); 12] = [
            ("/etc/m.yaml", None, None),
            ("/tmp/m.yaml", None, None),
            ("/etc/link.yaml", None, None),
            (
                "/etc/group.yaml",
                Some("the file \"/etc/group.yaml\" may be written by others than root (mode 0664): \"chmod go-w\" it"),
                None,
            ),
            (
                "/etc/all.yaml",
                Some("(mode 0666)"),
                Some("the file \"/etc/all.yaml\" may be written by everybody (mode 0666): \"chmod o-w\" it"),
            ),
            ("/etc/bob.yaml", Some("the file \"/etc/bob.yaml\" belongs to user 1000"), None),
            ("/tmp/bob.sh", Some("belongs to user 1000"), None),
            (
                "/open/m.yaml",
                Some("the folder \"/open\" may be written by others"),
                Some("the folder \"/open\" may be written by everybody (mode 0777)"),
            ),
            ("/home/bob/etc/m.yaml", Some("the folder \"/home/bob\" belongs to user 1000"), None),
            ("/tmp/link.yaml", Some("the link \"/tmp/link.yaml\" belongs to user 1000"), None),
            ("/etc/far.yaml", Some("the folder \"/open\""), Some("the folder \"/open\"")),
            ("/etc/round.yaml", Some("more than 40 links"), Some("more than 40 links")),
        ];
        for (path, as_root, otherwise) in rows {
            for (is_root, expected) in [(true, as_root), (false, otherwise)] {
                let found = distrust(Path::new(path), is_root, &disk());
                match expected {
                    Some(wanted) => {
                        assert!(found.as_ref().is_some_and(|found| found.contains(wanted)), "{path}: {found:?}");
                    }
                    None => assert_eq!(found, None, "{path}, root: {is_root}"),
                }
            }
        }
        assert!(distrust(Path::new("/etc/none.yaml"), true, &disk()).expect("missing").contains("cannot be looked at"));
    }

    #[test]
    fn an_interpreters_script_counts_as_a_program() {
        let argv = |words: &str| words.split(' ').map(Box::from).collect::<Vec<Box<str>>>();
        assert_eq!(
            programs(&argv("/usr/lib/nagios/plugins/check_file_age -w 1 /backup/last")),
            ["/usr/lib/nagios/plugins/check_file_age"]
        );
        assert_eq!(programs(&argv("/bin/sh -e /opt/x.sh /data")), ["/bin/sh", "/opt/x.sh"]);
        assert_eq!(programs(&argv("/usr/bin/python3 -c print")), ["/usr/bin/python3"]);
        assert!(programs(&[]).is_empty());
    }
}
