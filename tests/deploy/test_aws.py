"""cluster.yaml and its AWS stack: checked by Ray's schema, and launched by Ray's code into a simulated account."""

from __future__ import annotations

import copy
import json
import os
import re
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import boto3
import cfnlint.api
import pytest
import yaml
from jsonschema import ValidationError
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config
from support.paths import ROOT

from unfused_ray.cluster import AUTOSCALER
from unfused_ray.extras import installed_faiss

STACK = ROOT / "deploy/aws/stack.yaml"
OFFICE = "203.0.113.0/24"


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Outputs of the stack in a simulated account; Ray keeps its key pairs in a temporary home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    region = config["provider"]["region"]
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    with mock_aws():
        vpc = boto3.client("ec2", region).describe_vpcs()["Vpcs"][0]["VpcId"]
        formation = boto3.client("cloudformation", region)
        values = {"Bucket": "the-bucket", "Vpc": vpc, "SshFrom": OFFICE}
        formation.create_stack(
            StackName="unfused-ray",
            TemplateBody=STACK.read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
        )
        stack = formation.describe_stacks(StackName="unfused-ray")["Stacks"][0]
        yield {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def node_configs(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: kind["node_config"] for name, kind in config["available_node_types"].items()}


def statements(document: str | dict[str, Any]) -> list[dict[str, Any]]:
    """Return a policy's statements; the simulated account gives the document as text, a Python literal, or parsed."""
    return (yaml.safe_load(document) if isinstance(document, str) else document)["Statement"]


def test_the_configuration_passes_the_schema_of_the_ray_that_is_installed(config: dict[str, Any]):
    validate_config(prepare_config(copy.deepcopy(config)))
    config["head_node"] = {}
    with pytest.raises(ValidationError, match="'head_node' was unexpected"):  # the schema does refuse something
        validate_config(config)


def test_every_worker_starts_from_none_and_only_workers_are_on_spot(config: dict[str, Any]):
    kinds = config["available_node_types"]
    workers = {name: kind for name, kind in kinds.items() if name != config["head_node_type"]}
    assert {kind["min_workers"] for kind in workers.values()} == {0}
    assert sum(kind["max_workers"] for kind in workers.values()) == config["max_workers"]
    on_spot = {name for name, node in node_configs(config).items() if "InstanceMarketOptions" in node}
    assert on_spot == {"cpu", "gpu-spot"}
    spot, on_demand = kinds["gpu-spot"], kinds["gpu-on-demand"]
    assert spot["resources"]["GPU"] == 4  # on one node: sending gradients between nodes takes longer than a step
    assert spot["resources"] == on_demand["resources"]  # equal fits, so the priority decides
    assert spot["priority"] > on_demand["priority"]


def test_jobs_are_told_what_the_autoscaler_may_grow_the_cluster_to(config: dict[str, Any]):
    command = f"source {ROOT}/deploy/aws/environment.sh; printenv {AUTOSCALER}"
    told = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, env={"HOME": "/home/x"})
    nodes: Counter[str] = Counter()
    for name, kind in config["available_node_types"].items():
        if name != config["head_node_type"]:
            nodes[json.dumps(kind["resources"])] += kind["max_workers"]
    assert json.loads(told.stdout) == [{"nodes": most, **json.loads(each)} for each, most in nodes.items()]


def test_the_pinned_versions_are_those_that_these_tests_run_on(config: dict[str, Any]):
    pins = re.findall(r"^([\w-]+)==(.+)$", (ROOT / "deploy/constraints.txt").read_text(), flags=re.MULTILINE)
    assert {"ray", "torch", "pyarrow"} <= dict(pins).keys()
    assert dict(pins)["faiss-cpu"] == dict(pins)["faiss-gpu"]  # both install the same module
    here = [(name, number) for name, number in pins if not name.startswith("faiss-")]
    assert [(name, version(name).partition("+")[0]) for name, _ in here] == here
    assert set(installed_faiss().items()) <= set(pins)
    (install,) = (command for command in config["setup_commands"] if "deploy/constraints.txt" in command)
    assert "[train,gpu]" in install


def test_every_file_that_is_copied_to_the_nodes_is_there(config: dict[str, Any]):
    for local in config["file_mounts"].values():
        assert local == "~/.ray/auth_token" or (ROOT / local).exists(), local


def test_a_shell_on_a_node_refuses_whoever_has_no_token(config: dict[str, Any]):
    command = f"source {ROOT}/deploy/aws/environment.sh; env"
    shell = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, env={"HOME": "/home/x"})
    assert "RAY_AUTH_MODE=token" in shell.stdout.splitlines()
    assert any("source ~/unfused-ray/deploy/aws/environment.sh" in line for line in config["setup_commands"])
    assert not re.search(r"RAY_AUTH_TOKEN\b", shell.stdout)  # no file of the project sets the token


def test_a_setup_with_another_bucket_or_region_takes_over_from_the_one_before(config: dict[str, Any], tmp_path: Path):
    setup = [command for command in config["setup_commands"] if "export" in command]
    assert len(setup) == 2
    for bucket in ("first", "second"):
        for command in setup:
            given = command.replace("CHANGE-bucket", bucket).replace("us-east-1", f"region-of-{bucket}")
            subprocess.run(["bash", "-c", given], check=True, env={"HOME": str(tmp_path)})
    assert values_on_a_node(tmp_path, "UNFUSED_RAY_HOME", "AWS_DEFAULT_REGION") == ["s3://second", "region-of-second"]


def test_a_shell_on_a_node_knows_the_users_own_variables_if_there_are_any(config: dict[str, Any], tmp_path: Path):
    assert values_on_a_node(tmp_path, "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD") == []
    protect = next(command for command in config["setup_commands"] if ".unfused-ray.env" in command)
    subprocess.run(["bash", "-c", protect], check=True, env={"HOME": str(tmp_path)})
    own = tmp_path / ".unfused-ray.env"
    own.write_text("MLFLOW_TRACKING_USERNAME=me\n# a comment\n\nMLFLOW_TRACKING_PASSWORD=pa$$w&rd '1 \"x")
    own.chmod(0o644)
    subprocess.run(["bash", "-c", protect], check=True, env={"HOME": str(tmp_path)})
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    assert values_on_a_node(tmp_path, "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD") == [
        "me",
        "pa$$w&rd '1 \"x",
    ]


def values_on_a_node(home: Path, *names: str) -> list[str]:
    """Return the values of environment variables in a shell with this home."""
    command = f"set -e; source {ROOT}/deploy/aws/environment.sh; printenv {' '.join(names)} || true"
    shell = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, env={"HOME": str(home)})
    return shell.stdout.splitlines()


def test_the_dashboard_listens_on_loopback_alone(config: dict[str, Any]):
    assert "--dashboard-host=127.0.0.1 " in config["head_start_ray_commands"][-1]
    assert "dashboard-host" not in " ".join(config["worker_start_ray_commands"])


def test_the_stack_is_what_cloudformation_takes():
    found = cfnlint.api.lint_all(STACK.read_text())
    assert [match for match in found if match.rule.severity != "informational"] == []


def test_no_address_range_that_is_the_world_is_taken_for_ssh():
    pattern = yaml.safe_load(re.sub(r"!(Ref|Sub|GetAtt)", "", STACK.read_text()))["Parameters"]["SshFrom"]
    assert re.fullmatch(pattern["AllowedPattern"], "203.0.113.7/32")
    for wide in ("0.0.0.0/0", "0.0.0.0/8", "10.0.0.0/15"):
        assert not re.fullmatch(pattern["AllowedPattern"], wide)


def test_from_outside_only_ssh_comes_in_and_only_from_the_named_range(account: dict[str, str]):
    group = boto3.resource("ec2").SecurityGroup(account["SecurityGroup"])
    outside = [rule for rule in group.ip_permissions if rule["IpRanges"] or rule["Ipv6Ranges"] or rule["PrefixListIds"]]
    assert [(rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) for rule in outside] == [(22, 22, "tcp")]
    assert [entry["CidrIp"] for entry in outside[0]["IpRanges"]] == [OFFICE]
    inside = [rule for rule in group.ip_permissions if rule not in outside]
    assert [pair["GroupId"] for rule in inside for pair in rule["UserIdGroupPairs"]] == [group.id]


def test_ray_launches_every_kind_of_node_with_its_group_role_and_market(
    account: dict[str, str], config: dict[str, Any]
):
    for node in node_configs(config).values():
        node["SecurityGroupIds"] = [account["SecurityGroup"]]
    before = {group.id for group in boto3.resource("ec2").security_groups.all()}
    ready = bootstrap_aws(prepare_config(config))
    provider = AWSNodeProvider(ready["provider"], ready["cluster_name"])
    for name, node in node_configs(ready).items():
        (created,) = provider.create_node(copy.deepcopy(node), {"kind": name}, 1).values()
        launched = boto3.resource("ec2").Instance(created.id)
        assert [group["GroupId"] for group in launched.security_groups] == [account["SecurityGroup"]]
        role = "unfused-ray-head" if name == config["head_node_type"] else "unfused-ray-worker"
        assert launched.iam_instance_profile["Arn"].endswith(f"/{role}")
        assert launched.metadata_options["HttpTokens"] == "required"
        assert (launched.instance_lifecycle == "spot") == (name in ("cpu", "gpu-spot"))
        # The head's role may launch and end only nodes with this tag.
        assert {"Key": "ray-cluster-name", "Value": "unfused-ray"} in launched.tags
    assert {
        group.id for group in boto3.resource("ec2").security_groups.all()
    } == before  # Ray has made no group of its own


def test_roles_may_use_one_bucket_and_the_head_may_launch_what_the_configuration_names(
    account: dict[str, str], config: dict[str, Any]
):
    iam = boto3.resource("iam")
    bucket = [policy for policy in iam.policies.filter(Scope="Local") if "UseBucket" in policy.policy_name]
    for role in ("unfused-ray-head", "unfused-ray-worker"):
        assert [policy.arn for policy in iam.Role(role).attached_policies.all()] == [bucket[0].arn]
    with_objects = [s for s in statements(bucket[0].default_version.document) if "s3:PutObject" in s["Action"]]
    (objects,) = (statement["Resource"] for statement in with_objects)
    assert objects.endswith(":::the-bucket/*")
    assert not list(iam.Role("unfused-ray-worker").policies.all())
    (policy,) = iam.Role("unfused-ray-head").policies.all()
    allowed = {statement.get("Sid"): statement for statement in statements(policy.policy_document)}
    workers = {node["InstanceType"] for name, node in node_configs(config).items() if name != config["head_node_type"]}
    conditions = allowed["LaunchInstances"]["Condition"]["StringEquals"]
    assert set(conditions["ec2:InstanceType"]) == workers
    assert conditions["aws:RequestTag/ray-cluster-name"] == config["cluster_name"]
    assert allowed["OwnInstances"]["Condition"]["StringEquals"]["aws:ResourceTag/ray-cluster-name"] == "unfused-ray"
    assert allowed["GiveWorkersTheirRole"]["Resource"] == iam.Role("unfused-ray-worker").arn
    assert not [action for statement in allowed.values() for action in statement["Action"] if "*" in action]


def test_a_spot_notice_drains_the_node_and_nothing_does_before(tmp_path: Path):
    calls = tmp_path / "calls"
    asked = tmp_path / "asked"
    fakes = {
        # The metadata service answers with a token, twice with no notice, then with the notice.
        "curl": f"""case "$*" in
            *api/token*) echo TOKEN ;;
            *'metadata-token: TOKEN'*instance-action)
                echo >> {asked}; [ "$(wc -l < {asked})" -ge 3 ] || exit 22; echo '{{"action": "terminate"}}' ;;
            *) exit 9 ;;
        esac""",
        "ray": f'printf "%s\\n" "$RAY_ADDRESS" "$@" >> {calls}',
    }
    for name, body in fakes.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "POLL_SECONDS": "0"}
    script = ROOT / "deploy/aws/drain-on-spot-notice.sh"
    done = subprocess.run([script, "10.0.0.1:6379"], env=environment, capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["action"] == "terminate"
    assert len(asked.read_text().splitlines()) == 3
    address, command, *options = calls.read_text().splitlines()
    assert (address, command) == ("10.0.0.1:6379", "drain-node")
    assert options[options.index("--reason") + 1] == "DRAIN_NODE_REASON_PREEMPTION"
    assert int(options[options.index("--deadline-remaining-seconds") + 1]) < 120
