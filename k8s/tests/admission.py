"""What the ValidatingAdmissionPolicy of poddeletioncost.yaml lets a worker do, evaluated as an API server would.

Not tested is what only a server knows: the types that it checks expressions with, and what they may cost.
"""

import copy

import celpy

COST = "controller.kubernetes.io/pod-deletion-cost"
NAME = "authentication.kubernetes.io/pod-name"
POD = {
    "metadata": {"name": "worker-1", "labels": {"app": "forebay"}, "annotations": {"checksum": "1"}},
    "spec": {"containers": [{"name": "forebay", "image": "forebay:1"}]},
}


def evaluate(expression, values, variables=None):
    environment = celpy.Environment()
    known = {name: celpy.json_to_cel(value) for name, value in values.items()}
    if variables is not None:
        known["variables"] = celpy.celtypes.MapType({celpy.celtypes.StringType(name): value for name, value in variables.items()})
    return environment.program(environment.compile(expression)).evaluate(known)


def refusal(spec, values):
    """Why a request is refused; nothing where it is not, or where the policy is not about it."""
    if not all(evaluate(condition["expression"], values) for condition in spec["matchConditions"]):
        return ""
    # A server evaluates a variable when it is asked for, which is never without both objects.
    both = values["object"] is not None and values["oldObject"] is not None
    variables = {item["name"]: evaluate(item["expression"], values) for item in spec["variables"]} if both else {}
    for rule in spec["validations"]:
        if not evaluate(rule["expression"], values, variables):
            return rule["message"]
    return ""


def request(user, after, before=POD, operation="UPDATE", subresource="", extra=None):
    info = {"username": user, "extra": {NAME: ["worker-1"]} if extra is None else extra}
    return {"request": {"operation": operation, "subResource": subresource, "userInfo": info}, "object": after, "oldObject": before}


def changed(**metadata):
    pod = copy.deepcopy(POD)
    for key, value in metadata.items():
        if value is None:
            pod["metadata"].pop(key)
        else:
            pod["metadata"][key] = value
    return pod


def problems(policy, user):
    """What the policy lets through that it must not, and the other way round; `user` is a worker that it is about."""
    spec = policy["spec"]
    costly = changed(annotations={"checksum": "1", COST: "7"})
    image = copy.deepcopy(costly)
    image["spec"]["containers"][0]["image"] = "evil:1"
    other = changed(name="worker-2")
    bare = changed(annotations=None, labels=None)
    allowed = {
        "set its cost": request(user, costly),
        "change its cost": request(user, costly, changed(annotations={"checksum": "1", COST: "3"})),
        "remove its cost": request(user, POD, costly),
        "set its cost, as the first annotation": request(user, changed(annotations={COST: "7"}, labels=None), bare),
        "change nothing": request(user, POD),
    }
    refused = {
        "set another's cost": request(user, changed(name="worker-2", annotations={"checksum": "1", COST: "7"}), other),
        "set its cost without saying who it is": request(user, costly, extra={}),
        "change its image": request(user, image),
        "change another annotation": request(user, changed(annotations={"checksum": "2"})),
        "add another annotation": request(user, changed(annotations={"checksum": "1", "a": "b"})),
        "remove another annotation": request(user, changed(annotations={COST: "7"})),
        "remove all annotations": request(user, changed(annotations=None)),
        "change its labels": request(user, changed(labels={"app": "other"})),
        "remove its labels": request(user, changed(labels=None)),
        "add a finalizer": request(user, changed(finalizers=["a/b"])),
        "change its owner": request(user, changed(ownerReferences=[{"name": "x"}])),
        "make a pod": request(user, POD, None, "CREATE"),
        "delete a pod": request(user, None, POD, "DELETE"),
        "run a program in a pod": request(user, {}, None, "CONNECT", "exec"),
        "change a pod's status": request(user, POD, POD, "UPDATE", "status"),
    }
    said = [f"a worker cannot {what}: {refusal(spec, values)}" for what, values in allowed.items() if refusal(spec, values)]
    said += [f"a worker can {what}" for what, values in refused.items() if not refusal(spec, values)]
    if refusal(spec, request("kubernetes-admin", image)):
        said.append("it is about others, too")
    return said
