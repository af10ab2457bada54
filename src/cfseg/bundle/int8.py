"""The int8 form of a bundle's networks: OpenVINO graphs beside the weights, checked like them."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cfseg.bundle.files import check_target, put_in_place, read_checked
from cfseg.bundle.manifest import MANIFEST, Int8Check, Int8Graph, read_manifest, sha256_of
from cfseg.networks.backends import Runner

Graph = tuple[bytes, bytes]
"""An OpenVINO graph: its XML and its weights."""


def write_int8(
    bundle: Path, out: Path, graphs: Mapping[str, Graph], check: Int8Check, *, overwrite: bool
) -> Path:
    """Write a bundle once more, with the int8 graphs of its networks. It appears whole or not.

    Args:
        bundle: folder of the bundle.
        out: folder to make.
        graphs: by name of the stage; all stages.
        check: what the graphs were found to be worth.
        overwrite: replace a bundle of that path.

    Raises:
        UsageError: the path exists and ``overwrite`` is not set, or it is not a bundle.
        ModelError: the bundle is damaged.
    """
    manifest = read_manifest(bundle)
    check_target(out, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".tmp-{out.name}-"))
    try:
        entries = []
        for entry in manifest.stages:
            weights = read_checked(bundle / entry.weights, entry.sha256)
            (temporary / entry.weights).write_bytes(weights)
            stop = manifest.cascade.decoder_stop if entry.role == "coarse" else 0
            graph = _write(temporary, entry.name, graphs[entry.name], stop)
            entries.append(entry.model_copy(update={"int8": graph}))
        made = manifest.model_copy(update={"stages": tuple(entries), "int8_check": check})
        text = made.model_dump_json(indent=2) + "\n"
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        temporary.chmod(0o755)
        put_in_place(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def _write(folder: Path, name: str, graph: Graph, decoder_stop: int) -> Int8Graph:
    xml, weights = graph
    (folder / f"{name}.int8.xml").write_bytes(xml)
    (folder / f"{name}.int8.bin").write_bytes(weights)
    return Int8Graph(
        graph=f"{name}.int8.xml",
        graph_sha256=sha256_of(xml),
        weights=f"{name}.int8.bin",
        weights_sha256=sha256_of(weights),
        decoder_stop=decoder_stop,
    )


def read_int8(folder: Path, entry: Int8Graph) -> Graph:
    """Read a graph whose files have the sha256 that the manifest says.

    Raises:
        ModelError: a file is missing, damaged or another one.
    """
    xml = read_checked(folder / entry.graph, entry.graph_sha256)
    return xml, read_checked(folder / entry.weights, entry.weights_sha256)


def load_int8(folder: Path, entry: Int8Graph) -> Runner:
    """Return the network of a graph, ready to predict on the CPU.

    Raises:
        ModelError: see :func:`read_int8`.
    """
    from cfseg.networks.openvino_runner import load_graph

    return load_graph(*read_int8(folder, entry))
