import errno
import json

import pytest
import torch

from cfseg.errors import ModelError, ResourceError
from cfseg.learning import checkpoints
from refusing_disk import refusing


@pytest.fixture
def tensors():
    draw = torch.Generator().manual_seed(0)
    last = torch.randn(2, 3, 4, 5, 6, generator=draw).to(memory_format=torch.channels_last_3d)
    return {"a/b.c": torch.randn(3, 4, generator=draw), "step": torch.tensor(7.0), "last": last}


VALUES = {"loss": 0.1 + 0.2, "none": None, "rows": [1, 1e-17, 1e22, "ä"]}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_what_is_written_is_read(tmp_path, tensors):
    sheet = checkpoints.write(tmp_path / "new", "state", 12, tensors, VALUES)
    assert sheet.name == "state_00000012.json"
    found, values = checkpoints.read(sheet)
    assert same(found, tensors)
    assert values == VALUES == checkpoints.values_of(sheet)
    assert sorted(p.suffix for p in sheet.parent.iterdir()) == [".json", ".safetensors"]


@pytest.mark.parametrize("what", ["tensors", "values", "short", "gone", "no json", "not tensors"])
def test_a_damaged_one_is_passed_over_with_a_note(tmp_path, tensors, what):
    checkpoints.write(tmp_path, "state", 1, tensors, {"step": 1})
    sheet = checkpoints.write(tmp_path, "state", 2, tensors, {"step": 2})
    file, lines = sheet.with_suffix(".safetensors"), []
    contents = bytearray(file.read_bytes())
    if what == "tensors":
        contents[-1] ^= 1
        file.write_bytes(contents)
    elif what == "values":
        sheet.write_text(sheet.read_text().replace('"step": 2', '"step": 3'))
    elif what == "short":
        file.write_bytes(contents[:-1])
    elif what == "gone":
        file.unlink()
    elif what == "no json":
        sheet.write_text(sheet.read_text()[:-9])
    else:
        file.write_bytes(b"")
        values = json.loads(sheet.read_text())
        values["digest"] = checkpoints._digest(values["values"], b"")
        sheet.write_text(json.dumps(values))
    found = checkpoints.newest(tmp_path, "state", lines.append)
    assert found is not None
    assert found[1] == {"step": 1}
    assert len(lines) == 1
    assert "state_00000002." in lines[0]
    assert lines[0].endswith("going on from the checkpoint before it")
    checkpoints.listed(tmp_path, "state")[0].with_suffix(".safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="none of its 2 checkpoints is whole"):
        checkpoints.newest(tmp_path, "state", lines.append)


def test_without_any_there_is_nothing_to_go_on_from(tmp_path):
    assert checkpoints.newest(tmp_path / "no folder", "state", print) is None


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_on_a_full_disk_the_ones_before_stay(tmp_path, tensors, suffix):
    checkpoints.write(tmp_path, "state", 1, tensors, VALUES)

    def refuses(path):
        return tmp_path in path.parents and path.name.endswith(f"state_00000002{suffix}")

    with refusing(refuses, errno.ENOSPC), pytest.raises(ResourceError) as end:
        checkpoints.write(tmp_path, "state", 2, tensors, VALUES)
    assert (end.value.code, end.value.exit_code) == ("E_DISK", 6)
    assert checkpoints.newest(tmp_path, "state", pytest.fail)[1] == VALUES


def test_what_nobody_vouches_for_goes_with_the_rest(tmp_path, tensors):
    first, second = (checkpoints.write(tmp_path, "state", n, tensors, VALUES) for n in (1, 2))
    other = checkpoints.write(tmp_path, "kept", 1, tensors, VALUES)
    (tmp_path / "state_00000003.safetensors").write_bytes(b"half of a checkpoint")
    (tmp_path / f".tmp-{'0' * 32}-state_00000004.safetensors").write_bytes(b"half of a file")
    checkpoints.keep_only(tmp_path, "state", [second])
    assert not first.exists()
    assert {path.stem for path in tmp_path.iterdir()} == {second.stem, other.stem}


def test_where_it_is_written_anew_nothing_vouches_for_the_old_tensors(tmp_path, tensors):
    sheet = checkpoints.write(tmp_path, "state", 1, tensors, {"old": True})

    def refuses(path):
        return tmp_path in path.parents and path.name.endswith(".safetensors")

    with refusing(refuses), pytest.raises(ResourceError):
        checkpoints.write(tmp_path, "state", 1, {}, {})
    assert not sheet.exists()
    checkpoints.write(tmp_path, "state", 1, {}, {"new": True})
    assert checkpoints.read(sheet) == ({}, {"new": True})
