//! Where to listen: an IP address and a port, or a word that stands for several.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// What `--listen` and the like take.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    One(SocketAddr),
    /// `localhost:PORT`: the loopback addresses that this machine has.
    Localhost(u16),
    /// `:PORT`: every address that this machine has.
    Everywhere(u16),
}

impl Place {
    /// The addresses to bind, IPv4 first.
    pub fn addresses(self, has_ipv6: bool) -> Vec<SocketAddr> {
        let both = |v4: Ipv4Addr, v6: Ipv6Addr, port| {
            let v6 = has_ipv6.then_some(IpAddr::from(v6));
            [IpAddr::from(v4)].into_iter().chain(v6).map(|ip| SocketAddr::new(ip, port)).collect()
        };
        match self {
            Place::One(address) => vec![address],
            Place::Localhost(port) => both(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, port),
            Place::Everywhere(port) => both(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, port),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        if let Ok(address) = text.parse() {
            return Ok(Place::One(address));
        }
        let example = "such as 127.0.0.1:1883, [::1]:1883, localhost:1883, or :1883 for every address";
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Err(format!("the port is missing: {}", SocketAddr::new(ip, 1883)));
        }
        if text.parse::<u16>().is_ok() {
            return Err(format!(
                "write :{text} for every address, or localhost:{text} for this machine alone"
            ));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(format!("expected an address and a port, {example}"));
        };
        let Ok(port) = port.parse() else {
            return Err(format!("'{port}' is not a port, which is a number up to 65535"));
        };
        if let Ok(ip) = host.parse::<Ipv6Addr>() {
            return Err(format!("write an IPv6 address in brackets: {}", SocketAddr::new(ip.into(), port)));
        }
        match host {
            "" => Ok(Place::Everywhere(port)),
            host if host.eq_ignore_ascii_case("localhost") => Ok(Place::Localhost(port)),
            "*" => Err(format!("write :{port} for every address")),
            host => Err(format!(
                "'{host}' is not an IP address, and ringmq looks up no names (except localhost). To find \
                 its address: getent hosts {host}"
            )),
        }
    }
}

/// As it is typed.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::One(address) => write!(f, "{address}"),
            Place::Localhost(port) => write!(f, "localhost:{port}"),
            Place::Everywhere(port) => write!(f, ":{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stands_for_the_addresses_that_there_are() {
        for (text, with_ipv6, without) in [
            ("127.0.0.1:1", &["127.0.0.1:1"][..], &["127.0.0.1:1"][..]),
            ("[::1]:1", &["[::1]:1"], &["[::1]:1"]),
            ("localhost:1883", &["127.0.0.1:1883", "[::1]:1883"], &["127.0.0.1:1883"]),
            ("LocalHost:0", &["127.0.0.1:0", "[::1]:0"], &["127.0.0.1:0"]),
            (":1883", &["0.0.0.0:1883", "[::]:1883"], &["0.0.0.0:1883"]),
        ] {
            let place: Place = text.parse().unwrap();
            let found =
                |has_ipv6| place.addresses(has_ipv6).iter().map(SocketAddr::to_string).collect::<Vec<_>>();
            assert_eq!(found(true), with_ipv6, "{text}");
            assert_eq!(found(false), without, "{text}");
            assert_eq!(place.to_string(), text.to_lowercase());
        }
    }

    #[test]
    fn what_is_no_address_is_told_how_to_write_one() {
        for (text, said) in [
            ("127.0.0.1", "127.0.0.1:1883"),
            ("::1", "[::1]:1883"),
            ("::1:1883", "[::1:1883]:1883"),
            ("fe80::1:99999", "99999"),
            ("1883", ":1883 for every address"),
            ("*:1883", "write :1883 for every address"),
            ("localhost", "localhost:1883"),
            ("localhost:", "not a port"),
            ("127.0.0.1:99999", "99999"),
            ("broker.example:1883", "getent hosts broker.example"),
            ("", "expected"),
        ] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
