//! What one shard knows about access: the policy of the moment, and whom to ask about passwords.
//!
//! A policy is replaced as a whole, by an order to each shard. A shard counts the policies that it had; what it found with
//! an old one (a client's [`Grants`], that a subscription is wholly allowed) is marked with that count and found again
//! when it is used next.

use std::sync::Arc;

use super::is_sys;
use super::login::{Login, Verdict, Verifier};
use super::pattern::Who;
use super::rules::{Grants, Permissions, Rules};
use super::users::Users;

/// Who is let in and what they may do.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// One set for each file of users. Their passwords are verified elsewhere, see [`Verifier`].
    pub users: Arc<[Users]>,
    /// One set for each file of rules.
    pub rules: Box<[Rules]>,
    /// By listener; those beyond the end are as [`Door::default`] has it.
    pub doors: Box<[Door]>,
    pub overlap: Overlap,
    pub denial: Denial,
}

/// Who is let in at one listener, and whose rules hold for those who came in there.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Door {
    pub anonymous: Anonymous,
    pub client_ids: ClientIds,
    /// Which file of users; without one names and passwords mean nothing here.
    pub users: Option<u16>,
    /// Which of [`Policy::rules`]; without any everybody may do everything, but publish to `$SYS`.
    pub rules: Option<u16>,
}

/// What becomes of a client without a user name, at one listener.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    #[default]
    Admitted,
    Refused,
}

/// Which Client Identifiers a user may have. Anonymous clients may have any.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientIds {
    #[default]
    Any,
    /// The user name.
    UserName,
    /// Those that begin with the user name.
    BeginWithUserName,
}

/// What a SUBSCRIBE gets whose filter matches some that may be received and some that may not.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// It is granted, and each delivery is checked.
    #[default]
    Filter,
    Refuse,
}

/// The code of SUBACK for a filter that is denied.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Denial {
    /// 0x87; 3.1.1 has 0x80 alone.
    #[default]
    NotAuthorized,
    /// 0x80 in v5 too.
    Unspecified,
}

/// Who a client is, once that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user whose password was verified, or whose certificate was shown; `None` for an anonymous client.
    pub user: Option<Arc<str>>,
    /// It was a certificate.
    pub by_certificate: bool,
}

impl ClientIds {
    pub fn permits(self, user: &str, client_id: &str) -> bool {
        match self {
            ClientIds::Any => true,
            ClientIds::UserName => client_id == user,
            ClientIds::BeginWithUserName => client_id.starts_with(user),
        }
    }
}

/// One shard's share.
#[derive(Default)]
pub struct Access {
    /// Policies that this shard was given so far; 0 is never the mark of one.
    generation: u32,
    policy: Arc<Policy>,
    /// Whether any listener has some.
    rules: bool,
    /// Without one there are no users: names and passwords mean nothing, and everybody is anonymous.
    verifier: Option<Box<dyn Verifier>>,
}

/// What is remembered with each session.
#[derive(Copy, Clone, Debug, Default)]
pub struct Rights {
    generation: u32,
    grants: Grants,
    /// The generation in which all its subscriptions are wholly allowed; 0 for none.
    pub open_in: u32,
    /// The generation in which what waits for it was checked.
    pub checked_in: u32,
}

impl Rights {
    /// Its client came in here. What was found under the rules of another listener is forgotten.
    pub fn enter(&mut self, listener: u16) {
        if self.grants.listener != listener {
            let grants = Grants::default().of_listener(listener);
            *self = Rights { grants, ..Rights::default() };
        }
    }
}

impl Access {
    pub fn new(policy: Arc<Policy>, verifier: Option<Box<dyn Verifier>>) -> Access {
        let mut access = Access { verifier, ..Access::default() };
        access.replace(policy);
        access
    }

    /// From now on this policy is in force here.
    pub fn replace(&mut self, policy: Arc<Policy>) {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.rules = policy.doors.iter().any(|door| door.rules.is_some());
        self.policy = policy;
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Names one state of the rules.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    #[inline]
    pub fn has_rules(&self) -> bool {
        self.rules
    }

    /// Whether the policy in force says who is let in at this listener.
    pub fn has_door(&self, listener: u16) -> bool {
        usize::from(listener) < self.policy.doors.len()
    }

    /// Who is let in at this listener.
    pub fn door(&self, listener: u16) -> Door {
        let door = self.policy.doors.get(usize::from(listener)).copied().unwrap_or_default();
        Door { users: door.users.filter(|_| self.verifier.is_some()), ..door }
    }

    /// Whether nobody can come in any more as the owner of a session: it is a user that is in no file of users, of
    /// whatever listener, or it is anonymous and no listener admits that. Somebody who has shown a certificate is in no
    /// file, and so is never known to be gone.
    pub fn is_gone(&self, user: Option<&str>, by_certificate: bool) -> bool {
        let policy = &self.policy;
        match user {
            Some(_) if by_certificate => false,
            Some(user) => !policy.users.iter().any(|users| users.contains(user)),
            None => {
                !policy.doors.is_empty()
                    && policy.doors.iter().all(|door| door.anonymous == Anonymous::Refused)
            }
        }
    }

    /// Only where there are users.
    pub fn verify(&mut self, login: Login<'_>) -> Verdict {
        self.verifier.as_mut().map_or(Verdict::Busy, |verifier| verifier.verify(login))
    }

    pub fn may_publish(&self, rights: &mut Rights, who: Who<'_>, topic: &str) -> bool {
        match self.permissions(rights, who) {
            Some(permissions) => permissions.may_publish(topic),
            None => !is_sys(topic),
        }
    }

    /// What the client may do; `None` where it came in without rules.
    pub fn permissions<'a>(&'a self, rights: &mut Rights, who: Who<'a>) -> Option<Permissions<'a>> {
        let door = self.policy.doors.get(usize::from(rights.grants.listener))?;
        let rules = self.policy.rules.get(usize::from(door.rules?))?;
        if rights.generation != self.generation {
            rights.generation = self.generation;
            rights.grants = rules.grants(who).of_listener(rights.grants.listener);
        }
        Some(rules.permissions(rights.grants, who))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::acl_file;

    #[test]
    fn old_grants_are_found_again_under_a_new_policy() {
        let policy = |text: &str| {
            let rules = [acl_file::parse(text).unwrap()].into();
            let doors = [Door { rules: Some(0), ..Door::default() }].into();
            Arc::new(Policy { rules, doors, ..Policy::default() })
        };
        let mut access = Access::new(policy("user zoe\ntopic z\nuser bob\ntopic a\n"), None);
        let mut rights = Rights::default();
        let who = Who { user: Some("bob"), client_id: "c" };
        assert!(access.may_publish(&mut rights, who, "a") && !access.may_publish(&mut rights, who, "b"));
        access.replace(policy("user bob\ntopic b\nuser zoe\ntopic a\n"));
        assert!(access.may_publish(&mut rights, who, "b") && !access.may_publish(&mut rights, who, "a"));
        assert!(access.has_door(0) && !access.has_door(1));
        access.replace(Arc::default());
        assert!(!access.has_door(0) && !access.has_rules());
        assert!(access.may_publish(&mut rights, who, "z") && !access.may_publish(&mut rights, who, "$SYS/x"));
    }

    #[test]
    fn the_rules_of_the_listener_hold_where_the_client_came_in_last() {
        let rules = |text: &str| acl_file::parse(text).unwrap();
        let door = |rules| Door { rules, ..Door::default() };
        let policy = Policy {
            rules: [rules("user bob\ntopic inside\n"), rules("user bob\ntopic outside\n")].into(),
            doors: [door(Some(0)), door(Some(1)), door(None)].into(),
            ..Policy::default()
        };
        let access = Access::new(Arc::new(policy), None);
        let who = Who { user: Some("bob"), client_id: "c" };
        let mut rights = Rights::default();
        for (listener, expected) in
            [(0, [true, false]), (1, [false, true]), (2, [true, true]), (0, [true, false])]
        {
            rights.open_in = 7;
            rights.enter(listener);
            assert!(listener == 0 && rights.open_in == 7 || rights.open_in == 0, "what was found elsewhere");
            rights.enter(listener);
            let may = ["inside", "outside"].map(|topic| access.may_publish(&mut rights, who, topic));
            assert_eq!(may, expected, "{listener}");
        }
    }

    #[test]
    fn an_owner_is_gone_if_nobody_can_come_in_as_that() {
        const HASH: &str = "$6$AAECAwQFBgcICQoL$Y4WPO0ICbkFB25Sxdu2LoRRrxHn+5vSWhC2EUmSYoLLtUV8GIc4CVeWWuvFv5IE5M6bpTbvMD7qDxLQrWa4e8Q==";
        let users = |name: &str| Users::parse(&format!("{name}:{HASH}\n")).unwrap();
        let door = |anonymous| Door { anonymous, ..Door::default() };
        let access = |doors: &[Door]| {
            let users = [users("ann"), users("bob")].into();
            let policy = Policy { users, doors: doors.into(), ..Policy::default() };
            Access::new(Arc::new(policy), None)
        };
        let mixed = access(&[door(Anonymous::Admitted), door(Anonymous::Refused)]);
        for user in [Some("ann"), Some("bob"), None] {
            assert!(!mixed.is_gone(user, false), "{user:?}");
        }
        assert!(mixed.is_gone(Some("eve"), false) && !mixed.is_gone(Some("eve"), true));
        assert!(access(&[door(Anonymous::Refused)]).is_gone(None, false));
        assert!(!access(&[]).is_gone(None, false), "doors that are not named admit everybody");
    }

    #[test]
    fn client_identifiers_follow_the_user_name_where_they_have_to() {
        for (rule, id, permitted) in [
            (ClientIds::Any, "x", true),
            (ClientIds::UserName, "bob", true),
            (ClientIds::UserName, "bob2", false),
            (ClientIds::UserName, "", false),
            (ClientIds::BeginWithUserName, "bob-2", true),
            (ClientIds::BeginWithUserName, "bo", false),
        ] {
            assert_eq!(rule.permits("bob", id), permitted, "{rule:?} {id}");
        }
    }
}
