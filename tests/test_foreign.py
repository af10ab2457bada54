import json
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cfseg.foreign import DEEPEST, check_values, problem, read_object

DEEP = '{"a": ' + "[" * 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DEEP, "nested deeper"),
        (json.dumps({"a": {"b": json.loads("[" * DEEPEST + "]" * DEEPEST)}}), "^a.b.0.*deeper"),
        ('{"a": [1, NaN]}', "a.1: nan is no number"),
        ('{"a": 1e999}', "a: inf is no number"),
        ('{"a": {"b": "\\ud800"}}', "a.b: half a character"),
        ('{"a": {"\\ud800": 1}}', "a: half a character"),
        ('{"a": %s}' % ("9" * 40), "a: a number of more than 64 bits"),
        ('{"a": %s}' % ("9" * 5000), "4300"),
        ("[1]", r"holds \[1\], not an object"),
        ("{", "Expecting"),
        ("\xff", "Expecting"),
    ],
)
def test_what_no_reader_should_meet_is_a_value_error(tmp_path: Path, text: str, message: str):
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_object(tmp_path / "x.json")


def test_other_encodings_are_a_value_error(tmp_path: Path):
    (tmp_path / "x.json").write_bytes('{"a": 1}'.encode("utf-16"))
    with pytest.raises(ValueError, match="utf-8"):
        read_object(tmp_path / "x.json")


def test_a_foreign_file_may_hold_nan_where_nobody_looks(tmp_path: Path):
    (tmp_path / "x.json").write_text('{"a": NaN, "b": 1}', encoding="utf-8")
    assert read_object(tmp_path / "x.json", finite=False)["b"] == 1


def test_an_object_of_another_kind_is_a_value_error(tmp_path: Path):
    (tmp_path / "x.json").write_text('{"a": "one"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"a: Input should be a valid integer.*'one'"):
        read_object(tmp_path / "x.json", TypeAdapter(dict[str, int]))


def test_as_deep_as_any_file_is_fine():
    check_values({"a": [[["b", 1.5, None]]]})


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "size is missing"),
        ({"size": 1, "sise": 2}, "there is no key sise"),
        ({"size": ["x" * 10_000] * 1000}, "size: Input should be a valid integer (found ['xxx"),
    ],
)
def test_problems_name_the_key_and_stay_short(values: dict[str, object], message: str):
    with pytest.raises(ValidationError) as caught:
        Table.model_validate(values)
    assert problem(caught.value).startswith(message)
    assert len(problem(caught.value)) < 400
