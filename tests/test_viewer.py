"""The viewer: what it answers and refuses, tiles of pixels and of cells, and its page in Chromium."""

from __future__ import annotations

import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from her2core.errors import StoreError
from her2core.export.contours import outline_cells
from her2core.export.finished import FinishedRun
from her2core.lake.schema import CELLS, REGIONS, SLIDES
from her2core.lake.tables import commit_rows
from her2core.params import ProfileParams, PyramidParams
from her2core.pictures.colours import CLASS_COLOURS, OTHER_COLOUR
from her2core.profile.tissue import read_tissue
from her2core.pyramid import writer
from her2core.pyramid.reader import PyramidReader
from her2core.readers import open_slide
from her2core.readers.memory import MemoryReader
from her2core.report.build import page_path
from her2core.report.page import as_json
from her2core.storage.sources import file_identity
from her2core.storage.store import Store
from her2core.viewer.areas import ANOTHER_FILE, ANOTHER_VERSION, NOT_AGAIN, polygons_of_mask
from her2core.viewer.cells import BIN_PX, IHC, Cells, draw_tile
from her2core.viewer.server import HOST, TOKEN_HEADER, Kept, Viewed, ViewerServer
from her2core.viewer.tiles import TILE_PX, Tiles, check_layout, coarsest
from tests.conftest import Bucket
from tests.helpers.jpegslides import jpeg, write_slide
from tests.helpers.lakes import write_scored_run
from tests.test_fluorescence import convert
from tests.tools.chromium import chromium


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewerServer]:
    folder = write_scored_run(tmp_path_factory.mktemp("view"))
    (Path(folder) / "secret.txt").write_text("outside")
    with ViewerServer(Store(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: ViewerServer, path: str, method: str = "GET", token: bool = True, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of a request, its path sent as it is."""
    connection = http.client.HTTPConnection(HOST, server.server_port, timeout=20)
    own = {TOKEN_HEADER: server.token} if token else {}
    connection.request(method, path, headers=own | {k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


@pytest.fixture(scope="module")
def slide(server: ViewerServer) -> str:
    [name] = server.viewed.slides
    return str(name)


def test_without_the_token_nothing_is_answered(server: ViewerServer, slide: str) -> None:
    for path in (
        "/",
        "/?token=",
        "/?token=wrong",
        "/?token=%ff",
        "/api/slides",
        "/assets/viewer.js",
        f"/tile/{slide}/0/0/0",
    ):
        assert ask(server, path, token=False)[0] == 403, path
    cookies = (f"{server.cookie}=wrong", "=;=", f"{server.cookie}=", "her2view=" + server.token)
    for cookie in cookies:
        assert ask(server, "/api/slides", token=False, Cookie=cookie)[0] == 403, cookie
    assert ask(server, f"/api/slides?token={server.token}", token=False)[0] == 403


def test_the_token_moves_from_the_address_into_a_cookie(server: ViewerServer) -> None:
    status, _, headers = ask(server, f"/?token={server.token}", token=False)
    assert (status, headers["Location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=Lax"} <= set(headers["Set-Cookie"].split("; "))
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert ask(server, "/api/slides", token=False, Cookie=cookie)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1.evil.example", ""]
)
def test_another_host_is_refused(server: ViewerServer, host: str) -> None:
    assert ask(server, "/api/slides", Host=host)[0] == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_reading_is_answered(server: ViewerServer, method: str) -> None:
    assert ask(server, "/api/slides", method)[0] == 501


def test_no_path_leads_into_the_files(server: ViewerServer, slide: str) -> None:
    paths = [
        "/secret.txt", "/../secret.txt", "/assets/../secret.txt", "/assets/..%2f..%2fserver.py",
        "/assets/%2e%2e/server.py",
        "/assets//etc/passwd", "//etc/passwd", "/etc/passwd", "/tables/slides", "/stages/slide", "/pyramids",
        "/assets/",
        "/tile/../0/0/0", "/tile/..%2f..%2fsecret.txt/0/0/0", "/tile/%2fetc%2fpasswd/0/0/0", "/api/slide/..",
        "/api/slide/%00", "/api/slide/' OR 1=1 --".replace(" ", "%20"), "/assets/openlayers.entry.js",
        f"/tile/{slide}/0/-1/0", f"/tile/{slide}/0/99999/0", f"/tile/{slide}/99/0/0", f"/tile/{slide}/0/0/0/",
        f"/cells/{slide}/x/0/0/0/0",
        f"/api/regions/{slide}/1e9", f"/thumbnail/{slide}/..", "/pictures/secret.txt",
        "/pictures/..%2fsecret.txt",
        f"/api/contours/{slide}/99/0", f"/api/contours/{slide}/0/-1", "/api/areas/..",
        "/report/../secret.txt",
    ]  # fmt: skip
    for path in paths:
        status, body, _ = ask(server, path)
        assert status == 404, path
        assert b"outside" not in body


def test_a_head_has_the_headers_of_a_get_alone(server: ViewerServer, slide: str) -> None:
    status, body, headers = ask(server, f"/tile/{slide}/0/0/0", "HEAD")
    assert (status, body) == (200, b"")
    _, whole, same = ask(server, f"/tile/{slide}/0/0/0")
    assert headers["Content-Length"] == same["Content-Length"] == str(len(whole))
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"


def test_no_address_of_a_slide_is_shown(server: ViewerServer, slide: str) -> None:
    said = ask(server, "/api/slides")[1] + ask(server, f"/api/slide/{slide}")[1]
    assert slide.encode() in said
    assert b"Anna_Smith" not in said
    assert b"://" not in said


def test_tiles_are_the_pixels_of_the_slide_at_every_level(server: ViewerServer, slide: str) -> None:
    run = FinishedRun(server.viewed._store)
    ref = run.record(run.slides[0]).outcome.pyramid
    assert ref is not None
    told = json.loads(ask(server, f"/api/slide/{slide}")[1])
    assert (told["height"], told["width"], told["mpp"]) == (*ref.shapes[0], ref.mpp)
    for level in range(min(told["levels"], len(ref.shapes))):
        exact = np.empty((TILE_PX, TILE_PX, 3), np.uint8)
        PyramidReader(run.store, ref).read(level, 0, 0, exact)
        status, body, headers = ask(server, f"/tile/{slide}/{level}/0/0")
        assert (status, headers["Content-Type"]) == (200, "image/jpeg")
        shown = np.asarray(Image.open(io.BytesIO(body)), int)
        assert np.abs(shown - exact).mean() < 6, level  # JPEG
    assert max(ref.shape(coarsest(ref))) <= TILE_PX


def test_a_cell_is_found_where_the_table_has_it(server: ViewerServer, slide: str) -> None:
    run = FinishedRun(server.viewed._store)
    cell = run.rows(CELLS, ["cell_id", "y_px0", "x_px0", "cell_class"])[0]
    path = f"/api/cell/{slide}/{int(cell['y_px0'] + 0.5)}/{int(cell['x_px0'] + 0.5)}"
    found = json.loads(ask(server, path)[1])
    assert found["id"] == str(cell["cell_id"])
    assert found["values"]["cell_class"] == cell["cell_class"]
    assert json.loads(ask(server, f"/api/cell/{slide}/9999999/9999999")[1]) is None


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same run, with the outlines of all cells."""
    return Store(write_scored_run(tmp_path_factory.mktemp("kept"), keep=True))


def test_contours_of_a_block_are_those_of_an_export(server: ViewerServer, slide: str, kept: Store) -> None:
    run = FinishedRun(server.viewed._store)
    ids = np.sort(np.array([row["cell_id"] for row in run.rows(CELLS, ["cell_id"])]))
    [own] = outline_cells(run, run.slides[0], ids)
    told = json.loads(ask(server, f"/api/slide/{slide}")[1])
    assert told["block"] == 1024
    found = json.loads(ask(server, f"/api/contours/{slide}/0/0")[1])
    assert len(found) == len(ids) > 20
    for name, corners in (("contour", own.contour_px0), ("nucleus", own.nucleus_px0)):
        shown = np.array([cell[name] for cell in found]).reshape(len(ids), 36, 2)
        np.testing.assert_allclose(shown, corners[..., ::-1], atol=0.051)
    stained = [[letter == "1" for letter in cell["stain"]] for cell in found]
    np.testing.assert_array_equal(stained, (own.dab_od > 0) & own.evaluable)
    assert {cell["code"] for cell in found} >= {0, 4}
    stored = Viewed(kept).answer(f"/api/contours/{slide}/0/0")
    assert json.loads(stored.body) == found  # read, not outlined again


def test_cells_on_the_outlines_of_another_program_have_contours_only_if_they_were_kept(
    server: ViewerServer, slide: str, kept: Store
) -> None:
    for store, keep in ((server.viewed._store, False), (kept, True)):
        viewed = Viewed(store)
        viewed.slides[slide]["cells_source"] = "nuclei.geojson"
        assert (json.loads(viewed.answer(f"/api/slide/{slide}").body)["block"] is not None) == keep
        assert viewed.answer(f"/api/contours/{slide}/0/0").status == (200 if keep else 404)


def area(polygons: list[Any]) -> float:
    """Of polygons with holes, shoelace by shoelace."""

    def of(ring: list[list[float]]) -> float:
        x, y = np.array(ring).T
        return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2

    return sum(of(rings[0]) - sum(map(of, rings[1:])) for rings in polygons)


def test_outlines_of_a_mask_follow_the_edges_of_its_pixels() -> None:
    mask = np.zeros((9, 12), np.uint8)
    mask[1:8, 2:9], mask[3:5, 4:7], mask[0, 11] = 1, 0, 1
    large, small = polygons_of_mask(mask, 32)
    assert sorted(map(tuple, small[0])) == [(352.0, 0.0), (352.0, 32.0), (384.0, 0.0), (384.0, 32.0)]
    assert len(large) == 2  # with its hole
    corners = 4 * 16**2 / 2  # of a hole they are cut by half a pixel
    assert area([large, small]) == 32**2 * mask.sum() + corners
    assert polygons_of_mask(np.zeros((3, 3)), 8) == []


def test_tissue_and_the_drawn_region_are_outlined(
    server: ViewerServer, slide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewed = Viewed(server.viewed._store)
    ring = [[100, 100], [500, 120], [300, 600], [100, 100]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
               "properties": {"classification": {"name": "Tumor"}}}  # fmt: skip
    drawn_on = tmp_path / "J. Doe.geojson"
    drawn_on.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    viewed.slides[slide] |= {
        "roi_source": str(drawn_on),
        "roi_digest": file_identity(str(drawn_on), None)[1],
    }
    found = json.loads(viewed.answer(f"/api/areas/{slide}").body)
    [[outer]] = found["roi"]
    assert sorted(outer)[:2] == [[100.0, 100.0], [100.0, 100.0]]
    profile, ref = viewed._records[slide].outcome.profile, viewed._ref(slide)
    assert profile is not None
    assert ref is not None
    tissue = read_tissue(viewed._store, ref, profile)
    own = np.count_nonzero(tissue.mask) * tissue.downsample**2
    assert area(found["tissue"]) == pytest.approx(own, rel=0.02)
    assert found["blurred"] == found["pen"] == found["folds"] == found["bubbles"] == []
    assert found["notes"] == []
    drawn_on.write_text(drawn_on.read_text() + " ")  # another file now
    again = Viewed(server.viewed._store)
    again.slides[slide] |= {"roi_source": str(drawn_on), "roi_digest": viewed.slides[slide]["roi_digest"]}
    later = json.loads(again.answer(f"/api/areas/{slide}").body)
    assert (later["roi"], later["notes"]) == ([], [ANOTHER_FILE])
    assert "Doe" not in json.dumps(later)
    monkeypatch.setattr(FinishedRun, "roi_params", None)
    viewed = Viewed(server.viewed._store)
    viewed.slides[slide] |= {"roi_source": str(drawn_on), "roi_digest": file_identity(str(drawn_on), None)[1]}
    other = json.loads(viewed.answer(f"/api/areas/{slide}").body)
    assert ("roi" in other, other["notes"]) == (False, [ANOTHER_VERSION])


def test_excluded_areas_that_are_not_those_of_the_run_are_not_shown(
    server: ViewerServer, slide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewed = Viewed(server.viewed._store)
    other = replace(ProfileParams(), sharp_ratio=10.0)
    monkeypatch.setattr(FinishedRun, "profile_params", other)
    found = json.loads(viewed.answer(f"/api/areas/{slide}").body)
    assert found["notes"] == [NOT_AGAIN]
    assert "blurred" not in found


def test_the_report_is_served_with_links_to_this_viewer(kept: Store) -> None:
    store = kept
    assert Viewed(store).answer("/report").status == 404
    name = "pictures/s1 a.png"
    run_id = FinishedRun(store).run["run_id"]
    commit_rows(store, SLIDES, [FinishedRun(store).slides[0] | {"picture": name}])
    store.write_bytes(name, b"png")
    page = as_json({"x": '<meta name="her2-viewer" content="mine">'})
    head = '<meta name="her2-viewer" content="https://elsewhere/{slide_id}">'
    store.write_bytes(page_path(run_id), f"<head>{head}</head>{page}".encode())
    viewed = Viewed(store)
    assert json.loads(viewed.answer("/api/slide/s1").body)["report"] is True
    served = viewed.answer("/report")
    assert (
        served.body.decode() == f'<head><meta name="her2-viewer" content="/#slide={{slide_id}}"></head>{page}'
    )
    assert "script-src" not in served.policy  # the page's own one names its scripts
    assert viewed.answer("/pictures/s1%20a.png").body == b"png"
    assert viewed.answer("/pictures/other.png").status == 404


def drawn(cells: Cells, level: int, row: int, column: int, **how: bool) -> np.ndarray:
    told = {"by_class": True, "others": False} | how
    png = draw_tile(cells, told["by_class"], told["others"], level, row, column)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def test_a_slide_without_cells_or_regions_is_shown(server: ViewerServer, slide: str) -> None:
    viewed = Viewed(server.viewed._store)
    bare = replace(FinishedRun(server.viewed._store).record(viewed.slides[slide]), cells=None, regions=None)
    viewed._records[slide] = bare
    assert json.loads(viewed.answer(f"/api/slide/{slide}").body)["scales"] == []
    assert json.loads(viewed.answer(f"/api/regions/{slide}/250").body) == []
    assert json.loads(viewed.answer(f"/api/cell/{slide}/100/100").body) is None
    png = viewed.answer(f"/cells/{slide}/class/1/0/0/0").body
    assert not np.asarray(Image.open(io.BytesIO(png)))[..., 3].any()


def test_a_pyramid_of_an_early_version_or_gone_is_refused(server: ViewerServer, slide: str) -> None:
    store = server.viewed._store
    ref = server.viewed._ref(slide)
    assert ref is not None
    path = f"{ref.path}/0/zarr.json"
    kept = store.read_bytes(path)
    told = json.loads(kept)
    told["codecs"][0]["configuration"]["codecs"].insert(0, {"name": "transpose"})
    try:
        store.write_json(path, told)
        with pytest.raises(StoreError, match="early version"):
            Viewed(store).answer(f"/api/slide/{slide}")
        store.delete(path)
        with pytest.raises(StoreError, match="gone"):
            Viewed(store).answer(f"/tile/{slide}/0/0/0")
    finally:
        store.write_bytes(path, kept)


@pytest.mark.parametrize("codec", ["source", "jpeg-90", "htj2k", "zstd"])
def test_pyramids_of_every_codec_are_shown(tmp_path: Path, codec: str) -> None:
    pixels = np.random.default_rng(1).integers(100, 255, (48, 64, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    slide = write_slide(tmp_path / "s.tif", pixels, 64, jpeg)
    with open_slide(slide, mpp=0.25) as reader:
        store = Store(tmp_path / "out")
        ref = writer.convert(reader, store, "p", PyramidParams(64, 256, codec), mpp=0.25)
    assert ref.codec.startswith(codec)
    check_layout(store, ref)
    shown = np.asarray(Image.open(io.BytesIO(Tiles(store, ref).tile(0, 0, 0))), int)
    assert np.abs(shown - pixels[:TILE_PX, :TILE_PX]).mean() < 12


def test_a_run_on_s3_is_answered_as_one_in_a_folder(server: ViewerServer, slide: str, s3: Bucket) -> None:
    local = server.viewed._store
    remote = Store(f"{s3.uri}/out", endpoint_url=s3.endpoint_url)
    for path in local.list(recursive=True):
        remote.write_bytes(path, local.read_bytes(path))
    viewed = Viewed(remote)
    paths = [f"/tile/{slide}/0/{row}/{column}" for row in range(3) for column in range(3)]
    paths += [
        "/api/slides",
        f"/api/slide/{slide}",
        f"/cells/{slide}/measure/1/0/0/0",
        f"/api/cell/{slide}/9/9",
    ]
    with ThreadPoolExecutor(6) as pool:  # as a browser asks
        for path, answer in zip(paths, pool.map(viewed.answer, paths), strict=True):
            assert answer == server.viewed.answer(path), path


def test_hexagons_are_those_of_the_table(server: ViewerServer, slide: str) -> None:
    told = json.loads(ask(server, f"/api/slide/{slide}")[1])
    rows = FinishedRun(server.viewed._store).rows(REGIONS)
    assert told["scales"] == sorted({row["scale_um"] for row in rows})
    size = told["scales"][0]
    found = json.loads(ask(server, f"/api/regions/{slide}/{size:g}")[1])
    mine = [row for row in rows if row["scale_um"] == size]
    assert [(one["id"], one["value"]) for one in found] == [
        (row["region_id"], row["membrane_od_mean"]) for row in mine
    ]
    centre = np.mean(found[0]["ring"], axis=0)
    own = np.asarray([mine[0]["x_um"], mine[0]["y_um"]]) / told["mpp"] + 0.5
    assert centre == pytest.approx(own, abs=0.2)


def test_fluorescence_has_the_colours_of_its_probes(tmp_path: Path) -> None:
    pixels = np.zeros((300, 300, 3), np.uint16)
    pixels[:150, :, 0], pixels[150:, :150, 1], pixels[150:, 150:, 2] = 3000, 500, 40_000
    store = Store(tmp_path)
    ref = convert(MemoryReader(pixels, channels=("DAPI", "HER2", "CEP17")), store)
    shown = np.asarray(Image.open(io.BytesIO(Tiles(store, ref).tile(0, 0, 0))), int)
    assert shown[50, 50].argmax() == 2  # blue
    assert shown[200, 50].argmax() == 0  # red
    assert shown[200, 200].argmax() == 1  # green


def some(y: list[float], x: list[float], code: list[int], value: list[float]) -> Cells:
    n = np.arange(len(y), dtype=np.int64)
    return Cells(
        IHC, 0.25, n, np.asarray(y), np.asarray(x), np.asarray(code, np.uint8), np.asarray(value, np.float32)
    )


def test_from_afar_a_bin_has_the_colour_of_its_most_frequent_class() -> None:
    last, level = len(IHC.classes), 5  # a cell is smaller than a pixel
    at = [32.0 * (BIN_PX * 10 + 1)]
    cells = some(at * 4, at * 4, [4, 0, 0, last], [1.0, 0.1, 0.1, 0.0])
    tile = drawn(cells, level, 0, 0)
    where = np.argwhere(tile[..., 3])
    assert where.min(0).tolist() == [BIN_PX * 10] * 2
    assert where.max(0).tolist() == [BIN_PX * 11 - 1] * 2
    assert tuple(tile[BIN_PX * 10, BIN_PX * 10, :3]) == ImageColor.getrgb(next(iter(CLASS_COLOURS.values())))
    equal = drawn(some(at * 2, at * 2, [1, 4], [0.1, 1.0]), level, 0, 0)
    assert tuple(equal[BIN_PX * 10, BIN_PX * 10, :3]) == ImageColor.getrgb(list(CLASS_COLOURS.values())[4])
    alone = some(at, at, [last], [np.nan])
    assert not drawn(alone, level, 0, 0)[..., 3].any()
    grey = drawn(alone, level, 0, 0, others=True)
    assert tuple(grey[BIN_PX * 10, BIN_PX * 10, :3]) == ImageColor.getrgb(OTHER_COLOUR)


def test_close_by_a_ring_goes_on_in_the_next_tile() -> None:
    cells = some([100.0], [256.0], [4], [1.0])
    left, right = drawn(cells, 0, 0, 0), drawn(cells, 0, 0, 1)
    assert left[:, -1, 3].any()
    assert right[:, 0, 3].any()
    assert not left[100, -1, 3]  # the cell itself stays in sight
    np.testing.assert_array_equal(np.argwhere(left[:, -1, 3]), np.argwhere(right[:, 0, 3]))


def test_a_million_cells_are_drawn_in_a_moment() -> None:
    rng = np.random.default_rng(0)
    n = 1_000_000
    y, x = np.sort(rng.uniform(0, 40_000, n)), rng.uniform(0, 40_000, n)
    cells = Cells(
        IHC, 0.25, np.arange(n), y, x, rng.integers(0, 6, n).astype(np.uint8), rng.random(n, np.float32)
    )
    for level in (8, 5, 3, 1, 0):
        start = time.process_time()
        drawn(cells, level, 0, 0, by_class=level % 2 == 0)
        assert time.process_time() - start < 2.0, level  # 0.3 s at most where it was measured


@pytest.fixture(scope="module")
def page(server: ViewerServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    folder = tmp_path_factory.mktemp("saved")
    with chromium(folder) as browser:
        browser.get(server.address)
        _until(lambda: browser.execute_script("return document.documentElement.dataset.ready") == "yes")
        yield browser, folder


def _until(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


COLOURS = """
const canvas = [...document.querySelectorAll(arguments[0])].find((one) => one.width);
if (!canvas) return [];
const copy = Object.assign(document.createElement('canvas'), {width: canvas.width, height: canvas.height});
const context = copy.getContext('2d', {willReadFrequently: true});
context.drawImage(canvas, 0, 0);
const {data} = context.getImageData(0, 0, copy.width, copy.height);
const found = new Set();
for (let i = 0; i < data.length; i += 4)
  if (data[i + 3]) found.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
return [...found].slice(0, 5000);
"""


def test_the_page_shows_slide_and_cells_without_an_error(page: tuple[Any, Path], slide: str) -> None:
    browser, _ = page
    assert "token" not in browser.current_url
    assert f"slide={slide}" in browser.current_url
    _until(lambda: len(browser.execute_script(COLOURS, ".ol-layer canvas")) > 500)  # tissue
    browser.find_element("id", "contours").click()  # this near they stand in the place of the rings
    _until(lambda: browser.execute_script(COLOURS, ".cells canvas"))
    browser.find_element("id", "contours").click()
    assert "not for diagnosis" in browser.execute_script("return document.body.textContent")
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_a_link_opens_its_place(page: tuple[Any, Path], slide: str) -> None:
    browser, _ = page
    browser.execute_script(f"location.hash = 'slide={slide}&x=300&y=200'")
    _until(
        lambda: (
            browser.execute_script(
                "const {x, y, resolution} = her2viewer.state.active.place(); return [x, y, resolution]"
            )
            == [300, -200, 1]
        )
    )


def test_close_by_the_page_draws_contours_and_areas(page: tuple[Any, Path], slide: str) -> None:
    browser, _ = page
    browser.execute_script(f"location.hash = 'slide={slide}&x=320&y=320&scale=0.5'")
    count = "const {contours} = her2viewer.state.active; return contours.getSource().getFeatures().length"
    _until(lambda: browser.execute_script(count) >= 3 * 20)
    _until(lambda: len(browser.execute_script(COLOURS, ".contours canvas")) > 10)
    _until(lambda: browser.execute_script("return her2viewer.state.active.waiting") == 0)
    for box in ("tissue", "excluded"):
        browser.find_element("id", box).click()
    legend = "return her2viewer.state.active.legend.textContent"
    _until(lambda: "tissue that was measured" in browser.execute_script(legend))
    browser.find_element("id", "contours").click()
    _until(lambda: not browser.execute_script("return her2viewer.state.active.contours.getVisible()"))
    for box in ("tissue", "excluded", "contours"):
        browser.find_element("id", box).click()
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_marks_are_saved_as_geojson_in_pixels_of_the_slide(page: tuple[Any, Path], slide: str) -> None:
    browser, folder = page
    browser.execute_script(
        "const point = {type: 'Point', coordinates: [12.5, 7]};"
        "her2viewer.addMark(her2viewer.state.active, 'Wrong', point, '9007199254740993');"
        "document.getElementById('save').click()"
    )
    saved = folder / f"{slide}-marks.geojson"
    _until(saved.exists)
    [mark] = json.loads(saved.read_text())["features"]
    assert mark["geometry"] == {"type": "Point", "coordinates": [12.5, 7]}
    assert mark["properties"]["classification"]["name"] == "Wrong"
    assert mark["properties"]["metadata"] == {"slide_id": slide, "cell_id": "9007199254740993"}


def test_two_slides_stand_side_by_side_and_move_together(page: tuple[Any, Path], slide: str) -> None:
    browser, _ = page
    browser.find_element("id", "pair").click()
    browser.execute_script("her2viewer.open(arguments[0])", slide)
    _until(lambda: browser.execute_script("return her2viewer.state.panes.filter((p) => p.kept).length") == 2)
    scales = browser.execute_script("return her2viewer.state.panes.map((p) => p.place().resolution)")
    assert scales[0] == pytest.approx(scales[1])
    moved = browser.execute_script(
        """const [one, other] = her2viewer.state.panes, before = [one.place(), other.place()];
        one.map.getView().setCenter([before[0].x + 40, before[0].y]);
        return other.place().x - before[1].x"""
    )
    assert moved == pytest.approx(40)
    browser.execute_script(f"location.hash = 'slide={slide}&x=300&y=200&scale=2'")
    both = "return her2viewer.state.panes.map((p) => p.place().resolution)"
    _until(lambda: browser.execute_script(both) == [2, 2])  # a link leaves none behind at another scale
    browser.execute_script("her2viewer.state.panes.forEach((p) => { p.slide = null; })")
    browser.execute_script(f"location.hash = 'slide={slide}&x=300&y=200&scale=1&beside={slide}'")
    opened = "return her2viewer.state.panes.every((p) => p.slide?.slide_id === arguments[0])"
    _until(lambda: browser.execute_script(opened, slide))  # the second too, which is there already
    browser.find_element("id", "pair").click()
    assert browser.execute_script("return document.querySelectorAll('.pane').length") == 1
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_one_slide_that_takes_long_holds_up_no_other_and_is_made_once() -> None:
    begun, go_on, made = threading.Event(), threading.Event(), []

    def make(slide_id: str) -> str:
        made.append(slide_id)
        if slide_id == "slow":
            begun.set()
            assert go_on.wait(60)
        if slide_id == "broken":
            raise StoreError("gone")
        return slide_id.upper()

    kept = Kept(2, make)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(kept.of, "slow")
        assert begun.wait(60)
        second = pool.submit(kept.of, "slow")
        assert kept.of("quick") == "QUICK"
        go_on.set()
        assert first.result() == second.result() == "SLOW"
    assert made == ["slow", "quick"]
    for _ in range(2):  # a failure is not kept
        with pytest.raises(StoreError):
            kept.of("broken")
    assert made[2:] == ["broken", "broken"]
    assert kept.of("quick") == "QUICK"
    assert made[4:] == []
