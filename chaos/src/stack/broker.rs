//! The broker's server, with its data on a disk that can be filled.

use anyhow::{Result, bail};
use forebay_testkit::{
    broker::BrokerServer,
    disk::SmallDisk,
    nats::{self, Nats},
    rabbitmq::{self, RabbitMq},
};

use crate::{Backend, outcome::say};

/// How large the disk is: room for the broker's data many times over, and quick to fill.
const DISK_BYTES: u64 = 512 * 1024 * 1024;

/// NATS or RabbitMQ.
#[derive(Debug)]
pub(crate) struct Broker {
    server: BrokerServer,
    version: Option<String>,
    /// Where it is `None`, this machine lets us mount nothing.
    disk: Option<SmallDisk>,
}

impl Broker {
    /// Starts it.
    pub(crate) async fn start(backend: Backend) -> Result<Self> {
        let disk = SmallDisk::mount(DISK_BYTES);
        if let Err(error) = &disk {
            say(format_args!(
                "no small disk, so the broker's is never full: {error:#}"
            ));
        }
        let disk = disk.ok();
        let data = disk.as_ref().map(|disk| disk.path().join("data"));
        let server = match backend {
            Backend::Nats => {
                let setup = nats::Setup {
                    data,
                    ..nats::Setup::default()
                };
                BrokerServer::Nats(Nats::start_with(setup).await?)
            }
            Backend::Rabbitmq => {
                let setup = rabbitmq::Setup {
                    data,
                    ..rabbitmq::Setup::default()
                };
                BrokerServer::RabbitMq(RabbitMq::start_with(setup).await?)
            }
            Backend::Embedded => bail!("the embedded broker has no server"),
        };
        let version = version_of(&server);
        Ok(Self {
            server,
            version,
            disk,
        })
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        log_of(&self.server)
    }

    /// What it is, with the version that it said it has.
    pub(crate) fn version(&self) -> Option<String> {
        self.version.clone()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Shuts it down in good order.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.server.stop().await
    }

    /// Starts it again, with what data it has.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.server.restart().await
    }

    /// Kills it and deletes its data.
    pub(crate) fn wipe(&mut self) -> Result<()> {
        self.server.kill()?;
        self.server.wipe()
    }

    /// Freezes it, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        if frozen {
            self.server.pause()
        } else {
            self.server.resume()
        }
    }

    /// Leaves no room on its disk.
    pub(crate) fn fill_disk(&self) -> Result<()> {
        match &self.disk {
            Some(disk) => disk.fill(),
            None => Ok(()),
        }
    }

    /// Makes room again, and starts the server again, as a supervisor would: NATS has switched its streams off by then,
    /// and RabbitMQ's log has crashed and taken all queues with it. Neither gets up by itself.
    pub(crate) async fn free_disk(&mut self) -> Result<()> {
        let Some(disk) = &self.disk else {
            return Ok(());
        };
        disk.free_up()?;
        self.server.restart().await
    }

    /// RabbitMQ's alarm: it believes that its disk is nearly full, and takes nothing new.
    pub(crate) async fn set_alarm(&self, on: bool) -> Result<()> {
        match &self.server {
            BrokerServer::RabbitMq(server) if on => server.raise_disk_alarm().await,
            BrokerServer::RabbitMq(server) => server.clear_disk_alarm().await,
            BrokerServer::Nats(_) => bail!("NATS has no alarms"),
        }
    }
}

fn log_of(server: &BrokerServer) -> String {
    match server {
        BrokerServer::Nats(server) => server.log(),
        BrokerServer::RabbitMq(server) => server.log(),
    }
}

/// What it said of itself when it started.
fn version_of(server: &BrokerServer) -> Option<String> {
    let (name, before) = match server {
        BrokerServer::Nats(_) => ("NATS", "Version:"),
        BrokerServer::RabbitMq(_) => ("RabbitMQ", "Starting RabbitMQ"),
    };
    let log = log_of(server);
    let (_, after) = log.split_once(before)?;
    Some(format!("{name} {}", after.split_whitespace().next()?))
}
