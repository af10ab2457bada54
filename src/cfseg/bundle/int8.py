"""The int8 form of a bundle's networks: OpenVINO graphs beside the weights, checked like them."""

from collections.abc import Mapping
from pathlib import Path

from cfseg.bundle.files import new_bundle, read_checked, write_manifest
from cfseg.bundle.manifest import Int8Check, Int8Graph, read_manifest, sha256_of
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
    with new_bundle(out, overwrite=overwrite) as folder:
        entries = []
        for entry in manifest.stages:
            weights = read_checked(bundle / entry.weights, entry.sha256)
            (folder / entry.weights).write_bytes(weights)
            stop = manifest.cascade.decoder_stop if entry.role == "coarse" else 0
            graph = _write(folder, entry.name, graphs[entry.name], stop)
            entries.append(entry.model_copy(update={"int8": graph}))
        changed = {"stages": tuple(entries), "int8_check": check}
        write_manifest(folder, manifest.model_copy(update=changed))
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


def check_int8(folder: Path, entry: Int8Graph) -> None:
    """Check that a graph can be loaded.

    Raises:
        ModelError: a file is missing, damaged or another one, or a weight is NaN or infinite.
    """
    from cfseg.networks.openvino_runner import read_graph

    read_graph(*read_int8(folder, entry))


def load_int8(folder: Path, entry: Int8Graph) -> Runner:
    """Return the network of a graph, ready to predict on the CPU.

    Raises:
        ModelError: see :func:`read_int8`.
    """
    from cfseg.networks.openvino_runner import load_graph

    return load_graph(*read_int8(folder, entry))
