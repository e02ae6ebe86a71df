//! What the process keeps of the powers that it was started with.
//!
//! ```text
//!  root, every capability ──▶ opens what only root may open: ports, files, programs in the kernel
//!        │ `[security] user`
//!        ▼
//!  an ordinary user with four capabilities ──▶ every thread is started
//!        │ `[security] drop_capabilities`
//!        ▼
//!  an ordinary user
//! ```
//! The decision is made before anything is opened ([`Privilege::decide`]), so that a wish that cannot be met is told with
//! the other faults of the files. It is carried out at one place ([`Privilege::assume`]) and **before any thread is
//! started**: a capability belongs to a thread, and there is no call that takes one from another thread.
//!
//! What is kept: CAP_NET_RAW (echo requests, SYNs), CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON (programs at interfaces that
//! appear later, large buffers of sockets), as far as the process had them. Scripts that run as somebody else than the
//! daemon need CAP_SETUID, CAP_SETGID and CAP_KILL, which come close to being root; they are kept only where the catalog has
//! scripts. Nothing is inherited by what the daemon executes: the inheritable, ambient and bounding sets are empty, and
//! set-user-ID programs gain nothing (`no_new_privs`).
//!
//! Without `[security] user` and `drop_capabilities` nothing is taken from the process but the ambient and inheritable
//! capabilities, with which a service manager equips an ordinary user, and which would be every script's too.
//!
//! Not by the crates for this: what is needed are two system calls and a constant for each capability.

use std::fmt;
use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::unistd::{AccessFlags, Gid, Uid, access, geteuid, getresgid, getresuid, setgroups, setresgid, setresuid};

use super::user::Identity;

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    pub const NONE: Self = Self(0);
    /// What checks need.
    const OF_CHECKS: Self = Self(1 << NET_RAW | 1 << NET_ADMIN | 1 << BPF | 1 << PERFMON);
    /// What it takes to run scripts as another user, and to end them.
    pub const OF_OTHERS_SCRIPTS: Self = Self(1 << KILL | 1 << SETGID | 1 << SETUID);

    const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those that this thread may use.
    pub fn of_this_thread() -> Self {
        // As if there were none: what needs one says so itself.
        read().map_or(Self::NONE, |sets| sets.effective)
    }
}

// Their numbers are part of the kernel's interface: linux/capability.h.
const KILL: u32 = 5;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const SETPCAP: u32 = 8;
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
/// The sets have room for so many.
const NUMBERS: u32 = 64;

/// Those that can be kept, in the order in which they are told.
const NAMES: [(u32, &str); 7] = [
    (NET_RAW, "CAP_NET_RAW"),
    (NET_ADMIN, "CAP_NET_ADMIN"),
    (BPF, "CAP_BPF"),
    (PERFMON, "CAP_PERFMON"),
    (SETUID, "CAP_SETUID"),
    (SETGID, "CAP_SETGID"),
    (KILL, "CAP_KILL"),
];

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut named = NAMES.iter().filter(|(number, _)| self.0 & 1 << number != 0).map(|(_, name)| *name);
        f.write_str(named.next().unwrap_or("no capability"))?;
        named.try_for_each(|name| write!(f, ", {name}"))
    }
}

/// What people want (`[security]` of the daemon file), and what that bears on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    pub user: Option<&'a str>,
    pub drop_capabilities: bool,
    /// Whether there are checks that run scripts.
    pub scripts: bool,
    /// Whom those are to run as; by default [`SCRIPT_USER`], or the daemon itself where it cannot be helped.
    pub script_user: Option<&'a str>,
}

/// Whom scripts run as when nobody says otherwise.
pub const SCRIPT_USER: &str = "nobody";

/// Why what people want cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivilegeError {
    #[error("[security] user: {0}")]
    User(String),
    #[error(
        "[security] user = \"{user}\": this process is uid {own}, and only root can become somebody else: start it as root, \
         or as {user}"
    )]
    NotRoot { user: Box<str>, own: u32 },
    #[error(
        "[security] drop_capabilities: root owns this host's files even so: name an ordinary user as [security] user"
    )]
    StaysRoot,
    #[error("[security] script_user: {0}")]
    ScriptUser(String),
    #[error(
        "[security] script_user = \"root\": scripts cannot run as root below [security] user: name another one, or remove \
         one of the two"
    )]
    RootsScripts,
    #[error(
        "[security] script_user = \"{scripts}\": with drop_capabilities scripts can run as {user} alone, who the daemon is: \
         remove one of the two"
    )]
    OthersScripts { scripts: Box<str>, user: Box<str> },
    #[error("this process cannot become {user}: {call}: {errno}")]
    Call { user: Box<str>, call: &'static str, errno: Errno },
    #[error("this process has {0} threads already: what it keeps of its powers is decided before there are any")]
    Threads(usize),
}

/// What the process is, and what may be done.
#[derive(Clone, Copy, Debug)]
struct Standing {
    uid: u32,
    permitted: Capabilities,
}

/// What is to be kept. The default touches nothing: for those who run the daemon inside a process of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privilege(Option<Decided>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Decided {
    /// Whom the process becomes.
    becomes: Option<Identity>,
    /// What it keeps then; `None` for all that it has.
    kept: Option<Capabilities>,
    /// Everything goes, once the sockets are open.
    is_dropped: bool,
    /// Who the process is in the end.
    uid: u32,
    /// Scripts run as this user, who is not the daemon's.
    scripts: Option<Box<str>>,
}

impl Privilege {
    /// What comes of a wish in this process.
    ///
    /// # Errors
    /// If it cannot be met; see [`PrivilegeError`].
    pub fn decide(wish: &Wish<'_>) -> Result<Self, PrivilegeError> {
        let permitted = read().map_or(Capabilities::NONE, |sets| sets.permitted);
        let standing = Standing { uid: geteuid().as_raw(), permitted };
        Decided::of(wish, standing, &Identity::find).map(|decided| Self(Some(decided)))
    }

    /// Whom the process becomes, if it becomes somebody else.
    pub fn becomes(&self) -> Option<&Identity> {
        self.0.as_ref()?.becomes.as_ref()
    }

    /// Becomes that user, with those capabilities.
    ///
    /// # Errors
    /// If there are threads already, or the kernel refuses: then the process is neither the one nor the other, and must not
    /// go on.
    pub fn assume(&self) -> Result<(), PrivilegeError> {
        let Some(decided) = &self.0 else { return Ok(()) };
        let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
        if threads > 1 {
            return Err(PrivilegeError::Threads(threads));
        }
        decided.assume()
    }

    /// Gives up what this thread still has, where people want that nothing is kept. Called by every thread that was
    /// started with capabilities, when it has used them.
    ///
    /// # Errors
    /// If the kernel refuses, which it has no reason for.
    pub fn give_up(&self) -> Result<(), PrivilegeError> {
        match &self.0 {
            Some(decided) if decided.is_dropped => write(Sets::default()).map_err(call("this user", "capset")),
            _ => Ok(()),
        }
    }

    /// Whether [`Self::give_up`] does anything.
    pub fn is_dropped(&self) -> bool {
        self.0.as_ref().is_some_and(|decided| decided.is_dropped)
    }

    /// What people should know about it, for the log.
    pub fn notices(&self) -> Vec<String> {
        let Some(decided) = &self.0 else { return Vec::new() };
        let mut notices = Vec::new();
        if let Some(scripts) = &decided.scripts {
            notices.push(format!(
                "{} are kept, since scripts run as {scripts}: whoever takes the daemon over could become root by them; \
                 without, scripts would run as the daemon's own user and could end it ([security] script_user)",
                Capabilities::OF_OTHERS_SCRIPTS
            ));
        }
        if decided.is_dropped {
            notices.push(
                "no capability is kept ([security] drop_capabilities): interfaces that appear from now on get no program, so \
                 that their checks go by sockets; filters of clsact stay at their interfaces until the next start; scripts \
                 run as the daemon's own user"
                    .to_owned(),
            );
        }
        notices
    }
}

/// Who it will be, and with what, for the banner.
impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(decided) = &self.0 else { return f.write_str("as it is") };
        match &decided.becomes {
            Some(identity) => f.write_str(&identity.name)?,
            None if decided.uid == 0 => f.write_str("root")?,
            None => write!(f, "uid {}", decided.uid)?,
        }
        match decided.kept {
            _ if decided.is_dropped => f.write_str(", and no capability once it has started"),
            Some(kept) => write!(f, ", with {kept}"),
            None if decided.uid == 0 => {
                f.write_str(", with all it has: [security] user is recommended (docs/privilege.md)")
            }
            None => Ok(()),
        }
    }
}

type Find<'a> = &'a dyn Fn(&str, &str) -> Result<Identity, String>;

impl Decided {
    fn of(wish: &Wish<'_>, standing: Standing, find: Find<'_>) -> Result<Self, PrivilegeError> {
        let Standing { uid: own, permitted } = standing;
        let user = wish.user.map(|user| find(user, "user").map_err(PrivilegeError::User)).transpose()?;
        let is_ordinary = user.as_ref().map_or(own, |user| user.user) != 0;
        if let Some(user) = user.as_ref().filter(|user| user.user != own && own != 0) {
            return Err(PrivilegeError::NotRoot { user: user.name.clone(), own });
        }
        if wish.drop_capabilities && !is_ordinary {
            return Err(PrivilegeError::StaysRoot);
        }
        // Who is that user already has nobody to become, and root that is named as the user wants no change.
        let becomes = user.filter(|user| user.user != own);
        let scripts = match &becomes {
            Some(user) if wish.scripts => others_scripts(wish, user, find)?,
            _ => None,
        };
        let others = if scripts.is_some() { Capabilities::OF_OTHERS_SCRIPTS } else { Capabilities::NONE };
        let is_reduced = is_ordinary && (wish.user.is_some() || wish.drop_capabilities);
        Ok(Self {
            kept: is_reduced.then(|| Capabilities::OF_CHECKS.or(others).and(permitted)),
            is_dropped: wish.drop_capabilities,
            uid: becomes.as_ref().map_or(own, |user| user.user),
            becomes,
            scripts,
        })
    }

    fn assume(&self) -> Result<(), PrivilegeError> {
        let name = self.becomes.as_ref().map_or("this user", |identity| &identity.name);
        let failed = |what| call(name, what);
        let before = read().map_err(failed("capget"))?;
        clear_ambient().map_err(failed("PR_CAP_AMBIENT"))?;
        let Some(kept) = self.kept else {
            return write(Sets { inheritable: Capabilities::NONE, ..before }).map_err(failed("capset"));
        };
        if before.effective.has(Capabilities(1 << SETPCAP)) {
            clear_bounding().map_err(failed("PR_CAPBSET_DROP"))?;
        }
        if let Some(Identity { user, group, groups, .. }) = &self.becomes {
            let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
            let (user, group) = (Uid::from_raw(*user), Gid::from_raw(*group));
            // Else the change of user would clear what is to be kept.
            prctl::set_keepcaps(true).map_err(failed("PR_SET_KEEPCAPS"))?;
            setgroups(&groups).map_err(failed("setgroups"))?;
            setresgid(group, group, group).map_err(failed("setresgid"))?;
            setresuid(user, user, user).map_err(failed("setresuid"))?;
            prctl::set_keepcaps(false).map_err(failed("PR_SET_KEEPCAPS"))?;
            let (is, belongs) = (getresuid().map_err(failed("getresuid"))?, getresgid().map_err(failed("getresgid"))?);
            let is_whole = [is.real, is.effective, is.saved] == [user; 3]
                && [belongs.real, belongs.effective, belongs.saved] == [group; 3];
            if !is_whole {
                return Err(failed("setresuid")(Errno::EPERM));
            }
        }
        let sets = Sets { effective: kept, permitted: kept, inheritable: Capabilities::NONE };
        write(sets).map_err(failed("capset"))?;
        prctl::set_no_new_privs().map_err(failed("PR_SET_NO_NEW_PRIVS"))?;
        if read().map_err(failed("capget"))? == sets { Ok(()) } else { Err(failed("capset")(Errno::EPERM)) }
    }
}

/// Whom scripts run as below a daemon that becomes `user`, if that is somebody else.
fn others_scripts(wish: &Wish<'_>, user: &Identity, find: Find<'_>) -> Result<Option<Box<str>>, PrivilegeError> {
    let wanted = match wish.script_user {
        // It cannot be helped; and nobody has said whom they should run as.
        None if wish.drop_capabilities => return Ok(None),
        wanted => wanted.unwrap_or(SCRIPT_USER),
    };
    let scripts = find(wanted, "script_user").map_err(PrivilegeError::ScriptUser)?;
    if scripts.user == user.user {
        Ok(None)
    } else if scripts.is_root() {
        Err(PrivilegeError::RootsScripts)
    } else if wish.drop_capabilities {
        Err(PrivilegeError::OthersScripts { scripts: scripts.name, user: user.name.clone() })
    } else {
        Ok(Some(scripts.name))
    }
}

fn call<'a>(user: &'a str, call: &'static str) -> impl Fn(Errno) -> PrivilegeError + use<'a> {
    move |errno| PrivilegeError::Call { user: user.into(), call, errno }
}

/// Whether this process may make files in the folder `path` or, where that is not there yet, make it.
pub fn may_write(path: &Path) -> bool {
    let there = path.ancestors().find(|folder| folder.exists());
    there.is_some_and(|folder| {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
    })
}

/// The sets of a thread that matter while it does not execute another program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sets {
    effective: Capabilities,
    permitted: Capabilities,
    inheritable: Capabilities,
}

/// `_LINUX_CAPABILITY_VERSION_3`: sets of 64 bits, in two halves.
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    /// 0 for the calling thread.
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn read() -> Result<Sets, Errno> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: both have the layout of the kernel's, which with this version writes two halves and at most the header's
    // version.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    Errno::result(result)?;
    let whole = |half: fn(&Half) -> u32| Capabilities(u64::from(half(&halves[0])) | u64::from(half(&halves[1])) << 32);
    Ok(Sets {
        effective: whole(|half| half.effective),
        permitted: whole(|half| half.permitted),
        inheritable: whole(|half| half.inheritable),
    })
}

fn write(sets: Sets) -> Result<(), Errno> {
    let mut header = Header { version: VERSION, pid: 0 };
    let half = |shift: u32| Half {
        effective: (sets.effective.0 >> shift) as u32,
        permitted: (sets.permitted.0 >> shift) as u32,
        inheritable: (sets.inheritable.0 >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: as in `read`; the halves are only read.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
    Errno::result(result).map(drop)
}

fn clear_ambient() -> Result<(), Errno> {
    // SAFETY: touches no memory.
    let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    Errno::result(result).map(drop)
}

fn clear_bounding() -> Result<(), Errno> {
    for number in 0..NUMBERS {
        // SAFETY: touches no memory.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
        match Errno::result(result) {
            Ok(_) => {}
            // Beyond the last that this kernel has.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str, key: &str) -> Result<Identity, String> {
        let uid = match name {
            "root" => 0,
            "cpra" => 990,
            "nobody" => 65_534,
            _ => return Err(format!("there is no user {name}: name another one as [security] {key}")),
        };
        Ok(Identity { name: name.into(), user: uid, group: uid, groups: Box::new([uid]) })
    }

    const EVERY: Capabilities = Capabilities(u64::MAX);
    const ROOT: Standing = Standing { uid: 0, permitted: EVERY };

    fn kept(wish: Wish<'_>, standing: Standing) -> (u32, Option<Capabilities>, Option<&'static str>) {
        let decided = Decided::of(&wish, standing, &find).expect("it can be met");
        let scripts = decided.scripts.map(|name| if &*name == "nobody" { "nobody" } else { "somebody else" });
        (decided.uid, decided.kept, scripts)
    }

    #[test]
    fn nothing_is_kept_that_nothing_needs() {
        let checks = Some(Capabilities::OF_CHECKS);
        let both = Some(Capabilities::OF_CHECKS.or(Capabilities::OF_OTHERS_SCRIPTS));
        let cpra = Wish { user: Some("cpra"), ..Wish::default() };
        let scripts = Wish { scripts: true, ..cpra };
        let narrow = Capabilities(1 << NET_RAW | 1 << KILL | 1);
        let ordinary = Standing { uid: 990, permitted: narrow };
        let raw = Some(Capabilities(1 << NET_RAW));
        for (wish, standing, expected) in [
            (Wish::default(), ROOT, (0, None, None)),
            (Wish { user: Some("root"), scripts: true, ..Wish::default() }, ROOT, (0, None, None)),
            (cpra, ROOT, (990, checks, None)),
            (scripts, ROOT, (990, both, Some("nobody"))),
            (Wish { script_user: Some("cpra"), ..scripts }, ROOT, (990, checks, None)),
            (Wish { script_user: Some("nobody"), ..cpra }, ROOT, (990, checks, None)),
            (Wish { drop_capabilities: true, ..scripts }, ROOT, (990, checks, None)),
            // Only what there is can be kept.
            (cpra, Standing { uid: 0, permitted: narrow }, (990, raw, None)),
            // Who is that user already.
            (scripts, ordinary, (990, raw, None)),
            (Wish::default(), ordinary, (990, None, None)),
            (Wish { drop_capabilities: true, ..Wish::default() }, ordinary, (990, raw, None)),
        ] {
            assert_eq!(kept(wish, standing), expected, "{wish:?} {standing:?}");
        }
    }

    #[test]
    fn a_wish_that_cannot_be_met_says_why_and_what_to_do() {
        let cpra = Wish { user: Some("cpra"), scripts: true, ..Wish::default() };
        let dropped = Wish { drop_capabilities: true, ..cpra };
        let ordinary = Standing { uid: 1_000, permitted: Capabilities::NONE };
        for (wish, standing, expected) in [
            (
                Wish { user: Some("crpa"), ..cpra },
                ROOT,
                "[security] user: there is no user crpa: name another one as [security] user",
            ),
            (
                cpra,
                ordinary,
                "[security] user = \"cpra\": this process is uid 1000, and only root can become somebody else: start it as \
                 root, or as cpra",
            ),
            (
                Wish { drop_capabilities: true, ..Wish::default() },
                ROOT,
                "[security] drop_capabilities: root owns this host's files even so: name an ordinary user as [security] user",
            ),
            (
                Wish { script_user: Some("ndoboy"), ..cpra },
                ROOT,
                "[security] script_user: there is no user ndoboy: name another one as [security] script_user",
            ),
            (
                Wish { script_user: Some("root"), ..cpra },
                ROOT,
                "[security] script_user = \"root\": scripts cannot run as root below [security] user: name another one, or \
                 remove one of the two",
            ),
            (
                Wish { script_user: Some("nobody"), ..dropped },
                ROOT,
                "[security] script_user = \"nobody\": with drop_capabilities scripts can run as cpra alone, who the daemon is: \
                 remove one of the two",
            ),
        ] {
            let error = Decided::of(&wish, standing, &find).expect_err("it cannot be met");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn what_is_kept_is_told_by_name() {
        assert_eq!(Capabilities::NONE.to_string(), "no capability");
        assert_eq!(Capabilities::OF_CHECKS.to_string(), "CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON");
        let told = |wish, standing| Privilege(Some(Decided::of(&wish, standing, &find).expect("it can be met")));
        let cpra = Wish { user: Some("cpra"), scripts: true, ..Wish::default() };
        let plain = told(Wish { scripts: false, ..cpra }, ROOT);
        assert_eq!(plain.to_string(), "cpra, with CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON");
        assert!(plain.notices().is_empty());
        let [scripts] = &told(cpra, ROOT).notices()[..] else { panic!("one notice") };
        assert!(
            scripts.starts_with("CAP_SETUID, CAP_SETGID, CAP_KILL are kept, since scripts run as nobody"),
            "{scripts}"
        );
        let dropped = told(Wish { drop_capabilities: true, ..cpra }, ROOT);
        assert_eq!(dropped.to_string(), "cpra, and no capability once it has started");
        assert_eq!(dropped.notices().len(), 1);
        let root = told(Wish::default(), ROOT);
        assert_eq!(root.to_string(), "root, with all it has: [security] user is recommended (docs/privilege.md)");
        assert!(root.notices().is_empty());
    }

    /// As the kernel tells everybody.
    fn told(key: &str) -> u64 {
        let status = fs::read_to_string("/proc/thread-self/status").expect("this thread's own");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("every kernel tells it");
        u64::from_str_radix(line.trim(), 16).expect("a hexadecimal number")
    }

    #[test]
    fn the_sets_are_those_of_the_calling_thread_alone() {
        let sets = read().expect("everybody may");
        assert_eq!(
            (sets.effective.0, sets.permitted.0, sets.inheritable.0),
            (told("CapEff:"), told("CapPrm:"), told("CapInh:"))
        );
        let given_up = std::thread::spawn(|| {
            let drop_capabilities = Wish { drop_capabilities: true, ..Wish::default() };
            let ordinary = Standing { uid: 1_000, permitted: Capabilities::NONE };
            let decided = Decided::of(&drop_capabilities, ordinary, &find).expect("it can be met");
            Privilege(Some(decided)).give_up().expect("everybody may");
            (told("CapEff:"), told("CapPrm:"))
        });
        assert_eq!(given_up.join().expect("it does not panic"), (0, 0));
        assert_eq!(read(), Ok(sets));
        assert_eq!(Privilege::default().give_up(), Ok(()));
        // Nobody becomes anything while other threads run, such as those of this very test.
        let decided = Decided::of(&Wish::default(), ROOT, &find).expect("it can be met");
        assert!(matches!(Privilege(Some(decided)).assume(), Err(PrivilegeError::Threads(2..))));
    }

    #[test]
    fn a_folder_that_is_not_there_is_judged_by_what_it_would_be_made_in() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(may_write(folder.path()) && may_write(&folder.path().join("a/b")));
        // What is no folder takes no files, not even from root.
        assert!(!may_write(Path::new("/dev/null/here")));
    }
}
