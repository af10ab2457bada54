"""The images of a DICOM file: the file's own one, or the frames of an enhanced one.

An enhanced file says what differs between its frames, and what does not, in functional groups
(PS3.3, C.7.6.16). Each frame gets a header as if it were a file of its own, so that there is one
way to read both kinds.
"""

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from cfseg.errors import InputError
from cfseg.io.dicom_layout import PixelLayout, layout_of
from cfseg.io.dicom_tags import corrupt, given, header_of, items, text

_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_RESCALE = ("RescaleSlope", "RescaleIntercept", "RescaleType")
_TIMES = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "ContentTime",
)
_OF_IMAGE = (
    *_GEOMETRY,
    *_RESCALE,
    *_TIMES,
    "InstanceNumber",
    "ImageType",
    "ImagesInAcquisition",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)
_OF_FILE = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
TAGS = (*_OF_FILE, *_OF_IMAGE)
"""All that is read of a header."""
_GROUPS: dict[str, dict[str, str]] = {
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {"PixelSpacing": "PixelSpacing"},
    "PixelValueTransformationSequence": {name: name for name in _RESCALE},
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    # Legacy converted images keep here what has no group of its own.
    "UnassignedSharedConvertedAttributesSequence": {name: name for name in _TIMES},
    "UnassignedPerFrameConvertedAttributesSequence": {name: name for name in _TIMES},
    "FrameContentSequence": {
        "StackID": "StackID",
        "FrameAcquisitionNumber": "AcquisitionNumber",
        "TemporalPositionIndex": "TemporalPositionIdentifier",
        "FrameAcquisitionDateTime": "AcquisitionDateTime",
        "FrameReferenceDateTime": "ContentTime",
    },
}
"""Functional group: what of it is read, and what it is called in a file of one image."""


_Elements = dict[BaseTag, DataElement | RawDataElement]


@dataclass(frozen=True)
class Image:
    """One image of a file.

    Attributes:
        path: its file.
        frame: its index in an enhanced file, None in any other.
        header: its own, and what it shares with the other frames.
        layout: of the pixels of the file.
    """

    path: Path
    frame: int | None
    header: Dataset
    layout: PixelLayout

    @property
    def name(self) -> str:
        """Name of the file and number of the frame, counted from 1."""
        return self.path.name + ("" if self.frame is None else f" (frame {self.frame + 1})")


def images_of(path: Path) -> list[Image]:
    """Return the images of a file.

    Raises:
        InputError: ``E_CORRUPT``; ``E_DTYPE``, no CT; ``E_FORMAT``, its frames have no positions.
    """
    header = header_of(path, TAGS)
    if header is None:
        raise corrupt(path, "it holds no image")
    layout = layout_of(header)
    if given(header, "PerFrameFunctionalGroupsSequence") is not None:
        headers = _frame_headers(path, header, layout.frames)
        return [Image(path, frame, own, layout) for frame, own in enumerate(headers)]
    if layout.frames > 1:
        raise InputError(
            f"{path} is a multi-frame file that does not say where each frame lies, so it is no "
            "volume; export the original series",
            code="E_FORMAT",
        )
    return [Image(path, None, header, layout)]


def is_localizer(image: Image) -> bool:
    """Say whether an image calls itself a localizer."""
    return "LOCALIZER" in text(image.header, "ImageType").split("\\")


def _frame_headers(path: Path, header: Dataset, frames: int) -> list[Dataset]:
    """Return a header for each frame: the file's own values, the shared ones, and its own."""
    own = items(header, "PerFrameFunctionalGroupsSequence")
    if len(own) != frames:
        raise corrupt(path, f"it announces {frames} frames and describes {len(own)}")
    common: _Elements = {
        Tag(name): header[Tag(name)] for name in _OF_IMAGE if given(header, name) is not None
    }
    for item in items(header, "SharedFunctionalGroupsSequence"):
        common |= _elements(path, item)
    made = []
    for item in own:
        flat = Dataset({**common, **_elements(path, item)})
        flat.filename = str(path)
        made.append(flat)
    return made


def _elements(path: Path, groups: Dataset) -> _Elements:
    """Return what is read of the functional groups, as elements of a file of one image."""
    groups.filename = str(path)
    found: _Elements = {}
    for group, names in _GROUPS.items():
        for item in items(groups, group):
            item.filename = str(path)
            for name, plain in names.items():
                if given(item, name) is not None:
                    found[Tag(plain)] = item[Tag(name)]
    return found
