"""A worker of the queue that it is given, for tests that end its process."""

import os
import sys

import forebay

worker = forebay.Worker(queues=[sys.argv[1]], concurrency=4, drain_timeout=float(sys.argv[2]))


@worker.task("work")
def work(payload, context):
    """Takes as long as the payload says for this start; the last of them holds for all further ones."""
    # As one piece: what threads print piece by piece is mixed up.
    print(f"started {context.task_id}\n", end="", flush=True)
    seconds = payload["seconds"]
    context.sleep(seconds[min(context.fence, len(seconds)) - 1])
    return os.getpid()


if __name__ == "__main__":
    worker.run()
    print("ended", flush=True)
