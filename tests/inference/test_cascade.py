import numpy as np
import pytest
from by_value import scan, stage

from cfseg.geometry import Box
from cfseg.inference.cascade import Stages, segment_volume
from cfseg.recipes.recipe import Cascade

SHAPE = (40, 44, 48)
LIVER = Box((14, 14, 14), (26, 26, 26))
SPLEEN = Box((16, 28, 30), (22, 34, 36))
TUMOR = Box((17, 17, 17), (21, 21, 21))


def all_stages(**blind: tuple[int, ...]) -> Stages:
    return Stages(
        coarse=stage("coarse", "coarse", blind.get("coarse", ())),
        tumor=(
            stage("tumor", "tumor_1", blind.get("tumor_1", ())),
            stage("tumor", "tumor_2", blind.get("tumor_2", ())),
        ),
        organ=stage("organ", "organ", blind.get("organ", ())),
    )


def test_every_voxel_gets_its_label_and_every_step_its_time() -> None:
    volume = scan(SHAPE, {1: [LIVER], 3: [SPLEEN]})
    result = segment_volume(volume, all_stages(), Cascade())
    assert result.status == "done"
    assert (result.label_map.ids[LIVER.slices] == 1).all()
    assert (result.label_map.ids[SPLEEN.slices] == 3).all()
    assert np.isin(result.label_map.ids, (0, 1, 3)).all()
    stages = {"coarse", "tumor_1", "tumor_2", "organ"}
    assert set(result.seconds) == {"body", "region", "merge"} | stages
    assert result.region is not None
    assert all(a <= b for a, b in zip(result.region.start, LIVER.start, strict=True))
    assert len(result.tumor_maps) == 2


def test_tumor_is_the_union_of_both_weights_and_lies_over_the_organ() -> None:
    volume = scan(SHAPE, {1: [LIVER], 14: [TUMOR]})
    for blind in ({"tumor_1": (14,)}, {"tumor_2": (14,)}):
        result = segment_volume(volume, all_stages(**blind), Cascade())
        assert (result.label_map.ids[TUMOR.slices] == 14).all()
    neither = segment_volume(volume, all_stages(tumor_1=(14,), tumor_2=(14,)), Cascade())
    assert not (neither.label_map.ids == 14).any()


def test_the_mean_of_two_weights_is_not_their_union() -> None:
    volume = scan(SHAPE, {1: [LIVER], 14: [TUMOR]})
    cascade = Cascade.model_validate({"merge": {"tumor": "mean"}})
    agreed = segment_volume(volume, all_stages(), cascade)
    assert (agreed.label_map.ids[TUMOR.slices] == 14).all()


def test_organs_come_from_the_organ_model_where_there_is_one() -> None:
    volume = scan(SHAPE, {1: [LIVER], 3: [SPLEEN]})
    stages = all_stages(organ=(3,))
    assert not (segment_volume(volume, stages, Cascade()).label_map.ids == 3).any()
    two_stage = Cascade.model_validate({"stages": "coarse,tumor"})
    result = segment_volume(volume, stages, two_stage)
    assert (result.label_map.ids[SPLEEN.slices] == 3).all()
    assert result.organ_map is None


def test_the_second_weight_gives_the_organs_of_the_two_stage_method() -> None:
    volume = scan(SHAPE, {1: [LIVER], 3: [SPLEEN]})
    two_stage = Cascade.model_validate({"stages": "coarse,tumor"})
    assert not (
        segment_volume(volume, all_stages(tumor_2=(3,)), two_stage).label_map.ids == 3
    ).any()
    assert (segment_volume(volume, all_stages(tumor_1=(3,)), two_stage).label_map.ids == 3).any()


def test_coarse_alone_is_a_result_too() -> None:
    volume = scan(SHAPE, {1: [LIVER]})
    cascade = Cascade.model_validate({"stages": "coarse"})
    result = segment_volume(volume, all_stages(), cascade)
    assert (result.label_map.ids[LIVER.slices] == 1).all()
    assert result.tumor_maps == ()


def test_without_an_abdomen_the_map_is_empty_and_says_so() -> None:
    result = segment_volume(scan(SHAPE, {}), all_stages(), Cascade())
    assert result.status == "empty"
    assert not result.label_map.ids.any()
    assert any(note.startswith("no_abdomen") for note in result.notes)


def test_pure_air_does_not_crash() -> None:
    volume = scan(SHAPE, {})
    volume.hu[:] = -1000
    assert segment_volume(volume, all_stages(), Cascade()).status == "empty"


def test_a_region_that_cuts_an_organ_grows_once() -> None:
    far = Box((16, 28, 30), (22, 34, 42))
    volume = scan(SHAPE, {1: [LIVER], 3: [far]})
    small = Cascade.model_validate({"region": {"margin_mm": 0, "ignore": [3], "min_organs_ml": 0}})
    near = Box((14, 14, 14), (26, 26, 26))
    volume.hu[Box((18, 18, 24), (20, 20, 28)).slices] = 60.0  # liver sticks out of the region
    stages = all_stages(coarse=(3,))
    result = segment_volume(volume, stages, small)
    assert result.region is not None
    assert (result.label_map.ids[near.slices] == 1).all()
    grown = [n for n in result.notes if n.startswith("region_grown")]
    assert len(grown) <= 1


def test_an_implausible_coarse_mask_gives_the_body() -> None:
    volume = scan(SHAPE, {1: [Box((20, 20, 20), (22, 22, 22))]})
    result = segment_volume(volume, all_stages(), Cascade())
    assert any(n.startswith("region_implausible") for n in result.notes)
    assert (result.label_map.ids == 1).sum() == 8


def test_a_tumor_across_an_organ_does_not_cost_half_of_it() -> None:
    wall = Box((14, 14, 19), (26, 26, 21))
    volume = scan(SHAPE, {1: [LIVER], 14: [wall]})
    stages = all_stages()
    # The organ model sees an organ under the tumor, as it was trained to.
    stages.organ.network.values[0, 1] = stages.organ.network.values[0, 1]  # type: ignore[union-attr,index]
    result = segment_volume(volume, stages, Cascade.model_validate({"clean": {"labels": []}}))
    left, right = result.label_map.ids[14:26, 14:26, 14:19], result.label_map.ids[14:26, 14:26, 21:]
    assert (left == 1).all()
    assert (right[..., :5] == 1).all()


@pytest.mark.parametrize("missing", ["coarse", "organ"])
def test_a_bundle_may_lack_stages(missing: str) -> None:
    volume = scan(SHAPE, {1: [LIVER]})
    full = all_stages()
    stages = Stages(
        coarse=None if missing == "coarse" else full.coarse,
        tumor=full.tumor,
        organ=None if missing == "organ" else full.organ,
    )
    result = segment_volume(volume, stages, Cascade())
    assert (result.label_map.ids[LIVER.slices] == 1).all()


def test_progress_is_told_for_each_stage() -> None:
    seen: list[tuple[str, int, int]] = []
    segment_volume(
        scan(SHAPE, {1: [LIVER]}), all_stages(), Cascade(), lambda *args: seen.append(args)
    )
    assert {name for name, _, _ in seen} == {"coarse", "tumor_1", "tumor_2", "organ"}
    assert all(1 <= done <= of for _, done, of in seen)


def test_what_networks_said_is_not_predicted_again() -> None:
    volume = scan(SHAPE, {1: [LIVER], 3: [SPLEEN], 14: [TUMOR]})
    stages, memory = all_stages(organ=(3,)), {}
    first = segment_volume(volume, stages, Cascade(), memory=memory)
    seen: list[str] = []
    again = segment_volume(volume, stages, Cascade(), lambda name, *_: seen.append(name), memory)
    assert seen == []
    assert (again.label_map.ids == first.label_map.ids).all()


@pytest.mark.parametrize("merge", ["union", "mean"])
def test_cascades_of_one_memory_are_what_each_is_alone(merge: str) -> None:
    volume = scan(SHAPE, {1: [LIVER], 3: [SPLEEN], 14: [TUMOR]})
    full, memory = all_stages(tumor_1=(14,), tumor_2=(3,), organ=(1,)), {}
    one = Stages(full.coarse, full.tumor[:1], full.organ)
    rows = [(full, "coarse"), (one, "coarse,tumor"), (full, "coarse,tumor"),
            (one, "coarse,tumor,organ"), (full, "coarse,tumor,organ")]  # fmt: skip
    for stages, roles in rows:
        organ = "mean" if merge == "mean" else "weight2"
        cascade = Cascade.model_validate(
            {"stages": roles, "merge": {"tumor": merge, "organ": organ}}
        )
        shared = segment_volume(volume, stages, cascade, memory=memory)
        alone = segment_volume(volume, stages, cascade)
        assert (shared.label_map.ids == alone.label_map.ids).all()
        assert shared.region == alone.region
