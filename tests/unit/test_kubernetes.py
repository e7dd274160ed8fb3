"""Kubernetes' objects: every overlay builds, fits the published schemas, and keeps what the docs promise."""

from __future__ import annotations

import argparse
import copy
import itertools
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from dressform_server.launcher import add_arguments, add_shared_arguments
from dressform_server.process import UNLOAD_SECONDS
from jobs.alive import ANSWER_SECONDS, PATIENCE_ONCE_SECONDS
from pages.operator import OUT, prometheus_rule

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "docker/kubernetes"
VERSIONS = ("1.29", "1.37")
"""Oldest and newest Kubernetes whose schemas the objects are held against."""
OVERLAYS = sorted(folder.name for folder in (KUBERNETES / "overlays").iterdir())
COMPONENTS = sorted(folder.name for folder in (KUBERNETES / "components").iterdir())
Object = dict[str, Any]

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed (kubernetes-client)")

TEXT, NUMBER = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}


def strict(*required: str, **properties: Object) -> Object:
    """An object that may have ``properties`` and no other, and must have the ``required`` of them."""
    return {"type": "object", "additionalProperties": False, "required": [*required], "properties": properties}


def some(items: Object) -> Object:
    return {"type": "array", "minItems": 1, "items": items}


TEXTS = {"type": "object", "additionalProperties": TEXT}
SCALING = strict(
    "policies",
    stabilizationWindowSeconds=NUMBER,
    selectPolicy={"enum": ["Max", "Min", "Disabled"]},
    policies=some(
        strict("type", "value", "periodSeconds", type={"enum": ["Pods", "Percent"]}, value=NUMBER, periodSeconds=NUMBER)
    ),
)
SCHEMAS: dict[str, Object] = {
    "ServiceMonitor": strict(
        "selector",
        "endpoints",
        selector=strict("matchLabels", matchLabels=TEXTS),
        endpoints=some(
            strict(
                "port",
                port=TEXT,
                interval={"type": "string", "pattern": r"^\d+s$"},
                scrapeTimeout={"type": "string", "pattern": r"^\d+s$"},
                relabelings=some(strict("targetLabel", targetLabel=TEXT, replacement=TEXT, sourceLabels=some(TEXT))),
            )
        ),
    ),
    "PrometheusRule": strict(
        "groups",
        groups=some(
            strict(
                "name",
                "rules",
                name=TEXT,
                interval=TEXT,
                rules=some(
                    {
                        **strict(
                            "expr", expr=TEXT, record=TEXT, alert=TEXT, labels=TEXTS, annotations=TEXTS, **{"for": TEXT}
                        ),
                        "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
                    }
                ),
            )
        ),
    ),
    "ScaledObject": strict(
        "scaleTargetRef",
        "triggers",
        scaleTargetRef=strict("name", apiVersion=TEXT, kind=TEXT, name=TEXT),
        minReplicaCount=NUMBER,
        maxReplicaCount=NUMBER,
        pollingInterval=NUMBER,
        fallback=strict(
            "failureThreshold",
            "replicas",
            failureThreshold=NUMBER,
            replicas=NUMBER,
            behavior={"enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]},
        ),
        triggers=some(
            strict(
                "type",
                "metadata",
                type={"const": "prometheus"},
                metricType={"enum": ["AverageValue", "Value", "Utilization"]},
                metadata=strict("serverAddress", "query", "threshold", serverAddress=TEXT, query=TEXT, threshold=TEXT),
            )
        ),
        advanced=strict(
            horizontalPodAutoscalerConfig=strict(behavior=strict(scaleUp=SCALING, scaleDown=SCALING)),
        ),
    ),
}
"""The specs of objects that are not Kubernetes' own: of their operators' definitions the fields that we use, and no
other, so that none is misspelt."""


def built(folder: Path) -> list[Object]:
    """What ``kubectl kustomize`` makes of a folder."""
    made = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    assert "deprecated" not in made.stderr
    return list(yaml.safe_load_all(made.stdout))


@cache
def overlay(name: str) -> list[Object]:
    return built(KUBERNETES / "overlays" / name)


@cache
def everything() -> list[Object]:
    """The objects of all overlays, and of an overlay with every component that goes with others."""
    return [one for name in OVERLAYS for one in overlay(name)]


def found(objects: list[Object], kind: str, name: str) -> Object:
    (one,) = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return one


def with_components(folder: Path, base: str, *components: str) -> list[Object]:
    """An overlay of one's own, as the docs tell how to write it."""
    own = folder / "own"
    own.mkdir()
    copied = folder / "docker"
    shutil.copytree(ROOT / "docker", copied)
    lines = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "shop",
        "resources": [f"../docker/kubernetes/overlays/{base}"],
        "components": [f"../docker/kubernetes/components/{name}" for name in components],
    }
    (own / "kustomization.yaml").write_text(yaml.safe_dump(lines))
    return built(own)


def held_against_schemas(objects: list[Object]) -> None:
    for one in objects:
        if one["kind"] in SCHEMAS:
            jsonschema.validate(one["spec"], SCHEMAS[one["kind"]])
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_overlay_builds_and_fits_the_schemas(name: str) -> None:
    assert {"autoscale", "cpu", "gpu", "monitoring"} == set(OVERLAYS)
    held_against_schemas(overlay(name))


def test_the_schemas_would_find_a_mistake() -> None:
    servers = found(overlay("cpu"), "StatefulSet", "dressform")
    wrong = {**servers, "spec": {**servers["spec"], "replicaz": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replicaz"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def named(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every object within ``node`` whose names are a schema's, not labels or annotations."""
    if isinstance(node, list):
        return [found for number, one in enumerate(node) for found in named(one, (*path, number))]
    if not isinstance(node, dict) or (path and path[-1] in ("labels", "annotations", "matchLabels")):
        return []
    return [path, *(found for name, one in node.items() for found in named(one, (*path, name)))]


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_field_that_an_operator_does_not_know_is_found_wherever_it_is(tmp_path: Path, kind: str) -> None:
    objects = with_components(tmp_path, "cpu", "monitoring", "keda")
    spec = found(objects, kind, "dressform")["spec"]
    jsonschema.validate(spec, SCHEMAS[kind])
    for path in named(spec):
        wrong = copy.deepcopy(spec)
        place = wrong
        for step in path:
            place = place[step]
        place["misspelt"] = "x"
        with pytest.raises(jsonschema.ValidationError, match="misspelt"):
            jsonschema.validate(wrong, SCHEMAS[kind])


@pytest.mark.parametrize("base", ["cpu", "gpu"])
@pytest.mark.parametrize("scaler", ["autoscale", "keda"])
def test_the_components_go_together(tmp_path: Path, base: str, scaler: str) -> None:
    others = [name for name in COMPONENTS if name not in ("autoscale", "keda")]
    objects = with_components(tmp_path, base, *others, scaler)
    held_against_schemas(objects)
    servers = found(objects, "StatefulSet", "dressform")
    assert "replicas" not in servers["spec"]  # the autoscaler's
    assert all(one["metadata"].get("namespace") == "shop" for one in objects if one["kind"] != "Namespace")
    scaling = found(objects, "HorizontalPodAutoscaler" if scaler == "autoscale" else "ScaledObject", "dressform")
    assert "dressform_work_seconds" in str(scaling["spec"])
    assert "cpu" not in str(scaling["spec"])
    assert "persistentVolumeClaim" not in str(servers)  # object storage has its place
    assert all(one["kind"] != "PersistentVolumeClaim" for one in objects)


def test_the_operator_gets_the_rules_that_prometheus_gets() -> None:
    assert OUT.read_text(encoding="utf-8") == prometheus_rule(), "run `python -m pages` in docker/monitoring"
    rules = found(overlay("monitoring"), "PrometheusRule", "dressform")
    files = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "docker/monitoring/rules").glob("*.yaml"))]
    assert rules["spec"]["groups"] == [group for file in files for group in file["groups"]]


def test_what_is_configured_is_what_compose_and_the_tests_use() -> None:
    for name, files in (
        ("dressform-balancer", ("balancer/haproxy.cfg", "balancer/route.lua")),
        ("dressform-edge", ("balancer/edge.cfg", "balancer/edge.lua")),
    ):
        (configuration,) = [
            one
            for one in overlay("cpu")
            if one["kind"] == "ConfigMap" and re.fullmatch(rf"{name}-\w{{10}}", one["metadata"]["name"])
        ]
        read = {Path(file).name: (ROOT / "docker" / file).read_text() for file in files}
        assert configuration["data"] == read


def pods() -> list[tuple[str, Object]]:
    """Every pod template of every overlay, and the edge's."""
    edge = list(yaml.safe_load_all((KUBERNETES / "components/edge/edge.yaml").read_text()))
    return [
        (one["metadata"]["name"], one["spec"]["template"]["spec"])
        for one in [*everything(), *edge]
        if "template" in one.get("spec", {})
    ]


def test_no_pod_has_more_than_it_needs(tmp_path: Path) -> None:
    fetching = found(with_components(tmp_path, "cpu", "object-storage"), "StatefulSet", "dressform")
    for name, pod in [*pods(), ("fetching", fetching["spec"]["template"]["spec"])]:
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not any(pod.get(host) for host in ("hostNetwork", "hostPID", "hostIPC")), name
        first = pod.get("initContainers", [])
        assert (name == "fetching") == bool(first)
        for container in [*first, *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert re.search(r":[\w.-]*\d", container["image"]), "a version that stays"
            assert "memory" in container["resources"]["limits"]
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert ("readinessProbe" in container) == (container not in first)
        assert "hostPath" not in str(pod["volumes"])


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_servers_are_judged_by_their_heartbeat(name: str) -> None:
    (server,) = found(overlay(name), "StatefulSet", "dressform")["spec"]["template"]["spec"]["containers"]
    alive = server["livenessProbe"]
    (http,) = [port["containerPort"] for port in server["ports"] if port["name"] == "http"]
    assert alive["exec"]["command"] == ["python3", "/models/jobs/alive.py", "--http", f"127.0.0.1:{http}"]
    asked = PATIENCE_ONCE_SECONDS + 2 * ANSWER_SECONDS
    assert alive["timeoutSeconds"] > asked, "what it says must be heard"
    assert alive["failureThreshold"] > 1, "a busy machine is not a dead one"
    assert (ROOT / "model_repository/jobs/alive.py").is_file()
    for probe in ("startupProbe", "readinessProbe"):
        assert server[probe]["httpGet"]["path"] == "/v2/health/ready"
    assert server["startupProbe"]["periodSeconds"] * server["startupProbe"]["failureThreshold"] >= 1800
    mounts = {mount["mountPath"]: mount for mount in server["volumeMounts"]}
    assert mounts["/models"]["readOnly"] is True
    assert {"/dev/shm", "/tmp"} <= mounts.keys()


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)?", text).groups()  # type: ignore[union-attr]
    return int(number) * {"ms": 0.001, None: 0.001, "s": 1, "m": 60, "h": 3600}[unit]


@pytest.mark.parametrize(("name", "add"), [("cpu", add_arguments), ("gpu", add_shared_arguments)])
def test_nothing_is_cut_off_before_the_longest_request_is_done(name: str, add: Any) -> None:
    servers = found(overlay(name), "StatefulSet", "dressform")["spec"]["template"]["spec"]
    (server,) = servers["containers"]
    parser = argparse.ArgumentParser(exit_on_error=False)
    add(parser)
    known = parser.parse_args(["/models", *server["args"]])
    longest = known.longest_request
    drain = server["lifecycle"]["preStop"]["exec"]["command"]
    assert drain[:2] == ["python3", "/models/jobs/drain.py"]
    order = [longest, float(drain[drain.index("--timeout") + 1]), known.exit_timeout]
    order += [servers["terminationGracePeriodSeconds"]]
    assert all(before < after for before, after in itertools.pairwise(order)), order
    assert order[1] + UNLOAD_SECONDS < order[-1], "preStop's time is the pod's, too"
    (age_grace,) = [
        re.fullmatch(r"--grpc-max-connection-age-grace=(\d+)", option)
        for option in known.triton_option
        if "grace" in option
    ]
    assert age_grace is not None
    assert int(age_grace[1]) / 1000 > longest
    balancer = (ROOT / "docker/balancer/haproxy.cfg").read_text()
    for side in ("client", "server"):
        assert seconds(re.search(rf"timeout {side} (\S+)", balancer)[1]) > longest  # type: ignore[index]
    assert seconds(re.search(r"stick-table .* expire (\S+)", balancer)[1]) > longest  # type: ignore[index]
    edge = (ROOT / "docker/balancer/edge.cfg").read_text()
    assert seconds(re.search(r"presetenv EDGE_LONGEST (\S+)", edge)[1]) > longest  # type: ignore[index]
    for pod_name, pod in pods():
        assert pod["terminationGracePeriodSeconds"] > longest, pod_name


def test_the_balancers_know_the_servers_by_name() -> None:
    objects = overlay("cpu")
    servers, headless = found(objects, "StatefulSet", "dressform"), found(objects, "Service", "dressform-servers")
    (balancer,) = found(objects, "StatefulSet", "dressform-balancer")["spec"]["template"]["spec"]["containers"]
    told = {entry["name"]: entry.get("value") for entry in balancer["env"]}
    assert told["DRESSFORM_PREFIX"] == f"{servers['metadata']['name']}-"
    assert told["DRESSFORM_SUFFIX"] == f".{headless['metadata']['name']}.$(NAMESPACE).svc.cluster.local"
    assert servers["spec"]["serviceName"] == headless["metadata"]["name"]
    assert headless["spec"]["clusterIP"] == "None"
    assert headless["spec"]["publishNotReadyAddresses"] is True  # a server that drains is watched to the end
    used = set(re.findall(r"\$\{(DRESSFORM_\w+)\}", (ROOT / "docker/balancer/haproxy.cfg").read_text()))
    assert used | {"DRESSFORM_ROUTES"} == {name for name in told if name.startswith("DRESSFORM_")}
    most = found(overlay("autoscale"), "HorizontalPodAutoscaler", "dressform")["spec"]["maxReplicas"]
    assert most == len(
        re.findall(r"^    server s\d+ .* check$", (ROOT / "docker/balancer/haproxy.cfg").read_text(), re.M)
    )
    scaled = yaml.safe_load((KUBERNETES / "components/keda/scaledobject.yaml").read_text())
    assert scaled["spec"]["maxReplicaCount"] == most


def test_the_balancers_know_one_another() -> None:
    objects = overlay("cpu")
    balancers = found(objects, "StatefulSet", "dressform-balancer")
    (balancer,) = balancers["spec"]["template"]["spec"]["containers"]
    told = {entry["name"]: entry for entry in balancer["env"]}
    ports = {port["name"]: port["containerPort"] for port in balancer["ports"]}
    configuration = (ROOT / "docker/balancer/haproxy.cfg").read_text()
    # The name by which each knows itself is its pod's.
    assert told["DRESSFORM_BALANCER"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert told["DRESSFORM_BALANCER_BIND"]["value"] == f":{ports['peers']}"
    for number in range(balancers["spec"]["replicas"]):
        pod = f"{balancers['metadata']['name']}-{number}"
        assert f'server {pod} "${{DRESSFORM_BALANCER_{number}}}"' in configuration
        # HAProxy looks it up once: an address that stays, though the pod is replaced or not ready.
        service = found(objects, "Service", pod)["spec"]
        assert service["selector"] == {"statefulset.kubernetes.io/pod-name": pod}
        assert service.get("clusterIP") != "None"
        assert service["publishNotReadyAddresses"] is True
        (port,) = service["ports"]
        address = f"{pod}.$(NAMESPACE).svc.cluster.local:{port['port']}"
        assert (port["targetPort"], told[f"DRESSFORM_BALANCER_{number}"]["value"]) == ("peers", address)
    # It learns from the other before it is ready: within ten seconds (tests/e2e/test_balancer.py).
    assert balancer["readinessProbe"]["initialDelaySeconds"] >= 10


@pytest.mark.parametrize(("name", "add"), [("cpu", add_arguments), ("gpu", add_shared_arguments)])
def test_the_servers_arguments_are_ones_that_the_image_knows(tmp_path: Path, name: str, add: Any) -> None:
    objects = with_components(tmp_path, name, "traces")
    (server,) = found(objects, "StatefulSet", "dressform")["spec"]["template"]["spec"]["containers"]
    parser = argparse.ArgumentParser(exit_on_error=False)
    add(parser)
    parsed = parser.parse_args(["/models", *server["args"]])
    assert parsed.otlp_endpoint == "http://collector.monitoring.svc:4318"
    if name == "cpu":
        assert not parsed.supervise  # one judge


def test_who_may_reach_whom() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in overlay("cpu") if one["kind"] == "NetworkPolicy"}
    servers, balancers = policies["dressform-servers"], policies["dressform-balancers"]
    assert "egress" not in servers  # declared, and nothing allowed
    assert set(servers["policyTypes"]) == set(balancers["policyTypes"]) == {"Ingress", "Egress"}
    (_, peers) = balancers["ingress"]
    itself = [{"podSelector": balancers["podSelector"]}]
    assert peers == {"from": itself, "ports": [{"port": "peers"}]}
    assert {"to": itself, "ports": [{"port": 8010}]} in balancers["egress"]
    (work, metrics) = servers["ingress"]
    assert work["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "dressform-balancer"}}}]
    assert [port["port"] for port in metrics["ports"]] == ["metrics"]
    names = {
        one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
        for one in overlay("cpu")
        if "template" in one.get("spec", {})
    }
    selected = {spec["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for spec in policies.values()}
    assert names <= selected


def test_the_alerts_find_a_server_that_should_have_a_gpu() -> None:
    servers = found(overlay("gpu"), "StatefulSet", "dressform")["spec"]["template"]
    assert servers["metadata"]["labels"]["accelerator"] == "gpu"
    (server,) = servers["spec"]["containers"]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "1"
    (endpoint,) = found(overlay("monitoring"), "ServiceMonitor", "dressform")["spec"]["endpoints"]
    targets = {relabelling["targetLabel"]: relabelling for relabelling in endpoint["relabelings"]}
    assert targets["job"]["replacement"] == "dressform"
    assert "accelerator" in targets
