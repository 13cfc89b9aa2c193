#!/usr/bin/env python3
"""Generates dashboards/*.json for Grafana: four boards, made of rows of panels. Run it after a change here.

monitoring/tests/run holds the kept files equal to what this generates, and every metric that is named here to what a
running Forebay exposes. Queue gauges are the same on every replica, so they are taken by max, never by sum.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).resolve().parent / "dashboards"
COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
NAMESPACE = 'namespace=~"$namespace"'
OURS = f"and on (job, instance) forebay_build_info{{{NAMESPACE}}}"
QUEUE = f'{NAMESPACE}, queue=~"$queue"'
BY_QUEUE = "max by (namespace, queue)"
OF_HTTP = f'{NAMESPACE}, route!~"/health/.*"'
PODS = f'{NAMESPACE}, container="forebay"'

TITLES = {
    "forebay-overview": "Forebay / Overview and SLO",
    "forebay-queues": "Forebay / Queues and scaling",
    "forebay-workers": "Forebay / Workers",
    "forebay-dependencies": "Forebay / Dependencies and processes",
}


@dataclass(frozen=True)
class Query:
    """An expression, and what its line is called."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    title: str
    description: str
    unit: str
    queries: list[Query]
    kind: Literal["timeseries", "stat"] = "timeseries"
    stacked: bool = False
    # From which value on it is amber, and from which red.
    limits: tuple[float, float] | None = None
    # Whether what is low is bad.
    low_is_bad: bool = False
    highest: float | None = None
    # How many digits are shown after the point; as many as Grafana likes, unless set.
    decimals: int | None = None
    # Names for values, as of states.
    names: dict[int, str] = field(default_factory=dict)


def single(title: str, description: str, unit: str, expr: str, legend: str, **more: Any) -> Panel:
    """A panel of one query."""
    return Panel(title, description, unit, [Query(expr, legend)], **more)


def by_queue(title: str, description: str, unit: str, metric: str, **more: Any) -> Panel:
    """A panel with a gauge of each queue."""
    return single(title, description, unit, of_queue(metric), "{{namespace}} {{queue}}", **more)


@dataclass(frozen=True)
class Row:
    title: str
    panels: list[Panel]
    height: int = 8


def steps(panel: Panel) -> list[dict]:
    if panel.limits is None:
        return [{"color": "green", "value": None}]
    first, second = panel.limits
    colours = ("red", "orange", "green") if panel.low_is_bad else ("green", "orange", "red")
    return [{"color": colour, "value": value} for colour, value in zip(colours, (None, first, second), strict=True)]


def defaults(panel: Panel) -> dict:
    made: dict = {
        "unit": panel.unit,
        "min": 0,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps(panel)},
        "mappings": [],
    }
    if panel.highest is not None:
        made["max"] = panel.highest
    if panel.decimals is not None:
        made["decimals"] = panel.decimals
    if panel.names:
        options = {str(value): {"text": name, "index": value} for value, name in panel.names.items()}
        made["mappings"] = [{"type": "value", "options": options}]
    if panel.kind == "timeseries":
        made["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "off" if panel.limits is None else "line"},
        }
    return made


def options(panel: Panel) -> dict:
    if panel.kind == "stat":
        return {
            "colorMode": "value",
            "graphMode": "area",
            "textMode": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
    return {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def panel_json(panel: Panel, number: int, x: int, y: int, width: int, height: int) -> dict:
    targets = [
        {"refId": chr(ord("A") + at), "datasource": DATASOURCE, "expr": query.expr, "legendFormat": query.legend}
        for at, query in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "fieldConfig": {"defaults": defaults(panel), "overrides": []},
        "options": options(panel),
        "targets": targets,
    }


def layout(rows: list[Row]) -> list[dict]:
    made: list[dict] = []
    y = 0
    for row in rows:
        head = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        made.append({"id": len(made) + 1, "type": "row", "title": row.title, "gridPos": head, "collapsed": False, "panels": []})
        y += 1
        width = COLUMNS // len(row.panels)
        for at, panel in enumerate(row.panels):
            made.append(panel_json(panel, len(made) + 1, at * width, y, width, row.height))
        y += row.height
    return made


def query_variable(name: str, label: str, metric: str) -> dict:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": f"label_values({metric}, {name})", "refId": name},
        "definition": f"label_values({metric}, {name})",
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        # Where there is no such label, as outside of Kubernetes, its value is empty, which this matches.
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def board(uid: str, rows: list[Row]) -> dict:
    datasource = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}}
    variables = [
        datasource,
        query_variable("namespace", "Namespace", "forebay_build_info"),
        query_variable("queue", "Queue", f"forebay_queue_ready{{{NAMESPACE}}}"),
    ]
    links = [
        {"title": title.removeprefix("Forebay / "), "type": "link", "url": f"/d/{other}", "keepTime": True, "includeVars": True}
        for other, title in TITLES.items()
        if other != uid
    ]
    return {
        "uid": uid,
        "title": TITLES[uid],
        "tags": ["forebay"],
        "editable": False,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "templating": {"list": variables},
        "annotations": {"list": []},
        "links": links,
        "panels": layout(rows),
    }


def rate(metric: str, matchers: str = NAMESPACE) -> str:
    return f"rate({metric}{{{matchers}}}[$__rate_interval])"


def quantile(q: float, metric: str, by: str = "", matchers: str = NAMESPACE) -> str:
    return f"histogram_quantile({q}, sum by ({by}le) ({rate(f'{metric}_bucket', matchers)}))"


def quantiles(metric: str, *percents: int, matchers: str = NAMESPACE) -> list[Query]:
    return [Query(quantile(percent / 100, metric, matchers=matchers), f"P{percent}") for percent in percents]


def of_queue(metric: str) -> str:
    return f"{BY_QUEUE} ({metric}{{{QUEUE}}})"


def overview() -> list[Row]:
    refused = "avg_over_time(forebay:submissions_failed:rate5m{%s}[%s])"
    accepted_share = f"1 - sum({refused % (NAMESPACE, '30d')}) / sum(avg_over_time(forebay:submissions:rate5m{{{NAMESPACE}}}[30d]))"
    return [
        Row(
            "Objectives",
            [
                single(
                    "Submissions accepted, 30 days",
                    "The share of the submissions of 30 days that were not refused through our doing. The objective is 99.9 %.",
                    "percentunit",
                    accepted_share,
                    "accepted",
                    kind="stat",
                    limits=(0.999, 0.9995),
                    low_is_bad=True,
                    highest=1,
                    decimals=3,
                ),
                single(
                    "Error budget left",
                    "How much of the 0.1 % that may be refused within 30 days is left. Below 0 the objective is missed.",
                    "percentunit",
                    f"1 - (1 - ({accepted_share})) / 0.001",
                    "left",
                    kind="stat",
                    limits=(0, 0.25),
                    low_is_bad=True,
                ),
                single(
                    "Requests that fail",
                    "HTTP 5xx and 429, and their like over gRPC, of all requests of the last 5 minutes. It alerts above 1 %, if they are more than 5.",
                    "percentunit",
                    f"sum(forebay:requests_failed:rate5m{{{NAMESPACE}}}) / sum(forebay:requests:rate5m{{{NAMESPACE}}})",
                    "failed",
                    kind="stat",
                    limits=(0.001, 0.01),
                    decimals=3,
                ),
                single(
                    "P95 of requests",
                    "Without streams and submissions that wait for their result. It alerts above 500 ms.",
                    "s",
                    f"max(forebay:request_duration_seconds:p95_5m{{{NAMESPACE}}})",
                    "P95",
                    kind="stat",
                    limits=(0.25, 0.5),
                ),
                single(
                    "Tasks that fail for good, 1 hour",
                    "Dead letters as a share of the tasks that ended within an hour. It alerts above 0.1 %.",
                    "percentunit",
                    (
                        f"sum(avg_over_time(forebay:dead_letters:rate5m{{{QUEUE}}}[1h]))"
                        f" / sum(avg_over_time(forebay:tasks_ended:rate5m{{{QUEUE}}}[1h]))"
                    ),
                    "failed",
                    kind="stat",
                    limits=(0.0005, 0.001),
                    decimals=3,
                ),
                single(
                    "Oldest ready task",
                    "How long the task that has waited longest has been ready. It alerts above 5 minutes.",
                    "s",
                    f"max(forebay_queue_oldest_ready_age_seconds{{{QUEUE}}})",
                    "oldest",
                    kind="stat",
                    limits=(60, 300),
                ),
            ],
            height=5,
        ),
        Row(
            "Tasks",
            [
                Panel(
                    "Tasks a second",
                    "Accepted, succeeded, and failed for good. Accepted above succeeded for long means that the backlog grows.",
                    "ops",
                    [
                        Query(f"sum({rate('forebay_tasks_submitted_total', QUEUE)})", "accepted"),
                        Query(
                            f"sum({rate('forebay_tasks_finished_total', QUEUE + ', outcome=' + chr(34) + 'succeeded' + chr(34))})",
                            "succeeded",
                        ),
                        Query(f"sum({rate('forebay_dead_letters_total', QUEUE)})", "failed for good"),
                    ],
                ),
                Panel(
                    "Waiting and running",
                    "Of the queues that are chosen, at this moment.",
                    "short",
                    [
                        Query(of_queue("forebay_queue_ready"), "ready {{namespace}} {{queue}}"),
                        Query(of_queue("forebay_queue_running"), "running {{namespace}} {{queue}}"),
                    ],
                ),
                Panel(
                    "From ready to started",
                    "How long tasks wait before a worker starts them.",
                    "s",
                    quantiles("forebay_task_wait_seconds", 50, 95, 99, matchers=QUEUE),
                ),
            ],
        ),
        Row(
            "Requests",
            [
                single(
                    "HTTP requests a second",
                    "By status, without questions for health. 5xx and 429 count as failed; other 4xx are the caller's doing.",
                    "reqps",
                    f"sum by (status) ({rate('http_server_request_duration_seconds_count', OF_HTTP)} {OURS})",
                    "{{status}}",
                    stacked=True,
                ),
                single(
                    "gRPC calls a second",
                    "By numeric code: 0 is OK, 8 RESOURCE_EXHAUSTED, 14 UNAVAILABLE.",
                    "reqps",
                    f"sum by (code) ({rate('rpc_server_call_duration_seconds_count')} {OURS})",
                    "{{code}}",
                    stacked=True,
                ),
                single(
                    "P95 of HTTP requests",
                    "By route, without questions for health. A submission that asked to wait for its result (POST /v1/tasks) lasts as long as its task.",
                    "s",
                    (
                        "histogram_quantile(0.95, sum by (method, route, le) "
                        f"({rate('http_server_request_duration_seconds_bucket', OF_HTTP)} {OURS}))"
                    ),
                    "{{method}} {{route}}",
                    limits=(0.25, 0.5),
                ),
            ],
        ),
        Row(
            "Burn rate of the error budget of submissions",
            [
                Panel(
                    "Pages",
                    "How many times faster than allowed: at 14.4 over 1 h and 5 m, or 6 over 6 h and 30 m, somebody is paged.",
                    "none",
                    [
                        Query(f"forebay:submissions_failed:ratio_rate{window}{{{NAMESPACE}}} / 0.001", f"{window} {{{{namespace}}}}")
                        for window in ("5m", "1h", "30m", "6h")
                    ],
                    limits=(6, 14.4),
                ),
                Panel(
                    "Tickets",
                    "How many times faster than allowed: at 3 over 24 h and 2 h, or 1 over 3 d and 6 h, a ticket is made.",
                    "none",
                    [
                        Query(f"forebay:submissions_failed:ratio_rate{window}{{{NAMESPACE}}} / 0.001", f"{window} {{{{namespace}}}}")
                        for window in ("2h", "1d", "6h", "3d")
                    ],
                    limits=(1, 3),
                ),
            ],
        ),
    ]


def queues() -> list[Row]:
    return [
        Row(
            "Backlog",
            [
                by_queue("Ready", "Tasks that wait in the broker for a worker, and that nothing holds back.", "short", "forebay_queue_ready"),
                by_queue("Running", "Tasks that workers have claimed.", "short", "forebay_queue_running"),
                Panel(
                    "Held and scheduled",
                    "Held: kept back by a pause, which more workers would not change. Scheduled: waiting for a time, or for the next attempt.",
                    "short",
                    [
                        Query(of_queue("forebay_queue_gated"), "held {{namespace}} {{queue}}"),
                        Query(of_queue("forebay_queue_scheduled"), "scheduled {{namespace}} {{queue}}"),
                    ],
                ),
            ],
        ),
        Row(
            "Waiting",
            [
                by_queue(
                    "Oldest ready task",
                    "How long the task that has waited longest has been ready. It alerts above 5 minutes.",
                    "s",
                    "forebay_queue_oldest_ready_age_seconds",
                    limits=(60, 300),
                ),
                single(
                    "From ready to started, P95",
                    "How long tasks wait before a worker starts them.",
                    "s",
                    quantile(0.95, "forebay_task_wait_seconds", "namespace, queue, ", QUEUE),
                    "{{namespace}} {{queue}}",
                ),
                Panel(
                    "Accepted and finished",
                    "Tasks accepted, and attempts that ended, a second. A task has several attempts where it is tried again.",
                    "ops",
                    [
                        Query(f"sum by (namespace, queue) ({rate('forebay_tasks_submitted_total', QUEUE)})", "accepted {{namespace}} {{queue}}"),
                        Query(f"sum by (namespace, queue) ({rate('forebay_tasks_finished_total', QUEUE)})", "finished {{namespace}} {{queue}}"),
                    ],
                ),
            ],
        ),
        Row(
            "Scaling",
            [
                by_queue(
                    "Workers wanted",
                    "How many worker processes the rate of arrival, the measured time of service and the slots call for.",
                    "short",
                    "forebay_queue_desired_workers",
                ),
                Panel(
                    "Replicas, and the most there may be",
                    "From kube-state-metrics, of the HPAs that KEDA makes for the pools; pools of Jobs have none. Empty outside of Kubernetes.",
                    "short",
                    [
                        Query(
                            "max by (namespace, horizontalpodautoscaler) (kube_horizontalpodautoscaler_status_current_replicas"
                            f'{{{NAMESPACE}, horizontalpodautoscaler=~".*forebay.*-worker-.*"}})',
                            "{{namespace}} {{horizontalpodautoscaler}}",
                        ),
                        Query(
                            "max by (namespace, horizontalpodautoscaler) (kube_horizontalpodautoscaler_spec_max_replicas"
                            f'{{{NAMESPACE}, horizontalpodautoscaler=~".*forebay.*-worker-.*"}})',
                            "at most {{namespace}} {{horizontalpodautoscaler}}",
                        ),
                    ],
                ),
                Panel(
                    "Slots",
                    "How many tasks all workers could run at once, and how many they do run.",
                    "short",
                    [
                        Query(f'sum(forebay_worker_slots{{{NAMESPACE}, state="busy"}})', "busy"),
                        Query(f'sum(forebay_worker_slots{{{NAMESPACE}, state="free"}})', "free"),
                    ],
                    stacked=True,
                ),
            ],
        ),
        Row(
            "The scaler",
            [
                single(
                    "Calls of KEDA a second",
                    "By method and code. After three in a row that are not ok, KEDA takes a pool's fallback. None at all: it does not reach it.",
                    "reqps",
                    f"sum by (method, code) ({rate('forebay_scaler_requests_total')})",
                    "{{method}} {{code}}",
                ),
                single(
                    "Open streams",
                    "Over which KEDA is told at once that a pool at zero is needed: one for each ScaledObject of kind external-push.",
                    "short",
                    f"sum(forebay_scaler_streams{{{NAMESPACE}}})",
                    "streams",
                ),
                single(
                    "Age of the figures",
                    "How old the newest figures of the queues are. Above a minute nobody knows what waits, and it alerts.",
                    "s",
                    f"time() - max by (namespace) (forebay_queue_stats_timestamp_seconds{{{NAMESPACE}}})",
                    "{{namespace}}",
                    limits=(5, 60),
                ),
            ],
        ),
        Row(
            "KEDA",
            [
                single(
                    "Errors of KEDA",
                    "Within 10 minutes, from KEDA's operator, by ScaledObject. It alerts above 5. Empty where KEDA is not scraped.",
                    "short",
                    (
                        "sum by (namespace, scaledObject) "
                        '(increase(keda_scaled_object_errors_total{scaledObject=~".*forebay.*"}[10m]))'
                    ),
                    "{{namespace}} {{scaledObject}}",
                    limits=(1, 5),
                ),
                single(
                    "Errors of KEDA, by trigger",
                    "Within 10 minutes: which source of a ScaledObject or ScaledJob it is.",
                    "short",
                    (
                        "sum by (namespace, scaledObject, scaler) "
                        '(increase(keda_scaler_detail_errors_total{scaledObject=~".*forebay.*"}[10m]))'
                    ),
                    "{{namespace}} {{scaledObject}} {{scaler}}",
                ),
                single(
                    "Pools that KEDA holds for active",
                    "1 where a source says that there is something to do, by ScaledObject. An inactive pool goes to its least.",
                    "short",
                    'max by (namespace, scaledObject) (keda_scaler_active{scaledObject=~".*forebay.*"})',
                    "{{namespace}} {{scaledObject}}",
                    highest=1,
                ),
            ],
        ),
    ]


def workers() -> list[Row]:
    return [
        Row(
            "Slots",
            [
                single(
                    "Busy slots",
                    "The share of the slots of each worker that run a task.",
                    "percentunit",
                    (
                        f'sum by (instance) (forebay_worker_slots{{{NAMESPACE}, state="busy"}})'
                        f" / sum by (instance) (forebay_worker_slots{{{NAMESPACE}}})"
                    ),
                    "{{instance}}",
                    highest=1,
                ),
                single(
                    "Attempts a second",
                    "By outcome. interrupted, lost and snoozed cost a task no attempt; failed and timed_out are tried again while attempts are left.",
                    "ops",
                    f"sum by (outcome) ({rate('forebay_tasks_finished_total', QUEUE)})",
                    "{{outcome}}",
                    stacked=True,
                ),
                single(
                    "Tasks that fail for good",
                    "Dead letters a second, by queue and kind. They are kept, and `forebay retry` brings them back.",
                    "ops",
                    f"sum by (namespace, queue, kind) ({rate('forebay_dead_letters_total', QUEUE)})",
                    "{{namespace}} {{queue}} {{kind}}",
                ),
            ],
        ),
        Row(
            "Attempts",
            [
                single(
                    "How long attempts run, P95",
                    "By kind, whatever their outcome.",
                    "s",
                    quantile(0.95, "forebay_task_duration_seconds", "kind, ", QUEUE),
                    "{{kind}}",
                ),
                single(
                    "How long attempts run, mean",
                    "By kind: what desired_workers is made of.",
                    "s",
                    (
                        f"sum by (kind) ({rate('forebay_task_duration_seconds_sum', QUEUE)})"
                        f" / sum by (kind) ({rate('forebay_task_duration_seconds_count', QUEUE)})"
                    ),
                    "{{kind}}",
                ),
                single(
                    "Refused outcomes",
                    "Outcomes a second that came from a worker that had been taken for dead; its tasks ran again elsewhere.",
                    "ops",
                    f"sum by (instance) ({rate('forebay_fenced_writes_total')})",
                    "{{instance}}",
                ),
            ],
        ),
        Row(
            "The recorders",
            [
                Panel(
                    "Accepted and recorded",
                    "Tasks a second. Accepted above recorded means that the recorders do not keep up.",
                    "ops",
                    [
                        Query(f"sum({rate('forebay_tasks_submitted_total')})", "accepted"),
                        Query(f"sum({rate('forebay_record_lag_seconds_count')})", "recorded"),
                    ],
                ),
                Panel(
                    "From accepted to recorded",
                    "Until a task has its row. It alerts above 5 s.",
                    "s",
                    quantiles("forebay_record_lag_seconds", 50, 95),
                    limits=(1, 5),
                ),
                single(
                    "Messages set aside",
                    "Within an hour, because nobody could decode them. `forebay rejects` shows them.",
                    "short",
                    f"sum(increase(forebay_undecodable_messages_total{{{NAMESPACE}}}[1h]))",
                    "set aside",
                    limits=(1, 10),
                ),
            ],
        ),
    ]


def dependencies() -> list[Row]:
    states = {0: "closed", 1: "half-open", 2: "open"}
    return [
        Row(
            "Circuits",
            [
                single(
                    "PostgreSQL" if dependency == "store" else "Broker",
                    "Of each process: closed where the dependency answers, open where it does not, half-open while it is probed.",
                    "none",
                    f'max by (instance) (forebay_circuit_state{{{NAMESPACE}, dependency="{dependency}"}})',
                    "{{instance}}",
                    highest=2,
                    names=states,
                )
                for dependency in ("store", "broker")
            ],
        ),
        Row(
            "PostgreSQL",
            [
                single(
                    "How long batches take, P95",
                    "By operation: record, claim, complete, dispatch.",
                    "s",
                    quantile(0.95, "forebay_persist_duration_seconds", "operation, "),
                    "{{operation}}",
                ),
                single(
                    "Batches a second",
                    "By operation. A batch is one statement for many tasks.",
                    "ops",
                    f"sum by (operation) ({rate('forebay_persist_duration_seconds_count')})",
                    "{{operation}}",
                ),
            ],
        ),
        Row(
            "Broker",
            [
                Panel(
                    "How long publishing takes",
                    "From handing a batch to the broker to its confirmation: what a submission waits for.",
                    "s",
                    quantiles("forebay_publish_duration_seconds", 50, 95),
                ),
                single(
                    "Messages a batch",
                    "How many messages are published together, on average.",
                    "short",
                    f"sum({rate('forebay_publish_batch_size_sum')}) / sum({rate('forebay_publish_batch_size_count')})",
                    "messages",
                ),
            ],
        ),
        Row(
            "Processes",
            [
                single(
                    "CPU",
                    "Cores in use by each process of Forebay, without the programs that its handlers start.",
                    "none",
                    f"{rate('process_cpu_seconds_total')} {OURS}",
                    "{{instance}}",
                ),
                single(
                    "Memory",
                    "Resident memory of each process of Forebay, without the programs that its handlers start.",
                    "bytes",
                    f"process_resident_memory_bytes{{{NAMESPACE}}} {OURS}",
                    "{{instance}}",
                ),
                single(
                    "Open files and sockets",
                    "Of each process of Forebay. Clients that stay connected count.",
                    "short",
                    f"process_open_fds{{{NAMESPACE}}} {OURS}",
                    "{{instance}}",
                ),
                single(
                    "Versions",
                    "How many processes run which version.",
                    "short",
                    f"count by (version) (forebay_build_info{{{NAMESPACE}}})",
                    "{{version}}",
                    stacked=True,
                ),
            ],
        ),
        Row(
            "Pods, with the programs of their handlers",
            [
                single(
                    "Restarts",
                    "Of each pod within an hour, from kube-state-metrics. It alerts above 5.",
                    "short",
                    f"sum by (namespace, pod) (increase(kube_pod_container_status_restarts_total{{{PODS}}}[1h]))",
                    "{{namespace}} {{pod}}",
                    limits=(1, 5),
                ),
                single(
                    "Memory of the limit",
                    "The working set of each pod. It alerts above 90 %; at 100 % the pod is killed.",
                    "percentunit",
                    (
                        f"max by (namespace, pod) (container_memory_working_set_bytes{{{PODS}}})"
                        f' / max by (namespace, pod) (kube_pod_container_resource_limits{{{PODS}, resource="memory"}})'
                    ),
                    "{{namespace}} {{pod}}",
                    limits=(0.8, 0.9),
                ),
                single(
                    "CPU of the limit",
                    "Of each pod that has a limit. It alerts above 85 %: of the limit, or of all that the node has, where there is none.",
                    "percentunit",
                    (
                        f"sum by (namespace, pod) ({rate('container_cpu_usage_seconds_total', PODS)})"
                        f' / max by (namespace, pod) (kube_pod_container_resource_limits{{{PODS}, resource="cpu"}})'
                    ),
                    "{{namespace}} {{pod}}",
                    limits=(0.7, 0.85),
                ),
                single(
                    "CPU, cores",
                    "Of each pod, whether it has a limit or not.",
                    "none",
                    f"sum by (namespace, pod) ({rate('container_cpu_usage_seconds_total', PODS)})",
                    "{{namespace}} {{pod}}",
                ),
            ],
        ),
    ]


def boards() -> list[dict]:
    made = {
        "forebay-overview": overview(),
        "forebay-queues": queues(),
        "forebay-workers": workers(),
        "forebay-dependencies": dependencies(),
    }
    return [board(uid, rows) for uid, rows in made.items()]


def without_variables(expression: str) -> str:
    """The expression as Prometheus would get it, for tests."""
    expression = expression.replace("$__rate_interval", "5m")
    return re.sub(r"\$(namespace|queue)", ".*", expression)


def text(made: dict) -> str:
    return json.dumps(made, indent=2) + "\n"


def write() -> None:
    FOLDER.mkdir(exist_ok=True)
    for made in boards():
        (FOLDER / f"{made['uid']}.json").write_text(text(made))


if __name__ == "__main__":
    write()
