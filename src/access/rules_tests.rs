//! Rules against a plain evaluation of them, and against the ways around rules that other brokers had.

use proptest::prelude::*;

use super::acl_file;
use super::pattern::{Names, Who};
use super::rules::{Action, Effect, Permissions, Rule, Rules, Subject, Subscribable, is_sys};
use crate::topic;

fn who<'a>(user: &'a str, client_id: &'a str) -> Who<'a> {
    Who { user: Some(user).filter(|user| !user.is_empty()), client_id }
}

fn with<R>(rules: &Rules, who: Who<'_>, look: impl FnOnce(Permissions<'_>) -> R) -> R {
    look(rules.permissions(rules.grants(who), who))
}

fn parsed(text: &str) -> Rules {
    acl_file::parse(text).unwrap()
}

/// One rule after the other, names put in as text: an allow only if they are harmless, a deny always.
fn naive(rules: &[Rule], who: Who<'_>, action: Action, topic: &str) -> bool {
    let mut allowed = false;
    for rule in rules {
        let concerns = match &rule.subject {
            Subject::Everybody => true,
            Subject::Anonymous => who.user.is_none(),
            Subject::User(name) => who.user == Some(name),
            Subject::ClientId(id) => who.client_id == &**id,
        };
        let mut text = String::new();
        let mut harmless = true;
        let mut whole = true;
        let mut rest = &*rule.topic;
        while let Some(next) = rest.chars().next() {
            let name = match rest.get(..2) {
                Some("%u") => who.user,
                Some("%c") => Some(who.client_id),
                _ => {
                    text.push(next);
                    rest = &rest[next.len_utf8()..];
                    continue;
                }
            };
            rest = &rest[2..];
            whole &= name.is_some();
            let name = name.unwrap_or_default();
            harmless &= !name.is_empty() && !name.contains(['+', '#', '/']);
            harmless &= !text.is_empty() || !name.starts_with('$');
            // No topic holds these, so nothing matches a name that does.
            whole &= !name.contains(['+', '#']);
            text.push_str(name);
        }
        let acts = rule.action == Action::Both || rule.action == action;
        if !(concerns && acts && whole && topic::matches(&text, topic)) {
            continue;
        }
        match rule.effect {
            Effect::Deny => return false,
            Effect::Allow => allowed |= harmless,
        }
    }
    allowed && !(action == Action::Publish && is_sys(topic))
}

const NAMES: &[&str] = &["a", "b", "x", "+", "#", "a/b", "$SYS", "/", ""];

fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just("a"), 3 => Just("b"), 1 => Just(""), 1 => Just("x")]
}

/// Topics of up to three levels over the alphabet of the rules, all of them.
fn all_topics() -> Vec<String> {
    let levels = ["a", "b", "x", "", "xa", "fresh"];
    let mut topics: Vec<String> = levels.iter().map(|level| (*level).to_owned()).collect();
    topics.push("$SYS".to_owned());
    let mut last = topics.clone();
    for _ in 0..2 {
        last = last.iter().flat_map(|topic| levels.map(|level| format!("{topic}/{level}"))).collect();
        topics.extend(last.iter().cloned());
    }
    topics.retain(|topic| !topic.is_empty());
    topics
}

fn filter(first: &'static [&'static str]) -> impl Strategy<Value = String> {
    let first = prop_oneof![6 => level().boxed(), 3 => proptest::sample::select(first).boxed()];
    let later = prop_oneof![
        5 => level(), 2 => Just("+"), 2 => Just("%u"), 1 => Just("%c"), 2 => Just("x%u"), 1 => Just("%c%u"),
    ];
    (first, proptest::collection::vec(later, 0..3), any::<bool>()).prop_map(|(first, later, rest)| {
        let mut text = first.to_owned();
        for level in later {
            text.push('/');
            text.push_str(level);
        }
        if rest {
            text.push_str("/#");
        }
        if text.is_empty() { "#".to_owned() } else { text }
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let subject = prop_oneof![
        3 => Just(Subject::Everybody),
        1 => Just(Subject::Anonymous),
        2 => proptest::sample::select(NAMES).prop_map(|name| Subject::User(name.into())),
        1 => proptest::sample::select(NAMES).prop_map(|name| Subject::ClientId(name.into())),
    ];
    let action = prop_oneof![Just(Action::Publish), Just(Action::Subscribe), Just(Action::Both)];
    let effect = prop_oneof![3 => Just(Effect::Allow), 1 => Just(Effect::Deny)];
    (subject, action, effect, filter(&["+", "#", "%u", "%c", "x%c", "%u%c", "$SYS"])).prop_filter_map(
        "a whole filter",
        |(subject, action, effect, topic)| {
            topic::parse_filter(&topic, 128).ok()?;
            Some(Rule { subject, action, effect, topic: topic.into(), names: Names::Replaced })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn rules_agree_with_their_plain_evaluation(
        rules in proptest::collection::vec(rule(), 0..8),
        user in proptest::sample::select(NAMES),
        client_id in proptest::sample::select(NAMES),
        wanted in filter(&["+", "#", "$SYS"]),
    ) {
        let who = who(user, client_id);
        let built = Rules::build(rules.clone()).unwrap();
        let topics = all_topics();
        with(&built, who, |permissions| {
            for topic in &topics {
                prop_assert_eq!(permissions.may_publish(topic), naive(&rules, who, Action::Publish, topic), "{}", topic);
                prop_assert_eq!(permissions.may_receive(topic), naive(&rules, who, Action::Subscribe, topic), "{}", topic);
            }
            let wanted = wanted.replace("%u", "a").replace("%c", "b");
            prop_assume!(topic::parse_filter(&wanted, 128).is_ok());
            let answer = permissions.may_subscribe(&wanted);
            for topic in topics.iter().filter(|topic| topic::matches(&wanted, topic)) {
                let may = permissions.may_receive(topic);
                prop_assert!(answer != Subscribable::Allowed || may, "{} is allowed, but not {}", wanted, topic);
                prop_assert!(answer != Subscribable::Denied || !may, "{} is denied, but not {}", wanted, topic);
            }
            if !wanted.contains(['+', '#']) {
                prop_assert_eq!(answer == Subscribable::Allowed, permissions.may_receive(&wanted));
                prop_assert!(answer != Subscribable::Filtered);
            }
            Ok(())
        })?;
    }
}

#[test]
fn names_never_widen_a_pattern() {
    let rules = parsed("pattern readwrite own/%u/#\npattern readwrite %c/x\npattern deny own/%u/secret\n");
    for name in ["+", "#", "a/b", "/", "a/", "own/+", "", "$SYS"] {
        for topic in ["own/a/x", "own/b", "own/a/b/x", "own//x", "a/x", "a/b/x", "$SYS/x", "own/x"] {
            with(&rules, who(name, name), |may| {
                assert!(!may.may_publish(topic), "{name} {topic}");
                assert!(!may.may_receive(topic), "{name} {topic}");
            });
        }
    }
    with(&rules, who("a", "b"), |may| {
        assert!(may.may_publish("own/a/x") && may.may_receive("b/x") && may.may_receive("own/a"));
        assert!(!may.may_publish("own/b/x") && !may.may_publish("own/a/secret"));
        assert_eq!(may.may_subscribe("own/+/x"), Subscribable::Filtered);
        assert_eq!(may.may_subscribe("own/b/#"), Subscribable::Denied);
        assert_eq!(may.may_subscribe("own/a/y/#"), Subscribable::Allowed);
        assert_eq!(may.may_subscribe("own/a/#"), Subscribable::Filtered);
        assert_eq!(may.may_subscribe("own/a/secret"), Subscribable::Denied);
    });
    // A deny follows a name even where it spans levels.
    let rules = parsed("topic readwrite #\nuser a/b\ntopic readwrite #\npattern deny own/%u\n");
    with(&rules, who("a/b", "c"), |may| assert!(!may.may_receive("own/a/b") && may.may_receive("own/a")));
}

#[test]
fn sys_is_for_those_whom_a_rule_lets_in() {
    let rules = parsed("pattern readwrite #\nuser admin\ntopic readwrite $SYS/#\n");
    with(&rules, who("alice", "c"), |may| {
        assert!(may.may_publish("a") && !may.may_receive("$SYS/broker/version"));
        assert_eq!(may.may_subscribe("$SYS/#"), Subscribable::Denied);
        assert_eq!(may.may_subscribe("#"), Subscribable::Allowed, "which does not match $SYS");
    });
    with(&rules, who("admin", "c"), |may| {
        assert_eq!(may.may_subscribe("$SYS/broker/+"), Subscribable::Allowed);
        assert!(
            may.may_receive("$SYS/broker") && !may.may_publish("$SYS/broker") && !may.may_publish("$SYS")
        );
        assert!(!may.may_publish("$SYSTEM"), "no rule is about it");
    });
}

#[test]
fn a_deny_beats_every_allow_and_the_order_means_nothing() {
    for text in ["user u\ntopic a/#\ntopic deny a/b\n", "user u\ntopic deny a/b\ntopic a/#\n"] {
        let rules = parsed(text);
        with(&rules, who("u", "c"), |may| {
            assert!(may.may_publish("a/c") && !may.may_publish("a/b"));
            assert_eq!(may.may_subscribe("a/+"), Subscribable::Filtered);
        });
    }
}

#[test]
fn one_direction_can_be_denied_alone() {
    let rules = parsed("user u\ntopic a/#\ntopic denyread a/in\ntopic denywrite a/out\n");
    with(&rules, who("u", "c"), |may| {
        assert!(may.may_publish("a/in") && !may.may_receive("a/in"));
        assert!(!may.may_publish("a/out") && may.may_receive("a/out"));
    });
}

#[test]
fn anonymous_and_named_rules_stay_apart() {
    let rules = parsed(
        "topic read public/#\nuser alice smith\ntopic write with space/#\nclient 7\ntopic c7\n# a comment\n\n",
    );
    with(&rules, who("", "x"), |may| assert!(may.may_receive("public/a") && !may.may_publish("public/a")));
    with(&rules, who("alice smith", "x"), |may| {
        assert!(!may.may_receive("public/a") && may.may_publish("with space/x") && !may.may_publish("c7"));
    });
    with(&rules, who("bob", "7"), |may| assert!(may.may_publish("c7") && may.may_receive("c7")));
}

#[test]
fn a_file_with_a_line_that_is_not_understood_is_refused() {
    let wrong = [
        ("topic read a\nusr bob\n", 2, "usr"),
        ("topic raed a\n", 1, "expected"),
        ("topic deny\n", 1, "missing"),
        ("user\n", 1, "missing"),
        ("topic read a/#/b\n", 1, "Topic Filter"),
        ("topic read $share/g/a\n", 1, "$share"),
    ];
    for (text, line, what) in wrong {
        let error = acl_file::parse(text).unwrap_err();
        assert_eq!(error.line, line, "{text}");
        assert!(error.what.contains(what), "{error}");
    }
}

#[test]
fn names_may_be_a_part_of_a_level() {
    let rules =
        parsed("pattern readwrite dev-%c/+\npattern read %u@%c\npattern deny dev-%c/x%u\ntopic read %c\n");
    let bob = who("bob", "7");
    with(&rules, bob, |may| {
        assert!(may.may_publish("dev-7/x") && may.may_receive("bob@7") && may.may_receive("dev-7/up"));
        for topic in ["dev-77/x", "dev-7", "dev-/x", "dev-%c/x", "dev-7/a/b", "xdev-7/x", "dev-7/xbob"] {
            assert!(!may.may_publish(topic), "{topic}");
        }
        assert_eq!(may.may_subscribe("dev-7/up"), Subscribable::Allowed);
        assert_eq!(may.may_subscribe("dev-7/+"), Subscribable::Filtered);
        assert_eq!(may.may_subscribe("dev-8/+"), Subscribable::Denied);
        assert!(!may.may_receive("bob@8") && !may.may_receive("eve@7"));
    });
    // A name that could be more than a part of a level gives nothing, and what it denies stays denied.
    for name in ["+", "#", "7/x", "a+", "", "/"] {
        with(&rules, who("bob", name), |may| {
            for topic in ["dev-7/x", "dev-+/x", "dev-/x", &format!("dev-{name}/x"), "dev-7/x/y"] {
                assert!(!may.may_publish(topic), "{name}: {topic}");
            }
            assert_eq!(may.may_subscribe("#"), Subscribable::Denied, "{name}");
        });
    }
    with(&rules, who("$SYS", "7"), |may| assert!(!may.may_receive("$SYS@7"), "not at the front"));
}
