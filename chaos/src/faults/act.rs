//! Does it, and undoes it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use forebay_testkit::{clock::FakeClock, proxy::Mode};
use tokio::{
    sync::OwnedRwLockWriteGuard,
    time::{Instant, sleep},
};

use super::{Fault, What, Whom};
use crate::{
    database::Which,
    driver::Driver,
    ledger::Ledger,
    stack::{Member, Stack},
    watch::Watch,
};

/// How long it may take until everything accepted is recorded, before the broker is wiped.
const RECORDED_MAX: Duration = Duration::from_secs(60);
/// For how long nothing new must be recorded before the broker is wiped.
const STILL: Duration = Duration::from_secs(1);

/// A fault that is about to be injected.
pub(crate) struct Strike<'a> {
    pub(crate) fault: Fault,
    /// Which process of the role.
    pub(crate) victim: usize,
    pub(crate) stack: &'a Stack,
    pub(crate) driver: &'a Driver,
    pub(crate) ledger: &'a Ledger,
    pub(crate) watch: Watch,
}

/// What is kept from the preparation to the healing.
pub(crate) struct Prepared {
    _quiet: Option<OwnedRwLockWriteGuard<()>>,
}

impl Strike<'_> {
    /// What must be so before it begins. What has been accepted and is not recorded yet exists on the broker's disk
    /// alone, so before that is wiped, submissions pause until everything is recorded.
    pub(crate) async fn prepare(&self) -> Result<Prepared> {
        let quiet = if self.fault.what == What::Wipe {
            let quiet = self.driver.quiet().await;
            self.wait_until_recorded().await?;
            Some(quiet)
        } else {
            None
        };
        Ok(Prepared { _quiet: quiet })
    }

    /// Does it.
    pub(crate) async fn inject(&self) -> Result<()> {
        match (self.fault.what, self.fault.whom) {
            (What::Leap(seconds), _) => self.leap(seconds).await,
            (What::Alarm, _) => self.stack.broker().await?.set_alarm(true).await,
            (What::Kill, Whom::Process(_)) => self.member()?.kill(),
            (What::Pause, Whom::Process(_)) => self.member()?.freeze(true),
            (What::Restart, Whom::Process(_)) => self.member()?.stop().await,
            (What::Kill, Whom::Broker) => self.stack.broker().await?.kill(),
            (What::Pause, Whom::Broker) => self.stack.broker().await?.freeze(true),
            (What::Restart, Whom::Broker) => self.stack.broker().await?.stop().await,
            (What::Wipe, _) => self.stack.broker().await?.wipe(),
            (What::FillDisk, _) => self.stack.broker().await?.fill_disk(),
            (What::Kill, _) => self.stack.postgres().await?.kill(),
            (What::Pause, _) => self.stack.postgres().await?.pause(),
            (What::Restart, _) => self.stack.postgres().await?.stop().await,
            (What::Abort, _) => self.stack.postgres().await?.abort().await,
            (What::Disturb(how), _) => self.set_lines(how.mode()),
        }
    }

    /// Undoes it.
    pub(crate) async fn heal(&self) -> Result<()> {
        match (self.fault.what, self.fault.whom) {
            (What::Leap(_), _) => self.leap(0).await,
            (What::Alarm, _) => self.stack.broker().await?.set_alarm(false).await,
            (What::Pause, Whom::Process(_)) => self.member()?.freeze(false),
            (_, Whom::Process(_)) => self.member()?.start(),
            (What::Pause, Whom::Broker) => self.stack.broker().await?.freeze(false),
            (What::FillDisk, _) => self.stack.broker().await?.free_disk().await,
            (_, Whom::Broker) => self.stack.broker().await?.restart().await,
            (What::Pause, Whom::Postgres) => self.stack.postgres().await?.resume(),
            (_, Whom::Postgres) => self.stack.postgres().await?.start_again().await,
            (_, Whom::Line(..) | Whom::Lines(_)) => self.set_lines(Mode::Pass),
        }
    }

    /// Lets a clock leap. The API counts a delay from its own clock, so nothing is submitted in the moment of the leap,
    /// and no delays while it is wrong.
    async fn leap(&self, seconds: i64) -> Result<()> {
        match self.fault.whom {
            Whom::Process(role) => {
                let quiet = self.driver.quiet().await;
                if role.serves() {
                    self.driver.set_leaping(seconds != 0);
                }
                self.member()?.clock.leap(seconds)?;
                drop(quiet);
                Ok(())
            }
            _ => self.postgres_clock()?.leap(seconds),
        }
    }

    fn set_lines(&self, mode: Mode) -> Result<()> {
        match self.fault.whom {
            Whom::Line(_, end) => {
                let line = self.member()?.line.as_ref();
                line.context("it has no lines")?.set(end, mode);
            }
            Whom::Lines(end) => {
                for line in self
                    .stack
                    .members
                    .iter()
                    .filter_map(|member| member.line.as_ref())
                {
                    line.set(end, mode);
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn wait_until_recorded(&self) -> Result<()> {
        let database = &self.stack.database;
        let (ids, watch) = (self.ledger.ids(), self.watch);
        let missing = database.wait_for(Which::Recorded, ids, RECORDED_MAX, watch).await;
        ensure!(
            missing.is_empty(),
            "{} accepted tasks are not recorded after {RECORDED_MAX:?}, such as {:?}",
            missing.len(),
            missing.iter().next()
        );
        // Submissions whose answer was lost: their submitters may be told of them later, under their keys.
        let deadline = Instant::now() + RECORDED_MAX;
        let mut count = database.count().await?;
        loop {
            sleep(STILL).await;
            let now = database.count().await?;
            if now == count || Instant::now() > deadline {
                return Ok(());
            }
            count = now;
        }
    }

    fn member(&self) -> Result<&Member> {
        let (Whom::Process(role) | Whom::Line(role, _)) = self.fault.whom else {
            anyhow::bail!("{} is no process", self.fault.target());
        };
        let member = self.stack.of(role).nth(self.victim);
        member.map(|member| &**member).context("there is no such process")
    }

    fn postgres_clock(&self) -> Result<&FakeClock> {
        self.stack.postgres_clock.as_ref().context("there is no Postgres")
    }
}
