//! The faults: what is done, and to whom.

mod act;

use std::time::Duration;

use forebay_testkit::proxy::Mode;
use rand::{Rng, rngs::StdRng};

pub(crate) use self::act::Strike;
use crate::{
    Backend,
    stack::{End, LEASE, Role},
};

/// How much a slow line adds.
const DELAY: Duration = Duration::from_millis(200);

/// How far clocks leap, in seconds.
const LEAPS: [i64; 4] = [20, -20, 3_600, -3_600];

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// SIGKILL, and a start later.
    Kill,
    /// SIGSTOP, for longer than the lease, and SIGCONT.
    Pause,
    /// An end in good order, and a start at once.
    Restart,
    /// Postgres's immediate shutdown: what is under way is broken off.
    Abort,
    /// A line is disturbed.
    Disturb(Disturbance),
    /// Killed, and all its data deleted.
    Wipe,
    /// Its disk has no room left.
    FillDisk,
    /// RabbitMQ believes that its disk is nearly full.
    Alarm,
    /// A clock is so many seconds off.
    Leap(i64),
}

/// What a line suffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    Slow,
    Cut,
    HalfOpen,
    BlackHole,
}

impl Disturbance {
    fn mode(self) -> Mode {
        match self {
            Self::Slow => Mode::Delay(DELAY),
            Self::Cut => Mode::Cut,
            Self::HalfOpen => Mode::HalfOpen,
            Self::BlackHole => Mode::BlackHole,
        }
    }
}

/// To whom it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// One of the processes of a role.
    Process(Role),
    /// The broker's server.
    Broker,
    /// The database's server.
    Postgres,
    /// The line of one process of a role.
    Line(Role, End),
    /// The lines of all processes.
    Lines(End),
}

/// An entry of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) what: What,
    pub(crate) whom: Whom,
}

/// What must not be struck twice at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Process(Role, usize),
    Line(Role, usize, End),
    Lines(End),
    Broker,
    Postgres,
    Clock(Role, usize),
    PostgresClock,
}

impl Fault {
    /// What it is called in reports.
    pub(crate) fn name(&self) -> String {
        match self.what {
            What::Kill => "kill -9".to_owned(),
            What::Pause => "pause".to_owned(),
            What::Restart => "restart".to_owned(),
            What::Abort => "immediate shutdown".to_owned(),
            What::Disturb(Disturbance::Slow) => format!("{} ms delay", DELAY.as_millis()),
            What::Disturb(Disturbance::Cut) => "cut".to_owned(),
            What::Disturb(Disturbance::HalfOpen) => "half-open".to_owned(),
            What::Disturb(Disturbance::BlackHole) => "black hole".to_owned(),
            What::Wipe => "disk wiped".to_owned(),
            What::FillDisk => "disk full".to_owned(),
            What::Alarm => "disk alarm".to_owned(),
            What::Leap(seconds) if seconds % 3_600 == 0 => format!("clock {:+} h", seconds / 3_600),
            What::Leap(seconds) => format!("clock {seconds:+} s"),
        }
    }

    /// What its target is called in reports.
    pub(crate) fn target(&self) -> String {
        match self.whom {
            Whom::Process(role) => role.name().to_owned(),
            Whom::Broker => "broker".to_owned(),
            Whom::Postgres => "Postgres".to_owned(),
            Whom::Line(role, end) => format!("{}–{}", role.name(), end.name()),
            Whom::Lines(end) => format!("everybody–{}", end.name()),
        }
    }

    /// For how long it is held: mostly short, and past the lease where that matters.
    pub(crate) fn hold(&self, rng: &mut StdRng) -> Duration {
        let millis = match (self.what, self.whom) {
            (What::Pause, Whom::Process(_)) => {
                let lease = u64::try_from(LEASE.as_millis()).unwrap_or_default();
                lease + 1_500..lease + 3_000
            }
            (What::Restart | What::Abort, _) => 0..500,
            (What::Wipe, _) => 100..1_000,
            (What::FillDisk, _) => 3_000..6_000,
            (What::Leap(_), _) => 2_000..4_000,
            _ => 1_000..5_000,
        };
        Duration::from_millis(rng.random_range(millis))
    }

    /// Whether it may be under way at the same time as another.
    pub(crate) fn suits(&self, victim: usize, other: &Self, others: usize) -> bool {
        // A wipe is preceded by a silence, and a full disk may need a restart: both are held alone.
        let alone = |fault: &Self| matches!(fault.what, What::Wipe | What::FillDisk);
        if alone(self) || alone(other) {
            return false;
        }
        match (self.part(victim), other.part(others)) {
            (Part::Lines(end), Part::Line(_, _, another)) | (Part::Line(_, _, another), Part::Lines(end)) => {
                end != another
            }
            (one, another) => one != another,
        }
    }

    fn part(&self, victim: usize) -> Part {
        match (self.what, self.whom) {
            (What::Leap(_), Whom::Process(role)) => Part::Clock(role, victim),
            (What::Leap(_), _) => Part::PostgresClock,
            (_, Whom::Process(role)) => Part::Process(role, victim),
            (_, Whom::Line(role, end)) => Part::Line(role, victim, end),
            (_, Whom::Lines(end)) => Part::Lines(end),
            (_, Whom::Broker) => Part::Broker,
            (_, Whom::Postgres) => Part::Postgres,
        }
    }
}

/// Every fault that there is on a backend.
pub(crate) fn table(backend: Backend) -> Vec<Fault> {
    if backend == Backend::Embedded {
        // SQLite has no clock of its own by which the moments of a run could be told if its process's leapt.
        let leaps = |fault: &Fault| matches!(fault.what, What::Leap(_));
        return of_processes(&[Role::Dev]).filter(|fault| !leaps(fault)).collect();
    }
    let servers = [Whom::Broker, Whom::Postgres].into_iter();
    let servers =
        servers.flat_map(|whom| [What::Kill, What::Pause, What::Restart].map(|what| Fault { what, whom }));
    let single = [
        (What::Abort, Whom::Postgres),
        (What::Wipe, Whom::Broker),
        (What::FillDisk, Whom::Broker),
    ];
    let single = single.into_iter().map(|(what, whom)| Fault { what, whom });
    let alarm = Fault {
        what: What::Alarm,
        whom: Whom::Broker,
    };
    let alarm = (backend == Backend::Rabbitmq).then_some(alarm);
    let clocks = LEAPS.into_iter().map(|seconds| Fault {
        what: What::Leap(seconds),
        whom: Whom::Postgres,
    });
    of_processes(&[Role::Api, Role::Worker, Role::Dispatcher])
        .chain(servers)
        .chain(single)
        .chain(alarm)
        .chain(clocks)
        .chain(of_lines())
        .collect()
}

fn of_processes(roles: &[Role]) -> impl Iterator<Item = Fault> {
    let whats = [What::Kill, What::Pause, What::Restart].into_iter();
    let whats = whats.chain(LEAPS.map(What::Leap));
    roles.iter().flat_map(move |&role| {
        let whom = Whom::Process(role);
        whats.clone().map(move |what| Fault { what, whom })
    })
}

fn of_lines() -> impl Iterator<Item = Fault> {
    let ends = [End::Broker, End::Postgres].into_iter();
    let whoms = ends.flat_map(|end| {
        let roles = [Role::Api, Role::Worker, Role::Dispatcher].map(|role| Whom::Line(role, end));
        roles.into_iter().chain([Whom::Lines(end)])
    });
    whoms.flat_map(|whom| {
        [
            Disturbance::Slow,
            Disturbance::Cut,
            Disturbance::HalfOpen,
            Disturbance::BlackHole,
        ]
        .map(|how| Fault {
            what: What::Disturb(how),
            whom,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_faults_are_called_the_same() {
        for backend in [Backend::Nats, Backend::Rabbitmq, Backend::Embedded] {
            let table = table(backend);
            let names: HashSet<String> = table.iter().map(|f| f.name() + &f.target()).collect();
            assert_eq!(names.len(), table.len());
        }
        let sizes = [Backend::Nats, Backend::Rabbitmq, Backend::Embedded].map(|it| table(it).len());
        assert_eq!(sizes, [66, 67, 3]);
    }

    #[test]
    fn nothing_is_struck_twice_at_once() {
        let kill = |role| Fault {
            what: What::Kill,
            whom: Whom::Process(role),
        };
        let cut = |whom| Fault {
            what: What::Disturb(Disturbance::Cut),
            whom,
        };
        assert!(!kill(Role::Api).suits(0, &kill(Role::Api), 0));
        assert!(kill(Role::Api).suits(0, &kill(Role::Api), 1));
        assert!(kill(Role::Api).suits(0, &kill(Role::Worker), 0));
        let (line, lines) = (Whom::Line(Role::Api, End::Broker), Whom::Lines(End::Broker));
        assert!(!cut(line).suits(0, &cut(lines), 1));
        assert!(cut(line).suits(0, &cut(Whom::Lines(End::Postgres)), 1));
        let wipe = Fault {
            what: What::Wipe,
            whom: Whom::Broker,
        };
        assert!(!wipe.suits(0, &kill(Role::Api), 0) && !kill(Role::Api).suits(0, &wipe, 0));
    }
}
