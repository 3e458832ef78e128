//! The planted faults of `faults/faults.txt`, as far as they can be judged without building any: each says what it is and
//! within how many runs it is caught, and still fits the sources. `scripts/simulate --faults` plants and catches them.

use std::path::PathBuf;

use crate::oracle::Checker;

#[derive(Debug, Default)]
struct Fault {
    name: String,
    /// Within so many runs it must be caught.
    runs: u32,
    title: String,
    blocks: Vec<Block>,
}

#[derive(Debug, Default)]
struct Block {
    file: String,
    /// What the file has now.
    old: String,
    /// What it has with the fault behind a switch.
    new: String,
}

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `NAME (N runs): TITLE`.
fn head(line: &str) -> Option<Fault> {
    let (name, rest) = line.split_once(" (")?;
    let (runs, title) = rest.split_once(" runs): ")?;
    Some(Fault { name: name.into(), runs: runs.parse().ok()?, title: title.into(), blocks: Vec::new() })
}

fn faults() -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let text = read("tests/simulation/faults/faults.txt");
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    while let Some(line) = lines.next() {
        if let Some(fault) = head(line) {
            faults.push(fault);
        } else if line.starts_with("src/") {
            let mut block = Block { file: line.into(), ..Block::default() };
            assert_eq!(lines.next(), Some("<<<<"), "after {line}");
            let mut until = |mark: &str| {
                let lines: Vec<&str> = lines.by_ref().take_while(|line| *line != mark).collect();
                lines.join("\n")
            };
            (block.old, block.new) = (until("===="), until(">>>>"));
            faults.last_mut().expect("an entry begins with its name").blocks.push(block);
        } else {
            assert!(line.is_empty(), "not understood: {line}");
        }
    }
    faults
}

#[test]
fn every_planted_fault_fits_the_sources_in_one_place() {
    let mut wrong = Vec::new();
    for fault in faults() {
        for block in &fault.blocks {
            let count = read(&block.file).matches(&block.old).count();
            if count != 1 {
                wrong.push(format!("{}: stands {count} times in {}:\n{}", fault.name, block.file, block.old));
            }
        }
    }
    assert!(wrong.is_empty(), "these have to follow the sources that changed:\n{}", wrong.join("\n"));
}

#[test]
fn every_planted_fault_can_be_switched_and_is_documented() {
    let faults = faults();
    assert!(faults.len() >= 12, "only {} faults", faults.len());
    let document = read("docs/TESTING.md");
    for fault in &faults {
        assert!(fault.runs > 0 && !fault.title.is_empty(), "{fault:?}");
        // A field that only the fault uses has no switch.
        let field = |new: &str, old: &str| {
            new.strip_prefix(old)
                .is_some_and(|added| added.lines().all(|line| line.is_empty() || line.ends_with(',')))
        };
        let is_switched = |block: &Block| block.new.contains("planted!()");
        let switched = fault.blocks.iter().all(|block| is_switched(block) || field(&block.new, &block.old));
        assert!(
            switched && fault.blocks.iter().any(is_switched),
            "{}: nothing of it can be switched on",
            fault.name
        );
        let (title, real) = match fault.title.strip_suffix(" (was a real bug)") {
            Some(title) => (title, "real"),
            None => (fault.title.as_str(), ""),
        };
        let (begin, end) =
            (format!("| `{}` | {title} | `", fault.name), format!(" | {} | {real} |", fault.runs));
        let is_row = |line: &str| line.starts_with(&begin) && line.ends_with(&end);
        assert!(document.lines().any(is_row), "docs/TESTING.md has no row {begin}…{end}");
    }
}

#[test]
fn every_checker_is_documented() {
    let document = read("docs/TESTING.md");
    for name in Checker::NAMES.into_iter().chain(["io-rule", "rest", "assertion"]) {
        assert!(document.contains(&format!("\n| `{name}` | ")), "docs/TESTING.md has no row for {name}");
    }
}
