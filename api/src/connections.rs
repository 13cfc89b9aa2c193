//! The connections of a door: bounded in number. Past it, clients wait to be accepted. So who connects and says nothing may
//! not keep a place for ever.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::App;

/// Between two attempts to accept, where that fails: no file handles are left, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Accepts connections, as many as there are places for.
pub(crate) struct Accept {
    app: App,
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Accept {
    pub(crate) fn new(app: &App, listener: TcpListener) -> Self {
        Self {
            app: app.clone(),
            listener,
            places: Arc::new(Semaphore::new(app.bounds.connections)),
        }
    }

    /// The next one; `None` when the process is to stop.
    pub(crate) async fn next(&self) -> Option<Connection> {
        let place = tokio::select! {
            () = self.app.stop.cancelled() => return None,
            place = Arc::clone(&self.places).acquire_owned() => place.ok()?,
        };
        loop {
            let accepted = tokio::select! {
                () = self.app.stop.cancelled() => return None,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    // Only costs latency where it fails.
                    let _ = stream.set_nodelay(true);
                    return Some(Connection {
                        stream,
                        opening: Some(Opening {
                            read: 0,
                            late: Box::pin(sleep(self.app.bounds.head)),
                        }),
                        _place: place,
                    });
                }
                Err(error) => {
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// All of them.
    pub(crate) fn stream(self) -> impl Stream<Item = io::Result<Connection>> {
        stream::unfold(self, |accept| async move {
            let connection = accept.next().await?;
            Some((Ok(connection), accept))
        })
    }
}

/// A connection, with its place.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// `None` once its first bytes were read.
    opening: Option<Opening>,
    _place: OwnedSemaphorePermit,
}

/// A connection of which it is not known yet which protocol it speaks. No bound of the servers holds before.
#[derive(Debug)]
struct Opening {
    /// So much of the preface.
    read: usize,
    late: Pin<Box<Sleep>>,
}

impl Opening {
    /// Whether more has to come after these bytes.
    fn goes_on(&mut self, bytes: &[u8]) -> bool {
        let rest = &PREFACE[self.read..];
        self.read += bytes.len();
        !bytes.is_empty() && bytes.len() < rest.len() && rest.starts_with(bytes)
    }

    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the connection says nothing");
        self.late.as_mut().poll(context).map(|()| Err(late()))
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(opening) = &mut self.opening else {
            return read;
        };
        if read.is_pending() {
            return opening.poll_late(context);
        }
        if !opening.goes_on(&buffer.filled()[before..]) {
            self.opening = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
