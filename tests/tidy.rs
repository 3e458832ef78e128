//! The rules of the house that the compiler does not check: who may use whom, where `unsafe` may stand, that every file
//! says what it is, that none grows out of hand, that nothing is left half done, and that the documents name what exists.
//! It reads text with comments and literals blanked out ([`code`]). Each rule is a function from a path and a text to what
//! is wrong there; tests at the end show each a bad one.

#[path = "tidy/owners.rs"]
mod owners;
#[path = "tidy/reasons.rs"]
mod reasons;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the broker, low to high. A module may use those in rows above its own, and no other.
const LAYERS: &[&[&str]] = &[
    &["allocator", "clock", "log", "metrics"],
    &["limits"],
    &["wire", "memory"],
    &["topic", "timer", "mesh"],
    &["session", "io", "transport", "access"],
    &["store"],
    &["shard"],
    &["config"],
    &["server"],
];

/// Modules that know no MQTT word, though they stand above those who do, and what they must not use.
const BLIND: &[&str] = &["mesh", "timer", "io", "transport"];
const MQTT: &[&str] = &["wire", "topic"];

/// What a module may use in spite of both rules: a kept Application Message has a QoS.
const EXCEPTIONS: &[(&str, &str)] =
    &[("memory", "wire::Qos"), ("io", "wire::Qos"), ("transport", "wire::Qos")];

/// Crate roots, which deny it everywhere else.
const ROOTS: &[&str] = &["src/lib.rs", "src/main.rs", "loadgen/src/lib.rs"];

/// Lines of a file.
const LINES_MAX: usize = 700;
/// Directories with sources, and those that are not ours.
const SOURCES: &[&str] = &["src", "bench", "loadgen", "tests", "scripts", ".ci"];
const SKIPPED: &[&str] = &["target", "node_modules", ".venv", ".git", "__pycache__"];

// ---- the rules -------------------------------------------------------------------------------------------------------

/// Paths from the crate's root lead down only.
fn layering(path: &str, text: &str) -> Vec<String> {
    let Some(module) = module_of(path) else { return Vec::new() };
    let Some(row) = row(module) else {
        return vec![format!("{path}: `{module}` is in no row of LAYERS")];
    };
    let mut wrong = Vec::new();
    for used in paths(path, text) {
        let first = used.split("::").next().unwrap_or(&used);
        let allowed = first == module
            || EXCEPTIONS.contains(&(module, &used))
            || self::row(first).is_some_and(|other| other < row)
                && !(BLIND.contains(&module) && MQTT.contains(&first));
        if !allowed {
            wrong.push(format!("{path}: `{module}` must not use `{used}`"));
        }
    }
    wrong
}

/// `unsafe` stands only in listed files, and each has a comment of its own which says why it holds.
fn unsafe_code(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let code = code(text);
    let listed = reasons::UNSAFE.contains(&path);
    for (at, line) in code.lines().enumerate() {
        let place = format!("{path}:{}", at + 1);
        if !listed && line.contains("allow(unsafe_code)") {
            wrong.push(format!("{place}: allows unsafe code, but is not in UNSAFE"));
        }
        if !has_word(line, "unsafe") {
            continue;
        }
        if !listed {
            wrong.push(format!("{place}: unsafe, but not in UNSAFE"));
        } else if !reasons::is_justified(text, at, "SAFETY: ") {
            wrong.push(format!("{place}: nothing in front of it says why it is safe"));
        } else if line.contains("unsafe fn") && !reasons::is_justified(text, at, "# Safety") {
            wrong.push(format!("{place}: nothing in front of it says what its callers promise"));
        }
    }
    if listed && wrong.is_empty() {
        wrong = reasons::reasons(path, text, &code);
    }
    if ROOTS.contains(&path) && !code.contains("#![deny(unsafe_code)]") {
        wrong.push(format!("{path}: a crate root without #![deny(unsafe_code)]"));
    }
    wrong
}

/// Every source says at its top what it is.
fn head(path: &str, text: &str) -> Vec<String> {
    match text.lines().next() {
        Some(first) if first.starts_with("//! ") => Vec::new(),
        _ => vec![format!("{path}: does not begin with `//!`")],
    }
}

fn length(path: &str, text: &str) -> Vec<String> {
    match text.lines().count() {
        lines if lines > LINES_MAX => vec![format!("{path}: {lines} lines; {LINES_MAX} are allowed")],
        _ => Vec::new(),
    }
}

/// Nothing is left for later.
fn leftovers(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let code = code(text);
    // In halves, as below: what looks for leftovers would find itself.
    let calls =
        [["to", "do!"], ["unimple", "mented!"], ["db", "g!"], ["#[ig", "nore"]].map(|halves| halves.concat());
    for (at, line) in code.lines().enumerate() {
        let found = calls.iter().find(|call| has_word(line, call));
        wrong.extend(found.map(|found| format!("{path}:{}: {found}", at + 1)));
    }
    wrong.extend(marks(path, text));
    wrong
}

/// The same for files in any language: words that promise work.
fn marks(path: &str, text: &str) -> Vec<String> {
    let marks = [["TO", "DO"], ["FIX", "ME"], ["X", "XX"]].map(|halves| halves.concat());
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(at, line)| Some((at, marks.iter().find(|mark| has_word(line, mark))?)))
        .map(|(at, mark)| format!("{path}:{}: {mark}", at + 1))
        .collect()
}

/// Every module of the crate is in LAYERS and has a line in the map at the top of `lib.rs`.
fn map_of_modules(lib: &str) -> Vec<String> {
    let doc: String = lib.lines().filter(|line| line.starts_with("//!")).collect();
    let code = code(lib);
    let lines = code.lines().map(|line| line.trim_start_matches("pub "));
    let modules = lines.filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let mut wrong = Vec::new();
    for module in modules {
        if row(module).is_none() {
            wrong.push(format!("src/lib.rs: `{module}` is in no row of LAYERS"));
        }
        if !doc.contains(&format!("| [`{module}`] |")) && !doc.contains(&format!("| `{module}` |")) {
            wrong.push(format!("src/lib.rs: no line for `{module}` in the map"));
        }
    }
    wrong
}

/// The table of files in `shard/mod.rs` has all of them.
fn table_of_files(text: &str) -> Vec<String> {
    let code = code(text);
    let modules = code.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    modules
        .filter(|module| {
            !["tests", "testing"].contains(module) && !text.contains(&format!("//! | `{module}` |"))
        })
        .map(|module| format!("src/shard/mod.rs: no line for `{module}` in the table of files"))
        .collect()
}

/// Relative links lead to files that exist.
fn links(path: &str, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let directory = Path::new(path).parent().unwrap_or(Path::new(""));
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.starts_with("http") && !target.starts_with('#'))
        .map(|target| target.split('#').next().unwrap_or(target))
        .filter(|target| !exists(&directory.join(target)))
        .map(|target| format!("{path}: the link to {target} leads nowhere"))
        .collect()
}

/// Counters that a document names exist.
fn counters_exist(path: &str, text: &str, metrics: &str) -> Vec<String> {
    let named = quoted(text).filter(|name| name.len() > "_total".len() && name.ends_with("_total"));
    named
        .filter(|name| !metrics.contains(&format!("\n    {name},")))
        .map(|name| format!("{path}: there is no counter `{name}`"))
        .collect()
}

/// Flags that a table shows exist.
fn flags_exist(path: &str, text: &str, config: &str) -> Vec<String> {
    let shown = text.lines().filter_map(|line| line.strip_prefix("| `--")?.split(['`', ' ']).next());
    shown
        .filter(|flag| !config.contains(&format!("\n    {}: ", flag.replace('-', "_"))))
        .map(|flag| format!("{path}: there is no flag --{flag}"))
        .collect()
}

/// Every limit that can be set has its place in the list of limits.
fn limits_are_listed(document: &str, limits: &str) -> Vec<String> {
    let fields = limits.split("pub struct Limits {").nth(1).and_then(|rest| rest.split("\n}").next());
    let names = fields
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next());
    names
        .filter(|name| !document.contains(&format!("| `{name}` |")))
        .map(|name| format!("docs/ARCHITECTURE.md: the limit `{name}` is not listed"))
        .collect()
}

/// Every dependency has its reason.
fn dependencies_have_reasons(document: &str, manifest: &str) -> Vec<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if let (true, Some((name, _))) = (inside, line.split_once(['=', '.'])) {
            names.insert(name.trim());
        }
    }
    let missing = names.into_iter().filter(|name| !document.contains(&format!("| `{name}` |")));
    missing.map(|name| format!("docs/ARCHITECTURE.md: no reason for the dependency `{name}`")).collect()
}

// ---- reading ---------------------------------------------------------------------------------------------------------

/// Blocks of a file of planted faults or broken rules whose text to replace does not stand exactly once where it should.
fn patches(path: &str, text: &str, source: impl Fn(&str) -> String) -> Vec<String> {
    const BEGIN: &str = "\n<<<<\n";
    let of_block = |at: usize| {
        let file = text[..at].rsplit('\n').next()?;
        let old = text[at + BEGIN.len()..].split("\n====\n").next()?;
        let count = source(file).matches(old).count();
        let first = old.lines().next().unwrap_or_default().trim();
        (count != 1).then(|| format!("{path}: stands {count} times in {file}: {first}"))
    };
    text.match_indices(BEGIN).filter_map(|(at, _)| of_block(at)).collect()
}

fn row(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The module of the crate that a file belongs to; none for other crates and for the roots.
fn module_of(path: &str) -> Option<&str> {
    let below = path.strip_prefix("src/")?;
    let module = below.split('/').next()?.trim_end_matches(".rs");
    (!["lib", "main"].contains(&module)).then_some(module)
}

/// Paths below the crate's root that a file names, by `crate::` or by climbing.
fn paths(path: &str, text: &str) -> BTreeSet<String> {
    let code = code(text);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        tree(&code[at + "crate::".len()..], "", &mut found);
    }
    // `crate::topic::filter` climbs two levels to the root. A climb from a module within a file is one longer and then
    // ends on an item of that file, whose name is that of no module.
    let depth = path.split('/').filter(|part| *part != "src" && *part != "mod.rs").count();
    for (at, _) in code.match_indices("super::").filter(|(at, _)| !code[..*at].ends_with("::")) {
        let mut rest = &code[at..];
        let mut levels = 0;
        while let Some(higher) = rest.strip_prefix("super::") {
            (rest, levels) = (higher, levels + 1);
        }
        if levels >= depth {
            let mut climbed = Vec::new();
            tree(rest, "", &mut climbed);
            let is_module = |used: &String| used.split("::").next().is_some_and(|first| row(first).is_some());
            found.extend(climbed.into_iter().filter(is_module));
        }
    }
    found.into_iter().collect()
}

/// The leaves of a path such as `a::{b, c::d}`; returns how many bytes it took.
fn tree(text: &str, prefix: &str, found: &mut Vec<String>) -> usize {
    if let Some(inside) = text.strip_prefix('{') {
        let mut at = 0;
        while let Some(next) = inside[at..].chars().next() {
            match next {
                '}' => break,
                next if next.is_whitespace() || next == ',' => at += next.len_utf8(),
                _ => {
                    at += tree(&inside[at..], prefix, found).max(1);
                    at += inside[at..].find([',', '}']).unwrap_or(inside.len() - at);
                }
            }
        }
        return at + 2;
    }
    let name = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
    let path = format!("{prefix}{}", &text[..name]);
    match text[name..].strip_prefix("::") {
        Some(rest) if rest.starts_with(|c: char| is_word(c) || c == '{') => {
            name + 2 + tree(rest, &format!("{path}::"), found)
        }
        _ => {
            found.push(path);
            name
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in `line` by itself.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        let goes_on = word.ends_with(is_word) && after.starts_with(is_word);
        !(goes_on || before.ends_with(is_word))
    })
}

/// Words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The text with comments and the insides of literals blanked out; lines stay where they are.
fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        match end {
            None => {
                out.push(chars[at]);
                at += 1;
            }
            Some(end) => {
                out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
                at = end;
            }
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; none if none begins there.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let ahead = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    let find = |from: usize, end: &str| {
        let end: Vec<char> = end.chars().collect();
        (from..chars.len()).find(|at| chars[*at..].starts_with(&end)).map_or(chars.len(), |at| at + end.len())
    };
    let in_word = at > 0 && is_word(chars[at - 1]) && !matches!(chars[at - 1], 'b' | 'c');
    match chars[at] {
        '/' if ahead(1) == '/' => Some(find(at, "\n") - 1),
        '/' if ahead(1) == '*' => Some(find(at + 2, "*/")),
        '"' => {
            let mut end = at + 1;
            while end < chars.len() && chars[end] != '"' {
                end += if chars[end] == '\\' { 2 } else { 1 };
            }
            Some((end + 1).min(chars.len()))
        }
        'r' if !in_word => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            (ahead(1 + hashes) == '"').then(|| find(at + 2 + hashes, &format!("\"{}", "#".repeat(hashes))))
        }
        '\'' if ahead(1) == '\\' => Some(find(at + 3, "'")),
        '\'' if ahead(2) == '\'' => Some(at + 3),
        _ => None,
    }
}

// ---- the house -------------------------------------------------------------------------------------------------------

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files below the source directories, with their texts, by path from the top.
fn files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> =
        SOURCES.iter().map(|name| top().join(name)).filter(|path| path.is_dir()).collect();
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    waiting.push(path);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                found.push((path.strip_prefix(top()).unwrap().to_string_lossy().into_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// Documents in Markdown.
fn documents() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for directory in ["", "docs"] {
        for entry in fs::read_dir(top().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(top()).unwrap().to_string_lossy().into_owned(), text));
            }
        }
    }
    found.sort();
    found
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

#[track_caller]
fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A rule, on every Rust file.
#[track_caller]
fn everywhere(rule: impl Fn(&str, &str) -> Vec<String>) {
    let files = files();
    assert!(files.iter().filter(|(path, _)| is_rust(path)).count() > 100, "the files were not found");
    none(files.iter().filter(|(path, _)| is_rust(path)).flat_map(|(path, text)| rule(path, text)).collect());
}

#[test]
fn layers_are_kept() {
    everywhere(layering);
}

#[test]
fn unsafe_stands_where_it_may_and_says_why() {
    everywhere(unsafe_code);
}

#[test]
fn every_file_says_what_it_is() {
    everywhere(head);
}

#[test]
fn no_file_is_too_long() {
    everywhere(length);
}

#[test]
fn nothing_is_left_for_later() {
    everywhere(leftovers);
    let others = files().into_iter().filter(|(path, _)| !is_rust(path)).chain(documents());
    none(others.flat_map(|(path, text)| marks(&path, &text)).collect());
}

#[test]
fn the_maps_are_whole() {
    none(map_of_modules(&read("src/lib.rs")));
    none(table_of_files(&read("src/shard/mod.rs")));
}

#[test]
fn documents_name_what_exists() {
    let metrics = read("src/metrics.rs");
    let files = ["flags.rs", "access.rs", "tls.rs", "store.rs"];
    let config: String = files.iter().map(|file| read(&format!("src/config/{file}"))).collect();
    let config = config.replace("\n    pub ", "\n    ");
    let documents = documents();
    assert!(documents.len() >= 4, "{documents:?}");
    for (path, text) in &documents {
        none(links(path, text, |target| top().join(target).exists()));
        none(counters_exist(path, text, &metrics));
    }
    none(flags_exist("README.md", &read("README.md"), &config));
    let architecture = read("docs/ARCHITECTURE.md");
    none(limits_are_listed(&architecture, &read("src/limits.rs")));
    none(dependencies_have_reasons(&architecture, &read("Cargo.toml")));
    none(dependencies_have_reasons(&architecture, &read("loadgen/Cargo.toml")));
}

/// A fault that cannot be planted any more shows nothing.
#[test]
fn faults_and_broken_rules_fit_the_sources() {
    let files = [
        "tests/simulation/faults/faults.txt",
        "tests/mutations/certificates.txt",
        "tests/mutations/decoding.txt",
        "tests/mutations/routing.txt",
        "tests/mutations/rules.txt",
        "tests/mutations/sessions.txt",
    ];
    none(files.iter().flat_map(|path| patches(path, &read(path), read)).collect());
}

/// An exception that is not needed any more would hide the next one.
#[test]
fn no_exception_is_stale() {
    let has_unsafe = |path: &&&str| code(&read(path)).lines().any(|line| has_word(line, "unsafe"));
    assert_eq!(reasons::UNSAFE.iter().filter(has_unsafe).count(), reasons::UNSAFE.len());
    let rust: Vec<_> = files().into_iter().filter(|(path, _)| is_rust(path)).collect();
    for (module, used) in EXCEPTIONS {
        let mut of_module = rust.iter().filter(|(path, _)| module_of(path) == Some(module));
        assert!(
            of_module.any(|(path, text)| paths(path, text).contains(*used)),
            "{module} does not use {used}"
        );
    }
}

// ---- each rule is shown a bad example --------------------------------------------------------------------------------

/// The rule finds `bad` as often as it should, and nothing in `good`.
#[track_caller]
fn finds(rule: impl Fn(&str, &str) -> Vec<String>, path: &str, bad: &str, count: usize, good: &str) {
    let wrong = rule(path, bad);
    assert_eq!(wrong.len(), count, "{wrong:?} in\n{bad}");
    none(rule(path, good));
}

#[test]
fn a_path_upwards_or_sideways_is_found() {
    let good =
        "use crate::wire::Qos;\nuse crate::session::Link;\nuse super::queue::Queue;\n// crate::shard::Core";
    finds(layering, "src/session/mod.rs", "use crate::shard::Shard;", 1, good);
    finds(layering, "src/session/mod.rs", "use crate::io::Io;\nfn f(_: crate::topic::Route) {}", 1, good);
    finds(
        layering,
        "src/session/mod.rs",
        "use crate::{clock::Millis, shard::{Live, Turn as T}, server};",
        3,
        good,
    );
    finds(
        layering,
        "src/session/flight.rs",
        "use super::super::shard::Core;",
        1,
        "use super::super::testing::*;",
    );
    finds(layering, "src/clock.rs", "pub use super::log;", 1, "mod tests { use super::*; }");
    finds(layering, "src/memory/key.rs", "use crate::wire::{Qos, Packet};", 1, "use crate::wire::{Qos};");
    finds(layering, "src/mesh/links.rs", "use crate::wire::Packet;", 1, "use crate::memory::ShardId;");
    finds(
        layering,
        "src/io/mod.rs",
        "use crate::session::Session;",
        1,
        "const S: &str = \"crate::session\";",
    );
    assert_eq!(layering("src/strange.rs", "").len(), 1);
    assert_eq!(layering("src/main.rs", "use crate::server::Server;").len(), 0, "the root may use all");
}

#[test]
fn every_form_of_a_path_is_read() {
    let text =
        "use crate::{\n    a::{self, B},\n    c::d as e,\n};\nlet x = crate::f::<u8>::new(crate::g::h());";
    let found: Vec<String> = paths("src/x.rs", text).into_iter().collect();
    assert_eq!(found, ["a::B", "a::self", "c::d", "f", "g::h"]);
}

#[test]
fn unsafe_elsewhere_or_without_a_reason_is_found() {
    let block = "fn f() {\n    unsafe { g() };\n}\n";
    let why = "fn f() {\n    // SAFETY: nothing can happen.\n    unsafe { g() };\n}\n";
    let outer = "// SAFETY: both are ours.\nlet a =\n    unsafe { g() };\n";
    finds(unsafe_code, "src/session/mod.rs", why, 1, "// unsafe\nlet s = \"unsafe\"; let unsafe_code = 1;");
    finds(unsafe_code, "src/session/mod.rs", "#![allow(unsafe_code)]", 1, "#![deny(unsafe_code)]");
    finds(unsafe_code, "src/io/sockets.rs", block, 1, why);
    finds(
        unsafe_code,
        "src/io/sockets.rs",
        "// SAFETY: a\nlet a = 1;\nlet b = 2;\nlet c = 3;\nunsafe { g() };",
        1,
        outer,
    );
    let shared = "// SAFETY: both are ours.\nunsafe { g() };\nunsafe { h() };";
    let apart = "// SAFETY: it is ours.\nunsafe { g() };\n// SAFETY: so is this.\nunsafe { h() };";
    finds(unsafe_code, "src/io/sockets.rs", shared, 1, apart);
    for borrowed in ["as above", "the caller's\n// promise", "as in `g`"] {
        let reason = format!("// SAFETY: {borrowed}, it is open.\nunsafe {{ g() }};");
        finds(unsafe_code, "src/io/sockets.rs", &reason, 1, "// SAFETY: it is open.\nunsafe { g() };");
    }
    let contract =
        "/// # Safety\n/// `a` is open.\n// SAFETY: `a` is not closed here.\nunsafe fn f(a: i32) {}";
    for lacking in ["/// It is.", "/// # Safety\n/// `a` is open.", "// SAFETY: `a` is not closed here."] {
        let lacking = format!("{lacking}\nunsafe fn f(a: i32) {{}}");
        finds(unsafe_code, "src/io/sockets.rs", &lacking, 1, contract);
    }
    finds(unsafe_code, "src/lib.rs", "//! A crate.\n// #![deny(unsafe_code)]", 1, "#![deny(unsafe_code)]");
}

#[test]
fn a_file_without_a_head_or_too_long_is_found() {
    finds(head, "src/a.rs", "use std::fmt;\n//! Late.", 1, "//! In time.\n");
    finds(head, "src/a.rs", "", 1, "//! In time.\n");
    finds(length, "src/a.rs", &"\n".repeat(LINES_MAX + 1), 1, &"\n".repeat(LINES_MAX));
}

#[test]
fn what_is_left_for_later_is_found() {
    for call in ["todo", "unimplemented", "dbg"] {
        finds(
            leftovers,
            "src/a.rs",
            &format!("fn f() {{ {call}!(\"x\") }}"),
            1,
            &format!("// {call}!\nmy_{call}!()"),
        );
    }
    let skipped = ["#[test]\n#[ig", "nore = \"slow\"]\nfn f() {}"].concat();
    finds(leftovers, "src/a.rs", &skipped, 1, "#[test]");
    for halves in [["TO", "DO"], ["FIX", "ME"], ["X", "XX"]] {
        let mark = halves.concat();
        finds(
            leftovers,
            "src/a.rs",
            &format!("// {mark}: later"),
            1,
            &format!("{mark}S {}", mark.to_lowercase()),
        );
        finds(marks, "scripts/a", &format!("# {mark} later"), 1, "# done");
    }
}

#[test]
fn holes_in_the_maps_are_found() {
    let map = |doc: &str| map_of_modules(&format!("{doc}\npub mod wire;\npub mod topic;\n"));
    assert_eq!(map("//! | [`wire`] | bytes |").len(), 1);
    assert_eq!(map("//! | [`wire`] | bytes |\n//! | [`topic`] | topics |").len(), 0);
    assert_eq!(map_of_modules("//! | `strange` | ? |\nmod strange;").len(), 1);
    assert_eq!(table_of_files("//! | `a` | one |\nmod a;\nmod b;\nmod tests;\n").len(), 1);
}

#[test]
fn documents_that_name_what_is_gone_are_found() {
    let exists = |path: &Path| path == Path::new("docs/B.md");
    let links = |text| links("docs/A.md", text, exists).len();
    assert_eq!(links("[b](B.md#part) [c](C.md) [web](https://example.org) [here](#part)"), 1);
    let metrics = "counters! {\n    takeovers_total,\n}";
    assert_eq!(counters_exist("A.md", "`takeovers_total` `gone_total` gone_too_total", metrics).len(), 1);
    let config = "struct Flags {\n    queue_full: Full,\n}";
    let flags = flags_exist("A.md", "| `--queue-full` | a |\n| `--gone N` | b |\n--not-in-a-table", config);
    assert_eq!(flags.len(), 1);
    let limits = "pub struct Limits {\n    /// Doc.\n    pub a_max: u32,\n    pub b_max: u32,\n}\npub struct Other {\n    pub c: u8,\n}";
    assert_eq!(limits_are_listed("| `a_max` | 1 |", limits).len(), 1);
    let manifest = "[dependencies]\nslab = \"1\"\nserde = { version = \"1\" }\n[dev-dependencies]\nx = \"1\"\n[lints]\ny = 1";
    assert_eq!(dependencies_have_reasons("| `slab` | keys |", manifest).len(), 2);
}

#[test]
fn patches_of_what_is_gone_or_stands_twice_are_found() {
    let rule = |path: &str, text: &str| patches(path, text, |_| "let a = 1;\nlet b = 2;\nlet b = 2;".into());
    let gone = "one\nsrc/a.rs\n<<<<\nlet c = 3;\n====\nx\n>>>>\n";
    let twice = "two\nsrc/a.rs\n<<<<\nlet b = 2;\n====\nx\n>>>>\n";
    let once = "three\nsrc/a.rs\n<<<<\nlet a = 1;\n====\nx\n>>>>\n";
    finds(rule, "a.txt", &[gone, twice, once].concat(), 2, once);
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = "a /* b \n */ c // d\n\"e \\\" f\" g r#\"h \" i\"# j 'k' '\\'' '\\u{6c}' m<'n> b\"o\" br\"p\" for_r\"q\" s";
    let words: String = code(text).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words, "a c g j m<'n> b b for_r s");
    assert_eq!(code("/* a\nb */ c").lines().count(), 2, "lines stay where they are");
}
