"""A network starts from known weights."""

import pytest
import torch

import tiny_cohort
from cfseg.bundle.bundle import read_weights, write_bundle
from cfseg.bundle.manifest import digest, read_manifest
from cfseg.dataset.cases import read_cases
from cfseg.dataset.digests import Digests
from cfseg.errors import ModelError, UsageError
from cfseg.learning import checkpoints
from cfseg.networks.build import fresh_network
from cfseg.training.curriculum import Curriculum
from cfseg.training.start import find_start, start_of
from cfseg.training.trained import write_plan


@pytest.fixture
def learner(tmp_path):
    """Return the learner of a key, in a chain with these values."""
    cases = read_cases(tiny_cohort.write(tmp_path / "cohort"))

    def find(key, init=None, **training):
        stage = tiny_cohort.recipe().training.organ.model_dump()
        stages = {name: stage | {"start": start} for name, start in training.items()}
        curriculum = Curriculum(
            cases, tmp_path / "w", tiny_cohort.recipe(**stages).training, Digests(), init,
            init_has_organ=init is not None,
        )  # fmt: skip
        return next(it for it in curriculum.learners if it.key == key)

    return find


@pytest.fixture
def plans(tiny_bundle):
    return {entry.name: entry.plan for entry in read_manifest(tiny_bundle).stages}


def weights_of(bundle, number):
    entry = read_manifest(bundle).stages[number]
    return read_weights(bundle / entry.weights, entry.sha256)


def holds(network, weights):
    found = network.state_dict()
    return all(torch.equal(found[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(("weight", "number"), [(1, 1), (2, 2)])
def test_each_weight_starts_from_its_own(learner, plans, tiny_bundle, weight, number):
    start = start_of(learner("tumor", init="x"), weight, tiny_bundle, "best")
    network = fresh_network(plans["tumor_1"], seed=5)
    said = start(network, plans["tumor_1"])
    assert said == f"starting from tumor_{weight} of bundle {digest(tiny_bundle)[:12]}"
    assert holds(network, weights_of(tiny_bundle, number))
    assert not holds(network, weights_of(tiny_bundle, 3 - number))


def test_a_weight_that_the_bundle_lacks_starts_from_the_first(tiny_bundle):
    assert find_start(tiny_bundle, "organ", 2).name == "organ"


def test_without_a_bundle_or_a_network_before_it_weights_are_random(learner, tiny_bundle):
    assert start_of(learner("tumor"), 1, None, "best") is None
    assert start_of(learner("tumor"), 1, tiny_bundle, "best") is None  # a teacher's, for one


def test_a_bundle_without_the_role_is_refused(tmp_path, tiny_bundle):
    manifest = read_manifest(tiny_bundle)
    cascade = manifest.cascade.model_copy(update={"stages": ("coarse",)})
    networks = [("coarse", manifest.stages[0].plan, weights_of(tiny_bundle, 0), {})]
    other = write_bundle(tmp_path / "coarse", "coarse", networks, cascade, {}, "")
    with pytest.raises(UsageError, match="the bundle has no organ network to start from"):
        find_start(other, "organ", 1)


def wider(plan):
    architecture = plan.architecture.model_copy(update={"features": (4, 10)})
    return plan.model_copy(update={"architecture": architecture})


def test_what_differs_from_the_bundle_is_named(learner, plans, tiny_bundle):
    start = start_of(learner("organ", init="x"), 1, tiny_bundle, "best")
    plan = wider(plans["organ"])
    with pytest.raises(UsageError) as caught:
        start(fresh_network(plan, 0), plan)
    assert "its organ network is built differently" in caught.value.message
    assert "features: (4, 8), here (4, 10)" in caught.value.message
    assert "set training.organ.features as in the bundle" in caught.value.message


def test_a_teacher_that_is_built_differently_starts_from_random_weights(
    learner, plans, tiny_bundle
):
    start = start_of(learner("teacher_1", init="x"), 1, tiny_bundle, "best")
    network, plan = fresh_network(wider(plans["organ"]), 3), wider(plans["organ"])
    said = start(network, plan)
    assert said == "starting from random weights: organ of the bundle is built differently"
    assert holds(network, fresh_network(plan, 3).state_dict())
    like_it = fresh_network(plans["organ"], 3)
    assert start(like_it, plans["organ"]).startswith("starting from organ of bundle")
    assert holds(like_it, weights_of(tiny_bundle, 3))


# -- from a network before it in the chain --------------------------------------------------------


def train_coarse(learner, plan, kind="final"):
    """Leave weights as the coarse model's training does; return them."""
    folder = learner.network_folder(1)
    weights = dict(fresh_network(plan, 11).named_parameters())
    write_plan(folder, plan)
    values = {"state": {"history": []}} if kind == "final" else {"epoch": 2, "score": 0.5}
    checkpoints.write(folder, kind, 4, weights, values)
    return weights


def test_the_tumor_model_starts_from_the_coarse_one_and_its_tumor_head_is_random(learner, plans):
    tumor = learner("tumor", tumor="coarse")
    assert tumor.start.key == "coarse"
    weights = train_coarse(tumor.start, plans["coarse"])
    network, random = (fresh_network(plans["tumor_1"], 5) for _ in range(2))
    said = start_of(tumor, 1, None, "final")(network, plans["tumor_1"])
    assert said == "starting from the weights of coarse_1"
    heads = 0
    for name, tensor in network.named_parameters():
        before = weights[name]
        if before.shape == tensor.shape:
            assert torch.equal(tensor, before), name
            continue
        heads += 1
        assert (len(before), len(tensor)) == (14, 15)
        assert torch.equal(tensor[:14], before)
        assert torch.equal(tensor[14], random.get_parameter(name)[14])
        assert tensor.requires_grad
    assert heads == 2  # weight and bias


def test_it_starts_from_the_checkpoint_that_the_recipe_names(learner, plans):
    tumor = learner("tumor", tumor="coarse")
    train_coarse(tumor.start, plans["coarse"])
    folder = tumor.start.network_folder(1)
    best = dict(fresh_network(plans["coarse"], 12).named_parameters())
    checkpoints.write(folder, "kept", 2, best, {"epoch": 1, "score": 0.5})
    network = fresh_network(plans["organ"], 5)
    start_of(tumor, 1, None, "best")(network, plans["organ"])
    assert holds(network, best)


def test_what_differs_from_the_network_before_it_is_named(learner, plans):
    organ = learner("organ", organ="coarse")
    train_coarse(organ.start, plans["coarse"])
    plan = wider(plans["organ"])
    with pytest.raises(UsageError) as caught:
        start_of(organ, 1, None, "best")(fresh_network(plan, 0), plan)
    assert caught.value.message == (
        "it cannot start from the coarse model, which is built differently (features: (4, 8), here "
        "(4, 10)); set features alike in both, or start = random"
    )


def test_a_network_that_is_not_trained_is_no_start(learner, plans):
    organ = learner("organ", organ="tumor")
    with pytest.raises(ModelError, match="tumor_1: this network is not trained to its end"):
        start_of(organ, 1, None, "best")(fresh_network(plans["organ"], 0), plans["organ"])


def test_a_bundle_comes_before_a_network_of_the_chain(learner, tiny_bundle, plans):
    organ = learner("organ", init="x", organ="coarse")
    assert organ.start is None
    network = fresh_network(plans["organ"], 5)
    start_of(organ, 1, tiny_bundle, "best")(network, plans["organ"])
    assert holds(network, weights_of(tiny_bundle, 3))
