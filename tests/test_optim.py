"""Protects the optimizer: what decays, where the rate's schedule starts and ends, its memory bit for bit."""

import itertools
import math

import pytest
import torch

from core import device
from core.config import ModelConfig, OptimConfig
from core.errors import CheckpointError
from core.model import GPT
from core.optim import (
    Muon,
    Optimizers,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    scheduled_rate,
    set_rate,
)

CONFIG = OptimConfig(
    learning_rate=1e-3, warmup_steps=4, final_share=0.1, beta1=0.8, beta2=0.9, weight_decay=0.3
)
MUON = CONFIG.model_copy(update={"matrices": "muon"})
SIZES = ModelConfig(layers=1, heads=2, width=16, context=8)


def model_of(seed: int = 0, sizes: ModelConfig = SIZES) -> GPT:
    model = GPT(sizes, 64)
    model.initialise(seed)
    return model


def step(model: GPT, optimizer: Optimizers, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


# ---------------------------------------------------------------- groups


@pytest.mark.parametrize("config", [CONFIG, MUON])
def test_matrices_decay_and_biases_and_norms_do_not(config: OptimConfig) -> None:
    model = model_of()
    optimizer = make_optimizer(model, config)
    decay = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert (
        len(decay) == len(list(model.parameters())) == sum(len(g["params"]) for g in optimizer.param_groups)
    )
    for name, parameter in model.named_parameters():
        is_matrix = name.endswith("weight") and "ln_" not in name
        assert decay[parameter] == (0.3 if is_matrix else 0.0), name
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3}
    assert {group["betas"] for group in optimizer.param_groups if "betas" in group} == {(0.8, 0.9)}


@pytest.mark.parametrize(
    ("config", "rates"),
    [
        (CONFIG, [5e-5, 5e-5]),
        (MUON, [5e-5, 5e-5, 5e-5]),
        (MUON.model_copy(update={"muon_share": 0.25}), [1.25e-5, 5e-5, 5e-5]),
    ],
)
def test_setting_the_rate_reaches_every_group(config: OptimConfig, rates: list[float]) -> None:
    optimizer = make_optimizer(model_of(), config)
    set_rate(optimizer, 5e-5)
    assert [group["lr"] for group in optimizer.param_groups] == rates


def test_muon_takes_the_matrices_of_blocks_and_no_direction_falls_behind() -> None:
    """The first update of such a matrix has singular values of like size, whatever the gradient's are."""
    model = model_of()
    optimizer = make_optimizer(model, MUON.model_copy(update={"weight_decay": 0.0}))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        if parameter.dim() == 2:
            parameter.grad[0] *= 100
    optimizer.step()
    for name, parameter in model.named_parameters():
        is_muons = name.startswith("h.") and parameter.dim() == 2
        assert ("momentum_buffer" in optimizer.memory_of(parameter)) == is_muons, name
        assert ("exp_avg" in optimizer.memory_of(parameter)) == (not is_muons), name
        if is_muons:
            sizes = torch.linalg.svdvals(parameter.detach() - before[name])
            assert sizes.max() < 3 * sizes.min(), name


@pytest.mark.parametrize("is_fast", [True, False])
def test_muon_makes_torchs_updates_in_the_precision_that_the_device_is_fast_in(
    is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit in bfloat16; in float32 as near as bfloat16 allows, without one slow product."""
    monkeypatch.setattr(device, "gains_from_bfloat16", lambda _name: is_fast)
    generator = torch.Generator().manual_seed(3)
    shapes = [(48, 16), (16, 48), (16, 16)]
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    muon = Muon(ours, lr=0.01, weight_decay=0.1)
    model = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        muon.step()
        model.step()
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=0.0 if is_fast else 1e-3)
        assert is_fast or not torch.equal(one, other)


# ---------------------------------------------------------------- schedule


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 1e-4), ("linear", 1e-4), ("constant", 1e-3)])
def test_the_rate_rises_to_its_peak_and_ends_where_it_was_told(schedule: str, last: float) -> None:
    config = OptimConfig.model_validate({**CONFIG.model_dump(), "schedule": schedule})
    rates = [scheduled_rate(config, at, 100) for at in range(1, 101)]
    assert rates[:4] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3], rel=1e-12)
    assert rates[-1] == pytest.approx(last, rel=1e-12)
    assert max(rates) == rates[3] and all(a >= b for a, b in itertools.pairwise(rates[3:]))


def test_the_schedule_is_halfway_in_the_middle() -> None:
    for schedule in ("cosine", "linear"):
        config = OptimConfig.model_validate({**CONFIG.model_dump(), "schedule": schedule})
        assert scheduled_rate(config, 52, 100) == pytest.approx(0.55e-3, rel=1e-12)


def test_the_published_schedule_has_its_rates() -> None:
    config = OptimConfig(learning_rate=6e-4, warmup_steps=300, final_share=0.1)
    assert scheduled_rate(config, 1, 19073) == pytest.approx(2e-6)
    assert scheduled_rate(config, 300, 19073) == pytest.approx(6e-4)
    assert scheduled_rate(config, 19073, 19073) == pytest.approx(6e-5)


@pytest.mark.parametrize("warmup", [0, 1, 5, 50])
def test_a_schedule_shorter_than_its_warm_up_still_gives_rates(warmup: int) -> None:
    for schedule in ("cosine", "linear", "constant"):
        config = OptimConfig(learning_rate=1.0, schedule=schedule, warmup_steps=warmup, final_share=0.0)
        rates = [scheduled_rate(config, at, 5) for at in range(1, 6)]
        assert all(math.isfinite(rate) and 0 <= rate <= 1 for rate in rates)
        assert rates[0] > 0


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("config", [CONFIG, MUON])
def test_a_restored_optimizer_goes_on_bit_for_bit(config: OptimConfig) -> None:
    model = model_of()
    optimizer = make_optimizer(model, config)
    for seed in range(3):
        step(model, optimizer, seed)
    kept = {name: tensor.clone() for name, tensor in optimizer_tensors(model, optimizer).items()}
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert "h.0.ln_1.weight/exp_avg" in kept and "wte.weight/exp_avg_sq" in kept
    other = model_of(1)
    other.load_state_dict(weights)
    restored = make_optimizer(other, config)
    load_optimizer_tensors(other, restored, kept)
    again = optimizer_tensors(other, restored)
    assert again.keys() == kept.keys() and all(torch.equal(again[name], kept[name]) for name in kept)
    for seed in range(3, 6):
        step(model, optimizer, seed)
        step(other, restored, seed)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("config", [CONFIG, MUON])
def test_the_restored_memory_is_a_copy(config: OptimConfig) -> None:
    model = model_of()
    optimizer = make_optimizer(model, config)
    step(model, optimizer, 0)
    kept = {name: tensor.clone() for name, tensor in optimizer_tensors(model, optimizer).items()}
    before = kept["wte.weight/exp_avg"].clone()
    load_optimizer_tensors(model, optimizer, kept)
    step(model, optimizer, 1)
    assert torch.equal(kept["wte.weight/exp_avg"], before)


@pytest.mark.parametrize("config", [CONFIG, MUON])
def test_an_optimizer_that_made_no_step_has_no_memory(config: OptimConfig) -> None:
    model = model_of()
    assert optimizer_tensors(model, make_optimizer(model, config)) == {}


def test_the_memory_of_another_model_is_refused_by_name() -> None:
    model = model_of()
    optimizer = make_optimizer(model, CONFIG)
    step(model, optimizer, 0)
    kept = optimizer_tensors(model, optimizer)
    wider = model_of(sizes=ModelConfig(layers=1, heads=2, width=32, context=8))
    with pytest.raises(CheckpointError, match=r"wte\.weight/exp_avg"):
        load_optimizer_tensors(wider, make_optimizer(wider, CONFIG), kept)
    with pytest.raises(CheckpointError, match=r"h\.7\.ln_1\.weight/exp_avg"):
        load_optimizer_tensors(model, optimizer, {"h.7.ln_1.weight/exp_avg": torch.zeros(16)})
