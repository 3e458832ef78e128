//! openssl's client: which versions, ciphers and certificates a listener takes.

use std::process::{Command, Stdio};

use crate::certificates::Certificates;
use crate::support::Broker;
use crate::{each_way, port};

/// What `openssl s_client` printed, or nothing if there is no openssl.
fn s_client(broker: &Broker, arguments: &[&str]) -> Option<String> {
    let output = Command::new("timeout")
        .args(["20", "openssl", "s_client", "-connect", &format!("127.0.0.1:{}", port(broker.address()))])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.code() != Some(127));
    let Some(output) = output else {
        println!("NOT RUN: there is no openssl on this machine");
        return None;
    };
    Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn versions_and_ciphers() {
    let certificates = Certificates::new("versions");
    let ca = certificates.path("ca.pem");
    each_way(&certificates, &[], |broker| {
        let trust = ["-CAfile", &ca, "-verify_return_error"];
        for (arguments, expected) in [
            (&["-tls1_3"][..], "New, TLSv1.3, Cipher is TLS_"),
            (
                &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
                "Cipher is TLS_CHACHA20_POLY1305_SHA256",
            ),
            (&["-tls1_2"], "New, TLSv1.2, Cipher is ECDHE-"),
            (
                &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
                "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256",
            ),
            // Old versions, and ciphers without forward secrecy or without authentication of what they carry.
            (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "Cipher is (NONE)"),
            (&["-tls1", "-cipher", "ALL:@SECLEVEL=0"], "Cipher is (NONE)"),
            (&["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"], "Cipher is (NONE)"),
            (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"], "Cipher is (NONE)"),
        ] {
            let Some(output) = s_client(broker, &[&trust[..], arguments].concat()) else { return };
            assert!(output.contains(expected), "{arguments:?}: {output}");
        }
    });
}

#[test]
fn client_certificates_required_expired_and_unknown() {
    let certificates = Certificates::new("clients");
    let ca = certificates.path("ca.pem");
    let files =
        |name: &str| [certificates.path(&format!("{name}.pem")), certificates.path(&format!("{name}.key"))];
    let (good, old, stranger) = (files("sensor-1"), files("old"), files("stranger"));
    fn shows(files: &[String; 2]) -> Vec<&str> {
        vec!["-cert", &files[0], "-key", &files[1]]
    }
    let none_required = "certificate required";
    for whether in ["required", "optional"] {
        each_way(&certificates, &["--tls-client-ca", &ca, "--tls-client-cert", whether], |broker| {
            for (arguments, refusal) in [
                (shows(&good), None),
                (shows(&old), Some("certificate expired")),
                // Its CA has the name of ours and another key.
                (shows(&stranger), Some("decrypt error")),
                (vec![], (whether == "required").then_some(none_required)),
            ] {
                let trust = ["-CAfile", &ca, "-tls1_3", "-ign_eof"];
                // The server's verdict comes after the client's handshake is over: it is waited for.
                let timeout = if refusal.is_some() { vec![] } else { vec!["-no_ign_eof"] };
                let all = [&trust[..], &arguments, &timeout].concat();
                let Some(output) = s_client(broker, &all) else { return };
                match refusal {
                    Some(alert) => assert!(output.contains(alert), "{whether} {arguments:?}: {output}"),
                    None => {
                        assert!(output.contains("Verify return code: 0 (ok)"), "{output}");
                        assert!(!output.contains("alert"), "{whether} {arguments:?}: {output}");
                    }
                }
            }
        });
    }
}

#[test]
fn renegotiation_is_refused() {
    let certificates = Certificates::new("renegotiation");
    each_way(&certificates, &[], |broker| {
        let script = format!(
            "(sleep 0.5; echo R; sleep 1) | timeout 20 openssl s_client -connect 127.0.0.1:{} -tls1_2 2>&1",
            port(broker.address())
        );
        let output = Command::new("/bin/sh").args(["-c", &script]).output().expect("a shell");
        let output = String::from_utf8_lossy(&output.stdout);
        if output.contains("not found") {
            println!("NOT RUN: there is no openssl on this machine");
            return;
        }
        assert!(output.contains("RENEGOTIATING"), "{output}");
        assert!(output.contains("no renegotiation"), "{output}");
    });
}
