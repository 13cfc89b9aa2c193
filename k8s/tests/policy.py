"""What every manifest of ours keeps to, whatever the values: `problems(manifests)` lists what does not.

Nothing here knows the templates. It looks at manifests as a cluster would: which pods a selector finds, which port of which
container a Service means, whether what a pod refers to is there.
"""

import collections
import json
import re

PORTABLE_VOLUMES = {"emptyDir", "configMap", "secret", "projected", "downwardAPI", "persistentVolumeClaim", "csi", "ephemeral"}
CLUSTER_WIDE = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
POD_NAME_MAX = 63
# What a Deployment adds to its name for a pod's: -<hash>-<random>.
POD_SUFFIX = 17
KEDA_PREFIX = "keda-hpa-"
# What a Secret of connections is mounted as, and the ports of what it leads to, any of which will do.
BACKENDS = {"database-url": {5432}, "broker-url": {4222, 5672}}
# Ports that are opened for Forebay itself, and not for handlers: names, backends, traces, the API server.
OWN_PORTS = {53, 4317}.union(*BACKENDS.values())
# What keeps the autoscalers of nodes from ending a pod that works.
STAYS = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}

Pods = collections.namedtuple("Pods", "owner kind labels spec")


def title(doc):
    return f"{doc.get('kind')}/{doc.get('metadata', {}).get('name')}"


def pods_of(manifests):
    """Every template of pods, with what makes the pods."""
    found = []
    for doc in manifests:
        kind, spec = doc.get("kind"), doc.get("spec", {})
        template = {
            "Deployment": lambda: spec["template"],
            "StatefulSet": lambda: spec["template"],
            "Job": lambda: spec["template"],
            "ScaledJob": lambda: spec["jobTargetRef"]["template"],
            "Pod": lambda: doc,
        }.get(kind)
        if template:
            pod = template()
            found.append(Pods(title(doc), kind, pod["metadata"].get("labels", {}), pod["spec"]))
    return found


def selects(selector, labels):
    """Whether a label selector finds a pod with these labels."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get("matchExpressions") or []:
        value, values = labels.get(term["key"]), term.get("values", [])
        fits = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[term["operator"]]
        if not fits:
            return False
    return True


def ports_of(spec):
    ports = [port for container in spec["containers"] for port in container.get("ports", [])]
    return {port["name"] for port in ports} | {port["containerPort"] for port in ports}


def security(pods):
    spec, said = pods.spec, []
    context = spec.get("securityContext", {})
    for host in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(host):
            said.append(f"{host} is on")
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        said.append("may run as root")
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        said.append("has no seccomp profile")
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds <= PORTABLE_VOLUMES:
            said.append(f"volume {volume['name']} is a {', '.join(kinds)}")
        if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
            said.append(f"volume {volume['name']} may fill the node's disk")
    for container in spec.get("initContainers", []) + spec["containers"]:
        own, name = container.get("securityContext", {}), container["name"]
        if own.get("allowPrivilegeEscalation") is not False:
            said.append(f"{name} may gain privileges")
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own.get("capabilities", {}).get("add"):
            said.append(f"{name} keeps capabilities")
        if own.get("readOnlyRootFilesystem") is not True:
            said.append(f"{name} can write to its root")
        if own.get("privileged") or own.get("runAsUser") == 0:
            said.append(f"{name} is privileged")
    return said


def containers(pods):
    said = []
    for container in pods.spec["containers"]:
        name, image = container["name"], container["image"]
        tag = image.rpartition("/")[2].partition(":")[2]
        if "@sha256:" not in image and (not tag or tag == "latest"):
            said.append(f"{name} has no version: {image}")
        if "bitnami" in image:
            said.append(f"{name} is from Bitnami")
        resources = container.get("resources", {})
        for group, what in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
            if what not in (resources.get(group) or {}):
                said.append(f"{name} has no {group}.{what}")
        served = pods.kind in ("Deployment", "StatefulSet")
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe not in container:
                if served:
                    said.append(f"{name} has no {probe}")
            elif "httpGet" in container[probe] and container[probe]["httpGet"]["port"] not in ports_of(pods.spec):
                said.append(f"{name}'s {probe} asks a port that is not there")
        names = [port["name"] for port in container.get("ports", [])]
        if len(set(names)) != len(names):
            said.append(f"{name} has two ports of one name")
        variables = [item["name"] for item in container.get("env", [])]
        for twice in {item for item in variables if variables.count(item) > 1}:
            said.append(f"{name} sets {twice} twice")
    return said


def lifetime(pods):
    """A pod is given the time that it was told it has."""
    said = []
    grace = pods.spec.get("terminationGracePeriodSeconds", 30)
    for container in pods.spec["containers"]:
        stop = container.get("lifecycle", {}).get("preStop", {})
        if stop and "sleep" not in stop:
            said.append("its preStop needs a program that the image does not have")
        drain = next((item["value"] for item in container.get("env", []) if item["name"] == "FOREBAY_DRAIN_TIMEOUT"), "0s")
        needed = stop.get("sleep", {}).get("seconds", 0) + int(drain.rstrip("s")) + 5
        if container["name"] == "forebay" and pods.kind in ("Deployment", "ScaledJob") and grace < needed:
            said.append(f"is killed after {grace} s, but may need {needed} s to end")
    return said


def mounts(pods):
    said = []
    volumes = [volume["name"] for volume in pods.spec.get("volumes", [])]
    mounted = {mount["name"] for container in pods.spec["containers"] for mount in container.get("volumeMounts", [])}
    claimed = mounted - set(volumes)
    if pods.kind == "StatefulSet":
        claimed -= {"data"}
    said += [f"mounts {name}, which is not there" for name in sorted(claimed)]
    said += [f"has the volume {name}, which is not mounted" for name in sorted(set(volumes) - mounted)]
    return said


def variables(pods, known):
    said = []
    for container in pods.spec["containers"]:
        for item in container.get("env", []):
            name = item["name"]
            if name.startswith("FOREBAY_") and known is not None and name not in known:
                said.append(f"sets {name}, which the binary does not know")
            if item.get("value") is not None and not isinstance(item["value"], str):
                said.append(f"{name} is not a text")
            if re.search(r"://[^/]*:[^/@]*@", item.get("value") or ""):
                said.append(f"{name} has a password in it")
    return said


def references(manifests, pods, outside):
    """What a pod refers to is there."""
    there = {(doc["kind"], doc["metadata"]["name"]) for doc in manifests}
    # The operator makes it.
    there |= {("Secret", doc["spec"]["target"]["name"]) for doc in manifests if doc["kind"] == "ExternalSecret"}
    needed = set()
    account = pods.spec.get("serviceAccountName")
    if account:
        needed.add(("ServiceAccount", account))
    for volume in pods.spec.get("volumes", []):
        if "secret" in volume:
            needed.add(("Secret", volume["secret"]["secretName"]))
        if "configMap" in volume:
            needed.add(("ConfigMap", volume["configMap"]["name"]))
    return [f"needs {kind}/{name}, which is not there" for kind, name in sorted(needed - there) if name not in outside]


def tokens(manifests, pods):
    bound = {s["name"] for doc in manifests if doc["kind"].endswith("RoleBinding") for s in doc["subjects"]}
    mounted = pods.spec.get("automountServiceAccountToken") is not False
    if mounted and pods.spec.get("serviceAccountName") not in bound:
        return ["mounts a token that it has no use for"]
    if not mounted and pods.spec.get("serviceAccountName") in bound:
        return ["has rights, but no token"]
    return []


def rights(doc):
    if doc["kind"] not in ("Role", "ClusterRole"):
        return []
    wide = [rule for rule in doc["rules"] if rule != {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "patch"]}]
    return [f"gives more than to get and patch pods: {rule}" for rule in wide] + ["is cluster-wide"] * (doc["kind"] == "ClusterRole")


def services(doc, pods):
    if doc["kind"] != "Service":
        return []
    found = [p for p in pods if selects({"matchLabels": doc["spec"]["selector"]}, p.labels)]
    if not found:
        return ["selects no pod"]
    return [
        f"sends port {port['port']} to {port['targetPort']}, which {p.owner} does not have"
        for port in doc["spec"]["ports"]
        for p in found
        if port["targetPort"] not in ports_of(p.spec)
    ]


def workloads(doc, pods):
    """A workload owns the pods it makes, and nobody else's."""
    if doc["kind"] not in ("Deployment", "StatefulSet"):
        return []
    found = {p.owner for p in pods if selects(doc["spec"]["selector"], p.labels)}
    said = [] if title(doc) in found else ["does not select its own pods"]
    return said + [f"also selects the pods of {other}" for other in sorted(found - {title(doc)})]


def budgets(doc, pods):
    if doc["kind"] != "PodDisruptionBudget":
        return []
    found = {p.owner for p in pods if selects(doc["spec"]["selector"], p.labels)}
    return [] if len(found) == 1 else [f"selects {len(found)} workloads: {', '.join(sorted(found))}"]


def needs_budget(manifests, pods):
    budgets_there = [doc["spec"]["selector"] for doc in manifests if doc["kind"] == "PodDisruptionBudget"]
    if pods.kind != "Deployment" or any(selects(selector, pods.labels) for selector in budgets_there):
        return []
    return ["has no PodDisruptionBudget"]


def scaling(doc, manifests):
    """What scales finds its target, which leaves the number to it."""
    if doc["kind"] not in ("HorizontalPodAutoscaler", "ScaledObject"):
        return []
    target = doc["spec"]["scaleTargetRef"]
    found = [d for d in manifests if d["kind"] == target["kind"] and d["metadata"]["name"] == target["name"]]
    if len(found) != 1:
        return [f"scales {target['name']}, which is not there"]
    said = []
    if "replicas" in found[0]["spec"]:
        said.append(f"scales {target['name']}, which says itself how many there are")
    others = [
        title(d)
        for d in manifests
        if d is not doc and d["kind"] in ("HorizontalPodAutoscaler", "ScaledObject") and d["spec"]["scaleTargetRef"] == target
    ]
    said += [f"scales what {other} scales" for other in others]
    if doc["kind"] == "ScaledObject" and len(KEDA_PREFIX + doc["metadata"]["name"]) > POD_NAME_MAX:
        said.append("has too long a name for KEDA's autoscaler")
    return said


def triggers(doc, manifests, outside):
    if doc["kind"] not in ("ScaledObject", "ScaledJob"):
        return []
    said, spec = [], doc["spec"]
    kinds = [trigger["type"] for trigger in spec["triggers"]]
    if set(kinds) <= {"cpu", "memory"} and spec.get("minReplicaCount", 0) == 0:
        said.append("can never be woken: there is no CPU at zero")
    names = [trigger["name"] for trigger in spec["triggers"] if trigger["type"] not in ("cpu", "memory")]
    if len(set(names)) != len(names):
        said.append("has two triggers of one name")
    formula = spec.get("advanced", {}).get("scalingModifiers", {}).get("formula")
    if formula is not None and sorted(re.findall(r"\w+", formula)) != sorted(names):
        said.append(f"its formula does not sum its triggers: {formula}")
    if formula is None and doc["kind"] == "ScaledObject" and len(names) > 1:
        said.append("takes the highest of its triggers, not their sum")
    for trigger in spec["triggers"]:
        if not all(isinstance(value, str) for value in trigger["metadata"].values()):
            said.append(f"trigger {trigger.get('name')} has metadata that is not text")
        if trigger["type"] == "external-push" and doc["kind"] == "ScaledJob":
            said.append("a ScaledJob cannot be pushed to")
        if trigger["type"] == "prometheus" and trigger["metadata"].get("ignoreNullValues") != "false":
            said.append("takes no answer for zero")
        name = trigger.get("authenticationRef", {}).get("name")
        there = {d["metadata"]["name"] for d in manifests if d["kind"] == "TriggerAuthentication"}
        if name and name not in there and name not in outside:
            said.append(f"needs TriggerAuthentication/{name}, which is not there")
        address = trigger["metadata"].get("scalerAddress")
        if address:
            host, _, number = address.rpartition(":")
            service = [d for d in manifests if d["kind"] == "Service" and host == f"{d['metadata']['name']}.{d['metadata'].get('namespace')}"]
            if not service and address not in outside:
                said.append(f"asks {address}, which is not there")
            for d in service:
                if not d["spec"].get("publishNotReadyAddresses"):
                    said.append(f"reaches nobody through {title(d)} while the number is unknown, and so does not fall back")
                if int(number) not in [port["port"] for port in d["spec"]["ports"]]:
                    said.append(f"asks a port that {title(d)} does not have")
    return said


def stays(doc):
    """A Job that works is left alone by whoever wants to save its node."""
    if doc["kind"] != "ScaledJob":
        return []
    annotations = doc["spec"]["jobTargetRef"]["template"]["metadata"].get("annotations", {})
    return [f"may lose its node while it works: {key} is not {value}" for key, value in STAYS.items() if annotations.get(key) != value]


def routes(doc, manifests):
    """Where requests are sent to is there."""
    wanted = []
    if doc["kind"] == "Ingress":
        for rule in doc["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                wanted.append((path["backend"]["service"]["name"], path["backend"]["service"]["port"]["name"]))
        wanted_key = "name"
    elif doc["kind"] in ("HTTPRoute", "GRPCRoute"):
        wanted = [(ref["name"], ref["port"]) for rule in doc["spec"]["rules"] for ref in rule["backendRefs"]]
        wanted_key = "port"
    said = []
    for name, port in wanted:
        service = [d for d in manifests if d["kind"] == "Service" and d["metadata"]["name"] == name]
        if not service or port not in [p[wanted_key] for p in service[0]["spec"]["ports"]]:
            said.append(f"leads to {name}:{port}, which is not there")
    if any("nginx.ingress" in key for key in doc["metadata"].get("annotations", {})):
        said.append("has annotations that only ingress-nginx knew")
    return said


def monitors(doc, manifests, pods):
    if doc["kind"] == "PodMonitor":
        found = [p for p in pods if selects(doc["spec"]["selector"], p.labels)]
        if not found:
            return ["selects no pod"]
        return [
            f"scrapes port {end['port']}, which {p.owner} does not have"
            for end in doc["spec"]["podMetricsEndpoints"]
            for p in found
            if end["port"] not in ports_of(p.spec)
        ]
    if doc["kind"] == "ServiceMonitor":
        found = [d for d in manifests if d["kind"] == "Service" and selects(doc["spec"]["selector"], d["metadata"]["labels"])]
        if not found:
            return ["selects no Service"]
        return [
            f"scrapes port {end['port']}, which {title(d)} does not have"
            for end in doc["spec"]["endpoints"]
            for d in found
            if end["port"] not in [port["name"] for port in d["spec"]["ports"]]
        ]
    return []


def is_scraped(manifests, pods):
    """Where anything is scraped, everything with metrics is, and once."""
    if pods.kind not in ("Deployment", "ScaledJob") or not any(d["kind"] == "PodMonitor" for d in manifests):
        return []
    times = sum(selects(d["spec"]["selector"], pods.labels) for d in manifests if d["kind"] == "PodMonitor")
    for monitor in (d for d in manifests if d["kind"] == "ServiceMonitor"):
        times += sum(
            selects({"matchLabels": d["spec"]["selector"]}, pods.labels)
            for d in manifests
            if d["kind"] == "Service" and selects(monitor["spec"]["selector"], d["metadata"]["labels"])
        )
    return [] if times == 1 else [f"is scraped {times} times"]


def network(manifests, pods):
    """Both directions are closed for every pod, and names can be resolved by every pod."""
    policies = [d["spec"] for d in manifests if d["kind"] == "NetworkPolicy"]
    if not policies:
        return []
    mine = [spec for spec in policies if selects(spec["podSelector"], pods.labels)]
    said = []
    if not any(set(s["policyTypes"]) == {"Ingress", "Egress"} and not s.get("ingress") and not s.get("egress") for s in mine):
        said.append("no NetworkPolicy closes it by default")
    if not any(port["port"] == 53 for s in mine for rule in s.get("egress") or [] for port in rule.get("ports", [])):
        said.append("cannot resolve names")
    for spec in mine:
        for rule in spec.get("ingress") or []:
            for port in rule.get("ports", []):
                if port["port"] not in ports_of(pods.spec):
                    said.append(f"a NetworkPolicy opens port {port['port']}, which is not there")
    for port in {p["name"] for c in pods.spec["containers"] for p in c.get("ports", [])}:
        opened = [p["port"] for s in mine for rule in s.get("ingress") or [] for p in rule.get("ports", [])]
        numbers = {p["name"]: p["containerPort"] for c in pods.spec["containers"] for p in c.get("ports", [])}
        if port not in opened and numbers[port] not in opened:
            said.append(f"port {port} is closed to all")
    return said


def reaches(manifests, pods, everyone):
    """What a pod needs to connect to, some NetworkPolicy lets it."""
    policies = [d["spec"] for d in manifests if d["kind"] == "NetworkPolicy"]
    if not policies:
        return []
    rules = [rule for spec in policies if selects(spec["podSelector"], pods.labels) for rule in spec.get("egress") or []]

    def open_to(numbers, targets):
        """By a rule that names the port, and whose peers are anywhere, elsewhere, or one of the targets that are here."""
        for rule in rules:
            if numbers & {port["port"] for port in rule.get("ports", [])}:
                peers = [peer["podSelector"] for peer in rule.get("to", []) if "podSelector" in peer]
                if not targets or not rule.get("to") or any(selects(peer, t.labels) for peer in peers for t in targets):
                    return True
        return False

    said = []
    mounted = {item["path"] for v in pods.spec.get("volumes", []) for item in v.get("secret", {}).get("items", [])}
    for path in sorted(mounted & set(BACKENDS)):
        servers = [p for p in everyone if p.kind == "StatefulSet" and BACKENDS[path] & ports_of(p.spec)]
        if not open_to(BACKENDS[path], servers):
            said.append(f"may not connect to what {path} leads to")
    for container in pods.spec["containers"]:
        arguments, env = container.get("args", []), {item["name"]: item.get("value") for item in container.get("env", [])}
        for host, port in (found for a in arguments for found in re.findall(r"^http://([a-z0-9-]+):([0-9]+)$", a)):
            selectors = [d["spec"]["selector"] for d in manifests if d["kind"] == "Service" and d["metadata"]["name"] == host]
            servers = [p for p in everyone if any(selects({"matchLabels": s}, p.labels) for s in selectors)]
            if not servers or not open_to({int(port)}, servers):
                said.append(f"may not connect to {host}:{port}")
        if "executor" in arguments and not any({port["port"] for port in rule.get("ports", [{"port": 0}])} - OWN_PORTS for rule in rules):
            said.append("its handlers may connect to nothing")
        if env.get("FOREBAY_WORKER_POD_DELETION_COST") and not (open_to({443}, [pods]) and open_to({6443}, [pods])):
            said.append("may not connect to the API server")
    return said


def policies_find(doc, pods):
    if doc["kind"] == "NetworkPolicy" and not any(selects(doc["spec"]["podSelector"], p.labels) for p in pods):
        return ["selects no pod"]
    return []


def naming(doc, namespace):
    said = []
    meta = doc["metadata"]
    name = meta["name"]
    if len(name) > POD_NAME_MAX or not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name):
        said.append("has a name that is too long or not one")
    if doc["kind"] in ("Deployment", "ScaledJob") and len(name) + POD_SUFFIX > POD_NAME_MAX:
        said.append("has pods whose names are cut off as hosts' names, so that two could be one")
    if doc["kind"] not in CLUSTER_WIDE and meta.get("namespace") != namespace:
        said.append("is not in the release's namespace")
    labels = dict(meta.get("labels", {}))
    for key in ("name", "instance", "component", "managed-by"):
        if f"app.kubernetes.io/{key}" not in labels:
            said.append(f"has no label app.kubernetes.io/{key}")
    for key, value in labels.items():
        if not isinstance(value, str) or not re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", value):
            said.append(f"has a label {key} that is none: {value}")
    return said


def waves(manifests):
    """Argo CD makes what the migration needs before it, and what needs the migration after it."""

    def wave(doc):
        return int(doc["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", "0"))

    job = [wave(d) for d in manifests if d["kind"] == "Job"]
    if not job:
        return []
    early = [title(d) for d in manifests if d["kind"] in ("Secret", "ExternalSecret", "StatefulSet", "ServiceAccount") and wave(d) >= job[0]]
    late = [title(d) for d in manifests if d["kind"] in ("Deployment", "ScaledObject", "ScaledJob") and wave(d) <= job[0]]
    return [f"{name} comes after the migration" for name in early] + [f"{name} comes before the migration" for name in late]


def problems(manifests, namespace, known=None, outside=()):
    """What is wrong with these manifests of one release; `known` are the binary's variables, `outside` the names of what is
    there already."""
    pods, said = pods_of(manifests), []
    counted = collections.Counter(title(doc) for doc in manifests)
    said += [f"{name}: is there {times} times" for name, times in counted.items() if times > 1]
    said += waves(manifests)
    for p in pods:
        own = [*security(p), *containers(p), *lifetime(p), *mounts(p), *variables(p, known), *references(manifests, p, outside)]
        own += [*tokens(manifests, p), *needs_budget(manifests, p), *is_scraped(manifests, p), *network(manifests, p), *reaches(manifests, p, pods)]
        said += [f"{p.owner}: {what}" for what in own]
    for doc in manifests:
        own = [*naming(doc, namespace), *rights(doc), *services(doc, pods), *workloads(doc, pods), *budgets(doc, pods)]
        own += [*scaling(doc, manifests), *triggers(doc, manifests, outside), *stays(doc), *routes(doc, manifests)]
        own += [*monitors(doc, manifests, pods), *policies_find(doc, pods)]
        said += [f"{title(doc)}: {what}" for what in own]
    for doc in manifests:
        if doc["kind"] == "ConfigMap":
            for name, content in doc.get("data", {}).items():
                if name.endswith(".json"):
                    try:
                        json.loads(content)
                    except ValueError as error:
                        said.append(f"{title(doc)}: {name} is no JSON: {error}")
    return said
