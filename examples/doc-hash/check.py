#!/usr/bin/env python3
"""Checks that every task of this example has run, once, and that its result is right.

    ./check.py TASKS RESULTS [--wait SECONDS]

TASKS is what make-tasks.py wrote, RESULTS what POST /v1/tasks/batch answered to it: a line for each task. FOREBAY_URL
says where Forebay is (http://127.0.0.1:8080 unless said). Waits until all tasks have ended, 600 seconds unless said.

Every file must have exactly one task, which has succeeded, and whose result is what `sha256sum` and
`LC_ALL=C wc -l -w` say of the file. Anything else is printed, and makes the exit code 1.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter

FINAL = {"succeeded", "failed", "cancelled", "expired"}
PAGE_SIZE = 200
FILES_AT_ONCE = 500
DIFFERENCES_SHOWN = 20


def arguments():
    parser = argparse.ArgumentParser(description="Checks the results of the doc-hash example.")
    parser.add_argument("tasks", help="what make-tasks.py wrote")
    parser.add_argument("results", help="what POST /v1/tasks/batch answered to it")
    parser.add_argument("--wait", type=float, default=600, metavar="SECONDS", help="for the tasks to end")
    return parser.parse_args()


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def all_tasks(url):
    """All tasks of this example that the server lists, page by page."""
    query = {"tag": "doc-hash", "page_size": PAGE_SIZE}
    while True:
        with urllib.request.urlopen(f"{url}/v1/tasks?{urllib.parse.urlencode(query)}", timeout=60) as answer:
            page = json.load(answer)
        yield from page["tasks"]
        if not page.get("next_page_token"):
            return
        query["page_token"] = page["next_page_token"]


def listed(url, ids, seconds):
    """What the server lists, once the tasks with these ids have ended or the time is over."""
    give_up_at = time.monotonic() + seconds
    while True:
        tasks = list(all_tasks(url))
        ended = {task["id"] for task in tasks if task["state"] in FINAL}
        if ids <= ended or time.monotonic() > give_up_at:
            return tasks
        print(f"{len(ids & ended)} of {len(ids)} tasks have ended", file=sys.stderr)
        time.sleep(1)


def of_this_run(tasks, ids):
    """The tasks of this run: those that are as new as the oldest that was submitted."""
    begin = min((task["created_at"] for task in tasks if task["id"] in ids), default="")
    return [task for task in tasks if task["created_at"] >= begin]


def run(program, paths):
    environment = dict(os.environ, LC_ALL="C")
    command = [*program, "--", *paths]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False).stdout


def expected(paths):
    """What sha256sum and wc say of files: path to (hash, lines, words)."""
    for start in range(0, len(paths), FILES_AT_ONCE):
        some = paths[start : start + FILES_AT_ONCE]
        hashes = {}
        for entry in run(["sha256sum", "--zero"], some).split(b"\0")[:-1]:
            digest, name = entry.split(b" ", 1)
            hashes[os.fsdecode(name[1:])] = digest.decode()
        for path, counts in zip(some, counted(some)):
            yield path, (hashes.get(path), *counts)


def counted(paths):
    """The lines and words of files as wc counts them, in order."""
    # A name with a line break would be two lines of wc's output; a file that is gone would be none.
    if any("\n" in path or not os.access(path, os.R_OK) for path in paths):
        return [alone(path) for path in paths]
    rows = run(["wc", "-l", "-w"], paths).splitlines()
    return [tuple(int(field) for field in row.split()[:2]) for row in rows[: len(paths)]]


def alone(path):
    """As wc counts a file that it is not told the name of."""
    try:
        with open(path, "rb") as file:
            output = subprocess.run(
                ["wc", "-l", "-w"],
                stdin=file,
                env=dict(os.environ, LC_ALL="C"),
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
    except OSError:
        return (None, None)
    return tuple(int(field) for field in output.split())


def size(path):
    return os.path.getsize(path) if os.path.exists(path) else None


def check_submission(submitted, results):
    """The ids of the accepted tasks; and what is wrong with the answers."""
    problems = [f"not accepted: line {r.get('index')}: {r['error']}" for r in results if r.get("error")]
    ids = {result["id"] for result in results if result.get("id")}
    if len(ids) != len(submitted):
        problems.append(f"{len(submitted)} tasks were submitted, and {len(ids)} different ids came back")
    return ids, problems


def check_tasks(submitted, ids, tasks):
    """The succeeded task of each file; and what is wrong with the others."""
    problems = [f"{task['id']} was never submitted, or twice" for task in tasks if task["id"] not in ids]
    known = {task["id"] for task in tasks}
    problems += [f"{id} was accepted, and is not listed" for id in sorted(ids - known)]
    succeeded = {}
    for task in tasks:
        path = task["payload"]["path"]
        if task["state"] != "succeeded":
            problems.append(f"{task['id']} is {task['state']}: {path}: {json.dumps(task['error'])}")
        elif path in succeeded:
            problems.append(f"{path} has two succeeded tasks: {task['id']} and {succeeded[path]['id']}")
        else:
            succeeded[path] = task
    for task in submitted:
        path = task["payload"]["path"]
        if path not in succeeded:
            problems.append(f"{path} has no succeeded task")
    return succeeded, problems


def check_results(succeeded):
    """What results differ from what other programs say."""
    problems = []
    for path, right in expected(sorted(succeeded)):
        result = succeeded[path]["result"] or {}
        ours = (result.get("sha256"), result.get("lines"), result.get("words"))
        if ours != right or result.get("path") != path or result.get("bytes") != size(path):
            problems.append(f"{path}: the task says {json.dumps(result)}, sha256sum and wc say {right}")
    return problems


def main():
    asked = arguments()
    url = os.environ.get("FOREBAY_URL", "http://127.0.0.1:8080").rstrip("/")
    submitted = lines(asked.tasks)
    ids, problems = check_submission(submitted, lines(asked.results))
    tasks = of_this_run(listed(url, ids, asked.wait), ids)
    succeeded, more = check_tasks(submitted, ids, tasks)
    problems += more + check_results(succeeded)

    states = Counter(task["state"] for task in tasks)
    print(f"submitted:  {len(submitted)} files, {len(ids)} accepted")
    print(f"ended:      {', '.join(f'{count} {state}' for state, count in sorted(states.items())) or 'none'}")
    print(f"attempts:   {sum(task['attempt'] for task in tasks)}")
    print(f"compared:   {len(succeeded)} results with sha256sum and wc, {len(problems)} problems")
    for problem in problems[:DIFFERENCES_SHOWN]:
        print(f"  {problem}")
    if len(problems) > DIFFERENCES_SHOWN:
        print(f"  and {len(problems) - DIFFERENCES_SHOWN} more")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
