//! Clients of others, with and without certificates of their own.

use std::path::Path;
use std::process::{Command, Output};

use crate::certificates::Certificates;
use crate::{broker, each_way, port};

/// What a script returns that could not run.
const NOT_RUN: i32 = 77;

fn script(name: &str) -> String {
    format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Says why something did not run; true if it did.
fn ran(what: &str, output: std::io::Result<Output>) -> bool {
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            println!("NOT RUN: {what}: {error}");
            return false;
        }
    };
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => true,
        Some(NOT_RUN) | Some(127) => {
            println!("NOT RUN: {what}: {}", text.trim());
            false
        }
        code => panic!("{what} ended with {code:?}:\n{text}"),
    }
}

/// Runs a script that takes: port, CA, certificate, key. Without certificates, and with them where they are required.
fn both(test: &str, what: &str, program: &str, script: &str) {
    let certificates = Certificates::new(test);
    let ca = certificates.path("ca.pem");
    let own = [certificates.path("sensor-1.pem"), certificates.path("sensor-1.key")];
    for (flags, own) in [(&[][..], &[][..]), (&["--tls-client-ca", &ca][..], &own[..])] {
        each_way(&certificates, flags, |broker| {
            let output = Command::new("timeout")
                .args(["60", program, script, &port(broker.address()), &ca])
                .args(own)
                .output();
            ran(what, output);
        });
    }
}

/// The interpreter that has the clients of the other tests, or the one that everybody has.
fn python() -> String {
    let own = format!("{}/tests/foreign/.venv/bin/python", env!("CARGO_MANIFEST_DIR"));
    if Path::new(&own).exists() { own } else { "python3".to_owned() }
}

#[test]
fn paho() {
    both("paho", "paho-mqtt", &python(), &script("paho_client.py"));
}

#[test]
fn mqttjs() {
    both("mqttjs", "MQTT.js", "node", &script("mqttjs_client.mjs"));
}

#[test]
fn mosquitto() {
    both("mosquitto", "mosquitto's clients", "bash", &script("mosquitto_clients"));
}

#[test]
fn a_client_that_trusts_another_ca_does_not_talk_to_us() {
    let certificates = Certificates::new("distrust");
    let other = Certificates::new("other-ca");
    let broker = broker(&certificates, (1, "uring"), &[]);
    let address = port(broker.address());
    let output = Command::new("timeout")
        .args(["20", "mosquitto_pub", "-h", "127.0.0.1", "-p", &address, "-t", "x", "-m", "x", "--cafile"])
        .arg(other.path("ca.pem"))
        .output();
    match output {
        Ok(output) if output.status.code() != Some(127) => {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "it published");
            assert!(text.contains("certificate") || text.contains("TLS"), "{text}");
        }
        _ => println!("NOT RUN: there are no clients of mosquitto on this machine"),
    }
}
