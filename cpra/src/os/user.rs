//! Whom a name stands for: users of this system, as a process can become them.

use std::ffi::CString;

use nix::libc;
use nix::unistd::{Uid, User, getgrouplist};

/// A user, as a process can become it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: Box<str>,
    pub user: libc::uid_t,
    pub group: libc::gid_t,
    /// All of its groups, its own first.
    pub groups: Box<[libc::gid_t]>,
}

impl Identity {
    /// The user of that name or, where there is none, of that number. `key` is the key of `[security]` that names it.
    ///
    /// # Errors
    /// Why nobody can become that user, with the remedy.
    pub fn find(name: &str, key: &str) -> Result<Self, String> {
        let remedy = format!("name another one as [security] {key}");
        let unknown = |errno| format!("user {name} cannot be looked up ({errno}): {remedy}");
        let found = match User::from_name(name).map_err(unknown)? {
            None => match name.parse() {
                Ok(number) => User::from_uid(Uid::from_raw(number)).map_err(unknown)?,
                Err(_) => None,
            },
            found => found,
        };
        let user = found.ok_or_else(|| format!("there is no user {name}: {remedy}"))?;
        let plain = CString::new(user.name.as_str()).map_err(|_| format!("{name:?} is no name of a user: {remedy}"))?;
        let groups = getgrouplist(&plain, user.gid)
            .map_err(|errno| format!("the groups of user {name} are unknown ({errno})"))?;
        let groups = groups.into_iter().map(libc::gid_t::from).collect();
        Ok(Self { name: user.name.into(), user: user.uid.as_raw(), group: user.gid.as_raw(), groups })
    }

    pub const fn is_root(&self) -> bool {
        self.user == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_or_number_and_a_stranger_is_told() {
        let find = |name: &str| Identity::find(name, "script_user");
        let nobody = find("nobody").expect("every system has it");
        assert!(!nobody.is_root() && nobody.groups.contains(&nobody.group));
        assert_eq!(find(&nobody.user.to_string()), Ok(nobody));
        assert!(find("root").expect("every system has it").is_root());
        let error = find("no-such-user-here").expect_err("a stranger");
        assert_eq!(error, "there is no user no-such-user-here: name another one as [security] script_user");
        assert!(find("4294967294").is_err() && find("a\0b").is_err());
    }
}
