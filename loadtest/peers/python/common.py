"""What both Python adapters share: the payload, the producers, and the notes of the latency run.

The protocol is in ../README.md. Producers are two processes, since one has a single lock.
"""

import json
import multiprocessing
import os
import sys
import time

DATABASE = os.environ["BENCH_DATABASE"]
WAITS = os.environ.get("BENCH_WAITS", "")
FILLER = "x" * 200
PROCESSES = 2


def payload(number, sent=0):
    """About 256 bytes of JSON. `sent` is the microsecond in which the task was due, 0 where nobody asks."""
    return {"number": number, "customer": "4711", "sent": sent, "filler": FILLER}


def handle(sent):
    """The task itself: nothing, except that the latency run wants to know how long it waited."""
    if sent > 0:
        with open(f"{WAITS}.{os.getpid()}", "a") as notes:
            notes.write(f"{time.time_ns() // 1000 - sent}\n")


def counts_from(due):
    """From when a wait counts, in microseconds: being up to 2 ms late is the timer's fault, and nobody's wait."""
    now = time.time()
    return int((now if now - due < 0.002 else due) * 1e6)


def in_processes(produce, *arguments):
    """Runs `produce(ready, *arguments)`, which returns a list of seconds, in each process; all begin together."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(PROCESSES + 1), context.SimpleQueue()

    def child():
        answers.put(produce(barrier.wait, *arguments))

    children = [context.Process(target=child) for _ in range(PROCESSES)]
    for process in children:
        process.start()
    barrier.wait(timeout=60)
    began = time.perf_counter()
    took = sorted(second for _ in children for second in answers.get())
    seconds = time.perf_counter() - began
    for process in children:
        process.join()
    answer = {"count": len(took), "seconds": seconds}
    if took:
        answer["p50_ms"] = took[len(took) // 2] * 1e3
        answer["p99_ms"] = took[min(len(took) - 1, int(len(took) * 0.99))] * 1e3
    return answer


def main(prepare, single, bulk, open_loop, work):
    """Runs the command that the harness asks for."""
    command, numbers = sys.argv[1], [int(argument) for argument in sys.argv[2:]]
    if command == "prepare":
        prepare()
    elif command == "work":
        work()
    else:
        if command == "single":
            seconds, producers, most = numbers
            answer = in_processes(single, seconds, producers // PROCESSES, most // PROCESSES)
        elif command == "bulk":
            seconds, chunk, most = numbers
            began = time.perf_counter()
            count, seconds = bulk(seconds, chunk, most)
            answer = {"count": count, "seconds": seconds}
        else:
            answer = open_loop(*numbers)
        print(json.dumps(answer), flush=True)
