"""Procrastinate: async, two worker processes with 20 tasks at a time each, LISTEN/NOTIFY on."""

import asyncio
import multiprocessing
import time

import procrastinate

import common

CONCURRENCY = 20


def application(connections):
    """The app with the one task."""
    connector = procrastinate.PsycopgConnector(
        conninfo=common.DATABASE, min_size=8, max_size=connections
    )
    app = procrastinate.App(connector=connector)

    @app.task(name="noop", queue="noop")
    async def noop(number, customer, sent, filler):
        common.handle(sent)

    return app, noop


def prepare():
    """Creates the schema."""
    async def run():
        app, _ = application(8)
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    asyncio.run(run())


def single(ready, seconds, producers, most):
    """Producers as coroutines, each with one call at a time."""
    took = []

    async def run():
        app, noop = application(producers)
        async with app.open_async():
            await app.check_connection_async()
            await asyncio.get_running_loop().run_in_executor(None, ready)
            until = time.perf_counter() + seconds

            async def producer():
                left = most // producers
                while left > 0 and time.perf_counter() < until:
                    sent = time.perf_counter()
                    await noop.defer_async(**common.payload(left))
                    took.append(time.perf_counter() - sent)
                    left -= 1

            await asyncio.gather(*(producer() for _ in range(producers)))

    asyncio.run(run())
    return took


def bulk(seconds, chunk, most):
    """Calls of many tasks, one after the other."""
    async def run():
        app, noop = application(8)
        async with app.open_async():
            await app.check_connection_async()
            began, count = time.perf_counter(), 0
            while count < most and time.perf_counter() < began + seconds:
                tasks = [common.payload(count + index) for index in range(min(chunk, most - count))]
                await noop.batch_defer_async(*tasks)
                count += len(tasks)
            return count, time.perf_counter() - began

    return asyncio.run(run())


def open_loop(rate, seconds, warm_up):
    """Every task at its appointed time, whatever became of those before."""
    async def run():
        app, noop = application(8)
        async with app.open_async():
            await app.check_connection_async()
            began, sending = time.time() + 0.05, []
            for number in range(rate * (seconds + warm_up)):
                due = began + number / rate
                await asyncio.sleep(max(0.0, due - time.time()))
                sent = 0 if number < rate * warm_up else common.counts_from(due)
                sending.append(asyncio.create_task(noop.defer_async(**common.payload(number, sent))))
            await asyncio.gather(*sending)
            return {"count": len(sending), "seconds": seconds}

    return asyncio.run(run())


def one_worker():
    """Runs until it is killed."""
    async def run():
        app, _ = application(CONCURRENCY + 4)
        async with app.open_async():
            await app.run_worker_async(queues=["noop"], concurrency=CONCURRENCY)

    asyncio.run(run())


def work():
    """Two of them, as long as the harness lets them."""
    workers = [multiprocessing.get_context("fork").Process(target=one_worker) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    common.main(prepare, single, bulk, open_loop, work)
