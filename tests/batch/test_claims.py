"""Locks of cases where the output folder refuses."""

import errno

import pytest

from cfseg.batch.claims import claimed
from cfseg.errors import ResourceError
from refusing_disk import refusing


def test_a_case_is_had_once(tmp_path):
    lock = tmp_path / ".a.lock"
    with claimed(lock, wait=False) as first, claimed(lock, wait=False) as second:
        assert (first, second) == (True, False)
    assert not lock.exists()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_lock_that_cannot_be_made_is_a_disk_error(tmp_path, number):
    lock = tmp_path / ".a.lock"
    with refusing(tmp_path, number), pytest.raises(ResourceError) as caught:
        claimed(lock, wait=False).__enter__()
    assert caught.value.code == "E_DISK"
    assert str(lock) in caught.value.message


def test_a_lock_that_cannot_be_removed_hides_no_other_error(tmp_path):
    lock = tmp_path / ".a.lock"
    claim = claimed(lock, wait=False)
    claim.__enter__()
    own = ValueError("the case's own")
    with refusing(tmp_path):
        assert not claim.__exit__(ValueError, own, None)
    with claimed(lock, wait=False) as free:
        assert free
