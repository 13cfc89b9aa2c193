#!/usr/bin/env python3
"""Writes one task for each file under a folder, as a line of JSON, ready for POST /v1/tasks/batch.

    ./make-tasks.py [FOLDER] > tasks.ndjson

FOLDER is /usr/share/doc unless said. Only regular files are taken; symbolic links are not followed.
"""

import json
import os
import subprocess
import sys


def files(folder):
    """The regular files under a folder, in order."""
    for place, folders, names in os.walk(os.fsencode(folder), onerror=complain):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def complain(error):
    print(f"skipped: {error}", file=sys.stderr)


def wc_takes_unprintable_for_words():
    """Whether this machine's wc counts a word that has no printable character. It depends on its version."""
    environment = dict(os.environ, LC_ALL="C")
    counted = subprocess.run(["wc", "-w"], input=b"\1", env=environment, stdout=subprocess.PIPE, check=True)
    return counted.stdout.strip() == b"1"


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else "/usr/share/doc"
    if not os.path.isdir(folder):
        sys.exit(f"{folder} is not a folder")
    extra = {"unprintable_words": True} if wc_takes_unprintable_for_words() else {}
    count = skipped = 0
    for path in files(os.path.abspath(folder)):
        try:
            text = path.decode("utf-8")
        except UnicodeDecodeError:
            print(f"skipped: {path!r} is not UTF-8, and a payload is JSON", file=sys.stderr)
            skipped += 1
            continue
        task = {"kind": "hash-file", "payload": {"path": text, **extra}, "tags": ["doc-hash"]}
        print(json.dumps(task))
        count += 1
    print(f"{count} tasks, {skipped} files skipped", file=sys.stderr)


if __name__ == "__main__":
    main()
