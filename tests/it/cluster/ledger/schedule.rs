//! What a case does, all of it drawn from one number: the same number, the same schedule.

use std::time::Duration;

use serde_json::{Value, json};

/// Cases that are played at once, on one schedule of faults.
pub const GROUP: u64 = 15;
/// Within this time all calls of a case begin.
const SPAN_MS: u64 = 2200;
/// Pieces of work of one tenant, at least and at most.
const PIECES: (u64, u64) = (4, 10);

/// Random numbers that are the same wherever and whenever they are drawn (SplitMix64).
pub struct Dice(u64);

impl Dice {
    /// Those of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `from` on and below `to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    /// So many times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.between(0, 100) < percent
    }

    fn place(&mut self, count: usize) -> usize {
        usize::try_from(self.between(0, count as u64)).expect("a place")
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.place(all.len())]
    }

    /// Credits, in odd micro-credits.
    fn credits(&mut self, from_milli: u64, to_milli: u64) -> String {
        let micros = self.between(from_milli * 1000, to_milli * 1000);
        format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from, to))
    }
}

/// Cases that share a schedule of faults.
pub struct Group {
    /// The cases.
    pub cases: Vec<Case>,
    /// When what breaks, in order.
    pub faults: Vec<(Duration, Fault)>,
}

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, and a start.
    Kill(usize),
    /// SIGTERM, and a start.
    Terminate(usize),
    /// A replica cannot reach the database for longer than it may be unseen, and lives.
    Partition(usize),
    /// Redis forgets everything.
    Flush,
    /// Redis ends, and comes back empty.
    RedisRestart,
    /// The database ends in good order, and comes back.
    DatabaseRestart,
    /// The database ends at once, and recovers.
    DatabaseCrash,
    /// Somebody holds this table for a while, or where there is one writer, the database: what is written is written late.
    Stall(&'static str),
}

impl Fault {
    /// Whether a process ends without having done what it had to do.
    pub fn kills(self) -> bool {
        matches!(self, Self::Kill(_))
    }

    fn is_of_the_database(self) -> bool {
        matches!(self, Self::DatabaseRestart | Self::DatabaseCrash)
    }
}

/// Some tenants on two plans of their own.
pub struct Case {
    /// The number that it was drawn from.
    pub seed: u64,
    /// Prices of its plans.
    pub terms: [Value; 2],
    /// What each tenant is granted before it begins: kind (promotional or not), credits, life.
    pub given: Vec<Option<Gift>>,
    /// What is done for its tenants.
    pub pieces: Vec<Piece>,
    /// What is changed beside that, in order.
    pub changes: Vec<(Duration, Change)>,
    /// Whether its tenants have called every replica before.
    pub is_known: bool,
}

/// A grant.
#[derive(Debug, Clone)]
pub struct Gift {
    pub promotional: bool,
    pub credits: String,
    /// When it expires, from the moment when it is given.
    pub life: Option<Duration>,
}

/// What an operator does.
#[derive(Debug, Clone)]
pub enum Change {
    /// Puts a tenant on the first or the second plan.
    Plan {
        tenant: usize,
        plan: usize,
    },
    Give {
        tenant: usize,
        gift: Gift,
    },
    /// Takes back one of the tenant's grants.
    Void {
        tenant: usize,
        nth: usize,
    },
    Publish {
        plan: usize,
        terms: Value,
    },
    SpendCap {
        tenant: usize,
        cap: Option<String>,
    },
}

/// What a piece of work is done by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `lab/work`, which is recorded.
    Work,
    /// One that costs nothing under these prices.
    Echo,
    /// One without a price.
    Writes,
}

/// One piece of work, under an id of its own.
#[derive(Debug, Clone)]
pub struct Piece {
    pub id: String,
    pub tenant: usize,
    pub at: Duration,
    pub tool: Tool,
    /// A replica, or whichever comes next.
    pub door: Option<usize>,
    /// Whether it comes with a key, and so again where there was no answer.
    pub keyed: bool,
    /// How often it is sent at once.
    pub copies: usize,
    pub ending: &'static str,
    pub takes: Duration,
    pub bytes: u64,
    /// Its client goes away after this time, the first time.
    pub cancel: Option<Duration>,
}

impl Piece {
    /// What the tool is told.
    pub fn arguments(&self) -> Value {
        match self.tool {
            Tool::Work => json!({
                "id": self.id, "ending": self.ending, "bytes": self.bytes,
                "delay_ms": u64::try_from(self.takes.as_millis()).expect("short"),
            }),
            Tool::Echo => json!({ "text": self.id }),
            Tool::Writes => json!({}),
        }
    }
}

impl Group {
    /// The group of this number, on so many replicas.
    pub fn of(number: u64, replicas: usize) -> Self {
        let cases = (number * GROUP..(number + 1) * GROUP).map(|seed| Case::of(seed, replicas)).collect();
        let mut dice = Dice::new(!number);
        // Every fourth is spared: what only a fault excuses must not happen there.
        let count = if number.is_multiple_of(4) { 0 } else { dice.between(1, 4) };
        let mut faults: Vec<_> =
            (0..count).map(|_| (dice.ms(200, SPAN_MS), fault(&mut dice, replicas))).collect();
        faults.sort_by_key(|(at, _)| *at);
        // While the database is away little is done: once is enough.
        let mut is_first = true;
        faults.retain(|(_, fault)| !fault.is_of_the_database() || std::mem::replace(&mut is_first, false));
        Self { cases, faults }
    }
}

fn fault(dice: &mut Dice, replicas: usize) -> Fault {
    let replica = dice.place(replicas);
    if replicas == 1 {
        return dice.pick(&[Fault::Kill(0), Fault::Terminate(0), Fault::Stall("calls")]);
    }
    match dice.between(0, 13) {
        0..3 => Fault::Kill(replica),
        3..5 => Fault::Terminate(replica),
        5 => Fault::Partition(replica),
        6 => Fault::Flush,
        7 => Fault::RedisRestart,
        8 => Fault::DatabaseRestart,
        9..12 => Fault::Stall(dice.pick(&["calls", "calls", "slabs", "meters", "idempotency_keys"])),
        _ => Fault::DatabaseCrash,
    }
}

impl Case {
    fn of(seed: u64, replicas: usize) -> Self {
        let mut dice = Dice::new(seed);
        let terms = [terms(&mut dice), terms(&mut dice)];
        let tenants = dice.place(2) + 2;
        let given = (0..tenants).map(|_| dice.chance(60).then(|| gift(&mut dice))).collect();
        let mut pieces = Vec::new();
        for tenant in 0..tenants {
            for number in 0..dice.between(PIECES.0, PIECES.1) {
                pieces.push(piece(&mut dice, format!("{seed}.{tenant}.{number}"), tenant, replicas));
            }
        }
        let count = dice.between(0, 5);
        let mut changes: Vec<_> =
            (0..count).map(|_| (dice.ms(0, SPAN_MS), change(&mut dice, tenants))).collect();
        changes.sort_by_key(|(at, _)| *at);
        let is_known = dice.chance(60);
        Self { seed, terms, given, pieces, changes, is_known }
    }
}

fn terms(dice: &mut Dice) -> Value {
    let kind = dice.pick(&["free", "usage", "usage", "hybrid", "hybrid", "prepaid"]);
    let mut work = json!({ "name": "work", "server": "lab", "per_call": dice.credits(50, 900) });
    if dice.chance(40) {
        work["per_kib"] = json!(dice.credits(10, 200));
        work["per_second"] = json!(dice.credits(100, 2000));
        work["most"] = json!(dice.credits(900, 1500));
    }
    if dice.chance(30) {
        work["errors"] = json!(true);
    }
    let mut terms = json!({ "kind": kind, "tools": [work, { "name": "echo", "per_call": 0 }] });
    if matches!(kind, "free" | "hybrid") {
        terms["included"] = json!(dice.credits(500, 4000));
    }
    if matches!(kind, "usage" | "hybrid") && dice.chance(60) {
        terms["hard_cap"] = json!(dice.credits(500, 5000));
    }
    if dice.chance(30) {
        terms["unpriced"] = json!("free");
    }
    terms
}

fn gift(dice: &mut Dice) -> Gift {
    Gift {
        promotional: dice.chance(50),
        credits: dice.credits(300, 4000),
        life: dice.chance(40).then(|| dice.ms(300, 2500)),
    }
}

fn piece(dice: &mut Dice, id: String, tenant: usize, replicas: usize) -> Piece {
    let keyed = dice.chance(50);
    let tool = match dice.between(0, 20) {
        0 => Tool::Echo,
        1 => Tool::Writes,
        _ => Tool::Work,
    };
    Piece {
        id,
        tenant,
        at: dice.ms(0, SPAN_MS),
        tool,
        door: dice.chance(40).then(|| dice.place(replicas)),
        keyed,
        copies: if keyed && dice.chance(30) { 3 } else { 1 },
        ending: match dice.between(0, 100) {
            0..78 => "ok",
            78..86 => "no",
            86..89 => "breaks",
            89..91 => "panics",
            91..92 => "hangs",
            _ => "asks",
        },
        takes: dice.ms(0, 120),
        bytes: dice.between(0, 3000),
        cancel: dice.chance(10).then(|| dice.ms(5, 150)),
    }
}

fn change(dice: &mut Dice, tenants: usize) -> Change {
    let tenant = dice.place(tenants);
    match dice.between(0, 10) {
        0..3 => Change::Plan { tenant, plan: dice.place(2) },
        3..6 => Change::Give { tenant, gift: gift(dice) },
        6 => Change::Void { tenant, nth: dice.place(3) },
        7..9 => Change::Publish { plan: dice.place(2), terms: terms(dice) },
        _ => Change::SpendCap { tenant, cap: dice.chance(80).then(|| dice.credits(200, 3000)) },
    }
}
