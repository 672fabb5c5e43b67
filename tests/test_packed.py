"""Protects packed matrices: near the plain ones, in every architecture, and only where asked for or worth it."""

import pytest
import torch
from torch import nn

from core import packed
from core.config import ModelConfig
from core.errors import UsageError
from core.generate import ReplyEnded, TokenDrawn, draw
from core.model import Transformer, build
from core.packed import PackedLinear, pack
from core.sampling import Sampling
from core.tokenizer import Tokenizer

pytestmark = pytest.mark.skipif(not packed.can_pack(), reason="no int8 products on this machine")


@pytest.fixture(params=["gpt2", "modern", "nanochat"])
def model(request: pytest.FixtureRequest) -> Transformer:
    """Weights large enough to matter in every layer."""
    made = build(ModelConfig(layers=3, heads=4, width=64, context=64, architecture=request.param), 512)
    generator = torch.Generator().manual_seed(5)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1 if parameter.dim() > 1 else 1.0, generator=generator)
    return made.eval()


def test_a_packed_product_is_within_the_rounding_of_its_numbers() -> None:
    """Against a loop over rows: half a step of the row's scale and of the input's, for every number."""
    generator = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(24, 40, generator=generator), torch.randn(24, generator=generator)
    weight[3] *= 1000
    weight[4] = 0
    x = torch.randn(5, 40, generator=generator)
    with torch.inference_mode():
        found = PackedLinear(weight, bias)(x)
    for i, row in enumerate(x):
        step = (row.max().clamp(min=0) - row.min().clamp(max=0)) / 127  # of inputs in 7 bits
        for j, weights in enumerate(weight):
            exact = float(row.double() @ weights.double() + bias[j])
            most = float(step * weights.abs().sum() + weights.abs().max() / 254 * (row.abs() + step).sum())
            assert abs(float(found[i, j]) - exact) <= most + 1e-4


def test_a_packed_model_gives_nearly_the_same_logits_with_a_cache(model: Transformer) -> None:
    twin, tokens = pack(model), torch.arange(40)[None] * 11 % 512
    with torch.inference_mode():
        plain = model(tokens)
        cache = model.new_cache()
        model.hidden(tokens[:, :20], cache)
        read = [twin.logits(twin.hidden(tokens[:, i : i + 1], cache)[0, -1:]) for i in range(20, 40)]
    error = torch.cat(read) - plain[0, 20:]
    assert 0 < float(error.std() / plain.std()) < 0.1


def test_a_packed_model_shares_what_is_not_packed_and_leaves_the_plain_one_alone(model: Transformer) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    twin = pack(model)
    ours = {parameter.data_ptr() for parameter in model.parameters()}
    assert all(parameter.data_ptr() in ours for parameter in twin.parameters())
    assert not any(isinstance(module, nn.Linear) for module in twin.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_only_large_models_are_packed_unasked(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert packed.packed(model, "auto") is None
    assert packed.packed(model, "float32") is None
    assert packed.packed(model, "int8") is not None
    monkeypatch.setattr(packed, "LEAST_PARAMETERS", 1)
    assert packed.packed(model, "auto") is not None
    monkeypatch.setattr(packed, "can_pack", lambda: False)
    assert packed.packed(model, "auto") is None
    with pytest.raises(UsageError, match="float32"):
        packed.packed(model, "int8")


def test_the_prompt_is_read_plainly_and_each_drawn_token_packed(model: Transformer) -> None:
    """The first token is the plain model's to the bit; a seed draws the same text each time."""
    tokenizer = Tokenizer.train(["a b c d e f g h " * 40], 300)
    sampling = Sampling(temperature=0, top_k=0, top_p=1.0, max_tokens=12, seed=1)
    ids = tokenizer.encode("a b c d")
    texts = [list(draw(model, tokenizer, ids, sampling, packed=pack(model))) for _ in range(2)]
    (plain, *_), (first, *_) = list(draw(model, tokenizer, ids, sampling)), texts[0]
    assert first == plain
    assert [each for each in texts[0] if isinstance(each, TokenDrawn)] == [
        each for each in texts[1] if isinstance(each, TokenDrawn)
    ]
    assert isinstance(texts[0][-1], ReplyEnded)
