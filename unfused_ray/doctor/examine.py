"""Compares the cluster and its nodes with the needs of a run; each finding has a remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.table import Table
from rich.text import Text

from unfused_ray import cluster, storage
from unfused_ray.config import TrainingConfig
from unfused_ray.doctor.finding import Finding
from unfused_ray.doctor.gpus import look_at_faiss, look_at_gpus, look_at_placement
from unfused_ray.doctor.node import NodeReport, look, versions
from unfused_ray.home import home
from unfused_ray.tracking.store import (
    OFF,
    ends_with_its_node,
    examine_store,
    experiment_name,
    taken_from_environment,
    tracking_uri,
)
from unfused_ray.training.runtimes import worker_resources

_ANSWER_SECONDS = 60.0
_SOME_GPU = 0.001  # a task that reserves no GPU sees none; this little is free even on a node that trains
_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def examine(config: TrainingConfig) -> list[Finding]:
    """Examine the cluster that Ray is connected to, and every node of it, for a run that will be started.

    Nothing is changed, except that every node writes an object beside the run's folder and deletes it. On one machine
    this takes about a second.

    Args:
        config: configuration of the run; its data are not examined.
    """
    output = config.output or storage.join(home(), "runs", config.name)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    reports, silent = _look_everywhere(nodes, output)
    return [
        *_resources(config),
        *silent,
        *_storage(reports, output),
        *_shared_memory(reports, nodes),
        *_codecs(reports),
        _tracker(config),
        *_token(reports),
        *_versions(reports),
        *look_at_gpus(reports, config),
        *look_at_faiss(reports, config),
        *look_at_placement(nodes, config.runtime),
    ]


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 if a finding is a problem, else 0."""
    return int(any(finding.state == "problem" for finding in findings))


def table(findings: Sequence[Finding]) -> Table:
    """Return the findings as a table for the terminal."""
    shown = Table("", "", title="doctor", title_justify="left")
    for heading in ("found", "what to do"):
        shown.add_column(heading, overflow="fold")  # a path longer than a line is shown in full
    for finding in findings:
        shown.add_row(finding.check, Text(finding.state, _STYLES[finding.state]), finding.found, finding.fix)
    return shown


def _look_everywhere(nodes: Sequence[Mapping[str, Any]], output: str) -> tuple[dict[str, NodeReport], list[Finding]]:
    """Return reports by node address, and findings on the nodes that gave none."""
    asked = {}
    for node in nodes:
        gpus = node["Resources"].get("GPU", 0) > 0
        options = {"num_cpus": 0, "num_gpus": _SOME_GPU if gpus else 0, "max_retries": 0}
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        reference = ray.remote(look).options(scheduling_strategy=there, **options).remote(output, gpus)
        asked[reference] = node["NodeManagerAddress"]
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS)
    reports, findings = {}, []
    for reference in answered:
        try:
            reports[asked[reference]] = ray.get(reference)
        except ray.exceptions.RayError as error:
            found = f"{asked[reference]} cannot run the project: {str(error).strip().splitlines()[-1]}"
            findings.append(Finding("nodes", "problem", found, "install the project's dependencies there"))
    for reference in silent:
        ray.cancel(reference, force=True)
        found = f"{asked[reference]} gave no answer in {_ANSWER_SECONDS:g} s"
        findings.append(Finding("nodes", "problem", found, "see `ray status` and that node's raylet log; end the node"))
    return reports, findings


def _resources(config: TrainingConfig) -> Iterator[Finding]:
    runtime, fields = config.runtime, config.flat()
    have, most = ray.cluster_resources(), cluster.capacity()
    now = ", ".join(f"{have.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
    if most.get("CPU", 0) > have.get("CPU", 0) or most.get("GPU", 0) > have.get("GPU", 0):
        now += f", up to {most.get('CPU', 0):g} and {most.get('GPU', 0):g} with the autoscaler"
    if runtime.kind == "in-process":
        yield Finding("resources", "ok", f"{now}; the run uses this process alone")
        return
    try:
        each = worker_resources.worker_cpus(runtime)
        shards, gpus = (fields.get(f"method.assignment_{name}", 0) for name in ("shards", "gpus"))
        worker_resources.refuse_few_gpus(runtime, shards, gpus)
    except ValueError as error:
        found, _, fix = str(error).partition(": ")
        yield Finding("resources", "problem", found, fix)
        return
    workers = runtime.num_workers
    yield Finding(
        "resources", "ok", f"{now}; {workers} × {each:g} CPUs and {runtime.gpus_per_worker:g} GPUs are asked for"
    )
    yield Finding("CPUs for Ray Data", "ok", f"{most['CPU'] - workers * each:g}, for reading and decoding")


def _storage(reports: Mapping[str, NodeReport], output: str) -> Iterator[Finding]:
    if (several := cluster.several_nodes()) and storage.is_local(output):
        found = f"{output} is a folder of one machine, and the cluster has {several}"
        yield Finding("storage", "problem", found, "give --output a URI such as s3://bucket/folder")
        return
    failed = {node: report.storage for node, report in reports.items() if report.storage}
    for node, problem in failed.items():
        yield Finding("storage", "problem", f"{node}: {problem}", "see that every node's role or key may write there")
    if not failed:
        slowest = max((report.storage_seconds for report in reports.values()), default=0.0)
        found = f"{output}: written, read and deleted from {_count(len(reports))} in {slowest:.2g} s"
        yield Finding("storage", "ok", found)


def _shared_memory(reports: Mapping[str, NodeReport], nodes: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    stores = {node["NodeManagerAddress"]: node["Resources"].get("object_store_memory", 0.0) for node in nodes}
    short = False
    for node, report in reports.items():
        if report.shared_memory is not None and report.shared_memory < stores[node]:
            short = True
            found = f"{node}: {_gigabytes(report.shared_memory)} for an object store of {_gigabytes(stores[node])}"
            fix = "start its container with --shm-size, or ray start with a smaller --object-store-memory"
            yield Finding("shared memory", "problem", found, fix)
    if not short:
        least = min((stores[node] for node in reports), default=0.0)
        yield Finding("shared memory", "ok", f"the object stores, of at least {_gigabytes(least)}, fit into it")


def _codecs(reports: Mapping[str, NodeReport]) -> Iterator[Finding]:
    failed = {(node, codec): why for node, report in reports.items() for codec, why in report.codecs.items()}
    for (node, codec), why in failed.items():
        yield Finding("codecs", "problem", f"{node}: {codec}: {why}", "pip install --upgrade soundfile av")
    if not failed:
        yield Finding("codecs", "ok", "WAV, FLAC, OGG (Vorbis, Opus) and, by FFmpeg, MP3 are decoded")


def _tracker(config: TrainingConfig) -> Finding:
    try:
        uri, experiment = tracking_uri(config.tracking), experiment_name(config.tracking)
    except ValueError as error:
        found, _, fix = storage.masked(str(error)).rpartition(": ")
        return Finding("tracker", "problem", found, fix)
    taken = taken_from_environment(config.tracking)
    shown = storage.masked(uri) + (f" ({taken})" if taken else "")
    if uri == OFF:
        return Finding("tracker", "ok", "nothing is tracked")
    if problem := examine_store(uri, experiment):
        return Finding("tracker", "problem", f"{shown}: {problem.found}", f"{problem.fix}; curves would be lost")
    if problem := ends_with_its_node(uri, cluster.several_nodes()):
        return Finding("tracker", "warning", f"{shown}: {problem.found}", problem.fix)
    return Finding("tracker", "ok", f"{shown}, experiment {experiment}")


def _token(reports: Mapping[str, NodeReport]) -> Iterator[Finding]:
    if cluster.is_one_machine():
        yield Finding("token", "ok", "none is needed: every port is on loopback")
        return
    without = [node for node, report in reports.items() if not report.token]
    if without:
        found = f"{', '.join(without)}: whoever reaches a port may run code"
        fix = "ray get-auth-token --generate, then RAY_AUTH_MODE=token for every `ray start`"
        yield Finding("token", "problem", found, fix)
    else:
        yield Finding("token", "ok", "every node asks for it")


def _versions(reports: Mapping[str, NodeReport]) -> Iterator[Finding]:
    here = versions()
    differ = [
        f"{node}: {name} {theirs}, here {here[name]}"
        for node, report in reports.items()
        for name, theirs in report.versions.items()
        if theirs != here[name]
    ]
    if differ:
        fix = "install deploy/constraints.txt on every node, and submit with --working-dir or update the nodes' copy"
        yield Finding("versions", "problem", "\n".join(differ), fix)
    else:
        shown = ", ".join(f"{name} {number}" for name, number in list(here.items())[:3])
        yield Finding("versions", "ok", f"{shown} on {_count(len(reports))}")


def _count(nodes: int) -> str:
    return f"{nodes} node{'s' if nodes != 1 else ''}"


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2g} GB"
