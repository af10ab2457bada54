"""The kinds of mutants: how many of each there are, what makes them, what reads them."""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tests.fuzz import models, records, scans

from cfseg.bundle.bundle import load_stages, read_manifest
from cfseg.bundle.nnunet_v2 import read_model_folder
from cfseg.dataset.groups import groups
from cfseg.dataset.layouts import list_cohort
from cfseg.errors import CfsegError, InputError
from cfseg.findings.files import read_case, write_tables
from cfseg.io import (
    Input,
    ReadingOptions,
    list_inputs,
    read_label_map,
    read_scan,
    to_source_array,
    write_label_map,
)
from cfseg.io.status_file import read_status
from cfseg.networks.build import fitting_weights
from cfseg.recipes import recipe
from cfseg.volume import LabelMap

MOST_MESSAGE = 1000
"""Characters without paths: a sentence or two."""
Make = Callable[[Path, random.Random], Path]
"""Writes a mutant into an empty folder and returns the path that is to be read."""
Read = Callable[[Path, random.Random], Iterator[str]]
"""Reads a mutant and yields for each thing in it the code of its refusal, "" if it is read."""


@dataclass(frozen=True)
class Kind:
    """One kind of mutants.

    Attributes:
        name: on the command line.
        share: of 5000 mutants.
        make: see :data:`Make`.
        read: see :data:`Read`.
    """

    name: str
    share: int
    make: Make
    read: Read


def attempt(read: Callable[[], object]) -> str:
    """Return the code of the error of cfseg that a call raises, "" if it raises none."""
    try:
        read()
    except CfsegError as error:
        return _checked(error)
    return ""


def _checked(error: CfsegError) -> str:
    length = len(re.sub(r"/\S*", "", error.message))  # a description may name a long path
    assert 10 < length < MOST_MESSAGE, f"a message of {length} characters"
    return error.code


def permissive(rng: random.Random) -> ReadingOptions:
    """Return options that let in what would be refused, or none."""
    if rng.random() < 0.5:
        return ReadingOptions()
    return ReadingOptions(
        assume_orientation=rng.choice((None, "LAS", "SRA")), force_spacing=rng.random() < 0.5,
        volume_index=rng.choice((None, 0, 1)), nonfinite=rng.choice(("refuse", "air")),
        hu_offset=rng.choice((None, -1024.0, 0.5)), allow_gaps=rng.random() < 0.5,
        all_series=rng.random() < 0.5, force_modality=rng.random() < 0.5,
    )  # fmt: skip


def read_scans(path: Path, rng: random.Random) -> Iterator[str]:
    """Read each scan of a path, and write a label map on its grid."""
    options = permissive(rng)
    for found in list_inputs([path], options).inputs:
        yield attempt(lambda found=found: _read_and_write(found, options, path.parent))


def _read_and_write(found: Input, options: ReadingOptions, folder: Path) -> None:
    scan = read_scan(found, options=options)
    assert np.isfinite(scan.volume.hu).all()
    assert scan.volume.hu.shape == scan.volume.geometry.shape
    ids = np.ones(scan.volume.geometry.shape, np.uint8)
    label_map = LabelMap(ids, scan.volume.geometry)
    assert to_source_array(label_map, scan.source).shape == scan.source.shape
    write_label_map(folder / "out.nii.gz", label_map, scan.source)


def read_labels(path: Path, rng: random.Random) -> Iterator[str]:
    """Read a label map."""
    yield attempt(lambda: read_label_map(path, permissive(rng)))


def read_bundle(path: Path, rng: random.Random) -> Iterator[str]:
    """Read a bundle and all of its networks."""
    manifest = read_manifest(path)
    cascade = manifest.cascade
    load_stages(path, manifest, cascade.stages, torch.device("cpu"), cascade.decoder_stop)
    yield ""


def read_nnunet(path: Path, rng: random.Random) -> Iterator[str]:
    """Read nnU-Net's folder and fit its weights to its plan."""
    fitting_weights(*read_model_folder(path, "organ"))
    yield ""


def read_recipe(path: Path, rng: random.Random) -> Iterator[str]:
    """Read a recipe."""
    recipe.load(path)
    yield ""


def read_cohort(path: Path, rng: random.Random) -> Iterator[str]:
    """List a cohort, sort it into groups and write both."""
    list_cohort(path)
    for problem in groups(path, path.with_name("out"), manifest=True, workers=1).refused:
        yield attempt(lambda it=problem: _raise(InputError(it.message, code=it.code)))
    yield ""


def _raise(error: CfsegError) -> None:
    raise error


def read_a_status(path: Path, rng: random.Random) -> Iterator[str]:
    """Read a status file; what is wrong with it is said as Python says it."""
    try:
        read_status(path)
    except (ValueError, OSError) as error:
        yield attempt(lambda error=error: _raise(InputError(f"damaged: {error}", code="damaged")))
    else:
        yield ""


def read_statistics(path: Path, rng: random.Random) -> Iterator[str]:
    """Read findings and make tables of them."""
    write_tables(path, ["x"])
    yield "" if read_case(path, "x") else "damaged"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("nifti", 900, scans.nifti, read_scans),
        Kind("gzip", 500, scans.gzip_stream, read_scans),
        Kind("label-map", 200, scans.label_map, read_labels),
        Kind("nrrd", 400, scans.nrrd_file, read_scans),
        Kind("segments", 100, scans.segments, read_labels),
        Kind("metaimage", 200, scans.metaimage, read_scans),
        Kind("dicom", 500, scans.dicom, read_scans),
        Kind("compressed", 500, scans.compressed_dicom, read_scans),
        Kind("zip", 200, scans.zip_file, read_scans),
        Kind("tar", 100, scans.tar_file, read_scans),
        Kind("manifest", 250, models.manifest, read_bundle),
        Kind("safetensors", 350, models.weights, read_bundle),
        Kind("nnunet", 100, models.nnunet, read_nnunet),
        Kind("checkpoint", 150, models.checkpoint, read_nnunet),
        Kind("recipe", 150, records.recipe_file, read_recipe),
        Kind("cohort", 200, records.described_cohort, read_cohort),
        Kind("status", 100, records.status, read_a_status),
        Kind("statistics", 100, records.statistics, read_statistics),
    )
}
