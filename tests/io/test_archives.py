"""Archives of scans: read as what they hold, and nothing of them leaves its folder."""

import gc
import gzip
import io
import stat
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_scans import ct, image

from cfseg.errors import InputError, ResourceError
from cfseg.io import archives, case_names, list_inputs, read_scan
from cfseg.io.archives import unpack

CONTENT = {"p1/s/ct.nii.gz": b"", "p2/s/ct.nii.gz": b"", "README.txt": b"words"}


@pytest.fixture(scope="module")
def nifti(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("nifti") / "ct.nii.gz"
    nib.save(image(), path)
    return path.read_bytes()


def make_zip(path: Path, content: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, content: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def make(path: Path, content: dict[str, bytes]) -> Path:
    return make_zip(path, content) if path.suffix == ".zip" else make_tar(path, content)


@pytest.mark.parametrize("name", ["scans.zip", "scans.tar.gz", "scans.tgz", "scans.tar"])
def test_d15_scans_of_an_archive_are_cases(tmp_path, nifti, name):
    content = {key: data or nifti for key, data in CONTENT.items()}
    path = make(tmp_path / name, content)
    listing = list_inputs([path])
    assert list(case_names(listing.inputs).values()) == ["p1__s__ct", "p2__s__ct"]
    assert listing.reasons == {"other file": 1}
    for found in listing.inputs:
        np.testing.assert_array_equal(read_scan(found).source.shape, ct().shape)
        assert found.shown.is_relative_to(path)
        assert found.own_files == (path,)
    folder = listing.inputs[0].path.parents[2]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.exists()
    del listing, found
    gc.collect()
    assert not folder.exists()


def test_d15_a_dicom_export(tmp_path):
    pytest.importorskip("pydicom")
    from small_series import hu_stack, save

    folder = save(tmp_path / "s")
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    path = make_zip(tmp_path / "PAT 1.zip", content)
    assert read_scan(path).case == "PAT_1"
    np.testing.assert_array_equal(read_scan(path).volume.hu, hu_stack())


def test_archives_of_a_folder_are_looked_into(tmp_path, nifti):
    make_zip(tmp_path / "a.zip", {"x.nii.gz": nifti})
    make_zip(tmp_path / "code.zip", {"x.py": b"print()"})
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04" + bytes(99))
    listing = list_inputs([tmp_path])
    named = case_names(listing.inputs)
    codes = {named[it]: it.refusal and it.refusal.code for it in listing.inputs}
    assert codes == {"x": None, "broken": "E_FORMAT"}
    assert listing.reasons == {"archive without a scan": 1}
    with pytest.raises(InputError, match="holds no CT"):
        read_scan(tmp_path / "code.zip")


@pytest.mark.parametrize("kind", ["x.zip", "x.tar.gz"])
@pytest.mark.parametrize(
    "name", ["../out.nii", "/out.nii", "a/../../out.nii", "..\\out.nii", "C:/out.nii"]
)
def test_no_entry_leaves_the_folder(tmp_path, kind, name):
    path = make(tmp_path / "in" / kind, {name: b"x"}) if (tmp_path / "in").mkdir() is None else None
    with pytest.raises(InputError, match="outside of its folder") as caught:
        unpack(path)
    assert caught.value.code == "E_ARCHIVE"
    assert [it.name for it in tmp_path.rglob("*.nii")] == []


def test_links_and_devices_never_come_out(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, kind in (("l", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE), ("p", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    link = zipfile.ZipInfo("l")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    for name in ("x.tar", "x.zip"):
        assert list(unpack(tmp_path / name).folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["x.zip", "x.tar.gz"])
def test_bombs_are_refused_by_a_stated_limit(tmp_path, monkeypatch, kind):
    path = make(tmp_path / kind, {"zeros.nii": bytes(4 << 20)})
    assert unpack(path)
    monkeypatch.setattr(archives, "SMALL_BYTES", 1 << 20)
    with pytest.raises(InputError, match="200 times its size"):
        unpack(path)
    monkeypatch.setattr(archives, "MOST_BYTES", 1 << 20)
    with pytest.raises(InputError, match="unpacks to more than"):
        unpack(path)
    monkeypatch.setattr(archives, "MOST_ENTRIES", 0)
    with pytest.raises(InputError, match="more than 0 entries"):
        unpack(path)


def test_an_entry_that_is_larger_than_it_says(tmp_path):
    path = make_zip(tmp_path / "x.zip", {"x.nii": bytes(1 << 20)})
    data = path.read_bytes()
    size = (1 << 20).to_bytes(4, "little")
    path.write_bytes(data.replace(size, (1 << 10).to_bytes(4, "little")))
    with pytest.raises(InputError) as caught:
        unpack(path)
    assert caught.value.code in ("E_ARCHIVE", "E_CORRUPT")


@pytest.mark.parametrize("kind", ["x.zip", "x.tar.gz", "x.tar"])
def test_damage_anywhere_is_an_error_of_the_archive(tmp_path, nifti, kind):
    path = make(tmp_path / kind, {"a.nii.gz": nifti, "b.nii": nifti})
    whole = path.read_bytes()
    rng = np.random.default_rng(3)
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 4):
            data[place] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(data[: rng.integers(1, len(data) + 1)]))
        with suppress(InputError, ResourceError):
            unpack(path)


@pytest.mark.parametrize("kind", ["x.zip", "x.tar"])
@pytest.mark.parametrize("names", [["a" * 300], ["a/" * 3000 + "a"], ["a", "a/b"]])
def test_a_name_that_no_file_can_have_is_the_archives_fault(tmp_path, kind, names):
    path = make(tmp_path / kind, dict.fromkeys(names, b"x"))
    with pytest.raises(InputError, match="cannot be made") as caught:
        unpack(path)
    assert caught.value.code == "E_ARCHIVE"
    assert len(caught.value.message) < 400


def test_a_name_that_is_not_utf8_although_it_says_so(tmp_path):
    path = make_zip(tmp_path / "x.zip", {"é.nii": b"x"})
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xe9\xe9"))
    with pytest.raises(InputError) as caught:
        unpack(path)
    assert caught.value.code == "E_CORRUPT"


def test_an_offset_that_points_nowhere_is_damage(tmp_path, nifti):
    path = make_zip(tmp_path / "x.zip", {"a.nii.gz": nifti})
    data = bytearray(path.read_bytes())
    end = data.rfind(b"PK\x05\x06")
    data[end + 16 : end + 20] = (2**32 - 2).to_bytes(4, "little")  # of the central directory
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        unpack(path)
    assert caught.value.code == "E_CORRUPT"


def test_an_entry_without_a_name(tmp_path):
    nameless = zipfile.ZipInfo("x")
    nameless.filename = ""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(nameless, b"x")
    with pytest.raises(InputError) as caught:
        unpack(tmp_path / "x.zip")
    assert caught.value.code == "E_ARCHIVE"


def test_no_message_holds_what_does_not_end(tmp_path):
    path = make_zip(tmp_path / "x.zip", {"../" + "a" * 60_000: b"x"})
    with pytest.raises(InputError) as caught:
        unpack(path)
    path.write_bytes(path.read_bytes().replace(b"../a", b"../b", 1))  # the first of its two names
    with pytest.raises(InputError) as damaged:
        unpack(path)
    assert len(caught.value.message) < 400
    assert len(damaged.value.message) < 400


def test_a_full_disk_is_said(tmp_path, nifti, monkeypatch):
    path = make_zip(tmp_path / "x.zip", {"a.nii.gz": nifti})
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(ResourceError, match="TMPDIR"):
        unpack(path)
    assert [it.refusal.code for it in list_inputs([path]).inputs] == ["E_DISK"]


@pytest.mark.parametrize("kind", ["outer.zip", "outer.tar.gz"])
def test_an_archive_inside_of_an_archive_is_named_and_not_opened(tmp_path, nifti, kind):
    inner = make_zip(tmp_path / "inner.zip", {"a.nii.gz": nifti}).read_bytes()
    path = make(tmp_path / kind, {"deep/inner.zip": inner})
    with pytest.raises(InputError, match="1 x archive inside of an archive"):
        read_scan(path)
    listing = list_inputs([make(tmp_path / kind, {"deep/inner.zip": inner, "b.nii.gz": nifti})])
    assert [it.shown for it in listing.inputs] == [path / "b.nii.gz"]
    assert [it.path for it in listing.ignored] == [path / "deep" / "inner.zip"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_is_told_whatever_packed_it(tmp_path, method):
    values = np.random.default_rng(1).bytes(5000)
    path = make_zip(tmp_path / "x.zip", {"a.nii": values}, method)
    data = bytearray(path.read_bytes())
    data[200:400] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        unpack(path)
    assert caught.value.code == "E_CORRUPT"


def test_the_checksum_of_a_tar_gz_counts(tmp_path):
    values = np.random.default_rng(1).bytes(50_000)  # noise is stored, so that any bit can change
    path = make_tar(tmp_path / "x.tar.gz", {"a.nii": values})
    data = bytearray(path.read_bytes())
    data[25_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        unpack(path)
    assert caught.value.code == "E_CORRUPT"


def test_nothing_long_follows_the_last_entry(tmp_path, monkeypatch):
    path = make_tar(tmp_path / "x.tar.gz", {"a.nii": b"x"})
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(1 << 20)))
    assert unpack(path)
    monkeypatch.setattr(archives, "MOST_PADDING", 1 << 19)
    with pytest.raises(InputError, match="follow its last entry"):
        unpack(path)


@pytest.mark.parametrize("content", [{"x": b"1", "x/y": b"2"}, {"n" * 300: b"1"}])
def test_names_that_cannot_be_made_are_no_fault_of_the_disk(tmp_path, content):
    with pytest.raises(InputError) as caught:
        unpack(make_zip(tmp_path / "x.zip", content))
    assert caught.value.code == "E_ARCHIVE"
