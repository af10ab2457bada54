import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from cfseg.bundle.checkpoints import read_checkpoint, tensors_of
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
