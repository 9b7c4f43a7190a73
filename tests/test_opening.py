"""Which pixels of a file are the slide: wrapped formats, pages in any order, names, levels, scenes."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from her2core.errors import Reason, SlideError
from her2core.intake.inspect import inspect_slide
from her2core.readers import needs_local_copy, open_slide
from her2core.readers.base import names_picture
from her2core.readers.openslide import LEICA_SCHEMA, _leica_foci, _ndpi_foci, _stated_foci
from her2core.records import Assay
from her2core.storage.sources import Scratch
from tests.conftest import Bucket
from tests.test_readers import TILE, TILED, TRUTH, put, whole, write_tiff

SMALL = TRUTH[::3, ::3]
Files = tuple[Path, np.ndarray[Any, Any]]


def mirax(folder: Path, *, focus: int = 1) -> Files:
    """A 3DHISTECH slide of 4 x 3 tiles, one of them absent, under its JPEG preview; and its pixels."""
    slide_id, head = "0123456789ABCDEF" * 2, b"01.02" + b"0123456789ABCDEF" * 2
    root = folder / "x"
    root.mkdir()
    (folder / "x.mrxs").write_bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(SMALL)))
    hier = {
        "HIER_COUNT": 1 + (focus > 1), "HIER_0_NAME": "Slide zoom level", "HIER_0_COUNT": 1,
        "HIER_0_VAL_0": "ZoomLevel_0", "HIER_0_VAL_0_SECTION": "ZOOM", "NONHIER_COUNT": 0,
        "INDEXFILE": "Index.dat", "HIER_1_NAME": "Microscope focus level", "HIER_1_COUNT": focus,
    }  # fmt: skip
    sections = {
        "GENERAL": {"SLIDE_VERSION": "01.02", "SLIDE_ID": slide_id, "IMAGENUMBER_X": 4, "IMAGENUMBER_Y": 3,
                    "OBJECTIVE_MAGNIFICATION": 40, "CameraImageDivisionsPerSide": 1},
        "HIERARCHICAL": hier,
        "DATAFILE": {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"},
        "ZOOM": {"OVERLAP_X": 0, "OVERLAP_Y": 0, "MICROMETER_PER_PIXEL_X": 0.25,
                 "MICROMETER_PER_PIXEL_Y": 0.25, "IMAGE_FILL_COLOR_BGR": 0xFFFFFF, "DIGITIZER_WIDTH": TILE,
                 "DIGITIZER_HEIGHT": TILE, "IMAGE_CONCAT_FACTOR": 0, "IMAGE_FORMAT": "PNG"},
    }  # fmt: skip
    (root / "Slidedat.ini").write_text(
        "".join(f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in s.items()) for name, s in sections.items())
    )
    truth = np.full((3 * TILE, 4 * TILE, 3), 255, np.uint8)
    truth[: TRUTH.shape[0], : TRUTH.shape[1]] = TRUTH
    truth[TILE : 2 * TILE, TILE : 2 * TILE] = 255  # the absent tile
    data, rows = bytearray(head + b"000"), []
    for n, (y, x) in enumerate(itertools.product(range(0, 3 * TILE, TILE), range(0, 4 * TILE, TILE))):
        if n == 5:
            continue
        tile = imagecodecs.png_encode(np.ascontiguousarray(truth[y : y + TILE, x : x + TILE]))
        rows.append(struct.pack("<4i", n, len(data), len(tile), 0))
        data += tile
    (root / "Data0000.dat").write_bytes(data)
    at = len(head)
    index = struct.pack("<7i", at + 8, at + 8, at + 12, 0, at + 20, len(rows), 0)
    (root / "Index.dat").write_bytes(head + index + b"".join(rows))
    return folder / "x.mrxs", truth


# formats that wrap others


def test_mirax_is_read_and_not_its_preview(tmp_path: Path) -> None:
    path, truth = mirax(tmp_path)
    with open_slide(path) as reader:
        info = reader.info
        assert (info.format, info.reader, info.mpp, info.mpp_source) == ("mirax", "openslide", 0.25, "mirax")
        np.testing.assert_array_equal(whole(reader), truth)


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        ("", "folder 'x' beside it; that folder is missing"),
        ("Slidedat.ini", "Slidedat.ini is missing"),
        ("Index.dat", "1 of its 2 files are missing: 'Index.dat'"),
        ("Data0000.dat", "'Data0000.dat'"),
    ],
)
def test_mirax_without_a_part_names_it(tmp_path: Path, gone: str, says: str) -> None:
    path, _ = mirax(tmp_path)
    (tmp_path / "x" / gone).rename(tmp_path / "elsewhere")
    for mpp in (None, 0.25):
        with pytest.raises(SlideError, match=says) as error:
            open_slide(path, mpp=mpp)
        assert error.value.reason is Reason.FILE_MISSING


def test_mirax_in_capitals_and_its_folder_are_refused_in_words(tmp_path: Path) -> None:
    path, _ = mirax(tmp_path)
    with pytest.raises(SlideError, match=r"name the file x\.mrxs"):
        open_slide(tmp_path / "x")
    with pytest.raises(SlideError, match=r"rename it to x\.mrxs"):
        open_slide(path.rename(tmp_path / "x.MRXS"))


def test_mirax_in_a_bucket(tmp_path: Path, s3: Bucket) -> None:
    path, truth = mirax(tmp_path)
    alone = put(s3, "y.mrxs", path)
    uri = put(s3, "x.mrxs", path)
    put(s3, "x", tmp_path / "x")
    scratch = Scratch(str(tmp_path / "scratch"), 1 << 30)
    for one in (uri, alone):
        assert needs_local_copy(one)
        with pytest.raises(SlideError, match="local copy"):
            open_slide(one, mpp=0.25)
    info = inspect_slide(uri, scratch=scratch)
    assert (info.format, info.width, info.height) == ("mirax", *truth.shape[1::-1])
    with pytest.raises(SlideError, match="folder 'y' beside it") as error:
        inspect_slide(alone, mpp=0.25, scratch=scratch)
    assert alone in error.value.message


def test_the_size_of_mirax_is_that_of_all_its_files(tmp_path: Path) -> None:
    path, _ = mirax(tmp_path)
    every = sum(file.stat().st_size for file in [path, *(tmp_path / "x").iterdir()])
    assert inspect_slide(path, header_only=True).size_bytes == every


@pytest.mark.parametrize("name", ["a.ndpi", "a.SVS", "a.tif", "a.isyntax", "a.mrxs.tiff"])
def test_a_picture_named_like_a_slide_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(imagecodecs.jpeg8_encode(TRUTH))
    with pytest.raises(SlideError, match="named like a slide") as error:
        open_slide(path, mpp=0.25)
    assert error.value.reason is Reason.FILE_UNREADABLE


@pytest.mark.parametrize("name", ["a.vsi", "a.VSI"])
def test_olympus_overview_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SlideError, match="folder _a_ beside it"):
        open_slide(write_tiff(tmp_path / name), mpp=0.25)


def test_dicom_that_begins_like_a_tiff_is_dicom(tmp_path: Path) -> None:
    """Files of two personalities carry a TIFF header in DICOM's preamble: their labels are told as DICOM."""
    path = tmp_path / "a.dcm"
    path.write_bytes(write_tiff(tmp_path / "a.tif").read_bytes()[:8].ljust(128, b"\0") + b"DICM" + bytes(999))
    with pytest.raises(SlideError, match="DICOM"):
        open_slide(path, mpp=0.25)


# pages in any order


def write_pages(path: Path, *pages: tuple[np.ndarray[Any, Any], dict[str, Any]]) -> Path:
    with tifffile.TiffWriter(path) as file:
        for pixels, options in pages:
            file.write(pixels, photometric="rgb", metadata=None, **options)
    return path


SCALED = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}
SLIDE = (TRUTH, TILED | SCALED)


@pytest.mark.parametrize(
    "first",
    [
        (SMALL, {}),
        (SMALL, {"description": "thumbnail"}),
        (TRUTH[:60, :50], {}),
        (TRUTH[:60, :50], {"description": "Label Image"}),
        (TRUTH[:64, :64], TILED | {"description": "macro 64x64"}),
        (TRUTH[:64, :64], TILED | {"subfiletype": 9}),
        (TRUTH[:64, :64], TILED | {"description": "<QPI><ImageType>Label</ImageType></QPI>"}),
        (TRUTH[:64, :64], TILED | {"extratags": [(285, 2, 0, "label", True)]}),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_thumbnail_and_label_are_not_the_slide_wherever_they_come(
    tmp_path: Path, first: tuple[Any, dict[str, Any]], before: bool
) -> None:
    path = write_pages(tmp_path / "a.tif", *([first, SLIDE] if before else [SLIDE, first]))
    with open_slide(path) as reader:
        assert (reader.info.mpp, reader.info.scenes) == (0.25, ("0",))
        np.testing.assert_array_equal(whole(reader), TRUTH)


@pytest.mark.parametrize("tag", [270, 325, 700])
def test_a_damaged_label_does_not_end_its_slide(tmp_path: Path, tag: int) -> None:
    """Whatever else of a later directory points nowhere, the slide before it is whole."""
    more = {"extratags": [(700, 1, 99, bytes(99), True)]}
    label = (TRUTH[:64, :128], TILED | {"description": "label 128x64"} | more)
    path = write_pages(tmp_path / "a.tif", SLIDE, label)
    with tifffile.TiffFile(path) as file:
        entry = file.pages[1].tags[tag].offset  # type: ignore[union-attr]
    with path.open("r+b") as raw:
        raw.seek(entry + 4)
        raw.write(struct.pack("<II", 5000, path.stat().st_size - 9))
    with open_slide(path) as reader:
        np.testing.assert_array_equal(whole(reader), TRUTH)


def test_aperio_behind_its_thumbnail_and_bottom_up(tmp_path: Path) -> None:
    aperio = {"description": "Aperio Image|AppMag = 40|MPP = 0.25"}
    path = write_pages(
        tmp_path / "a.svs",
        (SMALL, {}),
        (TRUTH[::4, ::4], TILED | aperio),
        (TRUTH, TILED | aperio),
        (TRUTH[:40, :90], {"description": "Aperio Image\nmacro 90x40"}),
    )
    with open_slide(path) as reader:
        assert (reader.info.format, reader.info.mpp, reader.info.objective_power) == ("aperio", 0.25, 40.0)
        assert [v.height for v in reader.info.levels] == [150, 38]
        np.testing.assert_array_equal(whole(reader), TRUTH)


def test_a_slide_that_hangs_on_its_thumbnail_is_found(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", (SMALL, {"subifds": 1}), (TRUTH, TILED))
    with open_slide(path, mpp=0.25) as reader:
        np.testing.assert_array_equal(whole(reader), TRUTH)


def test_an_untiled_image_larger_than_the_tiled_one_is_not_dropped(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", (TRUTH[:64, :128], TILED), (TRUTH, {}))
    with pytest.raises(SlideError, match=r"2 scenes: 0 \(128 x 64 px\), 1 \(211 x 150 px\)"):
        open_slide(path)


@pytest.mark.parametrize("description", ["label", "Macro image", "Aperio\nthumbnail 9x9"])
def test_a_file_of_nothing_but_pictures_is_refused(tmp_path: Path, description: str) -> None:
    path = write_pages(tmp_path / "a.tif", (TRUTH, TILED | {"description": description}))
    with pytest.raises(SlideError, match="no slide image") as error:
        open_slide(path, mpp=0.25)
    assert error.value.reason is Reason.NOT_A_SLIDE


def test_levels_of_a_slide_that_is_described_as_a_label_are_not_the_slide(tmp_path: Path) -> None:
    labelled = (TRUTH, TILED | {"description": "scanner 7\nlabel: HER2"})
    for rest in ((TRUTH[::2, ::2], TILED), (SMALL, {})):
        with pytest.raises(SlideError, match="largest tiled image is described as a label"):
            open_slide(write_pages(tmp_path / "a.tif", labelled, rest), mpp=0.25)


# names


@pytest.mark.parametrize(
    ("title", "picture"),
    [
        ("label image", True),
        ("macro image", True),
        ("Macro", True),
        ("CMU-1.svs [thumbnail]", True),
        ("slide_7_label", True),
        ("overview1", True),
        ("SlideLabel", True),
        ("MacroImage", True),
        ("LN3_macrometastasis.svs", False),
        ("Macrodissected block A1", False),
        ("unlabelled control HER2", False),
        ("labeled_slide_12", False),
        ("CD68 macrophage", False),
        ("Relabel 3", False),
        ("", False),
    ],
)
def test_names_of_pictures_are_whole_words(title: str, picture: bool) -> None:
    assert names_picture(title) == picture


def write_ome(path: Path, *names: str, size: tuple[int, int] = TRUTH.shape[:2], **lengths: int) -> Path:
    images = "".join(
        f'<Image Name="{name}"><Pixels DimensionOrder="XYCZT" Type="uint8" SizeX="{size[1]}" '
        f'SizeY="{size[0]}" SizeC="3" SizeZ="{lengths.get("z", 1)}" SizeT="{lengths.get("t", 1)}" '
        f'PhysicalSizeX="0.25" PhysicalSizeY="0.25"><Channel SamplesPerPixel="3"/><TiffData IFD="{i}"/>'
        "</Pixels></Image>"
        for i, name in enumerate(names)
    )
    first = TILED | {"description": f'<OME xmlns="urn:ome">{images}</OME>'}
    return write_pages(path, (TRUTH, first), *[(TRUTH, TILED)] * (len(names) - 1))


def test_an_ome_image_is_no_macro_for_a_part_of_its_name(tmp_path: Path) -> None:
    with open_slide(write_ome(tmp_path / "a.ome.tif", "LN3_macrometastasis Jane Doe")) as reader:
        assert (reader.info.mpp, reader.info.scenes) == (0.25, ("0",))
        assert "Doe" not in repr(reader.info)
        np.testing.assert_array_equal(whole(reader), TRUTH)


def test_ome_scenes_are_told_by_number_and_size_not_by_name(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", "label", "Jane Doe", "John Roe")
    for scene, says in ((None, r"2 scenes: 1 \(211 x 150 px\), 2 \("), ("Jane", "are 1 .*column `scene`")):
        with pytest.raises(SlideError, match=says) as error:
            inspect_slide(path, scene=scene)
        assert not {"Doe", "Roe"} & set(error.value.message.split())
    info = inspect_slide(path, scene="2", header_only=True)
    assert (info.scene, info.scenes, info.scene_sizes) == ("2", ("1", "2"), ((150, 211),) * 2)
    assert "Roe" not in repr(info)


def test_an_ome_image_left_out_by_its_name_is_told_where_it_is_the_largest(tmp_path: Path) -> None:
    large = '<Image Name="Macro scan, Jane Doe"><Pixels SizeX="900" SizeY="800" SizeC="3"/></Image>'
    pixels = '<Pixels SizeX="211" SizeY="150" SizeC="3"><TiffData IFD="0"/></Pixels>'
    xml = {"description": f'<OME xmlns="urn:ome">{large}<Image Name="field 1">{pixels}</Image></OME>'}
    info = open_slide(write_pages(tmp_path / "a.ome.tif", (TRUTH, TILED | xml)), mpp=0.25).info
    assert (info.scenes, info.scene) == (("1",), None)
    assert info.problems[0].startswith("image 0 (900 x 800 px) is larger than every scene, and left out")
    assert "Doe" not in repr(info)


def test_ome_of_nothing_but_pictures_is_refused(tmp_path: Path) -> None:
    for path in (write_ome(tmp_path / "a.ome.tif", "macro image"), write_ome(tmp_path / "b.ome.tif")):
        with pytest.raises(SlideError, match="no slide image") as error:
            open_slide(path)
        assert error.value.reason is Reason.NOT_A_SLIDE


def test_an_ome_image_of_another_size_than_its_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="has 500 x 400 px, the directory that it names has 211 x 150"):
        open_slide(write_ome(tmp_path / "a.ome.tif", "a", size=(400, 500)))


def test_an_ome_image_that_hangs_on_its_own_level_is_found(tmp_path: Path) -> None:
    def described(height: int, width: int) -> dict[str, Any]:
        pixels = f'<Pixels Type="uint8" SizeX="{width}" SizeY="{height}" SizeC="3" SizeZ="1" SizeT="1"/>'
        return {"description": f'<OME xmlns="urn:ome"><Image>{pixels}</Image></OME>', "subifds": 1}

    small = TRUTH[::2, ::2]
    path = write_pages(tmp_path / "a.ome.tif", (small, TILED | described(150, 211)), (TRUTH, TILED))
    with open_slide(path, mpp=0.25) as reader:
        assert [v.height for v in reader.info.levels] == [150, 75]
        np.testing.assert_array_equal(whole(reader), TRUTH)
    with pytest.raises(SlideError, match="another picture"):
        open_slide(write_pages(tmp_path / "b.ome.tif", (small, TILED | described(75, 106)), (TRUTH, TILED)))


# levels and focal planes


def padded(pixels: np.ndarray[Any, Any], to: int = TILE) -> np.ndarray[Any, Any]:
    height, width = (-(-edge // to) * to for edge in pixels.shape[:2])
    return np.pad(pixels, [(0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)])


LEVELS = [TRUTH, TRUTH[::2, ::2], TRUTH[::4, ::4]]


@pytest.mark.parametrize(
    ("pages", "sizes"),
    [
        (LEVELS[::-1], [(150, 1), (75, 2), (38, 4)]),
        ([LEVELS[1], LEVELS[2], LEVELS[0]], [(150, 1), (75, 2), (38, 4)]),
        ([LEVELS[0], padded(LEVELS[1]), padded(LEVELS[2])], [(150, 1), (128, 2), (64, 4)]),
        ([padded(LEVELS[0]), LEVELS[1], LEVELS[2]], [(192, 1), (75, 2), (38, 4)]),
        ([padded(level) for level in LEVELS[::-1]], [(192, 1), (128, 2), (64, 4)]),
        ([LEVELS[0], padded(LEVELS[1], 16), padded(LEVELS[2], 16)], [(150, 1), (80, 2), (48, 4)]),
    ],
    ids=["bottom-up", "mixed", "padded", "padded first", "padded bottom-up", "padded to blocks"],
)
def test_one_pyramid_is_one_scene(
    tmp_path: Path, pages: list[np.ndarray[Any, Any]], sizes: list[tuple[int, int]]
) -> None:
    path = write_pages(tmp_path / "a.tif", *((page, TILED) for page in pages))
    with open_slide(path) as reader:
        assert reader.info.scenes == ("0",)
        levels = reader.info.levels
        assert [(v.height, pytest.approx(v.downsample, rel=0.07)) for v in levels] == sizes
        np.testing.assert_array_equal(whole(reader)[:150, :211], TRUTH)


def test_the_order_of_pages_decides_nothing_but_numbers(tmp_path: Path) -> None:
    other = TRUTH[:, :100][::-1]
    pages = {"a0": TRUTH, "a1": TRUTH[::2, ::2], "b0": other, "b1": other[::2, ::2], "t": SMALL}
    for order in itertools.islice(itertools.permutations(pages), 0, None, 5):
        written = [(pages[page], {} if page == "t" else TILED) for page in order]
        path = write_pages(tmp_path / "a.tif", *written)
        numbers = sorted(("a0", "b0"), key=order.index)
        for number, page in enumerate(numbers):
            with open_slide(path, scene=str(number), identity="1-x") as reader:
                assert [v.height for v in reader.info.levels] == [150, 75], order
                assert reader.info.width == pages[page].shape[1], order


def test_scenes_of_one_size_keep_their_own_levels(tmp_path: Path) -> None:
    pages = [LEVELS[0], LEVELS[1], LEVELS[0], LEVELS[1]]
    path = write_pages(tmp_path / "a.tif", *((page, TILED) for page in pages))
    for scene in "01":
        assert [v.height for v in open_slide(path, scene=scene).info.levels] == [150, 75]


def test_an_image_of_one_tile_is_no_level_of_a_much_larger_one(tmp_path: Path) -> None:
    path = write_pages(
        tmp_path / "a.tif", (np.zeros((900, 1100, 3), np.uint8), TILED), (TRUTH[:64, :64], TILED)
    )
    with pytest.raises(SlideError, match=r"0 \(1100 x 900 px\), 1 \(64 x 64 px\)"):
        open_slide(path)


def test_focal_planes_of_bright_field_are_refused_alike_in_every_format(tmp_path: Path) -> None:
    imagej = {"description": "ImageJ=1.54\nimages=3\nslices=3\n"}
    aperio = {"description": "Aperio|MPP = 0.25"}
    (tmp_path / "m").mkdir()
    files = [
        write_ome(tmp_path / "a.ome.tif", "a", z=3),
        write_pages(tmp_path / "one.tif", (TRUTH, TILED | imagej)),
        write_pages(tmp_path / "three.tif", (TRUTH, TILED | imagej), SLIDE, SLIDE),
        write_pages(tmp_path / "a.svs", *[(TRUTH, TILED | aperio)] * 3),
        mirax(tmp_path / "m", focus=3)[0],
    ]
    for path in files:
        for assay in (None, Assay.IHC):
            with pytest.raises(
                SlideError, match="3 focal planes; a bright-field slide is read at one"
            ) as error:
                inspect_slide(path, mpp=0.25, assay=assay)
            assert error.value.reason is Reason.PIXELS_UNSUPPORTED, path


def test_focal_planes_of_ndpi_are_counted(tmp_path: Path) -> None:
    def directory(at: int, focus: int, last: bool) -> bytes:
        entries = struct.pack("<HHIi", 65420, 4, 1, 1) + struct.pack("<HHIi", 65424, 9, 1, focus)
        return struct.pack("<H", 2) + entries + struct.pack("<Q", 0 if last else at + 34)

    planes = [directory(12 + 34 * i, focus, i == 3) for i, focus in enumerate((0, -500, 500, 0))]
    path = tmp_path / "a.ndpi"
    path.write_bytes(b"II*\0" + struct.pack("<Q", 12) + b"".join(planes))
    assert _ndpi_foci(path) == 3
    assert _ndpi_foci(write_tiff(tmp_path / "a.tif", **TILED)) == 1


@pytest.mark.parametrize(
    ("properties", "foci"),
    [
        ({"zeiss.Information.Image.SizeZ": "5"}, 5),
        ({"ventana.Z-layers": "3"}, 3),
        ({"hamamatsu.NoLayers": "7"}, 7),
        ({"ventana.Z-layers": "many"}, 1),
    ],
)
def test_focal_planes_that_vendors_state(properties: dict[str, str], foci: int) -> None:
    assert max(_stated_foci(properties), 1) == foci


def test_focal_planes_of_scn_are_counted(tmp_path: Path) -> None:
    planes = "".join(f'<dimension r="0" z="{z}" ifd="{z}"/><dimension r="1" z="{z}"/>' for z in range(3))
    xml = {"description": f'<scn xmlns="http://{LEICA_SCHEMA}/2010/10/01">{planes}</scn>'}
    assert _leica_foci(write_pages(tmp_path / "a.scn", (TRUTH, TILED | xml))) == 3
    assert _leica_foci(write_pages(tmp_path / "b.tif", SLIDE)) == 1
