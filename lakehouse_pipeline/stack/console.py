"""What the stack asks Dagster over GraphQL: is it well, what ran, please run this.

The stack does not import Dagster; this is all it knows of it.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

HEALTH = """
{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError {
    __typename ... on PythonError { message } } } } }
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }
"""
RUNS = """
query Runs($after: Float!) { runsOrError(filter: {createdAfter: $after}, limit: 500) {
    ... on Runs { results { runId jobName status } } } }
"""
CHECKS = """
query Checks($keys: [AssetKeyInput!]) { assetNodes(assetKeys: $keys) { assetKey { path }
    assetChecksOrError { ... on AssetChecks { checks { name } } } } }
"""
EXECUTIONS = """
query Executions($key: AssetKeyInput!, $name: String!) {
    assetCheckExecutions(assetKey: $key, checkName: $name, limit: 20) { status timestamp } }
"""
LAUNCH = """
mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } } } }
"""

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the webserver is ours


class Unanswered(Exception):
    """The webserver did not answer, or answered an error."""


@dataclass(frozen=True, slots=True)
class Run:
    run_id: str
    job: str
    status: str


class Console:
    """Dagster as seen from its webserver at *url*."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Return the ``data`` of the answer.

        Raises:
            Unanswered: no server, no JSON, or GraphQL errors.
        """
        request = urllib.request.Request(  # noqa: S310  # always our own loopback webserver
            f"{self.url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with DIRECT.open(request, timeout=20) as response:
                answer = json.load(response)
        except (OSError, ValueError) as error:
            raise Unanswered(str(error)) from error
        if answer.get("errors"):
            raise Unanswered(str(answer["errors"][0].get("message")))
        data = answer["data"]
        assert isinstance(data, dict)
        return data

    def ailments(self) -> list[str]:
        """Return what is not well yet; an empty list means ready."""
        try:
            data = self.ask(HEALTH)
        except Unanswered as error:
            return [f"webserver: {error}"]
        entries = data["workspaceOrError"].get("locationEntries") or []
        loads = [entry["locationOrLoadError"] or {} for entry in entries]
        statuses = data["instance"]["daemonHealth"]["allDaemonStatuses"]
        return [
            *([] if entries else ["no code location"]),
            *(
                f"definitions: {load.get('message', 'loading')}"
                for load in loads
                if load.get("__typename") != "RepositoryLocation"
            ),
            *(f"daemon {s['daemonType']}" for s in statuses if s["required"] and not s["healthy"]),
        ]

    def runs_since(self, instant: datetime) -> list[Run]:
        """Return the runs created after *instant*, newest first."""
        results = self.ask(RUNS, after=instant.timestamp())["runsOrError"]["results"]
        return [Run(run["runId"], run["jobName"], run["status"]) for run in results]

    def check_results(
        self, assets: Sequence[str], *, since: datetime
    ) -> dict[tuple[str, str], list[str]]:
        """Return, by asset (``market/bars_1m``) and check, how it ended since then, newest first.

        Executions that have not ended yet are left out.
        """
        keys = [{"path": asset.split("/")} for asset in assets]
        results = {}
        for node in self.ask(CHECKS, keys=keys)["assetNodes"]:
            asset = "/".join(node["assetKey"]["path"])
            for check in node["assetChecksOrError"].get("checks", []):
                key = {"path": node["assetKey"]["path"]}
                answer = self.ask(EXECUTIONS, key=key, name=check["name"])
                results[asset, check["name"]] = [
                    execution["status"]
                    for execution in answer["assetCheckExecutions"]
                    if execution["timestamp"] >= since.timestamp()
                    and execution["status"] != "IN_PROGRESS"
                ]
        return results

    def launch(self, job: str, *, tags: dict[str, str]) -> str:
        """Start *job* and return the run's id.

        Raises:
            Unanswered: if Dagster refuses it.
        """
        params = {
            "selector": {
                "repositoryLocationName": "lakehouse",
                "repositoryName": "__repository__",
                "jobName": job,
            },
            "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
        }
        answer = self.ask(LAUNCH, params=params)["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise Unanswered(f"{job} was not launched: {answer}")
        return str(answer["run"]["runId"])
