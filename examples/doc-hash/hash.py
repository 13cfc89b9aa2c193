"""Hashes and counts one file: the task handler of this example.

Reads {"path": ...} from stdin, and writes {"path", "sha256", "bytes", "lines", "words"} to stdout. Lines and words
are what `LC_ALL=C wc -l -w` counts, for text and for any other bytes.

Exit codes: 65 where another attempt is no use (the payload is wrong, the file can't be read), which fails the task
for good; any other code but 0 makes Forebay try again.
"""

import json
import sys
from hashlib import sha256

DATA_ERROR = 65
CHUNK_BYTES = 1 << 20
WHITE_SPACE = b" \t\n\v\f\r"

# In the C locale these bytes are not printable. GNU wc up to 9.3, or thereabouts, does not see them: they neither
# make a word nor end one. Newer ones, and other systems, take all that is not white space for part of a word.
UNPRINTABLE = bytes(b for b in range(256) if not 0x20 <= b <= 0x7E and b not in WHITE_SPACE)


def measure(file, ignored):
    """Reads a file to its end, and returns its hash and its numbers of bytes, lines and words."""
    digest = sha256()
    size = lines = words = 0
    in_word = False
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        lines += chunk.count(b"\n")
        seen = chunk.translate(None, ignored)
        if seen:
            # A word that goes on from the chunk before has been counted.
            words += len(seen.split()) - (in_word and seen[0] not in WHITE_SPACE)
            in_word = seen[-1] not in WHITE_SPACE
    return digest.hexdigest(), size, lines, words


def main():
    try:
        payload = json.load(sys.stdin.buffer)
        path = payload["path"]
        ignored = b"" if payload.get("unprintable_words") else UNPRINTABLE
        with open(path, "rb") as file:
            digest, size, lines, words = measure(file, ignored)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        print(f"the payload must be {{\"path\": ...}}: {error!r}", file=sys.stderr)
        return DATA_ERROR
    except OSError as error:
        print(f"the file can't be read: {error}", file=sys.stderr)
        return DATA_ERROR
    json.dump({"path": path, "sha256": digest, "bytes": size, "lines": lines, "words": words}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
