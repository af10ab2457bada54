import pytest
import torch

from cfseg.errors import UsageError
from cfseg.learning import precision
from cfseg.learning.schedule import learning_rate, make_optimizer
from cfseg.recipes.training import Learning


def rates(epochs, *wanted, **how):
    return [learning_rate(Learning(initial_lr=0.01, **how), epoch, epochs) for epoch in wanted]


def test_the_rate_is_halved_every_200_epochs():
    assert rates(1500, 0, 199, 200, 400) == [0.01, 0.01, 0.005, 0.0025]


def test_the_rate_falls_as_nnunets():
    assert rates(10, 0, 5, lr_schedule="poly") == pytest.approx([0.01, 0.01 * 0.5**0.9])


def test_the_rate_falls_along_half_a_wave_after_it_rose():
    found = rates(10, 0, 1, 2, 6, 9, lr_schedule="cosine", warmup_epochs=2)
    assert found == pytest.approx([0.01 / 3, 0.02 / 3, 0.01, 0.005, 0.01 * 0.0380602], rel=1e-5)


def test_the_optimizer_is_the_recipes():
    weights = [torch.nn.Parameter(torch.zeros(2))]
    sgd = make_optimizer(weights, Learning()).param_groups[0]
    assert [sgd[key] for key in ("momentum", "nesterov", "weight_decay")] == [0.99, True, 3e-5]
    adamw = make_optimizer(weights, Learning(optimizer="adamw", weight_decay=0.1, initial_lr=2.0))
    assert isinstance(adamw, torch.optim.AdamW)
    assert [adamw.param_groups[0][key] for key in ("lr", "weight_decay")] == [2.0, 0.1]


def test_a_gpu_computes_in_nnunets_precision_and_a_cpu_in_the_recipes(monkeypatch):
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert precision.precision_on(gpu, "fp32") == "fp16"
    monkeypatch.setattr(precision, "can_bf16", lambda: False)
    assert precision.precision_on(cpu, "fp32") == "fp32"
    with pytest.raises(UsageError, match="cpu_precision=bf16"):
        precision.precision_on(cpu, "bf16")
