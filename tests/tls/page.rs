//! docs/TLS.md as a reader follows it: its lines are run, and what they make is served, shown and refused.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::PATIENCE;
use crate::support::Broker;

/// Files that the lines of the page have made, and a few that are wrong; removed at the end.
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a guide makes that knows nothing of `-extfile`, and what other guides make.
const MORE: &str = "
openssl req -new -key server.key -out v1.csr -subj /CN=localhost
openssl x509 -req -in v1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -out server-v1.pem
openssl x509 -req -in sensor-1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -out sensor-v1.pem
openssl x509 -req -in v1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3 -out soon.pem
openssl pkcs8 -topk8 -in server.key -outform DER -nocrypt -out server-key.der
openssl pkcs8 -topk8 -in server.key -outform DER -passout pass:'correct horse' -out encrypted.der
openssl ec -in server.key -aes256 -passout pass:x -out legacy.key
openssl pkcs8 -topk8 -v1 PBE-SHA1-3DES -in server.key -passout pass:'correct horse' -out pbes1.key
openssl pkcs8 -topk8 -v2 des3 -in server.key -passout pass:'correct horse' -out des3.key
openssl pkcs8 -topk8 -scrypt -in server.key -passout pass:'correct horse' -out scrypt.key
openssl x509 -in ca.pem -outform DER -out ca.der
cat ca.pem server.pem > reversed.pem
echo wrong > wrong.password
";

impl Files {
    /// `None`, with the reason printed, if there is no openssl.
    fn make(test: &str) -> Option<Files> {
        if Command::new("openssl").arg("version").output().is_err() {
            println!("NOT RUN: there is no openssl on this machine");
            return None;
        }
        let root = std::env::temp_dir().join(format!("ringmq-tls-page-{}-{test}", std::process::id()));
        fs::create_dir_all(&root).expect("a directory");
        let page =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/TLS.md")).expect("a page");
        let blocks: Vec<&str> =
            page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(blocks.len() > 5, "{} blocks of lines", blocks.len());
        let output = Command::new("/bin/sh")
            .args(["-e", "-c", &(blocks.concat() + MORE)])
            .current_dir(&root)
            .stdin(Stdio::null())
            .output()
            .expect("a shell");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(Files(root))
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }

    fn broker(&self, certificate: &str, key: &str, more: &[&str]) -> Broker {
        let (certificate, key) = (self.path(certificate), self.path(key));
        let base = ["--tls-listen", "127.0.0.1:0", "--tls-cert", &certificate, "--tls-key", &key];
        Broker::start_with(&[&base[..], &["--shards", "1", "--no-pin"], more].concat(), 1)
    }

    /// What `openssl s_client` says of a broker, and what it did with an MQTT CONNECT.
    fn client(&self, broker: &Broker, arguments: &[&str]) -> String {
        let mut child = Command::new("timeout")
            .args(["20", "openssl", "s_client", "-connect", &broker.address().to_string(), "-ign_eof"])
            .args(["-CAfile", &self.path("ca.pem"), "-verify_return_error"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl");
        // CONNECT, then DISCONNECT.
        let packets = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01x\xE0\0";
        let _ = child.stdin.take().expect("a pipe").write_all(packets);
        let output = child.wait_with_output().expect("it ends");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

/// Waits until the log has a line with all of these words.
fn logged(broker: &Broker, words: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    while !broker.stderr().lines().any(|line| words.iter().all(|word| line.contains(word))) {
        assert!(Instant::now() < deadline, "{words:?} is not in\n{}", broker.stderr());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_page_makes_what_a_broker_takes_and_version_1_is_taken_too() {
    let Some(files) = Files::make("taken") else { return };
    let (ca, password) = (files.path("ca.pem"), files.path("server.password"));
    let encrypted = ["--tls-key-password-file", &password];
    for (certificate, key, more) in [
        ("server.pem", "server.key", &[][..]),
        ("server.pem", "encrypted.key", &encrypted),
        ("server.pem", "des3.key", &encrypted),
        ("server.pem", "scrypt.key", &encrypted),
        ("server.pem", "encrypted.der", &encrypted),
        ("server.der", "server-key.der", &[]),
        ("both.pem", "both.pem", &[]),
        ("server-v1.pem", "server.key", &[]),
    ] {
        let said = files.client(&files.broker(certificate, key, more), &[]);
        assert!(said.contains("Verify return code: 0 (ok)"), "{certificate} {key}: {said}");
    }
    for ca in [ca, files.path("ca.der")] {
        let broker = files.broker("server.pem", "server.key", &["--tls-client-ca", &ca]);
        for certificate in ["sensor-1.pem", "sensor-v1.pem"] {
            for version in ["-tls1_2", "-tls1_3"] {
                let (certificate, key) = (files.path(certificate), files.path("sensor-1.key"));
                let said = files.client(&broker, &["-cert", &certificate, "-key", &key, version]);
                assert!(!said.contains("alert"), "{certificate} {version}: {said}");
            }
        }
        let connects = || {
            broker
                .stderr()
                .lines()
                .filter(|line| line.contains(" connect ") && line.contains("sensor-1"))
                .count()
        };
        let deadline = Instant::now() + PATIENCE;
        while connects() < 4 {
            assert!(Instant::now() < deadline, "{}", broker.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn each_file_that_is_wrong_is_named_with_what_to_type() {
    let Some(files) = Files::make("wrong") else { return };
    let check = |keys: &str| {
        let file = files.path("ringmq.toml");
        fs::write(&file, format!("[[listener]]\naddress = \"127.0.0.1:8883\"\n{keys}")).expect("a file");
        let output =
            Command::new(env!("CARGO_BIN_EXE_ringmq")).args(["check", &file]).output().expect("it runs");
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let with_key = |key: &str| format!("cert = \"server.pem\"\nkey = \"{key}\"\n");
    let password = |key: &str, name: &str| with_key(key) + &format!("key-password-file = \"{name}\"\n");
    for (keys, at_fault, words) in [
        (with_key("encrypted.key"), "encrypted.key", "key-password-file = \"FILE\""),
        (with_key("encrypted.der"), "encrypted.der", "the key is encrypted"),
        (password("encrypted.key", "wrong.password"), "encrypted.key", "does not open this key"),
        (password("encrypted.key", "none"), "none", "No such file"),
        (with_key("legacy.key"), "legacy.key", "openssl pkcs8 -topk8 -v2 aes-256-cbc -in"),
        (password("pbes1.key", "server.password"), "pbes1.key", "openssl pkcs8 -topk8 -v2 aes-256-cbc -in"),
        (with_key("sensor-1.key"), "sensor-1.key", "not the key of"),
        ("cert = \"reversed.pem\"\nkey = \"server.key\"\n".to_owned(), "reversed.pem", "has to be the first"),
        (
            "cert = \"server.csr\"\nkey = \"server.key\"\n".to_owned(),
            "server.csr",
            "a request for a certificate",
        ),
        ("cert = \"server.p12\"\nkey = \"server.key\"\n".to_owned(), "server.p12", "openssl pkcs12 -in"),
        (with_key("server.key") + "client-ca = \"ca.key\"\n", "ca.key", "it holds PRIVATE KEY"),
    ] {
        let (code, text) = check(&keys);
        let begin = format!("{}: ", files.path(at_fault));
        assert!(code == Some(78) && text.contains(&begin) && text.contains(words), "{keys}: {code:?} {text}");
    }
    assert_eq!(check(&with_key("server.key")).0, Some(0));
    let (code, text) = check("cert = \"soon.pem\"\nkey = \"server.key\"\n");
    assert_eq!(code, Some(0), "3 days are the whole life of it: {text}");
}

#[test]
fn what_comes_to_the_wrong_port_is_named_with_its_address() {
    let Some(files) = Files::make("foreign") else { return };
    let broker = files.broker("server.pem", "server.key", &[]);
    for (bytes, words) in [
        (&b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01x"[..], "MQTT without TLS"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP without TLS"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY protocol"),
        (b"\x99\x98\x97\x96\x95\x94", "begins with the bytes 99 98 97 96 95 94"),
    ] {
        let mut stream = TcpStream::connect(broker.address()).expect("it listens");
        let address = stream.local_addr().expect("an address").to_string();
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(bytes).expect("it reads");
        let _ = stream.read_to_end(&mut Vec::new());
        logged(&broker, &[words, &address]);
    }
    let plain = Broker::start_with(&["--listen", "127.0.0.1:0", "--shards", "1", "--no-pin"], 1);
    files.client(&plain, &[]);
    logged(&plain, &["TLS is spoken", "127.0.0.1:"]);
}
