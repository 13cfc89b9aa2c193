"""Celery on RabbitMQ, outcomes in PostgreSQL: as its "Optimizing" page says, and safe (acks late, confirmed publishing)."""

import os
import threading
import time

from celery import Celery
from celery.backends.database.session import SessionManager

import common

app = Celery("celery_peer", broker=os.environ["BENCH_AMQP"])
app.conf.update(
    result_backend="db+" + common.DATABASE.replace("postgres://", "postgresql+psycopg2://"),
    broker_transport_options={"confirm_publish": True},
    broker_pool_limit=32,
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_ignore_result=False,
    worker_prefetch_multiplier=64,
    worker_hijack_root_logger=False,
    result_expires=None,
    task_serializer="json",
)


@app.task(name="noop")
def noop(number, customer, sent, filler):
    """Does nothing."""
    common.handle(sent)


def prepare():
    """Declares the queue and creates the tables."""
    sessions = SessionManager()
    engine = sessions.get_engine(app.backend.url)
    sessions.prepare_models(engine)
    with app.connection_for_write() as connection:
        app.amqp.queues["celery"](connection.default_channel).declare()


def single(ready, seconds, producers, most):
    """Producers as threads, each with one call at a time."""
    took = []
    connected = threading.Barrier(producers)
    warm, gate = threading.Barrier(producers + 1), threading.Barrier(producers + 1)

    def producer():
        # Each publishes one task over a connection of its own first, which takes up to a second and counts for nothing.
        with app.amqp.producer_pool.acquire(block=True) as opened:
            connected.wait()
            noop.apply_async(kwargs=common.payload(0), producer=opened)
            warm.wait()
        gate.wait()
        until, left = time.perf_counter() + seconds, most // producers
        while left > 0 and time.perf_counter() < until:
            sent = time.perf_counter()
            noop.apply_async(kwargs=common.payload(left))
            took.append(time.perf_counter() - sent)
            left -= 1

    threads = [threading.Thread(target=producer) for _ in range(producers)]
    for thread in threads:
        thread.start()
    warm.wait()
    ready()
    gate.wait()
    for thread in threads:
        thread.join()
    return took


def open_loop(rate, seconds, warm_up):
    """Every task at its appointed time; a call takes well under the 10 ms between two."""
    noop.apply_async(kwargs=common.payload(0))
    began = time.time() + 0.05
    total = rate * (seconds + warm_up)
    for number in range(total):
        due = began + number / rate
        time.sleep(max(0.0, due - time.time()))
        sent = 0 if number < rate * warm_up else common.counts_from(due)
        noop.apply_async(kwargs=common.payload(number, sent))
    return {"count": total + 1, "seconds": seconds}


def work():
    """Four children, as long as the harness lets them."""
    options = ["--loglevel=ERROR", "--pool=prefork", "--concurrency=4", "-O", "fair"]
    app.worker_main(["worker", *options, "--without-gossip", "--without-mingle", "--without-heartbeat"])


if __name__ == "__main__":
    common.main(prepare, single, None, open_loop, work)
