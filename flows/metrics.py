"""What machines see of runs: Prometheus metrics on one port, and the log as JSON.

Both come from the records that stages report through ``logging`` (`her2core.stages.progress`). Metrics of a
run exist while it works; `StoreMetrics` reads the store, which holds runs that were killed as well.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from her2core.errors import ConfigError
from her2core.lake.ghosts import FINISHED
from her2core.lake.schema import RUNS
from her2core.lake.tables import read_present
from her2core.stages.failures import cleaned
from her2core.stages.progress import COHORT, ENDED, Progress, Published
from her2core.storage.store import Store

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from her2core.stages.run import Run

log = logging.getLogger("her2core.metrics")

WAITING, RUNNING = "waiting", "running"
FIRST_STAGE = "inspect"
"""What every try of a slide begins with."""
STATES = ("scored", "indeterminate", "failed", "quarantined", "skipped")
ASK_EVERY_S = 60.0
"""How long an answer of the store serves. Ours: runs take minutes to hours."""


def prometheus() -> Any:
    """The client library.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        import prometheus_client
    except ImportError:
        raise ConfigError(
            'metrics need the extra kubernetes: pip install "her2cohort[kubernetes]"; or leave '
            "run.metrics_port null"
        ) from None
    return prometheus_client


class RunMetrics(logging.Handler):
    """Counts what a run reports.

    ``her2_slides`` by state, ``her2_stage_seconds`` and ``her2_stage_bytes_total`` by stage, and
    ``her2_retries_total``. Labels are states and stages alone: no id of a slide or a patient.
    """

    def __init__(self, registry: CollectorRegistry, slides: int) -> None:
        super().__init__(logging.INFO)
        client = prometheus()
        self.slides = client.Gauge(
            "her2_slides", "Slides of the run, by state.", ["state"], registry=registry
        )
        self.seconds = client.Summary(
            "her2_stage_seconds",
            "Seconds from the start of a stage to its record.",
            ["stage"],
            registry=registry,
        )
        self.bytes = client.Counter(
            "her2_stage_bytes", "Bytes written by a stage.", ["stage"], registry=registry
        )
        self.retries = client.Counter(
            "her2_retries", "Times a slide was tried again in this run.", registry=registry
        )
        self.total = slides
        self.states: dict[str, str] = {}
        self._show()

    def emit(self, record: logging.LogRecord) -> None:
        step: Progress | None = getattr(record, "progress", None)
        published: Published | None = getattr(record, "published", None)
        if published is not None:
            self.seconds.labels(published.stage).observe(published.seconds)
            self.bytes.labels(published.stage).inc(published.bytes_written)
        if step is None:
            return
        if step.slide_id == COHORT:  # a run may leave alone what is as it was
            self.total = step.total
        elif step.stage == FIRST_STAGE and step.done == 0:
            if step.slide_id in self.states:
                self.retries.inc()
            self.states[step.slide_id] = RUNNING
        elif step.stage == ENDED:
            self.states[step.slide_id] = step.state
        self._show()

    def _show(self) -> None:
        counts = Counter(self.states.values())
        counts[WAITING] = self.total - len(self.states)
        for state in (WAITING, RUNNING, *STATES):
            self.slides.labels(state).set(counts[state])


class JsonLines(logging.StreamHandler[TextIO]):
    """The log of a run, one JSON object a line: time, level, message, run, slide, stage, key, seconds."""

    def __init__(self, run_id: str, stream: TextIO | None = None, hide: Callable[[str], str] = str) -> None:
        super().__init__(stream or sys.stdout)
        self.setLevel(logging.INFO)
        self.run_id, self.hide = run_id, hide

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "run": self.run_id,
            "message": self.hide(cleaned(record.getMessage())),
        }
        step: Progress | None = getattr(record, "progress", None)
        published: Published | None = getattr(record, "published", None)
        if (slide := getattr(record, "slide_id", None)) is not None:
            line["slide"] = slide
        if step is not None:
            line |= {"slide": step.slide_id, "stage": step.stage, "done": step.done, "total": step.total}
            if step.state:
                line["state"] = step.state
        if published is not None:
            line |= {
                "slide": published.slide_id,
                "stage": published.stage,
                "key": published.key,
                "seconds": round(published.seconds, 3),
                "bytes": published.bytes_written,
            }
        if record.exc_info:
            text = logging.Formatter().formatException(record.exc_info)
            line["traceback"] = "\n".join(self.hide(cleaned(part)) for part in text.splitlines())
        return json.dumps(line, ensure_ascii=False)


@contextmanager
def observed(run: Run) -> Iterator[None]:
    """Offer a run's metrics and write its log as JSON, if its configuration requests them."""
    settings, logger = run.config.run, logging.getLogger("her2core")
    with ExitStack() as stack:

        def listen(handler: logging.Handler) -> None:
            logger.addHandler(handler)
            stack.callback(logger.removeHandler, handler)

        if settings.json_logs:
            listen(JsonLines(run.run_id, hide=run.hide))
        if settings.metrics_port is not None:
            registry = prometheus().CollectorRegistry()
            listen(RunMetrics(registry, len(run.rows)))
            try:
                stack.enter_context(serving(settings.metrics_port, registry))
            except OSError as error:  # a run is worth more than its metrics
                log.warning("no metrics on port %d: %s", settings.metrics_port, error.strerror or error)
        yield


@contextmanager
def serving(port: int, registry: CollectorRegistry, address: str = "0.0.0.0") -> Iterator[int]:
    """Answer Prometheus for the length of the block; yields the port, a free one where it was 0."""
    server, thread = prometheus().start_http_server(port, address, registry)
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class StoreMetrics:
    """What the tables of one or more outputs hold: how each cohort's last runs ended, and how long ago.

    ``her2_last_success_age_seconds`` counts from the last run that did all that can be done: no slide failed,
    and the quarantined ones are themselves the cause. ``her2_last_run_age_seconds`` counts from the last run
    that ended at all; ``her2_last_run_slides`` is by state. Of a store that does not answer there is only
    ``her2_store_up``, which is 0.
    """

    def __init__(
        self, stores: Iterable[Store], ask_every_s: float = ASK_EVERY_S, now: Callable[[], float] = time.time
    ) -> None:
        self.stores, self.ask_every_s, self.now = tuple(stores), ask_every_s, now
        self._answers: dict[str, tuple[float, list[Mapping[str, Any]] | None]] = {}

    def collect(self) -> Iterator[Metric]:
        """One scrape, as Prometheus' client calls it."""
        from prometheus_client.core import GaugeMetricFamily

        labels = ["store", "cohort"]
        up = GaugeMetricFamily("her2_store_up", "Whether the store answers.", labels=["store"])
        success = GaugeMetricFamily(
            "her2_last_success_age_seconds", "Seconds since a run without a failure.", labels=labels
        )
        last = GaugeMetricFamily("her2_last_run_age_seconds", "Seconds since a run ended.", labels=labels)
        slides = GaugeMetricFamily(
            "her2_last_run_slides", "Slides of the last run, by state.", labels=[*labels, "state"]
        )
        for store in self.stores:
            name, rows = store.uri(), self._runs(store)
            up.add_metric([name], 0.0 if rows is None else 1.0)
            by_cohort: dict[str, list[Mapping[str, Any]]] = {}
            ended = [row for row in rows or () if row["state"] in FINISHED]
            for row in sorted(ended, key=lambda row: row["finished_at"]):
                by_cohort.setdefault(row["cohort"] or "", []).append(row)
            for cohort, runs in by_cohort.items():
                last.add_metric([name, cohort], self._age(runs[-1]))
                if whole := [row for row in runs if row["n_failed"] == 0]:
                    success.add_metric([name, cohort], self._age(whole[-1]))
                counted = {state: runs[-1][f"n_{state}"] for state in STATES}
                for state, count in counted.items():
                    if count is not None:  # else of an older version, which did not count them
                        slides.add_metric([name, cohort, state], count)
        yield from (up, success, last, slides)

    def _age(self, row: Mapping[str, Any]) -> float:
        return float(self.now() - row["finished_at"].timestamp())

    def _runs(self, store: Store) -> list[Mapping[str, Any]] | None:
        """Rows of the table ``runs``, read once a minute; None if the store does not answer."""
        name = store.uri()
        read_at, rows = self._answers.get(name, (float("-inf"), None))
        if self.now() - read_at > self.ask_every_s:
            columns = ["cohort", "state", "finished_at", *(f"n_{state}" for state in STATES)]
            try:
                rows = read_present(store, RUNS, columns).to_pylist()
            except Exception as error:  # noqa: BLE001, whatever hinders the store is shown as a number
                log.warning("%s: %s", name, cleaned(str(error)))
                rows = None
            self._answers[name] = (self.now(), rows)
        return rows
