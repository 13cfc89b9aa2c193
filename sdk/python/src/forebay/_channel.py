"""Where the server is, and how to connect to it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Optional, Sequence
from urllib.parse import urlsplit

import grpc

from . import _context
from ._version import __version__

URL_VARIABLE = "FOREBAY_GRPC_URL"
URL_DEFAULT = "http://127.0.0.1:50051"
PORT_DEFAULT = 50051

_KEEPALIVE_MS = 10_000
_KEEPALIVE_TIMEOUT_MS = 5_000
# A task is at most 256 KiB of payload, as much of result, and some text; a page has up to 200 of them.
_MESSAGE_BYTES_MAX = 256 * 1024 * 1024

# So long at least a connection may take, and so long it is at least from one attempt to the next on the same channel.
_CONNECT_MS = "grpc.min_reconnect_backoff_ms"
_SHARED: list[tuple[str, Any]] = [(_CONNECT_MS, 1_000)]
_ALONE: list[tuple[str, Any]] = [(_CONNECT_MS, 5_000), ("grpc.use_local_subchannel_pool", 1)]

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.primary_user_agent", f"forebay-python/{__version__}"),
    # What has gone without a word is found out while a call is under way.
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
    # The same for pings by which gRPC measures the way; while one of them is out, it sends none of the above.
    ("grpc.http2.ping_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    # When to try again is not for a resolver to say. (What gRPC knows to be unseen by a server that closes a connection, it
    # sends again by itself.)
    ("grpc.service_config_disable_resolution", 1),
]


@dataclass(frozen=True)
class Server:
    """Whom to connect to, and as whom."""

    url: str
    target: str
    credentials: Optional[grpc.ChannelCredentials] = field(repr=False)
    metadata: tuple[tuple[str, str], ...] = field(repr=False)

    @classmethod
    def of(
        cls,
        url: Optional[str],
        credentials: Optional[grpc.ChannelCredentials],
        metadata: Sequence[tuple[str, str]],
    ) -> Server:
        """The server at `url`, or at the one that the environment names."""
        url = url or os.environ.get(URL_VARIABLE) or URL_DEFAULT
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"the URL must be like http://host:50051 or https://host: {url!r}")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("the URL must have neither user, query nor fragment: give credentials or metadata instead")
        tls = parts.scheme == "https"
        if credentials is not None and not tls:
            raise ValueError("credentials need a URL that begins with https://")
        if tls and credentials is None:
            credentials = grpc.ssl_channel_credentials()
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        port = parts.port or (443 if tls else PORT_DEFAULT)
        return cls(url, f"{host}:{port}", credentials, tuple(metadata))

    def connect(self, *, alone: bool = False) -> grpc.Channel:
        """A channel; where it is to be alone, one that shares its connection with no other, and tries but once."""
        options = _OPTIONS + (_ALONE if alone else _SHARED)
        if self.credentials is None:
            return grpc.insecure_channel(self.target, options)
        return grpc.secure_channel(self.target, self.credentials, options)

    def connect_aio(self) -> grpc.aio.Channel:
        """A channel of the running event loop."""
        options = _OPTIONS + _SHARED
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, options)
        return grpc.aio.secure_channel(self.target, self.credentials, options)

    def call_metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call. Within a handler that is the trace of its task, so that it goes on."""
        context = _context.current.get()
        if context is None or not context.traceparent:
            return self.metadata
        return (*self.metadata, ("traceparent", context.traceparent))
