"""Whoever should know that a run failed is told: in the log, and in a file and by webhook if set.

One line: which run, of which partitions, why, and the page that says what to do. No secret is in
it. Telling is best effort: a webhook that hangs or fails is left alone for a minute, and is told of
the same trouble once an hour; the log and the file have each line in any case.
"""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
from pydantic import BaseModel, SecretStr

from lakehouse_pipeline.settings import Settings

from .jobs import EXCHANGE, RUNBOOK
from .partitions import RANGE_END, RANGE_START

PATIENCE = 10.0  # seconds for a webhook, headers and body together
REST = 60.0  # seconds without another try after it failed
NEWS_AGAIN = 3600.0  # seconds after which what was told is told again: a tick may fail each minute
CAUSE_LENGTH = 500


def say(event: str, facts: Mapping[str, str]) -> None:
    import structlog  # noqa: PLC0415  # each run would pay for what loading the definitions imports

    structlog.get_logger().error(event, **facts)


def build_failure_alert(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor that tells of every failed run, streams included; it is on."""
    alerts, hidden = settings.alerts, list(secrets(settings))
    file = None if alerts.file is None else settings.resolved().state_dir / alerts.file
    webhook = Webhook(alerts.webhook.get_secret_value()) if alerts.webhook else None

    @dg.run_failure_sensor(
        name="failure_alert",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=15,
        description="Tells who should know of each run that failed.",
    )
    def failure_alert(context: dg.RunFailureSensorContext) -> None:
        facts = describe(context, hidden)
        say("run_failed", facts)
        if file is not None:
            write(file, facts)
        if webhook is not None:
            webhook.send(facts)

    return failure_alert


def describe(context: dg.RunFailureSensorContext, hidden: list[str]) -> dict[str, str]:
    """Return what is told: each fact by its name, and all of them as one ``text``."""
    run = context.dagster_run
    steps = context.get_step_failure_events()
    errors = (event.step_failure_data.error for event in steps)
    # The innermost error says what happened; those around it say where Dagster caught it.
    causes = [innermost(error) for error in errors if error is not None]
    cause = "; ".join(causes) or context.failure_event.message or "not known"
    facts = {
        "run": run.run_id,
        "job": run.job_name,
        "partition": partition(run.tags),
        "cause": redact(" ".join(cause.split())[:CAUSE_LENGTH], hidden),
        "runbook": RUNBOOK[run.job_name] if run.job_name in RUNBOOK else RUNBOOK[""],
    }
    of = f" ({facts['partition']})" if facts["partition"] else ""
    text = f"Run {run.run_id[:8]} of {run.job_name}{of} failed: {facts['cause']} See "
    return {**facts, "text": f"{text}{facts['runbook']}"}


def innermost(error: dg.SerializableErrorInfo) -> str:
    while error.cause is not None:
        error = error.cause
    return str(error.message)


def partition(tags: Mapping[str, str]) -> str:
    """Return what the run was of: a partition, a range of them, or a stream's exchange."""
    if RANGE_START in tags:
        return f"{tags[RANGE_START]} to {tags.get(RANGE_END, '')}"
    return tags.get("dagster/partition", tags.get(EXCHANGE, ""))


def secrets(settings: Settings) -> Iterator[str]:
    """Yield every secret of *settings*, and what credentials its addresses hold."""
    for _, section in settings:
        for _, value in section if isinstance(section, BaseModel) else ():
            if isinstance(value, SecretStr):
                yield value.get_secret_value()
    for name, value in settings.lake.properties.items():
        if re.search("credential|secret|token|password|key", name):
            yield value


def redact(text: str, hidden: list[str]) -> str:
    """Return *text* without any of *hidden*, and without a password in an address."""
    for secret in sorted(filter(None, hidden), key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"(\w+://[^\s:/@]*):[^\s@]*@", r"\1:***@", text)


def write(file: Path, facts: Mapping[str, str]) -> None:
    """Append *facts* to *file* as a line of JSON."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"at": time.strftime("%FT%TZ", time.gmtime()), **facts}) + "\n")
    except OSError as error:  # a full disk is told by other means; the webhook comes next
        say("alert_not_written", {"file": str(file), "problem": str(error)})


def kind_of(facts: Mapping[str, str]) -> str:
    """Return what *facts* share with those of another run that failed for the same reason."""
    told = [facts[name] for name in ("job", "partition", "cause")]
    return re.sub(r"\d+", "#", " ".join(told))


class Webhook:
    """Posts JSON to *url*, whose ``text`` is what chat services show."""

    def __init__(self, url: str, *, patience: float = PATIENCE) -> None:
        self._url = url
        self._patience = patience
        self._rest_until = 0.0
        self._told: dict[str, float] = {}

    def send(self, facts: Mapping[str, str]) -> bool:
        """Return whether it was accepted; never raise, never take longer than the patience."""
        now, trouble = time.monotonic(), kind_of(facts)
        self._told = {kind: at for kind, at in self._told.items() if now - at < NEWS_AGAIN}
        if now < self._rest_until or trouble in self._told:
            return False
        outcome: list[str] = []
        # In a thread: a server that drips a byte a second never runs into a socket's timeout.
        post = threading.Thread(target=self._post, args=(facts, outcome), daemon=True)
        post.start()
        post.join(self._patience)
        problem = outcome[0] if outcome else f"no answer within {self._patience:.0f} s"
        if problem:
            self._rest_until = time.monotonic() + REST
            say("webhook_failed", {"problem": redact(problem, [self._url])})
        else:
            self._told[trouble] = now
        return not problem

    def _post(self, facts: Mapping[str, str], outcome: list[str]) -> None:
        headers = {"Content-Type": "application/json"}
        try:
            request = urllib.request.Request(  # noqa: S310  # the operator's own setting
                self._url, data=json.dumps(dict(facts)).encode(), headers=headers
            )
            with urllib.request.urlopen(request, timeout=self._patience) as answer:  # noqa: S310  # as above
                answer.read(1)
        except Exception as error:  # noqa: BLE001  # whatever it is, the run's failure is the news
            outcome.append(str(error) or type(error).__name__)
        else:
            outcome.append("")
