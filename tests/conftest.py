"""Fixtures that several test modules share: an environment of its own, real images, and S3 servers."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from tests.tools import radosgw
from tests.tools.faultproxy import FaultProxy

ROOT = Path(__file__).resolve().parents[1]

_home = pytest.StashKey[str]()

COMPILE = frozenset(
    """
    contours_by_eye contours_kept dapi_share dish export fields_picture ihc_kernel ingest_flow ish_kernel
    ish_phantom ish_real kernel_outputs kernel_thresholds layout learn_tumour outlines python_api qc readme
    real_images run server stage_versions viewer
    """.split()  # noqa: SIM905
)
"""Modules whose tests measure pixels: kernels are compiled before the first, outside of any time limit."""

SLOW = COMPILE | frozenset(
    """
    between biopsy blur cli cluster compiled cube fanout fluorescence ghosts heterogeneity hostile ish
    jackknife kubernetes lanes maintain neighbours older outcome pattern phantom picture picture_cohort
    picture_ish picture_regions profile publish pyramid queries regions report report_browser report_compare
    source_codec sources spatial spots stain storage zarrita
    """.split()  # noqa: SIM905
)
"""Modules that compile kernels, draw, or start servers, clusters or browsers: not of `make quick`, nor is any
test on a real S3 server."""

LONGEST = """
    run server real_images layout readme publish ihc_kernel cli export kernel_outputs viewer
    """.split()  # noqa: SIM905
"""Modules that take longest, longest first: one that starts last leaves the other process idle."""

settings.register_profile("her2", deadline=None)  # the first example may compile a kernel
settings.load_profile("her2")


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests an environment of their own, before Prefect and botocore read theirs at import.

    Nothing of the developer's configuration, credentials or servers takes part, and nothing is sent anywhere.
    """
    config.option.loadscopereorder = False  # xdist starts first what has most tests, not what takes longest
    home = config.stash[_home] = tempfile.mkdtemp(prefix="her2-tests-")
    for name in [n for n in os.environ if n.startswith(("AWS_", "PREFECT_", "HER2_"))]:
        del os.environ[name]
    os.environ.update(
        AWS_CONFIG_FILE=f"{home}/no-aws-config",
        AWS_SHARED_CREDENTIALS_FILE=f"{home}/no-aws-credentials",
        AWS_EC2_METADATA_DISABLED="true",
        DO_NOT_TRACK="1",
        OMP_NUM_THREADS="1",
        PREFECT_HOME=f"{home}/prefect",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="180",
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    """Let no test compute with outdated compiled code; compile once where several run the whole suite."""
    option, worker = session.config.option, hasattr(session.config, "workerinput")
    if not worker and option.markexpr != "not slow" and not option.collectonly:
        from her2core.stages.compiled import forget_outdated

        forget_outdated()
    several = getattr(option, "numprocesses", None) and not worker
    whole = session.config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if several and whole and option.markexpr != "not slow" and not option.collectonly:
        from her2core.stages.compiled import make_ready, missing

        make_ready(missing())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no module that `make quick` takes nothing of: that took longer than its tests."""
    left_out = collection_path.stem.removeprefix("test_") in SLOW
    return True if left_out and config.option.markexpr == "not slow" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        of_server = "radosgw_endpoint" in getattr(item, "fixturenames", ())
        if of_server or item.path.stem.removeprefix("test_") in SLOW:
            item.add_marker(pytest.mark.slow)
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """When a module's tests start: the longest first, what is quick last, so that processes end together."""
    name = item.path.stem.removeprefix("test_")
    return LONGEST.index(name) if name in LONGEST else len(LONGEST) + (name not in SLOW)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compile both kernels, or load them from the cache, where a test will need them."""
    if session.config.option.collectonly:
        return
    if COMPILE.intersection(item.path.stem.removeprefix("test_") for item in session.items):
        from her2core.kernels.ihc import kernel as ihc
        from her2core.kernels.ish import kernel as ish

        ihc.warm()
        ish.warm()


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_home], ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images beside the checkout (never in it)."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real images: ../shared/data is not beside the checkout")
    return folder


@dataclass(frozen=True)
class Bucket:
    """A fresh, empty bucket; the environment already holds the server's credentials and endpoint."""

    uri: str
    endpoint_url: str


@pytest.fixture(scope="session")
def radosgw_endpoint() -> Iterator[str]:
    """Endpoint of a real S3 server (Ceph's gateway), or a skip with the reason."""
    if reason := radosgw.unavailable():
        pytest.skip(reason)
    with radosgw.Radosgw() as server:
        yield server.endpoint_url


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """Endpoint of moto's mock of S3: for injected faults only, it checks no credentials."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(radosgw_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket on the real S3 server."""
    return _bucket(radosgw_endpoint, monkeypatch)


@pytest.fixture
def faulty_s3(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Bucket, FaultProxy]]:
    """A bucket on the mock server, behind a proxy whose ``faults`` the test sets."""
    with FaultProxy(moto_endpoint) as proxy:
        yield _bucket(proxy.endpoint_url, monkeypatch), proxy


def _bucket(endpoint_url: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    from her2core.storage.s3 import s3_filesystem

    for name, value in {
        "AWS_ACCESS_KEY_ID": radosgw.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": radosgw.SECRET_KEY,
        "AWS_ENDPOINT_URL": endpoint_url,
    }.items():
        monkeypatch.setenv(name, value)
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3_filesystem(endpoint_url).mkdir(name)
    return Bucket(f"s3://{name}", endpoint_url)
