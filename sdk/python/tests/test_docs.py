"""The calls of docs/grpc.md, one after the other: each is answered as the page says."""

import importlib
import json
import pkgutil
import re

import grpc
import pytest
from google.protobuf import json_format, message_factory

import forebay.v1
from support import ROOT, WITHIN, Server

PAGE = (ROOT / "docs" / "grpc.md").read_text()
REST = "…"
FILES = [importlib.import_module(f"forebay.v1.{each.name}") for each in pkgutil.iter_modules(forebay.v1.__path__)]
SERVICES = {
    service.full_name: service
    for file in FILES
    if hasattr(file, "DESCRIPTOR")
    for service in file.DESCRIPTOR.services_by_name.values()
}
EXACT = ("name", "kind", "queue", "state", "code", "field", "paused", "created", "reason")
"""Members whose values are shown as they are; of others only the type is."""


def examples():
    """Each call of the part on every call: the method, the messages that are sent, and those that come."""
    part = PAGE.split("\n## Every call\n")[1].split("\n## ")[0]
    for block in re.findall(r"^```console\n(.*?)^```$", part, re.MULTILINE | re.DOTALL):
        command, answers = re.fullmatch(r"\$ (grpcurl (?:[^\n]*\\\n)*[^\n]*)\n(.*)", block, re.DOTALL).groups()
        sent = re.search(r"-d '(.*?)'", command, re.DOTALL)
        name = re.search(r"127\.0\.0\.1:50051 ([\w.]+)/(\w+)$", command).groups()
        yield name, sent.group(1) if sent else "{}", list(values(answers))


def values(text):
    """The JSON values of a text, one after the other."""
    decoder, place = json.JSONDecoder(), 0
    while text[place:].strip():
        place += len(text[place:]) - len(text[place:].lstrip())
        value, place = decoder.raw_decode(text, place)
        yield value


def differences(shown, found, at=""):
    """What is shown and is not so."""
    if isinstance(shown, dict) and isinstance(found, dict):
        for name in shown.keys() - found.keys() - {REST}:
            yield f"{at}/{name} is not there"
        for name in found.keys() - shown.keys() if REST not in shown else ():
            yield f"{at}/{name} is not shown"
        for name in shown.keys() & found.keys():
            if name in EXACT and not isinstance(shown[name], dict) and shown[name] != found[name]:
                yield f"{at}/{name} is {found[name]!r}"
            yield from differences(shown[name], found[name], f"{at}/{name}")
    elif isinstance(shown, list) and isinstance(found, list):
        if len(found) < len(shown):
            yield f"{at} has {len(found)} items"
        for index, (one, other) in enumerate(zip(shown, found)):
            yield from differences(one, other, f"{at}/{index}")
    elif type(shown) is not type(found):
        yield f"{at} is {found!r}, which is no such thing as {shown!r}"


def call(channel, service, method, messages):
    """Calls a method, whatever its sort, and returns all that it answers."""
    descriptor = SERVICES[service].methods_by_name[method]
    request = message_factory.GetMessageClass(descriptor.input_type)
    answer = message_factory.GetMessageClass(descriptor.output_type)
    requests = [json_format.ParseDict(message, request()) for message in messages]
    sort = f"{'stream' if descriptor.client_streaming else 'unary'}_{'stream' if descriptor.server_streaming else 'unary'}"
    made = getattr(channel, sort)(
        f"/{service}/{method}", request_serializer=request.SerializeToString, response_deserializer=answer.FromString
    )
    answered = made(iter(requests) if descriptor.client_streaming else requests[0], timeout=WITHIN)
    return [json_format.MessageToDict(each) for each in (answered if descriptor.server_streaming else [answered])]


def test_every_call_of_the_page_is_answered_as_it_says():
    task = ""
    with Server() as server, grpc.insecure_channel(server.url.removeprefix("http://")) as channel:
        made = list(examples())
        assert {name for name, _, _ in made} >= {(name, method.name) for name, each in SERVICES.items() for method in each.methods}
        for (service, method), sent, shown in made:
            if method == "WatchTask":
                # The page shows the end.
                call(channel, service, method, [{"id": task}])
            found = call(channel, service, method, list(values(sent.replace('"TASK"', json.dumps(task)))))
            wrong = list(differences(shown, found))
            assert not wrong and len(found) == len(shown), (method, wrong, found)
            if method == "SubmitTask":
                task = found[0]["task"]["id"]


@pytest.mark.parametrize(
    "shown, found, wrong",
    [
        ({"a": 1}, {"a": 2}, []),
        ({"a": 1}, {"a": 2, "b": 3}, ["/b is not shown"]),
        ({"a": 1, REST: REST}, {"b": 3}, ["/a is not there"]),
        ({"state": "X"}, {"state": "Y"}, ["/state is 'Y'"]),
        ([{"a": "1"}], [], [" has 0 items"]),
        ({"a": "1"}, {"a": 1}, ["/a is 1, which is no such thing as '1'"]),
    ],
)
def test_the_check_sees_what_is_different(shown, found, wrong):
    assert list(differences(shown, found)) == wrong
