//! Connections: how they are made, how they come back, and what is known of them meanwhile.
//!
//! The client's own recovery is not used. It replays what it knows to have declared, which is wrong for a server
//! that lost its disk, and it makes callers wait; here a call fails at once while there is no connection, and
//! everything that belonged to a connection ends with it.

use std::{
    io,
    net::SocketAddr,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use forebay_broker::BrokerError;
use futures::StreamExt;
use lapin::{
    AsyncTcpStream, Channel, ConnectionProperties, Event,
    tcp::TLSConfig,
    uri::{AMQPScheme, AMQPUri},
};
use rand::Rng;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, interval, sleep, timeout, timeout_at},
};

use crate::failure::{Failure, within};

/// How long the first connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt to connect may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// The time between two attempts to reconnect doubles from the first of these to the second.
const BACKOFF_MIN: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How long a connection must have stood for the next to be attempted at once: a server may take connections only to
/// close them.
const STEADY: Duration = Duration::from_secs(5);
/// Each side says at least so often that it lives. After twice this time of silence the connection counts as lost.
const HEARTBEAT_SECONDS: u16 = 2;
/// How often the client is asked whether its connection still stands, in case it did not say so.
const GLANCE: Duration = Duration::from_millis(250);
/// How long a connection's last words may take to be said.
const FAREWELL: Duration = Duration::from_millis(500);

/// What a connection is for. Those that publish are blocked by the server when it runs short of disk or memory;
/// those that consume must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Publishing, and nothing that must work while publishers are blocked.
    Publish,
    /// Consuming and looking.
    Consume,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
        }
    }
}

/// Where the servers are.
#[derive(Clone)]
pub(crate) struct Servers(Vec<AMQPUri>);

impl Servers {
    /// Reads URLs that are separated by commas.
    pub(crate) fn parse(urls: &str) -> Result<Self, String> {
        let servers = urls.split(',').map(|url| {
            let mut server: AMQPUri = url.trim().parse()?;
            server.query.heartbeat = Some(HEARTBEAT_SECONDS);
            Ok(server)
        });
        servers.collect::<Result<_, String>>().map(Self)
    }
}

/// A connection as long as it stands.
pub(crate) struct Live {
    connection: lapin::Connection,
    /// No two connections of this process have the same.
    generation: u64,
    cutter: Cutter,
    blocked: watch::Sender<Option<String>>,
    lost: watch::Sender<bool>,
}

impl Live {
    /// Tells it from every other connection. What was known of the server's state before it is doubtful.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it still stands.
    pub(crate) fn stands(&self) -> bool {
        self.connection.status().connected()
    }

    /// Why the server takes nothing from this connection at the moment, where that is so.
    pub(crate) fn blocked(&self) -> Option<String> {
        self.blocked.borrow().clone()
    }

    /// Waits until the server says that it takes nothing from this connection.
    pub(crate) async fn until_blocked(&self) {
        let mut blocked = self.blocked.subscribe();
        // An error means that nobody says so any more.
        if blocked.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the connection is lost. The client may forget a call that was made in that very moment.
    pub(crate) async fn until_lost(&self) {
        // An error means that nobody would say so any more, and that is as good.
        let _ = self.lost.subscribe().wait_for(|lost| *lost).await;
    }

    /// Opens a channel. It is closed by [`close`], or with the connection.
    pub(crate) async fn open_channel(&self, limit: Duration) -> Result<Channel, Failure> {
        within(limit, self.connection.create_channel()).await
    }

    /// Waits until the connection is lost, and keeps its news meanwhile.
    async fn watch(&self) {
        let mut events = Box::pin(self.connection.events_listener());
        let mut glances = interval(GLANCE);
        while self.stands() {
            tokio::select! {
                Some(event) = events.next() => self.note(event),
                _ = glances.tick() => {}
            }
        }
    }

    fn note(&self, event: Event) {
        match event {
            Event::ConnectionBlocked(reason) => {
                tracing::warn!(reason, "RabbitMQ has blocked publishers");
                self.blocked.send_replace(Some(reason));
            }
            Event::ConnectionUnblocked => {
                tracing::info!("RabbitMQ takes messages again");
                self.blocked.send_replace(None);
            }
            Event::Error(error) => tracing::debug!(%error, "RabbitMQ reports an error"),
            _ => {}
        }
    }
}

/// Without this, what the client is in the middle of would keep its thread and its socket for as long as the other
/// end is silent.
impl Drop for Live {
    fn drop(&mut self) {
        if !self.stands() || self.blocked().is_some() {
            self.cutter.cut();
        }
    }
}

/// Ends a socket that the client owns.
#[derive(Clone, Default)]
struct Cutter(Arc<Mutex<Option<std::net::TcpStream>>>);

impl Cutter {
    fn hold(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket.into());
        Ok(())
    }

    fn cut(&self) {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(socket) = socket {
            // An error means that it was cut already.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[derive(Clone)]
enum State {
    Down(Arc<str>),
    Up(Arc<Live>),
}

/// A connection that comes back. It ends when this is dropped, and nothing that was opened on it is left.
pub(crate) struct Link {
    state: watch::Receiver<State>,
    supervisor: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Link {
    /// Connects; from then on the connection is made anew whenever it is lost.
    pub(crate) async fn open(servers: Servers, purpose: Purpose) -> forebay_broker::Result<Self> {
        let fail = |error: Failure| BrokerError::new("connect to RabbitMQ", error);
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let connected = timeout_at(deadline, connect_to_any(&servers, purpose)).await;
        let live = connected.unwrap_or_else(|_| Err(Failure::no_answer(CONNECT_TIMEOUT)));
        let live = Arc::new(live.map_err(fail)?);
        tracing::info!(purpose = purpose.name(), "connected to RabbitMQ");
        let (sender, state) = watch::channel(State::Up(Arc::clone(&live)));
        let supervisor = tokio::spawn(supervise(servers, purpose, sender, live));
        Ok(Self { state, supervisor })
    }

    /// The connection, where there is one.
    pub(crate) fn live(&self) -> Result<Arc<Live>, Failure> {
        match &*self.state.borrow() {
            State::Up(live) if live.stands() => Ok(Arc::clone(live)),
            State::Up(_) => Err(Failure::unreachable("the connection to RabbitMQ was just lost")),
            State::Down(why) => Err(Failure::unreachable(format!(
                "there is no connection to RabbitMQ at the moment: {why}"
            ))),
        }
    }
}

async fn supervise(servers: Servers, purpose: Purpose, state: watch::Sender<State>, first: Arc<Live>) {
    let mut live = first;
    let mut pace = Pace::default();
    loop {
        let since = Instant::now();
        live.watch().await;
        pace.lost_after(since.elapsed());
        live.lost.send_replace(true);
        live.cutter.cut();
        drop(live);
        tracing::warn!(purpose = purpose.name(), "lost the connection to RabbitMQ");
        state.send_replace(State::Down("it was lost".into()));
        live = reconnect(&servers, purpose, &state, &mut pace).await;
        tracing::info!(purpose = purpose.name(), "connected to RabbitMQ again");
        state.send_replace(State::Up(Arc::clone(&live)));
    }
}

async fn reconnect(
    servers: &Servers,
    purpose: Purpose,
    state: &watch::Sender<State>,
    pace: &mut Pace,
) -> Arc<Live> {
    loop {
        sleep(pace.next()).await;
        match connect_to_any(servers, purpose).await {
            Ok(live) => return Arc::new(live),
            Err(error) => {
                tracing::debug!(%error, attempt = pace.attempts, "RabbitMQ can't be reached");
                state.send_replace(State::Down(error.to_string().into()));
            }
        }
    }
}

/// How fast one attempt to connect follows another.
#[derive(Default)]
struct Pace {
    /// How many there were since a connection last stood for a while.
    attempts: u32,
}

impl Pace {
    /// Notes that a connection was lost that had stood for so long.
    fn lost_after(&mut self, stood: Duration) {
        if stood >= STEADY {
            self.attempts = 0;
        }
    }

    /// How long to wait before the next attempt.
    fn next(&mut self) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        backoff(self.attempts)
    }
}

/// The first attempt comes at once; then they come at doubling times, spread so that clients do not come together.
fn backoff(attempt: u32) -> Duration {
    if attempt <= 1 {
        return Duration::ZERO;
    }
    let doublings = (attempt - 2).min(16);
    let longest = BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    longest.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// Tries the servers in turn.
async fn connect_to_any(servers: &Servers, purpose: Purpose) -> Result<Live, Failure> {
    let mut last = Failure::unreachable("no server is named");
    for server in &servers.0 {
        match timeout(ATTEMPT_TIMEOUT, resolve(server)).await {
            Ok(Ok(addresses)) => {
                for address in addresses {
                    match connect(server, address, purpose).await {
                        Ok(live) => return Ok(live),
                        Err(error) => last = error,
                    }
                }
            }
            Ok(Err(error)) => last = Failure::unreachable(error.to_string()),
            Err(_) => last = Failure::unreachable("the server's name was not found in time"),
        }
    }
    Err(last)
}

async fn resolve(server: &AMQPUri) -> io::Result<Vec<SocketAddr>> {
    let authority = &server.authority;
    let found = tokio::net::lookup_host((authority.host.as_str(), authority.port)).await?;
    Ok(found.collect())
}

async fn connect(server: &AMQPUri, address: SocketAddr, purpose: Purpose) -> Result<Live, Failure> {
    static GENERATIONS: AtomicU64 = AtomicU64::new(0);
    let cutter = Cutter::default();
    // Cuts what an attempt that is given up left behind.
    let guard = CutOnDrop(Some(cutter.clone()));
    let runtime = lapin::runtime::default_runtime().map_err(Failure::from)?;
    let held = cutter.clone();
    let name = format!("forebay {}", purpose.name());
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connected = lapin::Connection::connector(
        server.clone(),
        runtime,
        async move |server, runtime| {
            let stream = AsyncTcpStream::connect(&runtime, address).await?;
            if let AsyncTcpStream::Plain(socket) = &stream {
                held.hold(socket.get_ref())?;
                socket.get_ref().set_nodelay(true)?;
            }
            match server.scheme {
                AMQPScheme::AMQP => Ok(stream),
                AMQPScheme::AMQPS => Ok(stream
                    .into_tls(&server.authority.host, TLSConfig::default())
                    .await?),
            }
        },
        properties,
    );
    let connection = within(ATTEMPT_TIMEOUT, connected).await?;
    guard.disarm();
    Ok(Live {
        connection,
        generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
        cutter,
        blocked: watch::Sender::new(None),
        lost: watch::Sender::new(false),
    })
}

struct CutOnDrop(Option<Cutter>);

impl CutOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(cutter) = &self.0 {
            cutter.cut();
        }
    }
}

/// Closes a channel. All that was delivered on it and not acknowledged is delivered again, at once.
///
/// The client would do this by itself when the channel is dropped, but it then takes the whole connection down if
/// the server was faster to close the channel.
pub(crate) fn close(channel: Channel) {
    if !channel.status().connected() {
        return;
    }
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    let closing = async move {
        // An error means that it is closed.
        let _ = timeout(FAREWELL, channel.close(200, "done".into())).await;
    };
    // Begun here and now, so that it is before whatever comes next on this connection.
    let mut closing = Box::pin(closing);
    let mut nobody = std::task::Context::from_waker(futures::task::noop_waker_ref());
    let entered = runtime.enter();
    if closing.as_mut().poll(&mut nobody).is_pending() {
        runtime.spawn(closing);
    }
    drop(entered);
}

/// A channel that is closed when this is dropped.
pub(crate) struct Owned(pub(crate) Channel);

impl Drop for Owned {
    fn drop(&mut self) {
        close(self.0.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_grows_to_its_limit_and_is_spread() {
        assert_eq!(backoff(1), Duration::ZERO);
        assert!(backoff(2) <= BACKOFF_MIN);
        for attempt in [20, 1_000, u32::MAX] {
            assert!(
                (BACKOFF_MAX / 2..=BACKOFF_MAX).contains(&backoff(attempt)),
                "attempt {attempt}"
            );
        }
    }

    #[test]
    fn only_a_connection_that_stood_for_a_while_makes_the_next_attempt_come_at_once() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(), Duration::ZERO);
        for _ in 0..20 {
            pace.lost_after(STEADY / 2);
            assert!(pace.next() > Duration::ZERO);
        }
        assert!(pace.next() >= BACKOFF_MAX / 2);
        pace.lost_after(STEADY);
        assert_eq!(pace.next(), Duration::ZERO);
    }

    #[test]
    fn several_servers_are_read_from_one_line() {
        let servers = Servers::parse("amqp://a:1/x, amqps://b:2/x").unwrap();
        let ports: Vec<_> = servers.0.iter().map(|server| server.authority.port).collect();
        assert_eq!(ports, [1, 2]);
        assert!(Servers::parse("amqp://a:1/x,nats://b").is_err());
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_clear_error() {
        let port = forebay_testkit::process::free_port().unwrap();
        let servers = Servers::parse(&format!("amqp://127.0.0.1:{port}/%2f")).unwrap();
        let error = Link::open(servers, Purpose::Consume).await.err().unwrap();
        let text = format!("{error}: {}", error.source);
        assert!(
            text.contains("connect to RabbitMQ") && text.contains("refused"),
            "{text}"
        );
    }
}
