from math import inf, nan

import numpy as np
import pytest
from matplotlib.image import imread

from cfseg.reports.curves import CurvePoint, best_point, curves_figure, draw_curves


def epochs(count, every=1):
    return [
        CurvePoint(n, -n / count, 0.01 * 0.5 ** (n // 200), n / count if n % every == 0 else None)
        for n in range(1, count + 1)
    ]


def panel(figure, label):
    (found,) = (axes for axes in figure.axes if axes.get_label() == label)
    return found


def points_of(line):
    return [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]


def test_each_network_has_its_loss_scores_and_learning_rate():
    coarse = [CurvePoint(1, 0.5, 0.01, None), CurvePoint(2, 0.25, 0.005, 0.8)]
    figure = curves_figure({"coarse": coarse, "organ": epochs(3)})
    values = ("loss", "validation score", "learning rate")
    assert [axes.get_label() for axes in figure.axes] == [
        f"{network} {value}" for network in ("coarse", "organ") for value in values
    ]
    assert [axes.get_title("left") for axes in figure.axes[::3]] == ["coarse", "organ"]
    (loss,) = panel(figure, "coarse loss").lines
    assert points_of(loss) == [(1, 0.5), (2, 0.25)]
    (rate,) = panel(figure, "coarse learning rate").lines
    assert points_of(rate) == [(1, 0.01), (2, 0.005)]
    scores = panel(figure, "coarse validation score").lines[0]
    assert points_of(scores) == [(2, 0.8)]
    assert panel(figure, "organ learning rate").get_yscale() == "log"


def test_the_best_validation_is_marked():
    points = [CurvePoint(n, 1.0, 0.1, s) for n, s in ((1, -0.5), (2, 0.75), (3, None), (4, 0.75))]
    assert best_point(points) == (2, 0.75)
    axes = panel(curves_figure({"a": points}), "a validation score")
    assert points_of(axes.lines[1]) == [(2, 0.75)]
    assert axes.get_title("right") == "best 0.750, epoch 2"


@pytest.mark.parametrize("score", [None, nan, inf])
def test_without_a_validation_none_is_best(score):
    points = [CurvePoint(1, 1.0, 0.1, score)]
    assert best_point(points) is None
    axes = panel(curves_figure({"a": points}), "a validation score")
    assert [text.get_text() for text in axes.texts] == ["no validation yet"]
    assert not axes.lines


def test_a_gap_is_no_line_and_a_lone_epoch_is_a_dot():
    losses = [1.0, 0.9, None, 0.7, nan, inf, 0.4, 0.3]
    points = [CurvePoint(n, loss, 0.1, None) for n, loss in enumerate(losses)]
    (line,) = panel(curves_figure({"a": points}), "a loss").lines
    assert np.isnan(line.get_ydata()).tolist() == [loss in (None, nan, inf) for loss in losses]
    assert np.flatnonzero(line.get_markevery()).tolist() == [3]
    (single,) = panel(curves_figure({"a": points[:1]}), "a loss").lines
    assert single.get_markevery().tolist() == [True]


@pytest.mark.parametrize(
    ("rates", "lowest", "highest"),
    [((0.01,), 0.01, 0.1), ((0.01, 0.00125), 0.001, 0.01), ((0.0, 0.02, 3e-6, 0.0), 1e-6, 0.1)],
)
def test_learning_rates_lie_between_labelled_powers_of_ten(rates, lowest, highest):
    points = [CurvePoint(n, 1.0, rate, None) for n, rate in enumerate(rates)]
    figure = curves_figure({"a": points})
    figure.canvas.draw()
    axes = panel(figure, "a learning rate")
    bottom, top = axes.get_ylim()
    shown = [tick for tick in axes.get_yticks() if bottom <= tick <= top]
    assert (min(shown), max(shown)) == pytest.approx((lowest, highest))
    assert all(bottom < rate < top for rate in rates if rate)


@pytest.mark.parametrize("count", [1, 2, 3, 40, 2500])
def test_epochs_are_whole_numbers_and_few_labels(count):
    figure = curves_figure({"a": epochs(count)})
    figure.canvas.draw()
    for axes in figure.axes:
        left, right = axes.get_xlim()
        shown = [tick for tick in axes.get_xticks() if left <= tick <= right]
        assert shown == [round(tick) for tick in shown]
        assert 1 <= len(shown) <= 7


def test_six_networks_over_2500_epochs_fit_into_a_small_picture(tmp_path):
    file = tmp_path / "new" / "curves.png"
    draw_curves(file, {f"network {n}": epochs(2500, 50) for n in range(6)})
    assert [it.name for it in file.parent.iterdir()] == [file.name]
    height, width = imread(file).shape[:2]
    assert 1000 < width < height < 2000
    assert 50_000 < file.stat().st_size < 300_000


def test_what_has_not_begun_or_has_a_foreign_name_is_drawn(tmp_path):
    draw_curves(tmp_path / "none.png", {})
    figure = curves_figure({"漢字 $x_{2$ \x1b": [], "zero": [CurvePoint(0, None, 0.0, 0.0)]})
    figure.canvas.draw()
    assert figure.axes[0].get_title("left") == r"\u6f22\u5b57 $x_{2$ \x1b"
    said = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert said == ["nothing yet", "no validation yet", "nothing yet"] + ["nothing yet"] * 2
