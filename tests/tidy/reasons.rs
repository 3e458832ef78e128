//! Where `unsafe` may stand, and the reasons that stand before it: one for each, and each in its own words.

/// The only files that hold `unsafe`.
pub const UNSAFE: &[&str] = &[
    "bench/src/bare.rs",
    "bench/tests/allocations.rs",
    "loadgen/src/ring.rs",
    "loadgen/src/sys.rs",
    "src/allocator.rs",
    "src/io/epoll/mod.rs",
    "src/io/epoll/sys.rs",
    "src/io/socket.rs",
    "src/io/sockets.rs",
    "src/io/sockets/tests.rs",
    "src/io/tests/descriptors.rs",
    "src/io/tests/files.rs",
    "src/io/uring/buffers.rs",
    "src/io/uring/files.rs",
    "src/io/uring/flights.rs",
    "src/io/uring/mod.rs",
    "src/io/uring/request.rs",
    "src/io/uring/ring.rs",
    "src/io/uring/tests.rs",
    "src/memory/aligned.rs",
    "src/memory/block.rs",
    "tests/server/ends.rs",
];

/// Words by which a reason is somebody else's.
const BORROWED: &[&str] =
    &["as above", "as in `", "as for [", "the same.", "the caller's promise", "that of `"];

/// What is wrong with the reasons of a file that may hold `unsafe`; `code` is its text without comments.
pub fn reasons(path: &str, text: &str, code: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let places = code.lines().filter(|line| super::has_word(line, "unsafe")).count();
    let functions = code.lines().filter(|line| line.contains("unsafe fn")).count();
    let (reasons, contracts) = (text.matches("// SAFETY: ").count(), text.matches("/// # Safety").count());
    if (places, functions) != (reasons, contracts) {
        wrong.push(format!("{path}: {reasons} reasons, {contracts} contracts, each `unsafe` needs its own"));
    }
    for reason in comments(text) {
        let borrowed = BORROWED.iter().filter(|word| reason.to_lowercase().contains(**word));
        wrong.extend(borrowed.map(|word| format!("{path}: {word:?} does not say what holds: {reason}")));
    }
    wrong
}

/// What stands behind `SAFETY:` or `# Safety`, to the end of the comment, in one line.
fn comments(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let begins = |line: &str| line.starts_with("// SAFETY: ") || line.starts_with("/// # Safety");
    let starts = (0..lines.len()).filter(|at| begins(lines[*at]));
    let whole = starts.map(|at| lines[at..].iter().take_while(|line| line.starts_with("//")));
    whole
        .map(|lines| lines.map(|line| line.trim_start_matches('/').trim()).collect::<Vec<_>>().join(" "))
        .collect()
}

/// Whether a comment with `mark` stands directly in front of the statement that line `at` belongs to, or of an outer one
/// that began no more than two lines before.
pub fn is_justified(text: &str, at: usize, mark: &str) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let mut above = lines[..at].iter().rev().peekable();
    for _ in 0..2 {
        above.next_if(|line| !is_comment(line));
    }
    above.take_while(|line| is_comment(line)).any(|line| line.contains(mark))
}
