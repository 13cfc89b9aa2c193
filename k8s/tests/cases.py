"""Sets of values: what the chart is rendered with, and what it must refuse."""

LONG = "a-release-with-the-longest-name-that-helm-lets-it-be1"
SECRET = {"connections": {"existingSecret": "urls"}}
NATS = {"monitoringEndpoint": "nats-headless.nats:8222"}
TOML = '[[handler]]\nkind = "invoice.created"\nhttp = { url = "https://billing.internal/hooks", secret_env = "BILLING_SECRET" }\n'


def scaled(source, **more):
    pools = [{"name": "mails", "queues": ["mails", "news-letters"], "scaling": {"min": 1, "max": 5}}]
    return {**SECRET, "pools": pools, "keda": {"enabled": True, "source": source, **more}}


# name: (values, name of the release, what is said to be there already, upgrade)
CASES = {
    "plain": (SECRET, "forebay", ["urls"], False),
    "upgrade": (SECRET, "forebay", ["urls"], True),
    "another-name": ({**SECRET, "fullnameOverride": "tasks", "nameOverride": "queue", "commonLabels": {"team": "a"}}, "x", ["urls"], False),
    "pools": (
        {
            **SECRET,
            "pools": [
                {"name": "a", "handlers": TOML, "extraEnv": [{"name": "BILLING_SECRET", "value": "x"}], "podDeletionCost": True},
                {"name": "b-with-a-long-name20", "queues": ["b", "c"], "handlersConfigMap": "ours", "image": {"repository": "r.example/b", "tag": "1"}},
                {"name": "c", "builtinHandlers": True, "podDeletionCost": True, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
            ],
            "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": ["registry"]},
        },
        "forebay",
        ["urls", "ours"],
        False,
    ),
    "no-pool": ({**SECRET, "pools": []}, "forebay", ["urls"], False),
    "edge": (
        {
            **SECRET,
            "api": {
                "ingress": {"enabled": True, "className": "alb", "tls": [{"secretName": "t", "hosts": ["forebay.example.com"]}]},
                "grpcIngress": {"enabled": True},
                "gateway": {"enabled": True, "parentRefs": [{"name": "public"}]},
                "autoscaling": {"memory": 0},
            },
            "networkPolicy": {"apiFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}]},
        },
        "forebay",
        ["urls"],
        False,
    ),
    "tls": (
        {
            **scaled("external-push", externalPush={"tls": {"enabled": True, "secretName": "scaler-tls", "clientCertificate": True}}),
            "scaler": {"tls": {"secretName": "scaler-tls", "clientCa": True}},
        },
        "forebay",
        ["urls", "scaler-tls"],
        False,
    ),
    "switched-off": (
        {
            **SECRET,
            "api": {"autoscaling": {"enabled": False}},
            "scaler": {"enabled": False},
            "migrate": {"enabled": False},
            "networkPolicy": {"enabled": False},
            "test": {"enabled": False},
        },
        "forebay",
        ["urls"],
        False,
    ),
    "placed": (
        {
            **SECRET,
            "config": {"log": "debug", "otlpEndpoint": "http://otel:4317", "retentionDays": 3, "extraEnv": [{"name": "FOREBAY_GRPC_ADDR", "value": "0.0.0.0:50051"}]},
            "api": {
                "nodeSelector": {"kubernetes.io/arch": "arm64"},
                "tolerations": [{"key": "spot", "operator": "Exists"}],
                "affinity": {"nodeAffinity": {}},
                "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
                "extraVolumes": [{"name": "more", "emptyDir": {"sizeLimit": "1Mi"}}],
                "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
                "priorityClassName": "high",
                "podAnnotations": {"a": "b"},
                "podLabels": {"c": "d"},
                "serviceAccount": {"annotations": {"role": "r"}},
            },
            "extraObjects": [
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {
                        "name": "{{ .Release.Name }}-more",
                        "namespace": "{{ .Release.Namespace }}",
                        "labels": {f"app.kubernetes.io/{key}": "more" for key in ("name", "instance", "component", "managed-by")},
                    },
                }
            ],
        },
        "forebay",
        ["urls"],
        False,
    ),
    "monitored": ({**SECRET, "monitoring": {"enabled": True, "runbooks": "https://runbooks.example/", "labels": {"release": "prometheus"}}}, "forebay", ["urls"], False),
    **{source: (scaled(source), "forebay", ["urls"], False) for source in ("external-push", "rabbitmq", "prometheus", "cpu")},
    "nats-jetstream": (scaled("nats-jetstream", natsJetstream=NATS), "forebay", ["urls"], False),
    "source-alone": (scaled("external-push", cpu={"enabled": False}, fallback={"enabled": False}), "forebay", ["urls"], False),
    "sources-by-pool": (
        {
            **SECRET,
            "pools": [
                {"name": name, "queues": [name], "job": name.startswith("job"), "scaling": {"min": 0, "max": 3, "source": source}}
                for name, source in [
                    ("pushed", "external-push"),
                    ("job-pushed", "external-push"),
                    ("job-nats", "nats-jetstream"),
                    ("job-rabbit", "rabbitmq"),
                    ("job-prometheus", "prometheus"),
                    ("rabbit", "rabbitmq"),
                ]
            ]
            + [{"name": "still", "scaling": {"enabled": False}}, {"name": "planned", "queues": ["p"], "scaling": {"mode": "desired_workers"}}],
            "keda": {"enabled": True, "natsJetstream": NATS},
            "monitoring": {"enabled": True},
        },
        "forebay",
        ["urls"],
        False,
    ),
}

# What must be refused, and a word of the reason.
REFUSED = {
    "an unknown key": ({**SECRET, "replicas": 2}, "replicas"),
    "an unknown key of a group": ({**SECRET, "api": {"replicaCount": 2}}, "replicaCount"),
    "an unknown key of a pool": ({**SECRET, "pools": [{"name": "a", "queue": "b"}]}, "queue"),
    "an unknown key of keda": ({**SECRET, "keda": {"polling": 2}}, "polling"),
    "an unknown key of keda's groups": ({**SECRET, "keda": {"cpu": {"percent": 2}}}, "percent"),
    "a number that is a text": ({**SECRET, "recorder": {"replicas": "2"}}, "replicas"),
    "a source that there is not": (scaled("kafka"), "source"),
    "a pool without a name": ({**SECRET, "pools": [{"queues": ["a"]}]}, "name"),
    "a pool with a name for no host": ({**SECRET, "pools": [{"name": "Ünï"}]}, "name"),
    "two pools of one name": ({**SECRET, "pools": [{"name": "a"}, {"name": "a"}]}, "two that are called"),
    "a queue with a dot": ({**SECRET, "pools": [{"name": "a", "queues": ["a.b"]}]}, "queues"),
    "no queue": ({**SECRET, "pools": [{"name": "a", "queues": []}]}, "queues"),
    "latest": ({**SECRET, "image": {"tag": "latest"}}, "tag"),
    "a digest that is none": ({**SECRET, "image": {"digest": "0123"}}, "digest"),
    "a duration that is none": ({**SECRET, "config": {"lease": "long"}}, "lease"),
    "no connection to read by": ({**SECRET, "recorder": {"databaseConnections": {"read": 0}}}, "read"),
    "two NATS servers": ({**SECRET, "config": {"natsReplicas": 2}}, "natsReplicas"),
    "no connections": ({}, "where are the database and the broker"),
    "connections twice": ({"connections": {"existingSecret": "a", "databaseUrl": "b"}}, "say one"),
    "half of the connections": ({"connections": {"databaseUrl": "postgres://a"}}, "brokerUrl is not set"),
    "a store without a name": ({"connections": {"externalSecret": {"enabled": True}}}, "storeName"),
    "cpu from zero": ({**scaled("cpu"), "pools": [{"name": "a", "scaling": {"min": 0}}]}, "nothing could ever wake it"),
    "more at least than at most": ({**scaled("prometheus"), "pools": [{"name": "a", "scaling": {"min": 5, "max": 2}}]}, "more than scaling.max"),
    "Jobs without KEDA": ({**SECRET, "pools": [{"name": "a", "job": True}]}, "needs KEDA"),
    "Jobs by cpu": ({**scaled("cpu"), "pools": [{"name": "a", "job": True, "scaling": {"min": 1}}]}, "Jobs cannot be scaled by CPU"),
    "desired_workers from elsewhere": ({**scaled("prometheus"), "pools": [{"name": "a", "scaling": {"mode": "desired_workers"}}]}, "desired_workers"),
    "desired_workers of Jobs": ({**scaled("external-push"), "pools": [{"name": "a", "job": True, "scaling": {"mode": "desired_workers"}}]}, "use the mode tasks"),
    "NATS somewhere": (scaled("nats-jetstream"), "monitoringEndpoint is not set"),
    "no scaler to ask": ({**scaled("external-push"), "scaler": {"enabled": False}}, "scaler.enabled is off"),
    "TLS on one side": ({**scaled("external-push"), "scaler": {"tls": {"secretName": "a"}}}, "must be set together"),
    "a Gateway that is not named": ({**SECRET, "api": {"gateway": {"enabled": True}}}, "which Gateway"),
    "handlers twice": ({**SECRET, "pools": [{"name": "a", "handlers": "a", "handlersConfigMap": "b"}]}, "say one"),
}
