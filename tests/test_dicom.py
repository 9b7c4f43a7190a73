"""The DICOM reader against the array that was written, OpenSlide and wsidicom."""

from __future__ import annotations

import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import openslide
import pydicom
import pytest
import wsidicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import generate_uid

from her2core.errors import Reason, SlideError
from her2core.intake.inspect import inspect_slide
from her2core.params import PyramidParams
from her2core.pyramid.reader import PyramidReader
from her2core.pyramid.writer import convert
from her2core.readers import open_slide
from her2core.readers.limits import MAX_TILES
from her2core.storage.store import Store

Pixels = npt.NDArray[np.uint8]
TILE = 64
RAW, RAW_IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
JPEG, JPEG_2000, HTJ2K = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"
JPEG_LS, JPEG_XL = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.110"
PHOTOMETRIC = {JPEG: "YBR_FULL_422", JPEG_2000: "YBR_RCT", HTJ2K: "YBR_RCT"}

_y, _x = np.mgrid[:150, :211]
TRUTH: Pixels = np.stack([_y + 20, _x, (_x + _y) // 2], axis=-1).astype(np.uint8)


def item(**values: Any) -> Dataset:
    dataset = Dataset()
    for key, value in values.items():
        setattr(dataset, key, value)
    return dataset


def whole_slide(pixels: Pixels = TRUTH, syntax: str = JPEG, *, sparse: bool = False) -> Dataset:
    """A VL Whole Slide Microscopy object with the attributes that its readers look for."""
    h, w = pixels.shape[:2]
    rows, columns = -(-h // TILE), -(-w // TILE)
    padded = np.full((rows * TILE, columns * TILE, 3), 255, np.uint8)
    padded[:h, :w] = pixels
    places = list(itertools.product(range(rows), range(columns)))
    if sparse:
        places.reverse()
    tiles = [np.ascontiguousarray(padded[r * TILE :, c * TILE :][:TILE, :TILE]) for r, c in places]
    kind = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    measures = item(PixelSpacing=[0.00025, 0.00025], SliceThickness=0.001)
    light = item(CodeValue="111744", CodingSchemeDesignator="DCM", CodeMeaning="Brightfield illumination")
    slide = item(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.6",
        SOPInstanceUID=generate_uid(),
        SeriesInstanceUID="1.2.3",
        StudyInstanceUID="1.2.4",
        FrameOfReferenceUID="1.2.5",
        Modality="SM",
        PatientName="Doe^Jane",
        PatientID="7",
        ImageType=kind,
        SamplesPerPixel=3,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        PlanarConfiguration=0,
        PhotometricInterpretation=PHOTOMETRIC.get(syntax, "RGB"),
        Rows=TILE,
        Columns=TILE,
        NumberOfFrames=len(tiles),
        TotalPixelMatrixRows=h,
        TotalPixelMatrixColumns=w,
        InstanceNumber=1,
        DimensionOrganizationType="TILED_SPARSE" if sparse else "TILED_FULL",
        VolumetricProperties="VOLUME",
        ImagedVolumeWidth=w * 0.00025,
        ImagedVolumeHeight=h * 0.00025,
        ImagedVolumeDepth=0.001,
        FocusMethod="AUTO",
        ExtendedDepthOfField="NO",
        SpecimenLabelInImage="NO",
        BurnedInAnnotation="NO",
        LossyImageCompression="00",
        ImageOrientationSlide=[0, -1, 0, -1, 0, 0],
        TotalPixelMatrixFocalPlanes=1,
        NumberOfOpticalPaths=1,
        TotalPixelMatrixOriginSequence=[
            item(XOffsetInSlideCoordinateSystem=0.0, YOffsetInSlideCoordinateSystem=0.0)
        ],
        SharedFunctionalGroupsSequence=[
            item(
                PixelMeasuresSequence=[measures],
                WholeSlideMicroscopyImageFrameTypeSequence=[item(FrameType=kind)],
            )
        ],
        OpticalPathSequence=[
            item(OpticalPathIdentifier="1", ObjectiveLensPower=40.0, IlluminationTypeCodeSequence=[light])
        ],
    )
    if sparse:
        slide.PerFrameFunctionalGroupsSequence = [
            item(
                PlanePositionSlideSequence=[
                    item(
                        RowPositionInTotalImagePixelMatrix=r * TILE + 1,
                        ColumnPositionInTotalImagePixelMatrix=c * TILE + 1,
                        XOffsetInSlideCoordinateSystem=0.0,
                        YOffsetInSlideCoordinateSystem=0.0,
                        ZOffsetInSlideCoordinateSystem=0.0,
                    )
                ]
            )
            for r, c in places
        ]
    slide.file_meta = FileMetaDataset()
    slide.file_meta.TransferSyntaxUID = syntax
    slide.file_meta.MediaStorageSOPClassUID = slide.SOPClassUID
    slide.file_meta.MediaStorageSOPInstanceUID = slide.SOPInstanceUID
    if syntax in (RAW, RAW_IMPLICIT):
        slide.PixelData = b"".join(tile.tobytes() for tile in tiles)
    else:
        slide.PixelData = encapsulate([encode(tile, syntax) for tile in tiles])
        slide["PixelData"].VR = "OB"
    return slide


def encode(tile: Pixels, syntax: str) -> bytes:
    if syntax == JPEG_2000:
        return bytes(imagecodecs.jpeg2k_encode(tile, level=0, codecformat="j2k", mct=True))
    if syntax == JPEG_XL:
        return bytes(imagecodecs.jpegxl_encode(tile, lossless=True))
    if syntax == HTJ2K:
        return bytes(imagecodecs.htj2k_encode(tile, level=0))
    return bytes(imagecodecs.jpeg8_encode(tile, level=95))


def save(path: Path, slide: Dataset) -> Path:
    syntax = slide.file_meta.TransferSyntaxUID
    raw = (
        {"implicit_vr": syntax == RAW_IMPLICIT, "little_endian": True}
        if syntax in (RAW, RAW_IMPLICIT)
        else {}
    )
    slide.save_as(path, enforce_file_format=True, **raw)
    return path


def read_all(path: Path, **options: Any) -> Pixels:
    with open_slide(path, **options) as reader:
        out = np.empty((reader.info.height, reader.info.width, 3), np.uint8)
        reader.read_region(0, 0, out)
        return out


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("syntax", [JPEG, JPEG_2000, HTJ2K, RAW, RAW_IMPLICIT])
@pytest.mark.filterwarnings("ignore::UserWarning:wsidicom", "ignore::UserWarning:pydicom")
def test_pixels_equal_truth_and_independent_readers(tmp_path: Path, syntax: str, sparse: bool) -> None:
    path = save(tmp_path / "a.dcm", whole_slide(syntax=syntax, sparse=sparse))
    ours = read_all(path)
    assert np.abs(ours.astype(int) - TRUTH).mean() < (2 if syntax == JPEG else 1e-9)
    with wsidicom.WsiDicom.open(path) as theirs:
        np.testing.assert_array_equal(ours, np.asarray(theirs.read_region((0, 0), 0, TRUTH.shape[1::-1])))
    if syntax in (JPEG, JPEG_2000, RAW):
        with openslide.OpenSlide(path) as slide:
            shown = slide.read_region((0, 0), 0, TRUTH.shape[1::-1]).convert("RGB")
        np.testing.assert_array_equal(ours, np.asarray(shown))


def test_header_without_the_patient(tmp_path: Path) -> None:
    with open_slide(save(tmp_path / "a.dcm", whole_slide())) as reader:
        info = reader.info
    assert (info.format, info.reader, info.compression) == ("dicom", "dicom", "jpeg")
    assert (info.mpp, info.mpp_source, info.objective_power) == (0.25, "dicom", 40.0)
    assert "Doe" not in repr(info)


def test_a_folder_is_one_slide_without_label_and_overview(tmp_path: Path) -> None:
    save(tmp_path / "1.dcm", whole_slide(np.ascontiguousarray(TRUTH[::2, ::2])))
    save(tmp_path / "2.dcm", whole_slide(syntax=RAW))
    for i, kind in enumerate(("LABEL", "OVERVIEW", "THUMBNAIL")):
        other = whole_slide(np.ascontiguousarray(np.tile(TRUTH, (2, 2, 1))))
        other.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
        save(tmp_path / f"x{i}.dcm", other)
    (tmp_path / "notes.txt").write_text("not DICOM")
    with open_slide(tmp_path) as reader:
        assert [(v.height, v.width) for v in reader.info.levels] == [(150, 211), (75, 106)]
    np.testing.assert_array_equal(read_all(tmp_path), TRUTH)


def test_two_series_are_two_scenes(tmp_path: Path) -> None:
    save(tmp_path / "1.dcm", whole_slide(syntax=RAW))
    other = whole_slide(np.ascontiguousarray(TRUTH[::-1]), RAW)
    other.SeriesInstanceUID = "1.2.9"
    save(tmp_path / "2.dcm", other)
    with pytest.raises(SlideError, match=r"2 scenes: 0 \(211 x 150 px\)"):
        open_slide(tmp_path)
    np.testing.assert_array_equal(read_all(tmp_path, scene="1"), TRUTH[::-1])


def changed(**values: Any) -> Dataset:
    slide = whole_slide()
    for key, value in values.items():
        if value is None:
            delattr(slide, key)
        else:
            setattr(slide, key, value)
    return slide


@pytest.mark.parametrize(
    ("values", "reason", "says"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, Reason.NOT_A_SLIDE, "no DICOM whole-slide image"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}, Reason.NOT_A_SLIDE, "VOLUME"),
        ({"DimensionOrganizationType": None}, Reason.FILE_UNREADABLE, "order of its 12 frames"),
        ({"NumberOfFrames": 9}, Reason.FILE_TRUNCATED, "9 frames for a grid of 3 x 4"),
        ({"TotalPixelMatrixRows": 1 << 21}, Reason.FILE_BEYOND_LIMITS, "px an edge"),
        (
            {"TotalPixelMatrixRows": 100_000, "TotalPixelMatrixColumns": 100_000},
            Reason.FILE_TRUNCATED,
            "12 frames for a grid of 1563 x 1563",
        ),
        ({"Rows": 60_000, "Columns": 60_000}, Reason.FILE_BEYOND_LIMITS, "frames of 60000"),
        ({"NumberOfFrames": MAX_TILES + 1}, Reason.FILE_BEYOND_LIMITS, f"accepted {MAX_TILES}"),
        ({"BitsAllocated": 16}, Reason.FILE_UNREADABLE, "3 samples with 16 bits"),
        ({"SamplesPerPixel": 1}, Reason.FILE_UNREADABLE, "1 samples"),
        ({"TotalPixelMatrixFocalPlanes": 5}, Reason.PIXELS_UNSUPPORTED, "5 focal planes"),
        ({"NumberOfOpticalPaths": 2}, Reason.FILE_UNREADABLE, "2 optical paths"),
        (
            {"ConcatenationUID": "1.2.8", "InConcatenationTotalNumber": 2},
            Reason.FILE_TRUNCATED,
            "1 of 2 parts of a concatenation",
        ),
    ],
)
def test_what_is_not_one_plane_of_rgb_tiles_is_refused(
    tmp_path: Path, values: dict[str, Any], reason: Reason, says: str
) -> None:
    path = save(tmp_path / "a.dcm", changed(**values))
    with pytest.raises(SlideError, match=says) as error:
        open_slide(path)
    assert error.value.reason is reason
    assert "Doe" not in error.value.message


def test_frames_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    slide = whole_slide(sparse=True)
    slide.PerFrameFunctionalGroupsSequence[3].PlanePositionSlideSequence[
        0
    ].RowPositionInTotalImagePixelMatrix = 20
    with pytest.raises(SlideError, match="expected a regular grid"):
        open_slide(save(tmp_path / "a.dcm", slide))
    unsupported = whole_slide()
    unsupported.file_meta.TransferSyntaxUID = JPEG_LS
    with pytest.raises(SlideError, match=f"transfer syntax {JPEG_LS}"):
        open_slide(save(tmp_path / "c.dcm", unsupported))


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("syntax", [JPEG, RAW])
def test_a_file_cut_short_is_refused_at_opening(tmp_path: Path, part: float, syntax: str) -> None:
    path = save(tmp_path / "a.dcm", whole_slide(syntax=syntax))
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(SlideError) as error:
        open_slide(path)
    assert error.value.reason in (Reason.FILE_TRUNCATED, Reason.FILE_UNREADABLE)


def test_two_files_of_the_same_size_are_ambiguous(tmp_path: Path) -> None:
    for name in ("1.dcm", "2.dcm"):
        save(tmp_path / name, whole_slide())
    with pytest.raises(SlideError, match="several files hold the finest level"):
        open_slide(tmp_path)


def test_pixel_spacing_that_differs_is_refused(tmp_path: Path) -> None:
    slide = whole_slide()
    slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.00025, 0.0005]
    with pytest.raises(SlideError) as error:
        open_slide(save(tmp_path / "a.dcm", slide))
    assert error.value.reason is Reason.SCALE_ANISOTROPIC


# what the standard allows beside one file of whole frames


def concatenation(
    folder: Path, syntax: str = RAW, *, sparse: bool = False, sizes: tuple[int, ...] = (5, 4, 3)
) -> Path:
    """The slide in several files, named against the order of their frames."""
    first = 0
    for number, n in enumerate(sizes):
        part, whole = whole_slide(syntax=syntax, sparse=sparse), whole_slide(syntax=syntax, sparse=sparse)
        part.SOPInstanceUID = part.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        part.ConcatenationUID, part.SOPInstanceUIDOfConcatenationSource = "1.2.8", "1.2.9"
        part.InConcatenationNumber, part.InConcatenationTotalNumber = number + 1, len(sizes)
        part.ConcatenationFrameOffsetNumber, part.NumberOfFrames = first, n
        if syntax == RAW:
            length = 3 * TILE * TILE
            part.PixelData = whole.PixelData[first * length : (first + n) * length]
        else:
            frames = list(generate_frames(whole.PixelData, number_of_frames=12))
            part.PixelData = encapsulate(
                frames[first : first + n], fragments_per_frame=2 if number == 1 else 1
            )
        if sparse:
            part.PerFrameFunctionalGroupsSequence = whole.PerFrameFunctionalGroupsSequence[first : first + n]
        save(folder / f"{9 - number}.dcm", part)
        first += n
    return folder


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("syntax", [RAW, JPEG_2000])
@pytest.mark.filterwarnings("ignore::UserWarning:wsidicom", "ignore::UserWarning:pydicom")
def test_a_concatenation_is_one_level(tmp_path: Path, syntax: str, sparse: bool) -> None:
    folder = concatenation(tmp_path, syntax, sparse=sparse)
    save(folder / "level1.dcm", whole_slide(np.ascontiguousarray(TRUTH[::2, ::2])))
    np.testing.assert_array_equal(read_all(folder), TRUTH)
    with open_slide(folder) as reader:
        assert [(v.height, v.width) for v in reader.info.levels] == [(150, 211), (75, 106)]
        assert (reader.info.mpp, reader.info.problems) == (0.25, ())
    assert inspect_slide(folder).width == 211


def test_a_concatenation_with_a_part_missing_or_other_is_refused(tmp_path: Path) -> None:
    folder = concatenation(tmp_path)
    with pytest.raises(SlideError, match=r"1 of 3 parts .* Give the folder"):
        open_slide(folder / "9.dcm")
    other = pydicom.dcmread(folder / "8.dcm")
    other.PhotometricInterpretation = "YBR_FULL"
    other.save_as(folder / "8.dcm")
    with pytest.raises(SlideError, match="differ in size or pixels"):
        open_slide(folder)
    (folder / "8.dcm").unlink()
    with pytest.raises(SlideError, match="2 of 3 parts"):
        open_slide(folder)


@pytest.mark.parametrize("offsets", [True, False], ids=["with offsets", "without"])
@pytest.mark.parametrize("syntax", [JPEG, JPEG_2000, JPEG_XL])
@pytest.mark.filterwarnings("ignore::UserWarning:wsidicom", "ignore::UserWarning:pydicom")
def test_frames_in_several_fragments(tmp_path: Path, syntax: str, offsets: bool) -> None:
    whole, split = whole_slide(syntax=syntax), whole_slide(syntax=syntax)
    frames = list(generate_frames(whole.PixelData, number_of_frames=12))
    split.PixelData = encapsulate(frames, fragments_per_frame=3, has_bot=offsets)
    split["PixelData"].VR = "OB"
    path = save(tmp_path / "a.dcm", split)
    np.testing.assert_array_equal(read_all(path), read_all(save(tmp_path / "b.dcm", whole)))
    assert inspect_slide(path).compression == {JPEG: "jpeg", JPEG_2000: "jpeg2000", JPEG_XL: "jpegxl"}[syntax]


@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("syntax", [JPEG, JPEG_2000])
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_frames_are_copied_into_a_pyramid(tmp_path: Path, syntax: str, fragments: int) -> None:
    slide = whole_slide(syntax=syntax)
    frames = list(generate_frames(slide.PixelData, number_of_frames=12))
    slide.PixelData = encapsulate(frames, fragments_per_frame=fragments)
    slide["PixelData"].VR = "OB"
    path, store = save(tmp_path / "a.dcm", slide), Store(tmp_path / "out")
    with open_slide(path) as reader:
        params = PyramidParams(2 * TILE, 8 * TILE, "source")
        ref = convert(reader, store, "p", params, mpp=0.25)
    assert ref.codec == f"source-{'jpeg' if syntax == JPEG else 'jpeg2000'}-{TILE}"
    assert ref.tiles_encoded == 0
    want = read_all(path)
    copied = np.empty_like(want)
    PyramidReader(store, ref).read(0, 0, 0, copied)
    np.testing.assert_array_equal(copied, want)


def test_fragments_that_belong_to_no_frame_are_refused(tmp_path: Path) -> None:
    split = whole_slide()
    split.PixelData = encapsulate([b"\0" * 64] * 12, fragments_per_frame=2, has_bot=False)
    split["PixelData"].VR = "OB"
    with pytest.raises(SlideError, match="12 frames in 24 fragments"):
        open_slide(save(tmp_path / "a.dcm", split))


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_uncompressed_colours(tmp_path: Path, photometric: str, planar: int) -> None:
    slide = whole_slide(syntax=RAW)
    stored = np.frombuffer(slide.PixelData, np.uint8).reshape(12, TILE, TILE, 3)
    if photometric == "YBR_FULL":
        r, g, b = (stored[..., i].astype(float) for i in range(3))
        y = 0.299 * r + 0.587 * g + 0.114 * b
        stored = (
            np.rint(np.stack([y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402], -1))
            .clip(0, 255)
            .astype(np.uint8)
        )
    slide.PixelData = np.ascontiguousarray(stored.transpose(0, 3, 1, 2) if planar else stored).tobytes()
    slide.PhotometricInterpretation, slide.PlanarConfiguration = photometric, planar
    ours = read_all(save(tmp_path / "a.dcm", slide))
    np.testing.assert_allclose(ours, TRUTH, atol=0 if photometric == "RGB" else 2)


def test_a_single_frame_whose_place_stands_among_what_frames_share(tmp_path: Path) -> None:
    slide = whole_slide(np.ascontiguousarray(TRUTH[:TILE, :TILE]), RAW, sparse=True)
    (own,) = slide.PerFrameFunctionalGroupsSequence
    slide.SharedFunctionalGroupsSequence[0].PlanePositionSlideSequence = own.PlanePositionSlideSequence
    del slide.PerFrameFunctionalGroupsSequence
    np.testing.assert_array_equal(read_all(save(tmp_path / "a.dcm", slide)), TRUTH[:TILE, :TILE])


def test_frames_that_are_left_out_are_glass_and_told(tmp_path: Path) -> None:
    slide = whole_slide(syntax=RAW, sparse=True)  # its frames begin with the last
    slide.NumberOfFrames = 10
    slide.PixelData = slide.PixelData[: 10 * 3 * TILE * TILE]
    slide.PerFrameFunctionalGroupsSequence = slide.PerFrameFunctionalGroupsSequence[:10]
    path = save(tmp_path / "a.dcm", slide)
    ours = read_all(path)
    assert (ours[:TILE, : 2 * TILE] == 255).all()
    np.testing.assert_array_equal(ours[TILE:], TRUTH[TILE:])
    with open_slide(path) as reader:
        assert reader.info.problems == ("2 of 12 tiles are absent: read as glass",)


@pytest.mark.parametrize("where", ["frames", "top", "volume"])
def test_pixel_spacing_in_other_places(tmp_path: Path, where: str) -> None:
    slide = whole_slide(syntax=RAW)
    measures = slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    del slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    if where == "frames":
        slide.PerFrameFunctionalGroupsSequence = [item(PixelMeasuresSequence=measures) for _ in range(12)]
    if where == "top":
        slide.PixelSpacing = [0.00025, 0.00025]
    if where != "volume":
        del slide.ImagedVolumeWidth, slide.ImagedVolumeHeight
    with open_slide(save(tmp_path / "a.dcm", slide)) as reader:
        assert (reader.info.mpp, reader.info.mpp_source) == (0.25, "dicom")


def test_frames_of_different_spacing_state_none(tmp_path: Path) -> None:
    slide = whole_slide(syntax=RAW)
    del slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    slide.PerFrameFunctionalGroupsSequence = [
        item(PixelMeasuresSequence=[item(PixelSpacing=[0.00025 * (1 + i), 0.00025])]) for i in range(12)
    ]
    with open_slide(save(tmp_path / "a.dcm", slide)) as reader:
        assert reader.info.mpp is None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(132, 3000), st.integers(0, 255)), min_size=1, max_size=5))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_damage_to_a_header_is_read_or_refused(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    """A byte changed anywhere gives pixels or a SlideError, never another exception."""
    path = tmp_path / "a.dcm"
    if not path.exists():
        save(path, whole_slide(sparse=True))
    damaged = bytearray(path.read_bytes())
    for at, value in changes:
        damaged[at] = value
    other = tmp_path / "b.dcm"
    other.write_bytes(damaged)
    with suppress(SlideError):
        read_all(other, identity="1-x")
