"""What the tests share."""

import asyncio
import os
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent import futures

import grpc
from google.protobuf import any_pb2, duration_pb2, timestamp_pb2
from google.rpc import error_details_pb2, status_pb2

import forebay
from forebay._failure import DETAILS
from forebay.v1 import task_pb2_grpc, worker_pb2, worker_pb2_grpc

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
ROOT = PACKAGE.parent.parent
WITHIN = 30.0
"""Whatever a test waits for has happened within this many seconds, or never will."""


def eventually(condition, what, within=WITHIN):
    """Waits until `condition` returns something true, and returns that."""
    give_up = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {within} s: {what() if callable(what) else what}")
        time.sleep(0.02)


def finishes(work, within=WITHIN):
    """What `work` returns, which it does in time; raises what it raises."""
    outcome = futures.Future()

    def run():
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    # Not of an executor: one that hangs must not keep the tests from ending.
    threading.Thread(target=run, daemon=True).start()
    return outcome.result(within)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Server:
    """A `forebay dev` on free ports, with its data in a temporary folder."""

    def __init__(self):
        self.binary = os.environ.get("FOREBAY_BIN", str(ROOT / "target" / "debug" / "forebay"))
        http, grpc_port, admin = free_ports(3)
        self.http = f"http://127.0.0.1:{http}"
        self.url = f"http://127.0.0.1:{grpc_port}"
        self._folder = tempfile.TemporaryDirectory()
        self._environment = dict(
            {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY_")},
            FOREBAY_HTTP_ADDR=f"127.0.0.1:{http}",
            FOREBAY_GRPC_ADDR=f"127.0.0.1:{grpc_port}",
            FOREBAY_ADMIN_ADDR=f"127.0.0.1:{admin}",
            FOREBAY_LOG="warn",
        )
        self.process = None

    def start(self):
        command = [self.binary, "dev", "--data", str(pathlib.Path(self._folder.name) / "data")]
        self.process = subprocess.Popen(
            command, env=self._environment, cwd=self._folder.name, stdout=subprocess.DEVNULL
        )
        eventually(self._is_ready, "the server is ready", 60)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def _is_ready(self):
        assert self.process.poll() is None, f"forebay ended with {self.process.returncode}"
        try:
            urllib.request.urlopen(f"{self.http}/health/ready", timeout=5).close()
            return True
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        self._folder.cleanup()


class Program:
    """A Python program in a process of its own."""

    def __init__(self, path, *arguments, **environment):
        self.lines = []
        self.process = subprocess.Popen(
            [sys.executable, "-u", str(path), *map(str, arguments)],
            env=dict(os.environ, PYTHONPATH=str(PACKAGE / "src"), **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def says(self, text):
        """Waits until it has printed a line with this text, and returns that line."""

        def said():
            found = [line for line in list(self.lines) if text in line]
            assert found or self.process.poll() is None, f"it has ended without {text!r}: {self.lines}"
            return found

        return eventually(said, lambda: f"it prints {text!r}: {self.lines}")[0]

    def kill(self):
        self.process.kill()
        self.process.wait(WITHIN)

    def terminate(self):
        """Asks it to end, and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, within=WITHIN):
        code = self.process.wait(within)
        self._reader.join(WITHIN)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()
        self._reader.join(WITHIN)
        self.process.stdout.close()


class Blocking:
    """An AsyncClient that is used as a Client is."""

    def __init__(self, url, **options):
        self._loop = asyncio.new_event_loop()
        self._client = forebay.AsyncClient(url, **options)

    def __getattr__(self, name):
        return self._blocking(getattr(self._client, name))

    def _blocking(self, method):
        if not callable(method):
            return _Part(self, method)

        def call(*arguments, **options):
            result = method(*arguments, **options)
            if hasattr(result, "__aiter__"):
                return self._iterate(result)
            return self._loop.run_until_complete(result)

        return call

    def _iterate(self, results):
        try:
            while True:
                try:
                    yield self._loop.run_until_complete(results.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            self._loop.run_until_complete(results.aclose())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


class _Part:
    """What belongs to a client, its queues for one, used in the same way."""

    def __init__(self, client, part):
        self._client, self._part = client, part

    def __getattr__(self, name):
        return self._client._blocking(getattr(self._part, name))


class Call:
    """One stream of a worker, as a server that does as it is told sees it."""

    def __init__(self, context):
        self._context = context
        self._out = queue.Queue()
        self._in = queue.Queue()
        self.heard = []
        """All that the worker has said, oldest first."""
        self.ended = threading.Event()
        """Set when the stream is over."""
        self.ends_by_itself = True
        """Whether it ends when the worker has drained and all is finished."""
        self._running = set()
        self._drained = False

    def send(self, **message):
        self._out.put(worker_pb2.WorkResponse(**message))

    def welcome(self, heartbeat=5.0, silence=15.0):
        welcome = worker_pb2.Welcome(worker_id="w-1", heartbeat_interval=_duration(heartbeat), silence_max=_duration(silence))
        self.send(welcome=welcome)

    def start(self, task_id, kind="echo", payload=b"null", fence=1, timeout=60.0, **fields):
        deadline = timestamp_pb2.Timestamp(seconds=int(time.time() + timeout))
        self._running.add(task_id)
        self.send(
            start=worker_pb2.Start(
                id=worker_pb2.StartId(task_id=task_id, fence=fence),
                kind=kind,
                queue="default",
                project="default",
                payload=payload,
                attempt=fields.pop("attempt", 1),
                max_attempts=fields.pop("max_attempts", 5),
                timeout=_duration(timeout),
                deadline=deadline,
                **fields,
            )
        )

    def stop(self, task_id, reason=worker_pb2.Stop.REASON_CANCELLED, fence=1):
        self.send(stop=worker_pb2.Stop(id=worker_pb2.StartId(task_id=task_id, fence=fence), reason=reason))

    def drain(self):
        self.send(drain=worker_pb2.Drain())

    def end(self):
        """Ends the stream in good order."""
        self._out.put(None)

    def abort(self, code, details):
        """Ends it with an error."""
        self._out.put((code, details))

    def next(self, which, within=WITHIN):
        """The next message of this sort; others before it are passed over."""
        give_up = time.monotonic() + within
        while True:
            try:
                request = self._in.get(timeout=max(0.0, give_up - time.monotonic()))
            except queue.Empty:
                said = [each.WhichOneof("message") for each in self.heard]
                raise AssertionError(f"the worker said no {which}, but {said}") from None
            if request.WhichOneof("message") == which:
                return getattr(request, which)

    def finish(self, within=WITHIN):
        """The next outcome: the id of its task, which outcome it is, and itself."""
        finish = self.next("finish", within)
        outcome = finish.WhichOneof("outcome")
        return finish.id.task_id, outcome, getattr(finish, outcome)

    def count(self, which):
        return sum(1 for request in list(self.heard) if request.WhichOneof("message") == which)

    def _read(self, requests):
        try:
            for request in requests:
                self._follow(request)
                self.heard.append(request)
                self._in.put(request)
        except Exception:
            # How gRPC tells of a stream that broke.
            pass
        self.ended.set()
        self._out.put(None)

    def _follow(self, request):
        which = request.WhichOneof("message")
        if which == "finish":
            self._running.discard(request.finish.id.task_id)
        self._drained = self._drained or which == "drain"
        if self._drained and self.ends_by_itself and not self._running:
            self._out.put(None)

    def _work(self, requests):
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()
        while True:
            response = self._out.get()
            if response is None:
                return
            if isinstance(response, tuple):
                self._context.abort(*response)
            yield response


class Scripted(worker_pb2_grpc.WorkerServiceServicer):
    """A WorkerService that does as a test says, to each stream on its own."""

    def __init__(self, port=0):
        self._calls = queue.Queue()
        # Workers may ping as often as they like.
        options = [("grpc.http2.min_recv_ping_interval_without_data_ms", 10), ("grpc.http2.max_ping_strikes", 0)]
        self._server = grpc.server(futures.ThreadPoolExecutor(16), options=options)
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.url = f"http://127.0.0.1:{self.port}"

    def Work(self, requests, context):
        call = Call(context)
        self._calls.put(call)
        return call._work(requests)

    def call(self, within=WITHIN):
        """The next stream that a worker opens."""
        try:
            return self._calls.get(timeout=within)
        except queue.Empty:
            raise AssertionError("no worker has come") from None

    def welcomed(self, **options):
        """The next stream, after Hello and Welcome."""
        call = self.call()
        hello = call.next("hello")
        call.welcome(**options)
        return call, hello

    def stop(self):
        self._server.stop(0).wait()

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self.stop()


class Tasks(task_pb2_grpc.TaskServiceServicer):
    """A TaskService that answers as a test says."""

    def __init__(self):
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        task_pb2_grpc.add_TaskServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.url = f"http://127.0.0.1:{self.port}"
        self.answers = {}
        """What answers a method: a function of the request, or of the iterator of requests, and the context."""
        self.calls = []
        """The requests that have come, but for streams of them."""

    def _answer(self, method, request, context):
        if not hasattr(request, "__next__"):
            self.calls.append(request)
        return self.answers[method](request, context)

    def SubmitTask(self, request, context):
        return self._answer("SubmitTask", request, context)

    def GetTask(self, request, context):
        return self._answer("GetTask", request, context)

    def CancelTask(self, request, context):
        return self._answer("CancelTask", request, context)

    def SubmitTasks(self, requests, context):
        yield from self._answer("SubmitTasks", requests, context)

    def WatchTask(self, request, context):
        yield from self._answer("WatchTask", request, context)

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(0).wait()


def refuse(context, status, code, retry_after=None):
    """Ends a call as the server does: with a code, and when to come again."""
    details = [error_details_pb2.ErrorInfo(reason=code, domain="forebay")]
    if retry_after is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=_duration(retry_after)))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    context.set_trailing_metadata(((DETAILS, status_pb2.Status(details=packed).SerializeToString()),))
    context.abort(grpc.StatusCode[status], f"refused: {code}")


class Proxy:
    """Passes bytes on to a port, until it is told to fall silent: then what is connected stays so, and nothing more
    gets through. Those who connect afterwards are served."""

    def __init__(self, port):
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self._listener.getsockname()[1]
        self._silent = threading.Event()
        self._sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def fall_silent(self):
        self._silent.set()
        self._silent = threading.Event()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._upstream))
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, sink, self._silent), daemon=True).start()

    @staticmethod
    def _pass(source, sink, silent):
        try:
            while data := source.recv(65536):
                if silent.is_set():
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in (self._listener, *self._sockets):
            each.close()


class Running:
    """A worker that runs in a thread, until it is drained at the end of a test."""

    def __init__(self, worker):
        self.worker = worker
        self.error = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            self.worker.run()
        except BaseException as error:
            self.error = error

    def join(self, within=WITHIN):
        self._thread.join(within)
        assert not self._thread.is_alive(), "the worker has not ended"
        if self.error is not None:
            raise self.error

    @property
    def is_alive(self):
        return self._thread.is_alive()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        # Twice: at once.
        self.worker.drain()
        self.worker.drain()
        self._thread.join(WITHIN)
        assert not self._thread.is_alive(), "the worker has not ended"


def _duration(seconds):
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
