//! Values of options, read from text. Errors say what would be right.

use std::net::{IpAddr, Ipv4Addr};

use crate::wire::Version;

/// `5`, `3.1.1`, and the names of mosquitto's clients.
pub fn version(text: &str) -> Result<Version, String> {
    match text {
        "5" | "5.0" | "mqttv5" => Ok(Version::V5),
        "3.1.1" | "311" | "4" | "mqttv311" => Ok(Version::V311),
        _ => Err("use 5 or 3.1.1".into()),
    }
}

/// A time of at most a millisecond, in seconds.
pub fn short(text: &str) -> Result<f64, String> {
    let micros = text.strip_suffix("us").and_then(|n| n.parse::<u32>().ok());
    micros.filter(|n| (1..=1000).contains(n)).map(|n| f64::from(n) / 1e6).ok_or("use 1us to 1000us".into())
}

/// Seconds, or a number with `ms`, `s` or `m`.
pub fn seconds(text: &str) -> Result<f64, String> {
    let (number, factor) = match text {
        t if t.ends_with("ms") => (&t[..t.len() - 2], 1e-3),
        t if t.ends_with('s') => (&t[..t.len() - 1], 1.0),
        t if t.ends_with('m') => (&t[..t.len() - 1], 60.0),
        t => (t, 1.0),
    };
    let n: f64 = number.parse().map_err(|_| "use seconds, or 500ms, 10s, 2m".to_string())?;
    if (0.0..=1e6).contains(&n) { Ok(n * factor) } else { Err("use 0 to 1000000 seconds".into()) }
}

/// A rate above 0, with `k` or `M`.
pub fn rate(text: &str) -> Result<f64, String> {
    let (number, factor) = match text {
        t if t.ends_with(['k', 'K']) => (&t[..t.len() - 1], 1e3),
        t if t.ends_with('M') => (&t[..t.len() - 1], 1e6),
        t => (t, 1.0),
    };
    let n: f64 = number.parse().map_err(|_| "use a number a second, like 500, 20k or 1.5M".to_string())?;
    if n > 0.0 && n * factor < 1e12 {
        Ok(n * factor)
    } else {
        Err("use a rate above 0 and below 1e12".into())
    }
}

/// `1`, `2,3`, `4-7`.
pub fn cpus(text: &str) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let number = |s: &str| s.trim().parse::<usize>().map_err(|_| format!("'{s}' is not a CPU number"));
        let (low, high) = (number(low)?, number(high)?);
        if high < low || high > 4096 {
            return Err(format!("'{part}' is not a range of CPUs"));
        }
        cpus.extend(low..=high);
    }
    Ok(cpus)
}

/// `127.0.0.2-127.0.0.20`, or addresses with commas.
pub fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let mut list = Vec::new();
    for part in text.split(',') {
        let parse = |s: &str| s.parse::<IpAddr>().map_err(|_| format!("'{s}' is not an address"));
        let Some((low, high)) = part.split_once('-') else {
            list.push(parse(part)?);
            continue;
        };
        let (IpAddr::V4(low), IpAddr::V4(high)) = (parse(low)?, parse(high)?) else {
            return Err("ranges of addresses are for IPv4".into());
        };
        let (low, high) = (u32::from(low), u32::from(high));
        if high < low || high - low > 65_535 {
            return Err(format!("'{part}' is not a range of addresses"));
        }
        list.extend((low..=high).map(|n| IpAddr::V4(Ipv4Addr::from(n))));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_nonsense_is_refused() {
        assert_eq!(seconds("500ms").unwrap(), 0.5);
        assert_eq!(seconds("2m").unwrap(), 120.0);
        assert_eq!(rate("20k").unwrap(), 20_000.0);
        assert_eq!(cpus("1,3-5").unwrap(), [1, 3, 4, 5]);
        assert_eq!(addresses("127.0.0.2-127.0.0.4,::1").unwrap().len(), 4);
        assert_eq!(short("50us").unwrap(), 0.00005);
        assert!(short("50").is_err() && short("2000us").is_err() && short("0us").is_err());
        assert!(seconds("x").is_err() && seconds("-1").is_err());
        assert!(rate("0").is_err() && rate("NaN").is_err());
        assert!(cpus("3-1").is_err() && cpus("a").is_err());
        assert!(addresses("1.2.3.4-::1").is_err() && addresses("localhost").is_err());
    }
}
