"""The package as a whole: what is generated is up to date, what is installed works, what the README shows is true."""

import os
import re
import shutil
import subprocess
import sys

import forebay
from support import PACKAGE, ROOT, Program


def test_what_is_generated_is_up_to_date():
    done = subprocess.run([sys.executable, PACKAGE / "generate", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_version_is_that_of_the_server():
    manifest = (ROOT / "Cargo.toml").read_text()
    assert re.search(r'^version = "(.*)"', manifest, re.MULTILINE).group(1) == forebay.__version__


def test_it_can_be_installed(tmp_path):
    """What pip puts in place has all that is needed, types included."""
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__", "tests", "build", "*.egg-info"))
    # What it depends on is here already, and so is what builds it: nothing is fetched.
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation"]
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", target, source]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    installed = {str(path.relative_to(target)) for path in (target / "forebay").rglob("*.py*")}
    kept = {str(path.relative_to(PACKAGE / "src")) for path in (PACKAGE / "src" / "forebay").rglob("*.py*")}
    assert {name for name in installed if "__pycache__" not in name} == {name for name in kept if "__pycache__" not in name}
    environment = dict(os.environ, PYTHONPATH=str(target))
    check = "import forebay; print(forebay.__file__, forebay.Worker().add('a', print))"
    done = subprocess.run([sys.executable, "-c", check], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith(str(target)), done.stderr


def examples():
    """The programs of the README by name, each with what it says that it prints."""
    text = (PACKAGE / "README.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found = {}
    for language, block in blocks:
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", block).group(1)
            found[name] = (block, None)
        elif language == "text":
            found[name] = (found[name][0], block)
    return found


def test_what_the_readme_shows_is_true(server, tmp_path):
    programs = examples()
    assert set(programs) == {"worker.py", "submit.py", "many.py", "more.py"}
    for name, (program, _) in programs.items():
        (tmp_path / name).write_text(program)
    environment = {"FOREBAY_GRPC_URL": server.url}
    with Program(tmp_path / "worker.py", **environment) as worker:
        for name in ("submit.py", "many.py", "more.py"):
            with Program(tmp_path / name, **environment) as program:
                assert program.wait(120) == 0, program.lines
                assert "\n".join(program.lines) + "\n" == programs[name][1]
        assert worker.terminate() == 0, worker.lines


def checked(folder, *files):
    """What mypy says of a user's files, when it is as strict as it can be."""
    options = ["--strict", "--cache-dir", os.devnull, "--follow-imports", "silent"]
    environment = dict(os.environ, MYPYPATH=str(PACKAGE / "src"))
    command = [sys.executable, "-m", "mypy", *options, *files]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    # What is generated is not strict; where it is installed, no one looks.
    return [line for line in done.stdout.splitlines() if not re.match(r".*/forebay/v1/|Found ", line)]


def test_what_the_readme_shows_has_the_right_types(tmp_path):
    for name, (program, _) in examples().items():
        (tmp_path / name).write_text(program)
    assert checked(tmp_path, *examples()) == []


def test_its_types_are_right(tmp_path):
    """What a user writes is checked as it should be."""
    code = """
from forebay import AsyncClient, Client, Context, Task, TaskState, Worker

worker = Worker()

@worker.task("a", timeout=1.5)
def handler(payload: int, context: Context) -> int:
    return payload

reveal_type(handler(1, Context()))
client = Client()
reveal_type(client.wait(client.submit("a"), timeout=1).state)
for update in client.watch("id"):
    reveal_type(update.task)
Client(timeout="soon")
"""
    (tmp_path / "user.py").write_text(code)
    said = "\n".join(checked(tmp_path, "user.py"))
    revealed = [name.replace("builtins.", "") for name in re.findall(r'Revealed type is "(.*)"', said)]
    assert revealed == ["int", "forebay.task.TaskState", "forebay.task.Task | None"], said
    assert said.count("error:") == 1 and 'Argument "timeout" to "Client"' in said, said
