//! The house inside `src/shard`: owners that do not know each other, types that stay small, and an order between shards that
//! nobody goes around.

use std::collections::BTreeMap;

use super::{code, files, has_word, is_rust, none};

/// The parts of a shard and what joins them, each with the types that it may not name. What one owner means to another goes
/// as a value through `Local`, which joins clients and sessions, or `Core`, which joins all.
const MAY_NOT_NAME: &[(&str, &[&str])] = &[
    ("Clients", &["Sessions", "Exchange", "Retained", "Local", "Core", "Shard"]),
    ("Sessions", &["Clients", "Exchange", "Retained", "Local", "Core", "Shard"]),
    ("Exchange", &["Clients", "Sessions", "Retained", "Local", "Core", "Shard"]),
    ("Retained", &["Clients", "Sessions", "Exchange", "Local", "Core", "Shard"]),
    ("Env", &["Clients", "Sessions", "Exchange", "Retained", "Local", "Core", "Shard"]),
    ("Local", &["Exchange", "Retained", "Core", "Shard"]),
    ("Core", &["Shard"]),
];

/// Fields of a type in `src/shard`.
const FIELDS_MAX: usize = 24;
/// Methods of a type in `src/shard`, in all its files. `Core` has the steps of the turn as well.
const METHODS_MAX: usize = 72;
const METHODS_OF_CORE_MAX: usize = 137;

/// Calls that only `order` may make, with the one other file that may: what they do needs or makes one of its values.
const ONLY_IN_ORDER: &[(&str, &str)] = &[
    ("io.completions(", ""),
    ("io.read_now(", ""),
    ("links.read(", ""),
    ("links.push(", ""),
    ("desk.take(", ""),
    ("Intake::of_this_turn(", "src/shard/mod.rs"),
    ("Hinted::by_this_shard(", "src/shard/retained.rs"),
];

/// What a `Slot` has that outlives a connection, or decides how long it does. Only verbs of `Sessions` set it, and these
/// stand in one file.
const SET_BY_SESSIONS: &[&str] = &[
    "user",
    "by_certificate",
    "connection",
    "connected_at",
    "asked_expiry_s",
    "expiry_s",
    "ends_at",
    "will",
    "overflowed",
];

/// Blocks `impl TYPE { ... }` of a text without comments and literals, with their types.
fn impls(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut block: Option<(String, String)> = None;
    for line in text.lines() {
        if let Some((_, body)) = &mut block {
            if line == "}" {
                found.extend(block.take());
            } else {
                body.push_str(line);
                body.push('\n');
            }
        } else if let Some(rest) = line.strip_prefix("impl")
            && line.ends_with('{')
            && !rest.contains(" for ")
        {
            let rest = rest.split_once("> ").filter(|_| rest.starts_with('<')).map_or(rest, |(_, rest)| rest);
            let name = rest.trim().split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            block = Some((name.to_owned(), String::new()));
        }
    }
    found
}

/// Methods that name a type which theirs may not know.
fn owners_are_apart(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (owner, body) in impls(&code(text)) {
        let others =
            MAY_NOT_NAME.iter().find(|(name, _)| *name == owner).map_or(&[][..], |(_, others)| others);
        for other in others {
            if let Some(line) =
                body.lines().find(|line| has_word(&line.replace("topic::Retained", ""), other))
            {
                wrong.push(format!("{path}: `{owner}` names `{other}`: {}", line.trim()));
            }
        }
    }
    wrong
}

/// Types with more fields or methods than a reader keeps in mind.
fn types_are_small(sources: &[(String, String)]) -> Vec<String> {
    let mut methods: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (path, text) in sources {
        let text = code(text);
        for (name, body) in impls(&text) {
            let count = body.lines().filter(|line| line.starts_with("    ") && is_method(line)).count();
            *methods.entry(name).or_default() += count;
        }
        for (at, _) in text.match_indices("struct ") {
            let item = &text[at..];
            let Some(body) = item.split_once(" {\n").filter(|(head, _)| !head.contains([';', '\n'])) else {
                continue;
            };
            let (name, body) = (body.0["struct ".len()..].to_owned(), body.1);
            let body = body.split("\n}").next().unwrap_or_default();
            let fields = body.lines().filter(|line| line.starts_with("    ") && line.contains(": ")).count();
            if fields > FIELDS_MAX {
                wrong.push(format!("{path}: `{name}` has {fields} fields; {FIELDS_MAX} are allowed"));
            }
        }
    }
    for (name, count) in methods {
        let max = if name == "Core" { METHODS_OF_CORE_MAX } else { METHODS_MAX };
        if count > max {
            wrong.push(format!("src/shard: `{name}` has {count} methods; {max} are allowed"));
        }
    }
    wrong
}

/// A line that begins a method of an `impl` block, and not a function within one.
fn is_method(line: &str) -> bool {
    let item = line[4..]
        .trim_start_matches("pub(super) ")
        .trim_start_matches("pub(crate) ")
        .trim_start_matches("pub ");
    item.trim_start_matches("const ").starts_with("fn ") && !line[4..].starts_with(' ')
}

/// Calls that go around the values of `order`.
fn goes_around_order(path: &str, text: &str) -> Vec<String> {
    let text = code(text);
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let allowed = |call: &str, file: &str| {
        path == "src/shard/order.rs" || path == file && text.matches(call).count() == 1
    };
    let wrong = ONLY_IN_ORDER.iter().filter(|(call, file)| text.contains(call) && !allowed(call, file));
    wrong.map(|(call, _)| format!("{path}: `{call}..)` belongs to src/shard/order.rs")).collect()
}

/// Lines that set what only verbs of `Sessions` set.
fn sets_what_outlives(path: &str, text: &str) -> Vec<String> {
    let sets = |line: &str| {
        SET_BY_SESSIONS.iter().any(|field| {
            let after = line.split_once(&format!("slot.{field}")).map_or("", |(_, after)| after);
            let calls = [".take()", ".insert(", ".replace("];
            after.trim_start_matches(' ').starts_with("= ")
                || after.starts_with(" |= ")
                || calls.iter().any(|call| after.starts_with(call))
        }) || line.contains("&mut slot.subscriptions")
    };
    let text = code(text);
    let wrong = text.lines().filter(|line| path != "src/shard/sessions.rs" && sets(line));
    wrong.map(|line| format!("{path}: a verb of `Sessions` does this: {}", line.trim())).collect()
}

fn sources() -> Vec<(String, String)> {
    files().into_iter().filter(|(path, _)| path.starts_with("src/shard/") && is_rust(path)).collect()
}

#[test]
fn owners_do_not_name_each_other() {
    none(sources().iter().flat_map(|(path, text)| owners_are_apart(path, text)).collect());
}

#[test]
fn no_type_of_a_shard_is_too_large() {
    none(types_are_small(&sources()));
}

#[test]
fn nobody_goes_around_the_order_between_shards() {
    let sources = sources();
    none(sources.iter().flat_map(|(path, text)| goes_around_order(path, text)).collect());
    for (call, _) in ONLY_IN_ORDER {
        assert!(
            sources.iter().any(|(_, text)| code(text).contains(call)),
            "nobody calls `{call}..)` any more"
        );
    }
}

#[test]
fn what_outlives_a_connection_is_set_by_sessions() {
    none(sources().iter().flat_map(|(path, text)| sets_what_outlives(path, text)).collect());
}

#[test]
fn a_session_that_is_changed_elsewhere_is_found() {
    let of = |line: &str| {
        sets_what_outlives("src/shard/connect.rs", &format!("fn a() {{\n    {line}\n}}\n")).len()
    };
    for line in ["slot.expiry_s = 0;", "slot.by_certificate |= true;", "let will = slot.will.take();"] {
        assert_eq!(of(line), 1, "{line}");
    }
    for line in ["if slot.expiry_s == 0 {", "let at = slot.ends_at;", "slot.connection.is_some()"] {
        assert_eq!(of(line), 0, "{line}");
    }
    assert_eq!(sets_what_outlives("src/shard/sessions.rs", "slot.expiry_s = 0;\n"), Vec::<String>::new());
}

#[test]
fn a_way_around_the_order_is_found() {
    let push = "fn a(&mut self) {\n    self.links.push(to, parcel, 1);\n}\n";
    assert_eq!(goes_around_order("src/shard/order.rs", push), Vec::<String>::new());
    assert_eq!(goes_around_order("src/shard/waits.rs", push).len(), 1);
    let intake = "let intake = Intake::of_this_turn();\n";
    assert_eq!(goes_around_order("src/shard/mod.rs", intake), Vec::<String>::new());
    assert_eq!(goes_around_order("src/shard/mod.rs", &intake.repeat(2)).len(), 1);
    assert_eq!(goes_around_order("src/shard/tend.rs", intake).len(), 1);
}

#[test]
fn an_owner_that_names_another_is_found() {
    let good = "impl Clients {\n    /// As [`Sessions`].\n    fn a(&self, env: &Env) {}\n}\nimpl Core {\n    fn b(s: &Sessions) {}\n}\n";
    let bad = "impl Clients {\n    fn a(&self, sessions: &mut Sessions) {}\n}\n";
    assert_eq!(owners_are_apart("a.rs", good), Vec::<String>::new());
    assert_eq!(owners_are_apart("a.rs", bad).len(), 1);
    assert_eq!(owners_are_apart("a.rs", "impl<I: Io> Sessions {\n    fn a(c: &Core) {}\n}\n").len(), 1);
    assert_eq!(
        owners_are_apart("a.rs", "impl Local {\n    fn a(e: &Exchange, c: &Clients) {}\n}\n").len(),
        1
    );
}

#[test]
fn a_type_that_grew_is_found() {
    let methods = |count: usize| {
        format!("impl Few {{\n{}}}\n", "    pub(super) fn a() {\n        fn b() {}\n    }\n".repeat(count))
    };
    let fields = |count: usize| {
        format!("struct Few {{\n{}}}\n", "    /// What it is: this.\n    a: u8,\n".repeat(count))
    };
    let of = |text: String| types_are_small(&[("src/shard/a.rs".to_owned(), text)]).len();
    assert_eq!((of(methods(METHODS_MAX)), of(methods(METHODS_MAX + 1))), (0, 1));
    assert_eq!((of(fields(FIELDS_MAX)), of(fields(FIELDS_MAX + 1))), (0, 1));
}
