//! Whom scripts run as.

use std::ffi::CString;

use nix::libc;
use nix::unistd::{User, getgrouplist};

/// A user, as a process can become it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) name: Box<str>,
    pub(super) user: libc::uid_t,
    pub(super) group: libc::gid_t,
    /// All of its groups, its own first.
    pub(super) groups: Box<[libc::gid_t]>,
}

impl Identity {
    /// # Errors
    /// Why scripts cannot run as that user, with the remedy.
    pub(super) fn find(name: &str) -> Result<Self, String> {
        let remedy = "name another one as [security] script_user";
        let found =
            User::from_name(name).map_err(|errno| format!("user {name} cannot be looked up ({errno}): {remedy}"))?;
        let user = found.ok_or_else(|| format!("there is no user {name}: {remedy}"))?;
        let plain = CString::new(name).map_err(|_| format!("{name:?} is no name of a user: {remedy}"))?;
        let groups = getgrouplist(&plain, user.gid)
            .map_err(|errno| format!("the groups of user {name} are unknown ({errno})"))?;
        let groups = groups.into_iter().map(libc::gid_t::from).collect();
        Ok(Self { name: name.into(), user: user.uid.as_raw(), group: user.gid.as_raw(), groups })
    }

    pub(super) const fn is_root(&self) -> bool {
        self.user == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_a_stranger_is_told() {
        let nobody = Identity::find("nobody").expect("every system has it");
        assert!(!nobody.is_root() && nobody.groups.contains(&nobody.group));
        assert!(Identity::find("root").expect("every system has it").is_root());
        let error = Identity::find("no-such-user-here").expect_err("a stranger");
        assert!(error.starts_with("there is no user no-such-user-here") && error.contains("script_user"), "{error}");
        assert!(Identity::find("a\0b").is_err());
    }
}
