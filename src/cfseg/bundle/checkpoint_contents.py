"""What a ``.pth`` file wants to build and how large it is, found out before torch builds it.

``weights_only=True`` keeps a pickle from running code, not from filling the memory: by packed
entries, by ``bytearray(10**10)``, by a text that is encoded again and again. So the file's own
lists are read first, which builds nothing.
"""

import pickletools
import zipfile
from encodings import normalize_encoding
from encodings.aliases import aliases
from pathlib import Path
from typing import IO, Any

from cfseg.errors import ModelError

MOST_PICKLE_BYTES = 16 * 2**20
"""Of names, plans and logs; 1000 epochs of nnU-Net take 1.4 MB, read in half a second."""
MOST_ENTRIES = 20_000
_ZIP = b"PK\x03\x04"
_PICKLES_OF_OLD_FORMAT = 5
_STORAGES = (
    "Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool",
)  # fmt: skip
_TAKEN = {
    "collections OrderedDict",
    "_codecs encode",
    "numpy dtype",
    "numpy.core.multiarray scalar",
    "numpy._core.multiarray scalar",
    "torch Size",
    "torch device",
    "torch.nn.parameter Parameter",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in _STORAGES),
    *(f"torch {dtype}" for dtype in ("float64", "float32", "float16", "bfloat16")),
}
"""What checkpoints of nnU-Net are made of, as a pickle names it; the bytes of its numpy floats come
through ``encode``."""
_BYTES_CODECS = {
    "base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "uu_codec", "zlib_codec"
}  # fmt: skip
_GROWING = _BYTES_CODECS | {alias for alias, codec in aliases.items() if codec in _BYTES_CODECS}
"""Codecs from bytes to bytes: fed with their own output, they double it each time."""


def check_contents(path: Path) -> None:
    """Check what a checkpoint wants to build, and that it takes no more memory than the file.

    Args:
        path: of the file, in torch's zip format or the one before it.

    Raises:
        ModelError: it is packed, or wants to build something else than tensors and numpy floats.
        OSError: the file cannot be read.
        ValueError: it is neither a zip file nor a pickle.
    """
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
        file.seek(0)
        if is_zip:
            _check_zip(file, path)
            return
        for _ in range(_PICKLES_OF_OLD_FORMAT):
            _check_pickle(file, path)
        if file.tell() > MOST_PICKLE_BYTES:
            raise _too_much(path)


def _check_zip(file: IO[bytes], path: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            # torch never packs: what is larger unpacked, or in the file once for two entries, is
            # not its work.
            if total > path.stat().st_size or len(entries) > MOST_ENTRIES:
                raise ModelError(
                    f"{path}: refused: its {len(entries)} entries unpack to {total} bytes, too "
                    "much for such a file; ask its makers for one as torch.save writes it"
                )
            # torch finds it in upper case, too.
            for entry in (e for e in entries if e.filename.lower().endswith("data.pkl")):
                if entry.file_size > MOST_PICKLE_BYTES:
                    raise _too_much(path)
                with archive.open(entry) as pickle:
                    _check_pickle(pickle, path)
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error


def _check_pickle(file: IO[bytes], path: Path) -> None:
    """Go through one pickle, instruction by instruction, without following any."""
    memory: dict[Any, str] = {}
    row: list[str] = []  # texts that were put one after the other
    repeated = 0
    for operation, argument, _ in pickletools.genops(file):
        name = operation.name
        if name in ("GLOBAL", "INST") and argument not in _TAKEN:
            raise _wants(str(argument)[:200].replace(" ", "."), path)
        if name.endswith("PUT"):
            memory[argument] = row[-1] if row else ""
        elif name.endswith("GET") and memory.get(argument):
            row.append(memory[argument])
            repeated += len(memory[argument])
        elif isinstance(argument, str) and name not in ("GLOBAL", "INST"):
            row.append(argument)
        else:
            for text in _maybe_codecs(row, name):
                raise _wants(f"what the codec {text} makes", path)
            row = []
        if repeated > MOST_PICKLE_BYTES:
            raise _too_much(path)


def _maybe_codecs(row: list[str], instruction: str) -> list[str]:
    """Return the texts that a growing codec goes by, but for the bytes of a number.

    Those stand in a pair, ``(text, "latin1")``, and any eight of them may spell a codec.
    """
    is_number = instruction == "TUPLE2" and len(row) > 1 and row[-1] == "latin1"
    texts = row[:-2] if is_number else row
    return [t for t in texts if len(t) < 100 and normalize_encoding(t).lower() in _GROWING]


def _wants(what: str, path: Path) -> ModelError:
    return ModelError(
        f"{path}: refused: it wants to build {what}, which could run code or fill the memory; ask "
        "its makers for a plain nnU-Net checkpoint or a bundle"
    )


def _too_much(path: Path) -> ModelError:
    return ModelError(
        f"{path}: refused: beside its tensors it has more than {MOST_PICKLE_BYTES} bytes; ask its "
        "makers for a plain nnU-Net checkpoint or a bundle"
    )
