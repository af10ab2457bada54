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
from typing import IO

from cfseg.errors import ModelError

MOST_PICKLE_BYTES = 16 * 2**20
"""Of names, plans and logs; 1000 epochs of nnU-Net take 2 MB."""
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
            # torch never packs: what is larger unpacked, or in the file once for two entries, is
            # not its work.
            total = sum(entry.file_size for entry in entries)
            if total > path.stat().st_size or len(entries) > MOST_ENTRIES:
                raise ModelError(
                    f"{path}: refused: its {len(entries)} entries unpack to {total} bytes, more "
                    "than the file has; ask its makers for a file as torch.save writes it"
                )
            # torch does not mind upper case.
            for entry in entries:
                if entry.filename.lower().endswith("data.pkl"):
                    if entry.file_size > MOST_PICKLE_BYTES:
                        raise _too_much(path)
                    with archive.open(entry) as pickle:
                        _check_pickle(pickle, path)
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error


def _check_pickle(file: IO[bytes], path: Path) -> None:
    wants, text, texts, repeated = "", "", {}, 0
    for operation, argument, _ in pickletools.genops(file):
        if operation.name in ("GLOBAL", "INST") and argument not in _TAKEN:
            wants = str(argument)[:200].replace(" ", ".")
        elif isinstance(argument, str) and _is_growing_codec(argument):
            wants = f"what the codec {argument} makes"
        elif operation.name.endswith("PUT"):
            texts[argument] = len(text)
        elif operation.name.endswith("GET"):
            repeated += texts.get(argument, 0)
        if wants:
            raise ModelError(
                f"{path}: refused: it wants to build {wants}, which could run code or fill the "
                "memory; ask its makers for a plain nnU-Net checkpoint or a bundle"
            )
        if repeated > MOST_PICKLE_BYTES:
            raise _too_much(path)
        text = argument if isinstance(argument, str) else ""


def _is_growing_codec(name: str) -> bool:
    return len(name) < 100 and normalize_encoding(name).lower() in _GROWING


def _too_much(path: Path) -> ModelError:
    return ModelError(
        f"{path}: refused: beside its tensors it has more than {MOST_PICKLE_BYTES} bytes; ask its "
        "makers for a plain nnU-Net checkpoint or a bundle"
    )
