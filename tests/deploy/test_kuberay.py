"""The files for Kubernetes and the container file: valid by Kubernetes' schemas, closed to others, and pinned."""

from __future__ import annotations

import json
import re
import shlex
from importlib.metadata import version
from ipaddress import ip_address, ip_network
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
from support.paths import ROOT

from unfused_ray.cluster import AUTOSCALER
from unfused_ray.runs.environment import COMMIT

FOLDER = ROOT / "deploy/kuberay"
KUBERNETES = "1.33"
DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
# Types of the fields of KubeRay's own types that the RayJob uses, noted by hand from its Go types and, for
# authOptions, from its reference (1.6). No package has the schema of the RayJob itself, most of which repeats
# Kubernetes' pods; those parts are checked as pods.
KNOWN = {
    "RayJobSpec": {
        "entrypoint": str,
        "backoffLimit": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "submitterPodTemplate": dict,
        "rayClusterSpec": dict,
    },
    "RayClusterSpec": {
        "rayVersion": str,
        "authOptions": dict,
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": dict,
        "headGroupSpec": dict,
        "workerGroupSpecs": list,
    },
    "AutoscalerOptions": {"idleTimeoutSeconds": int, "securityContext": dict, "resources": dict},
    "HeadGroupSpec": {"serviceType": str, "rayStartParams": dict, "template": dict},
    "WorkerGroupSpec": {
        "groupName": str,
        "replicas": int,
        "minReplicas": int,
        "maxReplicas": int,
        "rayStartParams": dict,
        "template": dict,
    },
}


@pytest.fixture
def cluster() -> dict[str, Any]:
    return job()["rayClusterSpec"]


def job() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "rayjob.yaml").read_text())["spec"]


def policy() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "network-policy.yaml").read_text())["spec"]


def templates() -> dict[str, dict[str, Any]]:
    groups = {group["groupName"]: group for group in job()["rayClusterSpec"]["workerGroupSpecs"]}
    groups["head"] = job()["rayClusterSpec"]["headGroupSpec"]
    return {name: group["template"] for name, group in groups.items()} | {"submitter": job()["submitterPodTemplate"]}


def refused(resource: dict[str, Any]) -> bool:
    try:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError:
        return True
    return False


def test_every_resource_of_kubernetes_is_one():
    files = [FOLDER / "access.yaml", FOLDER / "network-policy.yaml"]
    resources = [resource for file in files for resource in yaml.safe_load_all(file.read_text())]
    kinds = ["ServiceAccount", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy"]
    assert [resource["kind"] for resource in resources] == kinds
    for resource in resources:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
        assert refused({**resource, "unheardOf": 1})


@pytest.mark.parametrize("name", ["head", "cpu", "gpu", "submitter"])
def test_every_pod_is_one(name: str):
    pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": templates()[name]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    pod["template"]["spec"]["containers"][0]["imagee"] = "x"
    assert refused(pod)


def test_the_ray_job_has_fields_that_kuberay_knows(cluster: dict[str, Any]):
    parts = [
        ("RayJobSpec", job()),
        ("RayClusterSpec", cluster),
        ("AutoscalerOptions", cluster["autoscalerOptions"]),
        ("HeadGroupSpec", cluster["headGroupSpec"]),
        *(("WorkerGroupSpec", group) for group in cluster["workerGroupSpecs"]),
    ]
    for kind, fields in parts:
        assert {name: type(value) for name, value in fields.items()} == KNOWN[kind]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_the_cluster_asks_for_the_token_and_grows_from_no_worker(cluster: dict[str, Any]):
    assert cluster["authOptions"] == {"mode": "token", "secretName": "unfused-ray-token"}
    assert cluster["rayVersion"] == version("ray")
    assert {group["minReplicas"] for group in cluster["workerGroupSpecs"]} == {0}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"  # no address outside the cluster


def test_jobs_are_told_what_the_autoscaler_may_grow_the_cluster_to(cluster: dict[str, Any]):
    most = []
    for group in cluster["workerGroupSpecs"]:
        (limits,) = (c["resources"]["limits"] for c in group["template"]["spec"]["containers"])
        gpus = int(limits.get("nvidia.com/gpu", 0))
        most.append({"nodes": group["maxReplicas"], "CPU": int(limits["cpu"])} | ({"GPU": gpus} if gpus else {}))
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        (environment,) = (c["env"] for c in group["template"]["spec"]["containers"])
        (told,) = (entry["value"] for entry in environment if entry["name"] == AUTOSCALER)
        assert json.loads(told) == most


def test_a_worker_that_is_taken_back_drains_as_long_as_its_pod_may(cluster: dict[str, Any]):
    for group in cluster["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        (seconds,) = (e["value"] for e in pod["containers"][0]["env"] if e["name"] == DRAIN)
        assert RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S < int(seconds) <= pod["terminationGracePeriodSeconds"] - 15


def test_no_pod_is_root_or_can_become_it():
    for template in templates().values():
        assert template["spec"]["securityContext"]["runAsNonRoot"]
        for container in template["spec"]["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_no_secret_stands_in_the_files():
    for template in templates().values():
        for container in template["spec"]["containers"]:
            assert not [entry for entry in container.get("env", []) if re.search("TOKEN|SECRET|KEY", entry["name"])]


def test_each_pod_has_the_shared_memory_that_ray_takes():
    for name, template in templates().items():
        mounts = [mount["mountPath"] for c in template["spec"]["containers"] for mount in c.get("volumeMounts", [])]
        assert mounts == ([] if name == "submitter" else ["/dev/shm"])


def test_the_policy_holds_every_pod_of_the_cluster_and_lets_in_what_it_names():
    chosen = policy()["podSelector"]["matchLabels"]
    for name, template in templates().items():
        held = chosen.items() <= template["metadata"]["labels"].items()
        assert held == (name != "submitter")
    assert policy()["policyTypes"] == ["Ingress", "Egress"]
    between, jobs = policy()["ingress"]
    assert between == {"from": [{"podSelector": {"matchLabels": chosen}}]}
    assert jobs["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert all("podSelector" in source for source in jobs["from"])  # never a whole namespace or an address range
    assert (
        templates()["submitter"]["metadata"]["labels"].items() >= jobs["from"][0]["podSelector"]["matchLabels"].items()
    )


def test_nothing_reaches_the_machines_metadata():
    blocks = [to["ipBlock"] for rule in policy()["egress"] for to in rule["to"] if "ipBlock" in to]
    metadata = ip_address("169.254.169.254")
    for block in blocks:
        excepted = any(metadata in ip_network(each) for each in block.get("except", []))
        assert excepted or metadata not in ip_network(block["cidr"])


def test_names_are_asked_of_the_clusters_dns_or_its_cache_on_the_node():
    (names,) = (rule for rule in policy()["egress"] if {"protocol": "UDP", "port": 53} in rule.get("ports", []))
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in names["to"]
    assert any("podSelector" in to for to in names["to"])


def test_the_image_is_pinned_small_and_not_roots():
    text = (ROOT / "deploy/Containerfile").read_text().replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    last = dict(steps)
    assert re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-slim-[a-z]+", last["FROM"])  # the tag has every part of the version
    assert last["USER"] == "1000:1000"
    assert "RAY_AUTH_MODE=token" in last["ENV"]
    assert (last["ARG"], f"{COMMIT}=$COMMIT" in last["ENV"]) == ('COMMIT=""', True)
    assert "ADD" not in last
    runs = [value for step, value in steps if step == "RUN"]
    assert all("rm -rf /var/lib/apt/lists/*" in run for run in runs if "apt-get" in run)
    (install,) = (run for run in runs if "pip install" in run)
    assert "--no-cache-dir" in install
    assert "--constraint deploy/constraints.txt" in install
    assert ".[train,gpu]" in install
    assert any("gcc" in run.split() for run in runs)  # torch.compile's inductor calls gcc
    ignored = (ROOT / "deploy/Containerfile.dockerignore").read_text().splitlines()
    for sources in (shlex.split(value)[:-1] for step, value in steps if step == "COPY"):
        assert all((ROOT / source).exists() and f"!{source}" in ignored for source in sources)
