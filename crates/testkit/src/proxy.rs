//! A TCP proxy that can be made a bad network while it runs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Handle,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::process::free_port;
use connection::carry;

mod connection;

/// How many connections a proxy carries at once; more wait until one of them ends.
const CONNECTIONS_MAX: usize = 1024;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// How often another port is tried, where somebody was faster.
const PORT_ATTEMPTS_MAX: usize = 5;

/// What a proxy does with what is said through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It passes everything on.
    Pass,
    /// It passes everything on that much later, in either direction.
    Delay(Duration),
    /// All connections are reset, and new ones refused.
    Cut,
    /// What the client says goes through; what the server says, be it only that it closed, is lost.
    HalfOpen,
    /// Connections stay open, and new ones are accepted, but nothing goes through in either direction; what is
    /// written meanwhile is lost.
    BlackHole,
}

impl Mode {
    /// Whether what is said may be lost without anybody noticing.
    fn is_lossy(self) -> bool {
        matches!(self, Self::HalfOpen | Self::BlackHole)
    }

    fn delay(self) -> Duration {
        match self {
            Self::Delay(delay) => delay,
            _ => Duration::ZERO,
        }
    }
}

/// What the proxy's tasks go by.
#[derive(Debug)]
struct State {
    mode: Mode,
    /// Connections made in another era than this are reset.
    era: u64,
    /// Absent while connections are refused.
    listener: Option<Arc<TcpListener>>,
}

/// A proxy of one's own before one server. Dropping it resets its connections and frees its port.
///
/// It accepts connections even where the server does not; such a connection is reset at once.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    acceptor: JoinHandle<()>,
    runtime: Handle,
    /// Never listens: it keeps the port ours while nobody else does.
    _reservation: TcpSocket,
}

impl Proxy {
    /// Starts a proxy before the server at `upstream`, such as `127.0.0.1:5432`, that passes everything on. It runs on
    /// the runtime that it is started on.
    ///
    /// # Errors
    /// Where it finds no port to listen on.
    pub async fn start(upstream: impl Into<String>) -> Result<Self> {
        let (reservation, address) = reserve()?;
        let listener = listen(address).context("listen as a proxy")?;
        let (state, watched) = watch::channel(State {
            mode: Mode::Pass,
            era: 0,
            listener: Some(Arc::new(listener)),
        });
        Ok(Self {
            address,
            state,
            acceptor: tokio::spawn(accept(upstream.into().into(), watched)),
            runtime: Handle::current(),
            _reservation: reservation,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Goes over to another mode, for present and new connections. Leaving [`Mode::HalfOpen`] or [`Mode::BlackHole`]
    /// resets all connections, since they lack what was lost. Once a [`Mode::Cut`] is left, nobody is refused any
    /// more when this returns.
    ///
    /// # Panics
    /// Where it can't listen again after a cut, although the port is its own.
    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| {
            if state.mode == mode {
                return;
            }
            if mode == Mode::Cut || state.mode.is_lossy() {
                state.era += 1;
            }
            state.mode = mode;
            if mode == Mode::Cut {
                state.listener = None;
            } else if state.listener.is_none() {
                let _guard = self.runtime.enter();
                let listener = listen(self.address).expect("the reservation keeps the port for us");
                state.listener = Some(Arc::new(listener));
            }
        });
    }

    /// The mode it is in.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.state.borrow().mode
    }

    /// Resets all present connections, and goes on as before.
    pub fn cut_now(&self) {
        self.state.send_modify(|state| state.era += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// A port of the loopback address that stays ours as long as the socket lives.
fn reserve() -> Result<(TcpSocket, SocketAddr)> {
    for _ in 0..PORT_ATTEMPTS_MAX {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        if let Ok(socket) = bind(address) {
            return Ok((socket, address));
        }
    }
    anyhow::bail!("no port stayed free for long enough")
}

/// A socket that shares its address with others of ours, of which at most one listens.
fn bind(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    bind(address)?.listen(BACKLOG)
}

/// Accepts connections and owns the tasks that carry them; when it ends, so do they.
async fn accept(upstream: Arc<str>, mut state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        let listener = state.borrow_and_update().listener.clone();
        let may_accept = connections.len() < CONNECTIONS_MAX;
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
            client = next(listener) , if may_accept => {
                connections.spawn(carry(client, Arc::clone(&upstream), state.clone()));
            }
        }
    }
}

/// The next connection; never, where nobody listens.
async fn next(listener: Option<Arc<TcpListener>>) -> TcpStream {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok((client, _)) => return client,
            // Its client is gone already, or this process has too many files open for the moment.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

#[cfg(test)]
mod tests;
