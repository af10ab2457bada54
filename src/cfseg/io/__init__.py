"""Files to volumes and back: NIfTI, DICOM, NRRD and MetaImage; label maps on the input's grid."""

from cfseg.io.atomic import make_folder, replacing, write_json, write_text, writing
from cfseg.io.found import Ignored, Input, Listing
from cfseg.io.listing import list_inputs, the_input
from cfseg.io.names import (
    CHANNEL,
    case_id,
    case_names,
    files_in,
    is_scan_name,
    name_at,
    names_of,
    stem,
)
from cfseg.io.options import AS_IS, ReadingOptions
from cfseg.io.scan import Scan, read_label_map, read_scan, scan_from_image
from cfseg.io.source import SourceGrid
from cfseg.io.stream import file_digest
from cfseg.io.told import without_folders, without_paths
from cfseg.io.write import (
    FORMATS,
    is_label_map_name,
    label_image,
    to_source_array,
    write_label_map,
)

__all__ = [
    "AS_IS",
    "CHANNEL",
    "FORMATS",
    "Ignored",
    "Input",
    "Listing",
    "ReadingOptions",
    "Scan",
    "SourceGrid",
    "case_id",
    "case_names",
    "file_digest",
    "files_in",
    "is_label_map_name",
    "is_scan_name",
    "label_image",
    "list_inputs",
    "make_folder",
    "name_at",
    "names_of",
    "read_label_map",
    "read_scan",
    "replacing",
    "scan_from_image",
    "stem",
    "the_input",
    "to_source_array",
    "without_folders",
    "without_paths",
    "write_json",
    "write_label_map",
    "write_text",
    "writing",
]
