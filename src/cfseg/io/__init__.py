"""Files to volumes and back: NIfTI and DICOM in, label maps on the input's own grid out."""

from cfseg.io.atomic import make_folder, replacing, write_json, write_text, writing
from cfseg.io.inputs import find_input, remember_input, without_folders, without_paths
from cfseg.io.names import case_id, find_scans, is_scan_name, names_of
from cfseg.io.options import AS_IS, ReadingOptions
from cfseg.io.scan import Scan, read_label_map, read_scan, scan_from_image
from cfseg.io.source import SourceGrid
from cfseg.io.write import label_image, to_source_array, write_label_map

__all__ = [
    "AS_IS",
    "ReadingOptions",
    "Scan",
    "SourceGrid",
    "case_id",
    "find_input",
    "find_scans",
    "is_scan_name",
    "label_image",
    "make_folder",
    "names_of",
    "read_label_map",
    "read_scan",
    "remember_input",
    "replacing",
    "scan_from_image",
    "to_source_array",
    "without_folders",
    "without_paths",
    "write_json",
    "write_label_map",
    "write_text",
    "writing",
]
