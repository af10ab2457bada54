"""Files appear whole or not at all."""

import json

import pytest

from cfseg.errors import ResourceError
from cfseg.io import replacing, write_json


def stop_half_way(path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise ValueError("half-way")


def test_what_was_there_stays_when_writing_fails(tmp_path):
    path = tmp_path / "values.json"
    write_json(path, {"old": 1})
    with pytest.raises(ValueError, match="half-way"):
        stop_half_way(path)
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_folder_is_made_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a" / "b" / "values.json"
    write_json(path, [1, 2])
    assert path.read_text() == "[\n  1,\n  2\n]\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_disk_that_refuses_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"values\.json cannot be written") as refused:
        write_json(tmp_path / "file" / "values.json", {})
    assert refused.value.code == "E_DISK"
