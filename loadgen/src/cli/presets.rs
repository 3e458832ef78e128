//! Presets: options under a name. Those of the public MQTT benchmark suite (2023) bear its names: pattern, publishers
//! or connections, subscribers, messages or connections in, messages out, each a second where it is a rate.

/// A named set of options, as (option, value) in the words of the command line.
pub struct Preset {
    pub name: &'static str,
    pub meaning: &'static str,
    pub options: &'static [(&'static str, &'static str)],
}

/// What every messaging scenario of the suite has in common.
const SUITE: [(&str, &str); 3] = [("qos", "1"), ("payload", "16"), ("duration", "60")];

/// All presets.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "conn-tcp-10K-100",
        meaning: "10,000 connections at 100 a second",
        options: &[("scenario", "connect-storm"), ("connections", "10000"), ("connect-rate", "100")],
    },
    Preset {
        name: "conn-1M-5K",
        meaning: "1,000,000 connections at 5,000 a second (needs --source)",
        options: &[("scenario", "connect-storm"), ("connections", "1000000"), ("connect-rate", "5000")],
    },
    Preset {
        name: "fanout-1-1K-1-1K",
        meaning: "1 publisher, 1,000 subscribers, 1 message/s in, 1,000/s out; QoS 1, 16 bytes",
        options: &[
            SUITE[0],
            SUITE[1],
            SUITE[2],
            ("scenario", "fan-out"),
            ("publishers", "1"),
            ("subscribers", "1000"),
            ("rate", "1"),
        ],
    },
    Preset {
        name: "fanout-5-1000-5-250K",
        meaning: "5 publishers, 1,000 subscribers to all 5 topics, 250 messages/s in, 250,000/s out; QoS 1, 16 bytes",
        options: &[
            SUITE[0],
            SUITE[1],
            SUITE[2],
            ("scenario", "fan-out"),
            ("publishers", "5"),
            ("subscribers", "1000"),
            ("rate", "250"),
        ],
    },
    Preset {
        name: "p2p-1K-1K-1K-1K",
        meaning: "1,000 pairs, 1,000 messages/s; QoS 1, 16 bytes",
        options: &[SUITE[0], SUITE[1], SUITE[2], ("scenario", "p2p"), ("pairs", "1000"), ("rate", "1000")],
    },
    Preset {
        name: "p2p-50K-50K-50K-50K",
        meaning: "50,000 pairs, 50,000 messages/s; QoS 1, 16 bytes (needs --source)",
        options: &[SUITE[0], SUITE[1], SUITE[2], ("scenario", "p2p"), ("pairs", "50000"), ("rate", "50000")],
    },
    Preset {
        name: "sharedsub-1K-5-1K-1K",
        meaning: "1,000 publishers, one share group of 5, 1,000 messages/s; QoS 1, 16 bytes",
        options: &[
            SUITE[0],
            SUITE[1],
            SUITE[2],
            ("scenario", "shared"),
            ("publishers", "1000"),
            ("subscribers", "5"),
            ("rate", "1000"),
        ],
    },
    Preset {
        name: "sharedsub-50K-500-50K-50K",
        meaning: "50,000 publishers, one share group of 500, 50,000 messages/s; QoS 1, 16 bytes (needs --source)",
        options: &[
            SUITE[0],
            SUITE[1],
            SUITE[2],
            ("scenario", "shared"),
            ("publishers", "50000"),
            ("subscribers", "500"),
            ("rate", "50000"),
        ],
    },
];

/// The scenarios, each with what it means.
pub const SCENARIOS: &[(&str, &str)] = &[
    ("p2p", "each publisher to one subscriber of its own (--pairs)"),
    ("fan-in", "many publishers, each heard by all of a few subscribers"),
    ("fan-out", "a few publishers, each heard by all of many subscribers"),
    ("shared", "many publishers, each message to one member of each share group (--groups)"),
    (
        "retained",
        "stores retained messages (--publishers x --topics), then all subscribers fetch all of them",
    ),
    ("connect-storm", "opens connections (--connections) at a rate, or as fast as possible"),
    ("reconnect-storm", "subscribers or --connections are all cut off at once, every --storm-every seconds"),
    ("idle", "connections that only stay open: shows their memory and CPU time"),
    ("slow-subscriber", "fan-out with some subscribers (--slow) that read only --slow-rate bytes a second"),
    ("swallow", "publishers alone, against a peer that only reads: measures this generator"),
];

/// The preset with this name.
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// The list for `loadgen presets`.
pub fn list() -> String {
    let mut out = String::from("Presets (loadgen NAME [options]):\n");
    for preset in PRESETS {
        out.push_str(&format!("  {:<27}{}\n", preset.name, preset.meaning));
    }
    out.push_str("\nScenarios (loadgen NAME [options]):\n");
    for (name, meaning) in SCENARIOS {
        out.push_str(&format!("  {name:<27}{meaning}\n"));
    }
    out
}
