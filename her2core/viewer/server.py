"""The viewer's server: loopback alone, reads alone, and nothing without its token.

It answers a fixed set of addresses; none of them names a file or an object, so that no address leads out of
the run. A slide is looked up among the rows of the run's table before anything is read. The token stands in
the first address once, and then in a cookie that scripts cannot read, and that other sites can send only by
opening the page itself: so that links of a report or of cBioPortal open it.
"""

from __future__ import annotations

import hmac
import json
import math
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from her2core.errors import Her2Error
from her2core.export.finished import FinishedRun, Row, of_slide
from her2core.export.qupath import hexagon_px0
from her2core.lake.finished import finished_table
from her2core.lake.schema import REGIONS
from her2core.pictures.colours import OTHER_COLOUR, SCORE_COLOURS
from her2core.records import RGB, PyramidRef
from her2core.report.build import page_path
from her2core.report.inlined import KINDS as PICTURES
from her2core.stages.finished import SlideFinished
from her2core.storage.store import Store
from her2core.viewer.areas import areas_of
from her2core.viewer.cells import RAMP, Cells, draw_tile, kind_of, no_cells, read_cell, read_cells
from her2core.viewer.contours import SlideContours, can_have_contours
from her2core.viewer.tiles import TILE_PX, check_layout, coarsest, tiles_of

HOST = "127.0.0.1"
ASSETS = {
    "viewer.html": "text/html; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
    "viewer.css": "text/css; charset=utf-8",
    "openlayers.min.js": "text/javascript; charset=utf-8",
    "openlayers.css": "text/css; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
POLICY_OF_REPORT = "frame-ancestors 'none'"
"""Beside that in the page itself, which names its own scripts by their digests."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
TOKEN_HEADER = "X-Her2-Token"
IDLE_S = 30.0
"""How long a browser may keep a connection without asking; ours."""
SLIDES_KEPT = 4
"""Slides whose cells stay in memory, some 30 MB a million cells."""
AREAS_KEPT = 16
"""Slides whose areas stay in memory, some 100 kB each. Ours."""
NO_CONTOURS = "contours of these cells are not stored and cannot be made again"
NO_TOKEN = b"No token: open the address that `her2 view` printed.\n"
REGION_MEASURES = {"membrane_od_mean": "membrane_od_mean", "her2_signals": "copies_mean"}
"""Column of ``regions`` that the measure of a cell has."""
_VIEWER_OF_PAGE = re.compile(rb'<meta name="her2-viewer" content="[^"]*">')
_VIEWER_HERE = b'<meta name="her2-viewer" content="/#slide={slide_id}">'
LIST = (
    "slide_id", "case_id", "patient_id", "specimen_id", "site", "assay", "state", "score", "her2_class",
    "qc_verdict", "n_scored", "h_score", "ish_group",
)  # fmt: skip
"""Columns of ``slides`` that the page shows; none holds an address."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets."""

    body: bytes
    kind: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK
    policy: str = POLICY


def _json(value: Any) -> Answer:
    return Answer(json.dumps(value, allow_nan=False).encode())


def _lost(why: str) -> Answer:
    return Answer(json.dumps({"error": why}).encode(), status=HTTPStatus.NOT_FOUND)


T = TypeVar("T")


class Kept(Generic[T]):
    """What was made of the slides that were requested last. One request makes it, others wait for it.

    Parameters
    ----------
    most
        Slides that are kept.
    """

    def __init__(self, most: int, make: Callable[[str], T]) -> None:
        self._most, self._make = most, make
        self._made: OrderedDict[str, Future[T]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, slide_id: str) -> T:
        with self._lock:
            made = self._made.get(slide_id)
            first = made is None
            if made is None:
                made = self._made[slide_id] = Future()
                if len(self._made) > self._most:
                    self._made.popitem(last=False)
            self._made.move_to_end(slide_id)
        if first:
            self._fill(made, slide_id)
        return made.result()

    def _fill(self, made: Future[T], slide_id: str) -> None:
        """Make it outside of the lock: other slides are answered meanwhile."""
        try:
            made.set_result(self._make(slide_id))
        except BaseException as error:  # noqa: BLE001, all who wait for it get it, and who asked first
            with self._lock:  # the next request tries again
                if self._made.get(slide_id) is made:
                    del self._made[slide_id]
            made.set_exception(error)


class Viewed:
    """A run as the viewer answers it."""

    def __init__(self, store: Store) -> None:
        self._run = FinishedRun(store)
        self._store = store
        self._records: dict[str, SlideFinished] = {}
        self._cells = Kept(SLIDES_KEPT, self._read_cells)
        self._contours = Kept(SLIDES_KEPT, self._open_contours)
        self._areas = Kept(AREAS_KEPT, self._find_areas)
        self._outlining = threading.Lock()
        self._routes: list[tuple[re.Pattern[str], Callable[..., Answer]]] = [
            (re.compile(pattern), answer)
            for pattern, answer in (
                (r"/assets/([a-z.]+)", self._asset),
                (r"/api/slides", self._list),
                (r"/api/slide/([^/]+)", self._slide),
                (r"/api/regions/([^/]+)/(\d{1,6}(?:\.\d{1,3})?)", self._regions),
                (r"/api/cell/([^/]+)/(\d{1,7})/(\d{1,7})", self._cell),
                (r"/api/contours/([^/]+)/(\d{1,5})/(\d{1,5})", self._block),
                (r"/api/areas/([^/]+)", self._areas_of),
                (r"/report", self._report),
                (r"/pictures/([^/]+)", self._picture),
                (r"/thumbnail/([^/]+)", self._thumbnail),
                (r"/tile/([^/]+)/(\d{1,2})/(\d{1,6})/(\d{1,6})", self._tile),
                (r"/cells/([^/]+)/(class|measure)/([01])/(\d{1,2})/(\d{1,6})/(\d{1,6})", self._overlay),
            )
        ]

    @cached_property
    def slides(self) -> dict[str, Row]:
        """Rows of ``slides`` by their id."""
        return {row["slide_id"]: row for row in self._run.slides}

    def answer(self, path: str) -> Answer:
        """The answer to a path, as it stands in the request."""
        if path == "/":
            return self._asset("viewer.html")
        for pattern, of in self._routes:
            if found := pattern.fullmatch(path):
                return of(*(unquote(part) for part in found.groups()))
        return _lost("no such page")

    def _asset(self, name: str) -> Answer:
        if name not in ASSETS:
            return _lost("no such page")
        return Answer((resources.files(__package__) / "assets" / name).read_bytes(), ASSETS[name])

    def _list(self) -> Answer:
        return _json([{name: _plain(row.get(name)) for name in LIST} for row in self.slides.values()])

    def _record(self, slide_id: str) -> SlideFinished | None:
        """What a slide left behind; None if that is nothing."""
        row = self.slides.get(slide_id)
        if row is None or not row["score_key"]:
            return None
        if slide_id not in self._records:
            record = self._run.record(row)
            if record.outcome.pyramid is not None:
                check_layout(self._store, record.outcome.pyramid)
            self._records[slide_id] = record
        return self._records[slide_id]

    def _ref(self, slide_id: str) -> PyramidRef | None:
        """The pyramid of a slide; None without."""
        record = self._record(slide_id)
        return record.outcome.pyramid if record else None

    def _region_rows(self, slide_id: str, columns: list[str], where: str = "true") -> list[Row]:
        """Rows of a slide's regions; none where it left none, and there may be no table."""
        record = self._record(slide_id)
        if record is None or record.regions is None:
            return []
        condition = f"{of_slide(slide_id)} AND {where}"
        rows: list[Row] = finished_table(self._store, REGIONS, columns, condition).to_pylist()
        return rows

    def _slide(self, slide_id: str) -> Answer:
        ref = self._ref(slide_id)
        if ref is None:
            return _lost("this slide has no pyramid in this run")
        row = self.slides[slide_id]
        kind = kind_of(row["assay"])
        scales = {region["scale_um"] for region in self._region_rows(slide_id, ["scale_um"])}
        found = {name: _plain(row.get(name)) for name in LIST}
        return _json(
            found
            | {
                "height": ref.shapes[0][0],
                "width": ref.shapes[0][1],
                "mpp": ref.mpp,
                "levels": coarsest(ref) + 1,
                "tile": TILE_PX,
                "dark": ref.channels != RGB,
                "classes": [list(pair) for pair in kind.classes],
                "other": OTHER_COLOUR,
                "measure": kind.measure,
                "top": kind.top,
                "ramp": list(RAMP),
                "block": self._block_px(slide_id),
                "report": self._has_report,
                "region_column": REGION_MEASURES[kind.column],
                "scores": SCORE_COLOURS,
                "scales": sorted(scales),
            }
        )

    def _tile(self, slide_id: str, level: str, row: str, column: str) -> Answer:
        ref = self._ref(slide_id)
        if ref is None or not _has(ref, int(level), int(row), int(column)):
            return _lost("no such tile")
        return Answer(tiles_of(self._store, ref).tile(int(level), int(row), int(column)), "image/jpeg")

    def _thumbnail(self, slide_id: str) -> Answer:
        ref = self._ref(slide_id)
        return (
            _lost("no picture")
            if ref is None
            else Answer(tiles_of(self._store, ref).thumbnail(), "image/jpeg")
        )

    def _overlay(self, slide_id: str, by: str, others: str, level: str, row: str, column: str) -> Answer:
        ref = self._ref(slide_id)
        if ref is None or not _has(ref, int(level), int(row), int(column)):
            return _lost("no such tile")
        cells = self._cells.of(slide_id)
        drawn = draw_tile(cells, by == "class", others == "1", int(level), int(row), int(column))
        return Answer(drawn, "image/png")

    def _cell(self, slide_id: str, y: str, x: str) -> Answer:
        if self._ref(slide_id) is None:
            return _lost("no such slide")
        cells = self._cells.of(slide_id)
        row = cells.nearest(float(y), float(x))
        if row is None:
            return _json(None)
        found = read_cell(self._store, self.slides[slide_id], cells, row)
        return _json(found | {"values": {name: _plain(v) for name, v in found["values"].items()}})

    def _read_cells(self, slide_id: str) -> Cells:
        record, ref = self._record(slide_id), self._ref(slide_id)
        assert ref is not None
        read = read_cells if record and record.cells else no_cells
        return read(self._store, self.slides[slide_id], ref.mpp)

    def _regions(self, slide_id: str, size: str) -> Answer:
        ref = self._ref(slide_id)
        if ref is None:
            return _lost("no such slide")
        measure = REGION_MEASURES[kind_of(self.slides[slide_id]["assay"]).column]
        names = ["region_id", "y_um", "x_um", "n", "score", measure]
        rows = self._region_rows(slide_id, names, f"scale_um = {float(size)!r}")
        return _json(
            [
                {
                    "id": row["region_id"],
                    "n": row["n"],
                    "score": row["score"],
                    "value": _plain(row[measure]),
                    "ring": hexagon_px0(row["y_um"], row["x_um"], float(size), ref.mpp)[:, ::-1]
                    .round(1)
                    .tolist(),
                }
                for row in rows
            ]
        )

    def _open_contours(self, slide_id: str) -> SlideContours:
        return SlideContours(self._run, self.slides[slide_id])

    def _block_px(self, slide_id: str) -> int | None:
        """Edge of a block of contours; None where the slide can have none."""
        record = self._record(slide_id)
        if record is None or not record.cells or not can_have_contours(self.slides[slide_id]):
            return None
        try:
            return self._contours.of(slide_id).block_px
        except Her2Error:
            return None

    def _block(self, slide_id: str, row: str, column: str) -> Answer:
        ref, edge = self._ref(slide_id), self._block_px(slide_id)
        if ref is None or edge is None:
            return _lost(NO_CONTOURS)
        if int(row) * edge >= ref.shapes[0][0] or int(column) * edge >= ref.shapes[0][1]:
            return _lost("no such block")
        cells, contours = self._cells.of(slide_id), self._contours.of(slide_id)
        with self._outlining:  # the kernel takes all that the machine has; other slides open meanwhile
            return _json(contours.block(int(row), int(column), cells))

    def _areas_of(self, slide_id: str) -> Answer:
        if self._ref(slide_id) is None:
            return _lost("no such slide")
        return self._areas.of(slide_id)

    def _find_areas(self, slide_id: str) -> Answer:
        return _json(areas_of(self._run, self.slides[slide_id]))

    @cached_property
    def _has_report(self) -> bool:
        return self._store.exists(page_path(self._run.run["run_id"]))

    def _report(self) -> Answer:
        """The report of the run, whose rows link to this viewer."""
        if not self._has_report:
            return _lost("this run has no report; her2 report writes it")
        page = self._store.read_bytes(page_path(self._run.run["run_id"]))
        page = _VIEWER_OF_PAGE.sub(lambda _: _VIEWER_HERE, page, count=1)
        return Answer(page, "text/html; charset=utf-8", policy=POLICY_OF_REPORT)

    @cached_property
    def _pictures(self) -> dict[str, str]:
        """Places of the run's pictures by the names of their files."""
        paths = [row[kind] for row in self.slides.values() for kind in PICTURES if row.get(kind)]
        return {path.rpartition("/")[2]: path for path in paths}

    def _picture(self, name: str) -> Answer:
        try:
            kind = "image/png" if name.endswith(".png") else "image/jpeg"  # earlier versions drew PNG
            return Answer(self._store.read_bytes(self._pictures[name]), kind)
        except (KeyError, FileNotFoundError):
            return _lost("no picture")


def _has(ref: PyramidRef, level: int, row: int, column: int) -> bool:
    if level > coarsest(ref):
        return False
    height, width = ref.shape(level)
    return row * TILE_PX < height and column * TILE_PX < width


def _plain(value: Any) -> Any:
    """A value as JSON has it: no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


class ViewerServer(ThreadingHTTPServer):
    """Serves one run on loopback until it is shut down.

    Parameters
    ----------
    store
        Output of the run.
    port
        0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, store: Store, port: int = 0) -> None:
        super().__init__((HOST, port), _Handler)
        self.viewed = Viewed(store)
        self.token = secrets.token_urlsafe(32)

    @property
    def address(self) -> str:
        """What a browser opens; it holds the token."""
        return f"http://{HOST}:{self.server_port}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """Name of the cookie: browsers share cookies between ports."""
        return f"her2view_{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that leaves is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "her2view", ""
    timeout = IDLE_S
    server: ViewerServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        hosts = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        if self.headers.get("Host", "") not in hosts:
            self._send(Answer(b"another host\n", "text/plain", HTTPStatus.MISDIRECTED_REQUEST))
        elif url.path == "/" and self._is_token(*parse_qs(url.query).get("token", [""])[:1]):
            self._enter()
        elif not (self._is_token(self.headers.get(TOKEN_HEADER, "")) or self._is_token(self._kept())):
            self._send(Answer(NO_TOKEN, "text/plain; charset=utf-8", HTTPStatus.FORBIDDEN))
        else:
            self._send(self._answer(self.path.partition("?")[0]))

    do_HEAD = do_GET  # noqa: N815  # the name that http.server calls

    def _answer(self, path: str) -> Answer:
        try:
            return self.server.viewed.answer(path)
        except Her2Error as error:
            body = json.dumps({"error": str(error)}).encode()
            return Answer(body, status=HTTPStatus.INTERNAL_SERVER_ERROR)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.server.token.encode())

    def _kept(self) -> str:
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            return ""
        return cookie.value if cookie else ""

    def _enter(self) -> None:
        """Keep the token in a cookie, and take it out of the address."""
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", "/")
        self.send_header(
            "Set-Cookie", f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Lax; Path=/"
        )
        self.send_header("Content-Length", "0")
        self._finish(b"", POLICY)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self._finish(answer.body, answer.policy)

    def _finish(self, body: bytes, policy: str) -> None:
        self.send_header("Content-Security-Policy", policy)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: addresses name slides, and the first one holds the token."""
