"""A scheduler that is running already, by its address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from distributed import Client

from flows.clusters.base import CHECK_S, check_workers, quieten
from her2core.errors import ClusterError


@dataclass(frozen=True, slots=True)
class RunningScheduler:
    """A Dask cluster at ``tcp://`` or ``tls://host:8786``, whose TLS files Dask's configuration names."""

    address: str
    timeout_s: int = 60
    count: int = 1

    @property
    def title(self) -> str:
        """Its address."""
        return self.address

    @contextmanager
    def connect(self) -> Iterator[Client]:
        """See `flows.clusters.base.Cluster`."""
        quieten()
        with self._client(self.timeout_s) as client:
            check_workers(client, self.address)
            yield client

    def check(self) -> None:
        """Check the scheduler and its workers."""
        quieten()
        with self._client(CHECK_S) as client:
            check_workers(client, self.address)

    def _client(self, timeout_s: int) -> Client:
        try:
            return Client(  # type: ignore[no-untyped-call]
                self.address, timeout=f"{timeout_s}s", set_as_default=False
            )
        except OSError as error:
            raise ClusterError(
                f"no Dask scheduler answers at {self.address} ({error}); start one, or use --cluster local"
            ) from error
