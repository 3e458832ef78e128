//! Lines of the log, what is left out of it, and where it goes.

use std::io::Write;
use std::sync::Mutex;

use super::line::Utc;
use super::*;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Kept {
    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn log(format: Format, work: impl FnOnce(&Logger)) -> Vec<String> {
    let kept = Kept::default();
    let (logger, open) = Logger::start(Level::Debug, format, Sink::to(Box::new(kept.clone()))).unwrap();
    work(&logger);
    drop(open);
    kept.lines()
}

const HOSTILE: &str = "a\n2026 info connect \"x\" \\ \u{202e}\u{1f980}\u{0}";

#[test]
fn a_hostile_name_stays_one_value_of_one_line() {
    let values: &[(&str, Value)] = &[
        ("client", HOSTILE.into()),
        ("user", "plain".into()),
        ("none", "".into()),
        ("address", SocketAddr::from(([127, 0, 0, 1], 5)).into()),
        ("bytes", 7u32.into()),
    ];
    let event = |logger: &Logger| logger.event(at(951_782_400), Level::Info, Kind::Connect, values);
    assert_eq!(
        log(Format::Text, event),
        [concat!(
            r#"2000-02-29T00:00:00.000Z info connect "#,
            r#"client="a\n2026 info connect \"x\" \\ \u{202e}🦀\0" user=plain none="" address=127.0.0.1:5 bytes=7"#
        )]
    );
    assert_eq!(
        log(Format::Json, event),
        [concat!(
            r#"{"time":"2000-02-29T00:00:00.000Z","level":"info","event":"connect","#,
            r#""client":"a\u000a2026 info connect \"x\" \\ \u202e🦀\u0000","user":"plain","none":"","#,
            r#""address":"127.0.0.1:5","bytes":7}"#
        )]
    );
}

#[test]
fn a_long_value_is_cut_and_its_length_said() {
    let long = "x".repeat(60_000);
    let lines = log(Format::Text, |logger| {
        logger.event(at(0), Level::Warn, Kind::Refused, &[("client", (&long).into())]);
    });
    assert!(lines[0].ends_with("xxx... (60000 bytes)\"") && lines[0].len() < 400, "{lines:?}");
}

#[test]
fn each_kind_has_its_own_allowance_and_the_rest_is_counted() {
    let lines = log(Format::Text, |logger| {
        for _ in 0..LINES_PER_KIND_AND_SECOND + 23 {
            logger.event(at(5), Level::Info, Kind::Connect, &[]);
        }
        logger.event(at(5), Level::Info, Kind::Disconnect, &[]);
        logger.event(at(6), Level::Info, Kind::Connect, &[]);
    });
    let connects = lines.iter().filter(|line| line.ends_with(" info connect")).count() as u64;
    assert_eq!(connects, LINES_PER_KIND_AND_SECOND + 1);
    assert!(lines.iter().any(|line| line.ends_with(" info disconnect")));
    // The writer may look in between and say it in parts.
    let suppressed = |line: &String| line.split(" warn connect suppressed=").nth(1)?.parse::<u64>().ok();
    assert_eq!(lines.iter().filter_map(suppressed).sum::<u64>(), 23, "{lines:?}");
}

#[test]
fn a_writer_that_hangs_holds_nobody_up_and_the_loss_is_counted() {
    /// Hangs until it is let go.
    struct Stuck(Arc<Mutex<()>>, Kept);
    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            drop(self.0.lock().unwrap());
            self.1.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (gate, kept) = (Arc::new(Mutex::new(())), Kept::default());
    let held = gate.lock().unwrap();
    let out = Box::new(Stuck(Arc::clone(&gate), kept.clone()));
    let (logger, open) = Logger::start(Level::Debug, Format::Text, Sink::to(out)).unwrap();
    let offered = 2 * LINES_WAITING_MAX as u64;
    for index in 0..offered {
        // One second each, so that no allowance stands in the way.
        logger.event(at(index), Level::Info, Kind::Connect, &[]);
    }
    drop(held);
    drop(open);
    let lines = kept.lines();
    let written = lines.iter().filter(|line| line.ends_with("connect")).count() as u64;
    let lost: u64 =
        lines.iter().filter_map(|line| line.split("lines-lost=").nth(1)?.parse::<u64>().ok()).sum();
    assert!(lost > 0, "{}", lines.len());
    assert_eq!(written + lost, offered);
}

#[test]
fn times() {
    let time = |seconds| Utc(at(seconds)).to_string();
    assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(time(1_709_251_199), "2024-02-29T23:59:59.000Z");
    assert_eq!(time(1_709_251_200), "2024-03-01T00:00:00.000Z");
    assert_eq!(time(4_107_542_399), "2100-02-28T23:59:59.000Z");
    assert_eq!(time(4_107_542_400), "2100-03-01T00:00:00.000Z");
}

#[test]
fn a_sentence_has_its_fields_where_the_log_is_json() {
    let say = |logger: &Logger| {
        let fields = [("shards", 2u64.into()), ("tls", Value::Flag(false)), ("cpus", "0-1".into())];
        logger.say(at(951_782_400), Level::Info, Kind::Start, "a \"b\"", &fields);
    };
    assert_eq!(log(Format::Text, say), ["a \"b\""]);
    let json = concat!(
        r#"{"time":"2000-02-29T00:00:00.000Z","level":"info","event":"start","shards":2,"tls":false,"cpus":"0-1","#,
        r#""text":"a \"b\""}"#
    );
    assert_eq!(log(Format::Json, say), [json]);
}

#[test]
fn codes_are_hexadecimal() {
    let event = |logger: &Logger| {
        logger.event(
            at(0),
            Level::Warn,
            Kind::Refused,
            &[("code", Value::Code(0x87)), ("more", Value::Code(9))],
        );
    };
    assert_eq!(log(Format::Text, event), ["1970-01-01T00:00:00.000Z warn refused code=0x87 more=0x09"]);
    assert!(log(Format::Json, event)[0].ends_with(r#""code":"0x87","more":"0x09"}"#));
}

#[test]
fn each_level_has_its_number_in_front_where_journald_reads() {
    for (level, number) in [(Level::Error, 3), (Level::Warn, 4), (Level::Info, 6), (Level::Debug, 7)] {
        for format in [Format::Text, Format::Json] {
            let line = Line::begin(format, true, at(0), level, "connect").end();
            let said = Line::sentence((format, true, false), (at(0), level, Kind::Start), "text", &[]).end();
            for line in [line, said] {
                assert!(line.starts_with(&format!("<{number}>")), "{line}");
                assert_eq!(line.matches('<').count(), 1, "{line}");
            }
        }
    }
}

/// A directory, gone at the end.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("ringmq-log-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until it holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_file_that_was_moved_away_is_opened_again() {
    let directory = Directory::new("moved");
    let path = directory.0.join("log");
    let sink = Sink::file(&path).unwrap();
    let (logger, open) = Logger::start(Level::Info, Format::Text, sink).unwrap();
    logger.event(at(1), Level::Info, Kind::Connect, &[]);
    logger.say(at(1), Level::Info, Kind::Start, "it starts", &[]);
    until("two lines", || directory.text("log").lines().count() == 2);
    assert!(directory.text("log").ends_with("1970-01-01T00:00:01.000Z info start it starts\n"), "dated");
    std::fs::rename(&path, directory.0.join("log.1")).unwrap();
    logger.reopen();
    until("it says so", || directory.text("log").contains(" info signal signal=SIGUSR1 opened="));
    logger.event(at(2), Level::Info, Kind::Disconnect, &[]);
    drop(open);
    assert_eq!(directory.text("log.1").lines().count(), 2);
    assert!(directory.text("log").ends_with(" info disconnect\n"), "{}", directory.text("log"));
}

#[test]
fn a_file_that_cannot_be_opened_again_leaves_the_old_one_in_use() {
    let directory = Directory::new("gone");
    let inner = directory.0.join("inner");
    std::fs::create_dir(&inner).unwrap();
    let (logger, open) =
        Logger::start(Level::Info, Format::Text, Sink::file(&inner.join("log")).unwrap()).unwrap();
    std::fs::rename(&inner, directory.0.join("moved")).unwrap();
    logger.reopen();
    logger.event(at(2), Level::Info, Kind::Connect, &[]);
    drop(open);
    let text = directory.text("moved/log");
    assert!(
        text.contains(" error signal signal=SIGUSR1 why=\"the log file could not be opened again"),
        "{text}"
    );
    assert!(text.contains(" info connect\n"), "{text}");
    assert!(Sink::file(&directory.0.join("no/such/log")).is_err());
}

#[test]
fn what_a_full_disk_did_not_take_is_counted_once_there_is_room() {
    /// Takes a few bytes of each line until it is let go.
    struct Full(Arc<AtomicBool>, Kept);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0.load(Ordering::Relaxed) {
                return self.1.write(bytes);
            }
            match bytes.len() {
                1..=20 => Err(std::io::ErrorKind::StorageFull.into()),
                _ => self.1.write(&bytes[..5]),
            }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (has_room, kept) = (Arc::new(AtomicBool::new(false)), Kept::default());
    let sink = Sink::to(Box::new(Full(Arc::clone(&has_room), kept.clone())));
    let (logger, open) = Logger::start(Level::Info, Format::Text, sink).unwrap();
    for second in 0..3 {
        logger.event(at(second), Level::Info, Kind::Connect, &[]);
    }
    until("three are lost", || logger.lost.load(Ordering::Relaxed) == 3);
    has_room.store(true, Ordering::Relaxed);
    logger.event(at(9), Level::Info, Kind::Disconnect, &[]);
    drop(open);
    let lines = kept.lines();
    let whole = lines.iter().filter(|line| line.ends_with(" info disconnect"));
    assert!(whole.clone().all(|line| line.starts_with("1970-01-01T00:00:09.000Z")), "{lines:?}");
    assert_eq!(whole.count(), 1);
    assert!(lines.iter().any(|line| line.ends_with(" warn system lines-lost=3")), "{lines:?}");
}
