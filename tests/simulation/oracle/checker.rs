//! The names of the checkers: what a failure begins with, and by which a planted fault says who caught it.

/// What a failed check is about.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Checker {
    /// What was published is what arrives, and nothing else.
    Content,
    /// QoS, RETAIN and Subscription Identifiers follow from the subscriptions; without one nothing comes.
    Form,
    /// Message Expiry Interval.
    Expiry,
    /// No copy twice: QoS 2 exactly once, and everything else once for each time it was sent.
    Once,
    /// By publisher, topic and QoS.
    Order,
    /// What a subscriber or a group must get has come, or a drop was counted for it.
    Arrival,
    /// One member of each group.
    Group,
    /// What the retained store holds.
    Store,
    /// The last value that a subscriber saw is the store's.
    LastValue,
    /// What is retained comes before what is live of the same new subscription.
    RetainedFirst,
    /// At the right time, once, never after a DISCONNECT.
    Will,
    /// True exactly when state was kept.
    SessionPresent,
    /// Acknowledgements: each once, in order, with a code that has a reason.
    Answers,
    /// Packet Identifiers and DUP.
    PacketId,
    /// Receive Maximum, Topic Alias Maximum, Maximum Packet Size.
    Flow,
    /// Nobody is sent away without a reason.
    Connection,
    /// Counters agree with what clients and the kernel saw.
    Counters,
    /// Nothing is left when nobody is.
    Left,
    /// What was acknowledged before a crash is there after it.
    Durable,
    /// What had ended before a crash is not there after it.
    Resurrected,
    /// The log says what is in memory.
    Log,
    /// Files are there for what is kept, and for nothing else.
    Disk,
}

impl Checker {
    pub const COUNT: usize = 22;
    /// In the order of the enumeration.
    pub const NAMES: [&'static str; Checker::COUNT] = [
        "content",
        "form",
        "expiry",
        "once",
        "order",
        "arrival",
        "group",
        "store",
        "last-value",
        "retained-first",
        "will",
        "session-present",
        "answers",
        "packet-id",
        "flow",
        "connection",
        "counters",
        "left",
        "durable",
        "resurrected",
        "log",
        "disk",
    ];

    pub fn name(self) -> &'static str {
        Checker::NAMES[self as usize]
    }
}

/// How many facts each checker looked at.
#[derive(Clone, Default, Debug)]
pub struct Checks([u64; Checker::COUNT]);

impl Checks {
    pub fn count(&mut self, checker: Checker, facts: u64) {
        self.0[checker as usize] += facts;
    }

    pub fn add(&mut self, other: &Checks) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Checker::NAMES.into_iter().zip(self.0)
    }
}

#[test]
fn each_checker_has_its_name() {
    assert_eq!(Checker::Content.name(), "content");
    assert_eq!(Checker::SessionPresent.name(), "session-present");
    assert_eq!(Checker::Left.name(), "left");
    assert_eq!(Checker::Disk.name(), "disk");
}
