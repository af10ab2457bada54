import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from cfseg.feed.augmentation import Augmentation
from cfseg.feed.crops import CPU, Crop
from cfseg.feed.windows import Feed
from cfseg.plan import Intensity

PATCH = (8, 12, 12)
NOTHING = Augmentation(
    rotation_probability=0, scale_probability=0, noise_probability=0, blur_probability=0,
    brightness_probability=0, contrast_probability=0, resolution_probability=0,
    gamma_inverted_probability=0, gamma_probability=0,
)  # fmt: skip
"""Windows as they were cut."""
CT = Intensity(lower=-100, upper=200, mean=50, std=50)


class Noted:
    """A source that notes which steps were asked for, and by whom."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.threads: set[int] = set()

    def crop(self, seed: int, step: int, sample: int, shape) -> Crop:
        if step < 0:
            raise OSError(f"step {step}")
        self.steps.append(step)
        self.threads.add(threading.get_ident())
        hu = torch.full(shape, 100 * seed + 10 * step + sample, dtype=torch.int16)
        return Crop(hu, torch.full(shape, sample, dtype=torch.uint8), "made", (1, 2, 3))


def feed(source, samples: Sequence[int] = range(2), ahead: int = 3, **more) -> Feed:
    given = {"seed": 0, "augmentation": NOTHING} | more
    return Feed(
        source, samples=samples, patch=PATCH, intensity=CT, device=CPU, ahead=ahead, **given
    )


def within_seconds(happens: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_windows_are_z_scores_and_labels_of_the_samples_in_their_order() -> None:
    with feed(Noted(), [3, 1], seed=1) as windows:
        scan, labels, origin = windows(4)
    assert scan.shape == (2, 1, *PATCH)
    assert scan[:, 0, 0, 0, 0].tolist() == pytest.approx([(143 - 50) / 50, (141 - 50) / 50])
    assert labels[:, 0, 0, 0].tolist() == [3, 1]
    assert origin == ("made (1, 2, 3)",) * 2


def test_the_coming_steps_are_made_ahead_each_once() -> None:
    source = Noted()
    with feed(source, [0]) as windows:
        for step in range(7, 12):
            windows(step)
            within_seconds(lambda: step + 3 in source.steps)  # noqa: B023 - called at once
    assert sorted(source.steps) == list(range(7, 15))
    assert threading.get_ident() not in source.threads


def test_after_a_leap_the_right_step_comes() -> None:
    with feed(Noted(), [0]) as windows:
        windows(0)
        assert windows(12).scan.max() == pytest.approx((120 - 50) / 50)
        assert windows(13).scan.max() == pytest.approx((130 - 50) / 50)


def test_an_error_of_a_thread_reaches_whoever_asks() -> None:
    with feed(Noted()) as windows, pytest.raises(OSError, match="step -5"):
        windows(-5)


class Graded:
    """A source of crops in which every voxel is another."""

    def crop(self, seed: int, step: int, sample: int, shape) -> Crop:
        made = torch.Generator().manual_seed(1000 * seed + 10 * step + sample)
        hu = torch.randint(-100, 200, shape, generator=made, dtype=torch.int16)
        return Crop(hu, (hu > 0).to(torch.uint8), "made", (0, 0, 0))


def test_reading_ahead_and_sharing_a_batch_change_no_window() -> None:
    often = Augmentation(rotation_probability=1, scale_probability=1, gamma_probability=1)
    with feed(Graded(), range(4), 3, augmentation=often) as ahead:
        whole = [ahead(step) for step in range(4)]
    with feed(Graded(), [2], 0, augmentation=often) as alone:
        share = [alone(step) for step in range(4)]
    assert not torch.equal(whole[0].scan, whole[1].scan)
    for all_, own in zip(whole, share, strict=True):
        assert torch.equal(all_.labels[2], own.labels[0])
        assert torch.allclose(all_.scan[2], own.scan[0], atol=1e-5)


def test_threads_of_windows_leave_those_of_the_network_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with feed(Noted()) as windows:
        windows(0)
        assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_network_keeps_its_threads_even_if_it_has_not_run_yet() -> None:
    def found() -> int:
        torch.set_num_threads(2)  # which torch takes note of, and looks at only when it is needed
        with feed(Noted()) as windows:
            windows(0)
            return torch.get_num_threads()

    before = torch.get_num_threads()
    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(found).result() == 2
    torch.set_num_threads(before)
