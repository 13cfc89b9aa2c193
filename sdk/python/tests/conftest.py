"""Servers for the tests: the real one, and one that does as a test says."""

import contextlib
import os
import types

import pytest

import forebay
from support import Blocking, Scripted, Server, Tasks


@pytest.fixture(scope="session")
def server():
    """A `forebay dev`, shared by the tests, each of which uses a queue of its own; or a server that is there already."""
    there = os.environ.get("FOREBAY_TEST_GRPC_URL")
    if there:
        yield types.SimpleNamespace(url=there)
        return
    with Server() as server:
        yield server


@pytest.fixture
def own_server():
    """A `forebay dev` of one test, which may stop it."""
    if "FOREBAY_TEST_GRPC_URL" in os.environ:
        pytest.skip("the server is not ours to stop")
    with Server() as server:
        yield server


@pytest.fixture
def scripted():
    """A WorkerService that does as the test says."""
    with Scripted() as service:
        yield service


@pytest.fixture(params=[forebay.Client, Blocking], ids=["sync", "async"])
def connect(request):
    """Makes clients of both sorts, and closes them. A case is written once, for `Client`."""
    with contextlib.ExitStack() as stack:
        yield lambda url, **options: stack.enter_context(request.param(url, **options))


@pytest.fixture
def tasks():
    """A TaskService that does as the test says."""
    with Tasks() as service:
        yield service


@pytest.fixture
def queue(request):
    """A queue that no other test uses."""
    return request.node.name.replace("[", "-").replace("]", "").lower()[:60].strip("-_")
