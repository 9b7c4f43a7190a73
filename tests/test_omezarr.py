"""OME-Zarr metadata: what they do not state is unknown, and what they should not be is named."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from her2core.errors import Reason, SlideError
from her2core.intake.inspect import inspect_slide, require_scorable
from her2core.readers import open_slide
from her2core.readers.omezarrmeta import MAX_ARRAYS, MAX_DEPTH, MAX_DOCUMENT_BYTES
from her2core.readers.scale import Scale, resolve_scale
from her2core.records import Assay
from tests.conftest import Bucket
from tests.test_readers import TRUTH, put, whole

UNKNOWN = "µm/px unknown: give it in the manifest column `mpp`"
Edit = Callable[[dict[str, Any]], Any]


def multiscale(levels: int = 2) -> dict[str, Any]:
    return {
        "version": "0.4",
        "name": "Jane Doe, LN3 macrometastasis",
        "axes": [{"name": "c", "type": "channel"}]
        + [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"],
        "datasets": [
            {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": [1, um, um]}]}
            for k, um in enumerate([0.25, *[0.5] * (levels - 1)])
        ],
    }


def write(path: Path, edit: Edit = lambda m: None, shape: tuple[int, ...] = (3,), form: int = 2) -> Path:
    """A slide of two levels, whose metadata are changed by ``edit``."""
    group = zarr.open_group(path, mode="w", zarr_format=form)  # type: ignore[arg-type]
    for name, step in (("0", 1), ("1", 2)):
        level = np.moveaxis(TRUTH[::step, ::step], 2, 0)
        level = np.broadcast_to(level, (*shape[:-1], *level.shape))
        group.create_array(name, data=np.ascontiguousarray(level), chunks=(*shape[:-1], 3, 100, 100))
    content = multiscale()
    edit(content)
    group.attrs.update(
        {"multiscales": [content]} if form == 2 else {"ome": {"version": "0.5", "multiscales": [content]}}
    )
    return path


def all_levels(**changes: Any) -> Edit:
    """Change every level; None removes a key."""

    def edit(content: dict[str, Any]) -> None:
        for level in content["datasets"]:
            level.update(changes)
            for key in [key for key, value in level.items() if value is None]:
                del level[key]

    return edit


# scale


@pytest.mark.parametrize(
    "edit",
    [
        all_levels(coordinateTransformations=None),
        all_levels(coordinateTransformations=[]),
        all_levels(coordinateTransformations=[{"type": "identity"}]),
        all_levels(coordinateTransformations=[{"type": "translation", "translation": [0, 1, 1]}]),
        all_levels(coordinateTransformations=[{"type": "scale", "path": "scales/0"}]),
        all_levels(coordinateTransformations=[{"type": "affine", "affine": [[1, 0], [0, 1]]}]),
        all_levels(coordinateTransformations=[{"type": "scale", "scale": [1, 0, 0]}]),
        lambda m: m.update(coordinateTransformations=[{"type": "scale", "path": "scales/0"}]),
        lambda m: m["axes"][1].pop("unit"),
        lambda m: m["axes"][2].update(unit="pixel"),
    ],
)
def test_a_pixel_size_that_nobody_stated_is_unknown(tmp_path: Path, edit: Edit) -> None:
    info = open_slide(write(tmp_path / "a.zarr", edit)).info
    assert (info.mpp, info.mpp_source, info.problems) == (None, None, (UNKNOWN,))
    with pytest.raises(SlideError, match="manifest column `mpp`"):
        require_scorable(info, Assay.IHC)


def test_a_scale_of_the_whole_image_counts(tmp_path: Path) -> None:
    def shared(content: dict[str, Any]) -> None:
        all_levels(coordinateTransformations=None)(content)
        content["coordinateTransformations"] = [{"type": "scale", "scale": [1, 0.5, 0.5]}]

    assert open_slide(write(tmp_path / "a.zarr", shared)).info.mpp == 0.5


@pytest.mark.parametrize("mpp", [None, 1.0, 0.25])
def test_exactly_one_micrometre_is_doubted(tmp_path: Path, mpp: float | None) -> None:
    ones = all_levels(coordinateTransformations=[{"type": "scale", "scale": [1, 1, 1]}])
    info = open_slide(write(tmp_path / "a.zarr", ones), mpp=mpp).info
    assert info.mpp == mpp
    assert (mpp is not None) != any("exactly 1" in problem for problem in info.problems)


def test_a_placeholder_gives_way_to_the_next_statement() -> None:
    one = Scale("ome", 1.0, 1.0)
    assert resolve_scale("s", None, [one, Scale("tiff_resolution", 0.25, 0.25)]).mpp == 0.25
    assert resolve_scale("s", None, [one]).mpp is None
    assert resolve_scale("s", None, [Scale("ome", 1.01, 1.01)]).mpp == 1.01


# levels, versions, focal planes, names


def test_levels_in_any_order(tmp_path: Path) -> None:
    with open_slide(write(tmp_path / "a.zarr", lambda m: m["datasets"].reverse())) as reader:
        assert [v.height for v in reader.info.levels] == [150, 75]
        assert reader.info.mpp == 0.25
        np.testing.assert_array_equal(whole(reader), TRUTH)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda m: m.update(version="0.3", axes=list("cyx")), "version 0.3; read are 0.4 and 0.5"),
        (lambda m: m.update(axes=list("cyx")), "a version before 0.4"),
        (lambda m: [m.pop("axes"), m.update(version="0.1")], "version 0.1"),
        (lambda m: [m.pop("axes"), m.pop("version")], "a version before 0.4"),
        (lambda m: [m.pop("axes"), m.update(coordinateSystems=[])], "after 0.5"),
    ],
)
def test_other_versions_are_named(tmp_path: Path, edit: Edit, says: str) -> None:
    with pytest.raises(SlideError, match=says) as error:
        open_slide(write(tmp_path / "a.zarr", edit))
    assert error.value.reason is Reason.FILE_UNREADABLE


@pytest.mark.parametrize(("axis", "says"), [("z", "2 focal planes; a bright-field"), ("t", "2 time points")])
def test_focal_planes_and_time_points_are_refused_as_in_tiff(tmp_path: Path, axis: str, says: str) -> None:
    def more(content: dict[str, Any]) -> None:
        content["axes"].insert(0, {"name": axis, "type": "space"})
        all_levels(coordinateTransformations=None)(content)

    with pytest.raises(SlideError, match=says) as error:
        inspect_slide(write(tmp_path / "a.zarr", more, shape=(2, 3)), mpp=0.25)
    assert error.value.reason is Reason.PIXELS_UNSUPPORTED


@pytest.mark.parametrize("form", [2, 3])
def test_names_of_images_decide_as_whole_words_and_leave_nothing_behind(tmp_path: Path, form: int) -> None:
    info = open_slide(write(tmp_path / "a.zarr", form=form)).info
    assert info.scenes == ("0",)
    assert "Doe" not in repr(info)
    with pytest.raises(SlideError, match="no slide image") as error:
        open_slide(write(tmp_path / "b.zarr", lambda m: m.update(name="label image"), form=form))
    assert error.value.reason is Reason.NOT_A_SLIDE


def test_series_are_counted_as_their_document_counts_them(tmp_path: Path) -> None:
    """An image without pixels has a number too; names decide which is the label, and are not told."""
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    for i in range(4):
        write(tmp_path / "a.zarr" / str(i))
    names = ["Jane Doe", "John Roe", "label image", "macro image"]
    pixels = '<Pixels SizeX="211" SizeY="150" SizeC="3" Type="uint8"/>'
    images = "".join(f'<Image Name="{name}">{pixels if i else ""}</Image>' for i, name in enumerate(names))
    (tmp_path / "a.zarr" / "OME").mkdir()
    (tmp_path / "a.zarr" / "OME" / "METADATA.ome.xml").write_text(f"<OME>{images}</OME>")
    with pytest.raises(SlideError, match=r"2 scenes: 0 \(211 x 150 px\), 1 \(211 x 150 px\)\.") as error:
        open_slide(tmp_path / "a.zarr")
    assert "Doe" not in error.value.message
    group = zarr.open_group(tmp_path / "a.zarr" / "OME", mode="w", zarr_format=2)
    group.attrs["series"] = []
    with pytest.raises(SlideError, match="no slide image"):
        open_slide(tmp_path / "a.zarr")


# channels


def omero(*channels: dict[str, Any]) -> Callable[[Path], None]:
    return lambda path: zarr.open_group(path, mode="r+").attrs.update({"omero": {"channels": list(channels)}})


COLOURS = {"R": "FF0000", "G": "00FF00", "B": "0000FF"}


@pytest.mark.parametrize("said", ["label", "color"])
def test_colours_are_in_the_order_that_the_file_states(tmp_path: Path, said: str) -> None:
    path = write(tmp_path / "a.zarr")
    omero(*({said: name if said == "label" else COLOURS[name]} for name in "BRG"))(path)
    with open_slide(path) as reader:
        np.testing.assert_array_equal(whole(reader), TRUTH[..., [1, 2, 0]])
        assert reader.info.problems == ()


def test_channels_that_are_no_colours_are_refused_in_bright_field(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    omero(*({"label": name, "color": "FFFFFF"} for name in ("DAPI", "HER2" * 99, "CEP17")))(path)
    with pytest.raises(SlideError, match="they are no colours") as error:
        open_slide(path, assay=Assay.IHC)
    assert len(error.value.message) < 500 + len(str(path))


def test_channels_of_which_nothing_is_said_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    omero(*({"label": f"Channel {i}", "color": "808080"} for i in range(3)))(path)
    with open_slide(path) as reader:
        assert reader.info.problems == ("its three channels are not named: taken as red, green and blue",)
        np.testing.assert_array_equal(whole(reader), TRUTH)


# metadata of another kind


def nodes(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield from nodes(tree[key], (*at, key))


def replaced(tree: Any, at: tuple[Any, ...], value: Any) -> Any:
    if not at:
        return value
    tree = copy.deepcopy(tree)
    inner = tree
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return tree


@pytest.mark.parametrize("document", [".zattrs", "0/.zarray", "zarr.json"])
def test_anything_in_any_place_is_read_or_named(tmp_path: Path, document: str) -> None:
    path = write(tmp_path / "a.zarr", form=3 if document == "zarr.json" else 2)
    good = json.loads((path / document).read_text())
    for at in nodes(good):
        for value in (None, -1, "x" * 300, [[-1, -1]], {"a": 1}):
            (path / document).write_text(json.dumps(replaced(good, at, value)))
            with suppress(SlideError), open_slide(path, identity="1-x") as reader:
                reader.read_region(0, 0, np.empty((9, 9, 3), np.uint8))


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        ([1, 0.25, [-1, -1, -1]], "in a scale: expected 3 numbers"),
        ([1, 0.25], "in a scale: expected 3 numbers"),
        ([1, "0.25", "0.25"], "in a scale: expected 3 numbers"),
        ({"y": 0.25}, "in a scale: expected a list, found dict"),
    ],
)
def test_a_scale_of_another_kind_is_named(tmp_path: Path, scale: Any, says: str) -> None:
    edit = all_levels(coordinateTransformations=[{"type": "scale", "scale": scale}])
    with pytest.raises(SlideError, match=says) as error:
        open_slide(write(tmp_path / "a.zarr", edit), mpp=0.25)
    assert error.value.reason is Reason.FILE_UNREADABLE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": "' + "x" * MAX_DOCUMENT_BYTES + '"}', f"more than {MAX_DOCUMENT_BYTES} bytes"),
        ('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}", f"nested more than {MAX_DEPTH} deep"),
        (json.dumps({"multiscales": [multiscale(MAX_ARRAYS + 1)]}), f"accepted are {MAX_ARRAYS}"),
        (json.dumps({"multiscales": [multiscale(MAX_ARRAYS)] * 2}), f"more than {MAX_ARRAYS} levels in all"),
    ],
    ids=["long", "deep", "levels", "images"],
)
def test_metadata_are_bounded_before_they_are_used(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path / "a.zarr")
    (path / ".zattrs").write_text(text)
    with pytest.raises(SlideError, match=says) as error:
        open_slide(path, identity="1-x")
    assert error.value.reason is Reason.FILE_BEYOND_LIMITS
    assert len(error.value.message) < 300 + len(str(path))


def test_bounds_hold_in_a_bucket(tmp_path: Path, s3: Bucket) -> None:
    path = write(tmp_path / "a.zarr")
    with open_slide(put(s3, "good.zarr", path)) as reader:
        np.testing.assert_array_equal(whole(reader), TRUTH)
    (path / ".zattrs").write_text('{"a": ' + "[" * 99 + "]" * 99 + "}")
    with pytest.raises(SlideError, match="deep"):
        open_slide(put(s3, "deep.zarr", path))
