import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from cfseg.bundle.checkpoints import check_sizes, read_checkpoint, tensors_of
from cfseg.errors import ModelError


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return open, (str(self.canary), "w")


class Local:
    pass


def test_numpy_floats_of_nnunets_log_are_read(tmp_path):
    torch.save({"log": [np.float64(0.5), np.float32(0.25)], "w": torch.ones(2)}, tmp_path / "c.pth")
    contents = read_checkpoint(tmp_path / "c.pth")
    assert contents["log"] == [0.5, 0.25]
    assert torch.equal(contents["w"], torch.ones(2))


def test_numpy_floats_under_numpy_1s_name_are_read(tmp_path):
    torch.save({"log": np.float64(0.5)}, tmp_path / "new.pth")
    with (
        zipfile.ZipFile(tmp_path / "new.pth") as new,
        zipfile.ZipFile(tmp_path / "old.pth", "w") as old,
    ):
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.", b"numpy.core."))
    assert read_checkpoint(tmp_path / "old.pth")["log"] == 0.5


@pytest.mark.parametrize("place", ["network_weights", "optimizer_state", "logging"])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_never_runs(tmp_path, place, zipped):
    canary = tmp_path / "canary"
    state = {"network_weights": {"w": torch.ones(1)}} | {place: {"x": Trap(canary)}}
    torch.save(state, tmp_path / "c.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"refused: it wants to build _?io") as caught:
        read_checkpoint(tmp_path / "c.pth")
    assert caught.value.code == "E_MODEL"
    assert not canary.exists()


def test_a_plain_pickle_never_runs(tmp_path):
    canary = tmp_path / "canary"
    (tmp_path / "c.pth").write_bytes(pickle.dumps(Trap(canary)))
    with pytest.raises(ModelError):
        read_checkpoint(tmp_path / "c.pth")
    assert not canary.exists()


def test_the_refused_class_is_named(tmp_path):
    torch.save({"x": Local()}, tmp_path / "c.pth")
    with pytest.raises(ModelError, match=r"test_checkpoints\.Local"):
        read_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("contents", [b"", b"text", b"PK\x03\x04 not a zip"])
def test_what_is_no_checkpoint_is_refused(tmp_path, contents):
    (tmp_path / "c.pth").write_bytes(contents)
    with pytest.raises(ModelError, match=r"c\.pth"):
        read_checkpoint(tmp_path / "c.pth")


def test_a_cut_off_checkpoint_is_refused(tmp_path):
    torch.save({"w": torch.ones(1000)}, tmp_path / "c.pth")
    whole = (tmp_path / "c.pth").read_bytes()
    (tmp_path / "c.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"c\.pth"):
        read_checkpoint(tmp_path / "c.pth")


def test_a_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        read_checkpoint(tmp_path / "c.pth")


def test_a_list_is_no_checkpoint(tmp_path):
    torch.save([torch.ones(1)], tmp_path / "c.pth")
    with pytest.raises(ModelError, match="holds a list"):
        read_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_dropped(prefix):
    state = OrderedDict({f"{prefix}encoder.weight": torch.ones(1)})
    assert list(tensors_of(state, Path("c.pth"))) == ["encoder.weight"]


@pytest.mark.parametrize("state", [None, {}, {"epoch": 3}, {3: torch.ones(1)}])
def test_other_things_are_no_weights(state):
    with pytest.raises(ModelError, match=r"c\.pth"):
        tensors_of(state, Path("c.pth"))


# -- memory: of a small file nothing large is made ------------------------------------------------


def rezipped(path, change=lambda _, contents: contents, packing=zipfile.ZIP_STORED):
    """Write a checkpoint of torch once more, entry by entry."""
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", packing) as new:
        for name, contents in entries.items():
            new.writestr(name, change(name, contents))
    return path


def with_pickle(path, value):
    """Write a checkpoint whose pickle builds ``{"a": value}``."""
    torch.save({"w": torch.ones(1)}, path)
    body = b"\x80\x02}X\x01\x00\x00\x00a" + value + b"s."
    return rezipped(path, lambda name, old: body if name.endswith("data.pkl") else old)


def long(number):
    return b"\x8a\x05" + number.to_bytes(5, "little")


def text(contents):
    return b"X" + len(contents).to_bytes(4, "little") + contents


ENCODE = b"c_codecs\nencode\n"
HALF_A_MEGABYTE = text(b"a" * 500_000)
HUGE = {
    "bytearray": b"c__builtin__\nbytearray\n" + long(10**11) + b"\x85R",
    "FloatTensor": b"ctorch\nFloatTensor\n" + long(10**11) + b"\x85R",
    "codec hex": ENCODE + text(b"ab") + text(b"HEX-codec") + b"\x86R",
    "codec zip": (  # with the name in the place of another one's bytes at first
        b"](" + ENCODE + b"q\x00" + text(b"zip") + b"q\x01" + text(b"latin1") + b"\x86R"
        + b"h\x00" + text(b"ab") + b"h\x01\x86R" + b"e"
    ),
    "codec uu": b"(" + text(b"ab") + text(b"uu") + text(b"latin1") + b"t",
    "more than": (
        b"](" + ENCODE + b"q\x00" + HALF_A_MEGABYTE + b"q\x01" + text(b"latin1") + b"q\x02\x86R"
        + b"h\x00h\x01h\x02\x86R" * 40 + b"e"
    ),
    "damaged": (
        b"cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\n" + text(b"V2000000000") + b"\x85R"
        + text(b"") + b"\x86R"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HUGE)
def test_what_would_fill_the_memory_is_refused_unbuilt(tmp_path, monkeypatch, what):
    if what != "damaged":  # that one is found out while it is built
        monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was built"))
    with pytest.raises(ModelError, match=what.replace("hex", "HEX-codec")):
        read_checkpoint(with_pickle(tmp_path / "c.pth", HUGE[what]))


def test_a_packed_checkpoint_is_refused_unread(tmp_path, monkeypatch):
    torch.save({"w": torch.zeros(10**6)}, tmp_path / "c.pth")
    rezipped(tmp_path / "c.pth", packing=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "c.pth").stat().st_size < 10**5
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(ModelError, match="unpack to 4000"):
        read_checkpoint(tmp_path / "c.pth")


def test_an_old_checkpoint_that_names_huge_things_is_refused_unbuilt(tmp_path, monkeypatch):
    torch.save({"a": bytearray(3)}, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was built"))
    with pytest.raises(ModelError, match="bytearray"):
        read_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_one_number_is_no_tensor_of_a_billion(tmp_path, zipped):
    path = tmp_path / "c.pth"
    weights = {"w": torch.ones(1).expand(10**5, 10**4)}
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="4000000000 bytes by their shapes"):
        check_sizes(tensors_of(read_checkpoint(path), path), path)


def test_numbers_whose_bytes_spell_a_codec_are_read(tmp_path):
    numbers = [
        np.frombuffer(text, "<f8")[0] for text in (b"\xd4\xc4BZ2\xbc\xd4?", b"hex \xff\xff\xff?")
    ]
    torch.save({"log": numbers * 2}, tmp_path / "c.pth")
    assert read_checkpoint(tmp_path / "c.pth")["log"] == numbers * 2


def test_weights_as_torch_saves_them_are_within_their_file(tmp_path):
    weights = {str(number): torch.ones(number, 3) for number in range(1, 9)}
    torch.save(weights, tmp_path / "c.pth")
    check_sizes(tensors_of(read_checkpoint(tmp_path / "c.pth"), Path()), tmp_path / "c.pth")
