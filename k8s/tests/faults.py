"""Faults to put into manifests that are in order, to see whether the policy sees them."""


def find(manifests, kind, name=""):
    return next(doc for doc in manifests if doc["kind"] == kind and name in doc["metadata"]["name"])


def pod(manifests, name="-api", kind="Deployment"):
    return find(manifests, kind, name)["spec"]["template"]["spec"]


def box(manifests, name="-api"):
    return pod(manifests, name)["containers"][0]


# What breaks a manifest, and a word of what the policy must say to it.
BREAKS = {
    "root": (lambda m: pod(m)["securityContext"].update(runAsNonRoot=False), "root"),
    "seccomp": (lambda m: pod(m)["securityContext"].pop("seccompProfile"), "seccomp"),
    "host network": (lambda m: pod(m).update(hostNetwork=True), "hostNetwork"),
    "host path": (lambda m: pod(m)["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), "hostPath"),
    "capability": (lambda m: box(m)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]), "capabilities"),
    "privileges": (lambda m: box(m)["securityContext"].pop("allowPrivilegeEscalation"), "privileges"),
    "root file system": (lambda m: box(m)["securityContext"].update(readOnlyRootFilesystem=False), "write to its root"),
    "latest": (lambda m: box(m).update(image="ghcr.io/forebay/forebay:latest"), "no version"),
    "no tag": (lambda m: box(m).update(image="ghcr.io:443/forebay/forebay"), "no version"),
    "limit": (lambda m: box(m)["resources"]["limits"].pop("memory"), "limits.memory"),
    "request": (lambda m: box(m)["resources"].pop("requests"), "requests.cpu"),
    "probe": (lambda m: box(m).pop("readinessProbe"), "readinessProbe"),
    "probe's port": (lambda m: box(m)["livenessProbe"]["httpGet"].update(port="health"), "asks a port"),
    "unknown variable": (lambda m: box(m)["env"].append({"name": "FOREBAY_REPLICAS", "value": "1"}), "FOREBAY_REPLICAS"),
    "variable twice": (lambda m: box(m)["env"].append(dict(box(m)["env"][0])), "twice"),
    "password": (lambda m: box(m)["env"].append({"name": "URL", "value": "nats://a:b@c"}), "password"),
    "grace": (lambda m: pod(m, "-recorder").update(terminationGracePeriodSeconds=10), "is killed after"),
    "shell": (lambda m: box(m).update(lifecycle={"preStop": {"exec": {"command": ["sleep", "5"]}}}), "preStop"),
    "token": (lambda m: pod(m).update(automountServiceAccountToken=True), "token"),
    "account": (lambda m: pod(m).update(serviceAccountName="nobody"), "ServiceAccount/nobody"),
    "secret": (lambda m: pod(m)["volumes"][1]["secret"].update(secretName="gone"), "Secret/gone"),
    "mount": (lambda m: box(m)["volumeMounts"].append({"name": "gone", "mountPath": "/x"}), "mounts gone"),
    "selector": (lambda m: find(m, "Deployment", "-api")["spec"]["selector"]["matchLabels"].update({"app.kubernetes.io/component": "x"}), "own pods"),
    "wide selector": (lambda m: find(m, "Deployment", "-api")["spec"]["selector"]["matchLabels"].pop("app.kubernetes.io/component"), "also selects"),
    "service": (lambda m: find(m, "Service", "-api")["spec"]["selector"].update({"app.kubernetes.io/component": "x"}), "selects no pod"),
    "service's port": (lambda m: find(m, "Service", "-api")["spec"]["ports"][0].update(targetPort="web"), "sends port"),
    "budget": (lambda m: m.remove(find(m, "PodDisruptionBudget", "-api")), "no PodDisruptionBudget"),
    "wide budget": (lambda m: find(m, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].pop("app.kubernetes.io/component"), "workloads"),
    "replicas": (lambda m: find(m, "Deployment", "-api")["spec"].update(replicas=2), "says itself"),
    "scaled twice": (lambda m: find(m, "ScaledObject")["spec"]["scaleTargetRef"].update(find(m, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]), "scales what"),
    "nobody to scale": (lambda m: find(m, "ScaledObject")["spec"]["scaleTargetRef"].update(name="gone"), "scales gone"),
    "wake": (lambda m: find(m, "ScaledObject")["spec"].update(triggers=find(m, "ScaledObject")["spec"]["triggers"][-1:], minReplicaCount=0), "never be woken"),
    "highest": (lambda m: find(m, "ScaledObject")["spec"]["triggers"].append({"type": "external", "name": "b", "metadata": {}}), "not their sum"),
    "scaler": (lambda m: find(m, "ScaledObject")["spec"]["triggers"][0]["metadata"].update(scalerAddress="gone:50051"), "asks gone"),
    "unready scaler": (lambda m: find(m, "Service", "-scaler")["spec"].pop("publishNotReadyAddresses"), "does not fall back"),
    "deny": (lambda m: m.remove(find(m, "NetworkPolicy", "-default-deny")), "closes it by default"),
    "names": (lambda m: m.remove(find(m, "NetworkPolicy", "-dns")), "resolve names"),
    "door": (lambda m: m.remove(find(m, "NetworkPolicy", "-scaler")), "closed to all"),
    "nobody's door": (lambda m: find(m, "NetworkPolicy", "-scaler")["spec"]["podSelector"]["matchLabels"].update({"app.kubernetes.io/component": "x"}), "selects no pod"),
    "backends": (lambda m: m.remove(find(m, "NetworkPolicy", "-backends")), "what database-url leads to"),
    "broker": (lambda m: find(m, "NetworkPolicy", "-backends")["spec"]["egress"].pop(1), "what broker-url leads to"),
    "handlers' way out": (lambda m: m.remove(find(m, "NetworkPolicy", "-worker-default")), "handlers may connect to nothing"),
    "API server": (lambda m: find(m, "NetworkPolicy", "-worker-default")["spec"]["egress"].pop(), "may not connect to the API server"),
    "test's way": (lambda m: m.remove(find(m, "NetworkPolicy", "-test")), "may not connect to forebay-api:8080"),
    "evicted Job": (lambda m: find(m, "ScaledJob")["spec"]["jobTargetRef"]["template"]["metadata"]["annotations"].popitem(), "may lose its node"),
    "rights": (lambda m: find(m, "Role")["rules"][0]["verbs"].append("delete"), "gives more"),
    "scrape": (lambda m: m.remove(find(m, "ServiceMonitor")), "scraped 0 times"),
    "scrape's port": (lambda m: find(m, "PodMonitor")["spec"]["podMetricsEndpoints"][0].update(port="metrics"), "scrapes port"),
    "route": (lambda m: find(m, "HTTPRoute")["spec"]["rules"][0]["backendRefs"][0].update(port=80), "leads to"),
    "name": (lambda m: find(m, "Service")["metadata"].update(name="n" * 64), "too long"),
    "pods' names": (lambda m: find(m, "Deployment")["metadata"].update(name="n" * 50), "cut off"),
    "namespace": (lambda m: find(m, "Service")["metadata"].pop("namespace"), "namespace"),
    "twice": (lambda m: m.append(find(m, "Service")), "2 times"),
    "wave": (lambda m: find(m, "ExternalSecret")["metadata"]["annotations"].clear(), None),
    "late secret": (lambda m: find(m, "ExternalSecret")["metadata"].update(annotations={"argocd.argoproj.io/sync-wave": "2"}), "after the migration"),
    "early pods": (lambda m: find(m, "Deployment")["metadata"]["annotations"].clear(), "before the migration"),
}
