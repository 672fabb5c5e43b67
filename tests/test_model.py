"""The models are GPT-2 and its modern forms, their fast paths equal the plain ones, and nobody peeks."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import core.loss
from core.config import ModelConfig
from core.model import GPT, ModernGPT, Transformer, attend, attend_plainly, build

SMALL = ModelConfig(layers=3, heads=4, width=64, context=256)


ARCHITECTURES = ["gpt2", "modern", "nanochat"]


def sizes(architecture: str) -> ModelConfig:
    return SMALL.model_copy(update={"architecture": architecture})


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Transformer:
    made = build(sizes(request.param), 512)
    made.initialise(3)
    if isinstance(made, ModernGPT):
        stir(made)
    return made.eval()


def stir(model: ModernGPT) -> None:
    """Random numbers for what begins at zero, which would hide a layer that is left out."""
    generator = torch.Generator().manual_seed(4)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "fc2.weight", "lm_head.weight")):
            nn.init.normal_(parameter, std=0.02, generator=generator)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, generator=generator)


def tokens_of(shape: tuple[int, int], vocabulary: int = 512, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, vocabulary, shape, generator=torch.Generator().manual_seed(seed))


def test_logits_equal_an_independent_gpt2() -> None:
    """The full size with random weights, against transformers' GPT2LMHeadModel with the same weights."""
    transformers = pytest.importorskip("transformers")
    config = ModelConfig(layers=12, heads=12, width=768, context=1024)
    ours = GPT(config, 50304).eval()
    ours.initialise(1)
    # Norms and biases start at one and zero, which would hide a dropped one.
    generator = torch.Generator().manual_seed(2)
    for parameter in ours.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=50304, n_positions=1024, n_layer=12, n_head=12, n_embd=768)
    ).eval()
    renamed = {}
    for name, tensor in ours.state_dict().items():
        # theirs multiplies from the other side
        is_transposed = name.startswith("h.") and name.endswith("weight") and tensor.dim() == 2
        renamed[f"transformer.{name}"] = tensor.t() if is_transposed else tensor
    missing, unexpected = theirs.load_state_dict(renamed, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    tokens = tokens_of((1, 1024), 50257)
    with torch.no_grad():
        difference = (ours(tokens) - theirs(tokens).logits).abs().max().item()
    assert difference < 1e-4


def test_logits_equal_an_independent_modern_model() -> None:
    """Random weights under the same names, against transformers' NanoChatForCausalLM without its logit cap.

    What it lacks is laid on from outside: the smear on the embeddings that it is given, token for token, and each
    norm's scale on the weights that read it."""
    transformers = pytest.importorskip("transformers")
    config = ModelConfig(architecture="modern", layers=4, heads=4, width=256, context=512)
    ours = ModernGPT(config, 1024).eval()
    ours.initialise(1)
    stir(ours)
    theirs = transformers.NanoChatForCausalLM(
        transformers.NanoChatConfig(
            vocab_size=1024,
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            final_logit_softcapping=None,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=False,
        )
    ).eval()
    state = {name: tensor.clone() for name, tensor in ours.state_dict().items() if name != "smear"}
    for layer in range(4):
        before_attention = state.pop(f"layers.{layer}.input_layernorm.weight")
        for letter in "qkv":
            state[f"layers.{layer}.self_attn.{letter}_proj.weight"] *= before_attention
        state[f"layers.{layer}.mlp.fc1.weight"] *= state.pop(
            f"layers.{layer}.post_attention_layernorm.weight"
        )
    head = ours.head.detach() * state.pop("norm.weight")
    theirs.load_state_dict({"lm_head.weight": head} | {f"model.{n}": tensor for n, tensor in state.items()})
    tokens = tokens_of((2, 512), 1024)
    with torch.no_grad():
        smeared = ours.embed_tokens(tokens).clone()
        for position in range(511, 0, -1):
            smeared[:, position] += ours.smear * ours.embed_tokens(tokens[:, position - 1])
        difference = (ours(tokens) - theirs(inputs_embeds=smeared).logits).abs().max().item()
    assert difference < 1e-4


@pytest.mark.parametrize("head_std", [0.02, 1.0])
def test_logits_equal_an_independent_nanochat(head_std: float) -> None:
    """Random weights under the same names, against transformers' NanoChatForCausalLM as it stands. The larger head
    makes logits that the cap bends."""
    transformers = pytest.importorskip("transformers")
    config = ModelConfig(architecture="nanochat", layers=4, heads=4, width=256, context=512)
    ours = ModernGPT(config, 1024).eval()
    ours.initialise(1)
    stir(ours)
    nn.init.normal_(ours.head, std=head_std, generator=torch.Generator().manual_seed(2))
    theirs = transformers.NanoChatForCausalLM(
        transformers.NanoChatConfig(
            vocab_size=1024,
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=512,
        )
    ).eval()
    theirs.load_state_dict(
        {n if n == "lm_head.weight" else f"model.{n}": tensor for n, tensor in ours.state_dict().items()}
    )
    tokens = tokens_of((2, 512), 1024)
    with torch.no_grad():
        logits = ours(tokens)
        difference = (logits - theirs(tokens).logits).abs().max().item()
    assert difference < 1e-4
    assert (logits.abs().max() > 14) == (head_std == 1.0)


def test_the_model_is_made_of_linear_and_embedding_layers(model: Transformer) -> None:
    foreign = {
        type(module).__name__
        for module in model.modules()
        if type(module).__module__.startswith("torch.")
        and not isinstance(module, (nn.Linear, nn.Embedding, nn.ModuleList))
    }
    assert not foreign


@pytest.mark.parametrize("t,s", [(64, 64), (1, 40)])
def test_fast_attention_equals_the_written_out_form(t: int, s: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, t, 16, generator=generator)
    k, v = (torch.randn(2, 4, s, 16, generator=generator) for _ in range(2))
    assert torch.allclose(attend(q, k, v), attend_plainly(q, k, v), atol=1e-6)


def test_plain_attention_gives_the_same_logits(model: Transformer) -> None:
    tokens = tokens_of((2, 256))
    with torch.no_grad():
        fast = model(tokens)
        model.use_plain_attention()
        assert (fast - model(tokens)).abs().max() < 1e-5


def test_an_untrained_model_knows_nothing(model: Transformer) -> None:
    """Its loss is near ln V, or the loss is wired wrong."""
    tokens = tokens_of((4, 128))
    assert (
        abs(model.loss_sum(tokens, tokens_of((4, 128), seed=1)).item() / tokens.numel() - math.log(512)) < 0.1
    )


def test_no_position_sees_a_later_token(model: Transformer) -> None:
    tokens = tokens_of((1, 100))
    changed = tokens.clone()
    changed[0, 60:] = (changed[0, 60:] + 1) % 512
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[0, :60], after[0, :60])
    assert not torch.equal(before[0, 60:], after[0, 60:])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_cached_generation_equals_uncached(architecture: str) -> None:
    """Greedy, 200 tokens, token for token."""
    from core.generate import Sampling, TokenDrawn, draw
    from core.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["the quick brown fox jumps over the lazy dog " * 20], 300)
    model = build(sizes(architecture), tokenizer.padded_size)
    model.initialise(5)
    # Larger positions and projections than at the start, so that it does not repeat one token, or end at once.
    if isinstance(model, GPT):
        model.wpe.weight.data *= 40
        for block in model.h:
            block.attn.c_proj.weight.data *= 20  # type: ignore[union-attr]
    elif isinstance(model, ModernGPT):
        stir(model)
        for block in model.layers:
            block.self_attn.o_proj.weight.data *= 100  # type: ignore[union-attr]
            block.mlp.fc2.weight.data *= 100  # type: ignore[union-attr]
    model.head.data[tokenizer.end_of_text :] = 0
    model.eval()
    drawn = []
    for use_cache in (True, False):
        pieces = draw(
            model, tokenizer, tokenizer.encode("the quick"), Sampling(0, max_tokens=200), use_cache=use_cache
        )
        drawn.append([piece.token for piece in pieces if isinstance(piece, TokenDrawn) and piece.token >= 0])
    assert len(drawn[0]) == 200 and len(set(drawn[0])) > 10
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("supervises_all", [True, False])
def test_chunked_loss_and_gradient_equal_the_plain_ones(
    model: Transformer, monkeypatch: pytest.MonkeyPatch, supervises_all: bool
) -> None:
    monkeypatch.setattr(core.loss, "_LOGITS_AT_ONCE", 512 * 37)  # chunks that do not divide evenly
    tokens, targets = tokens_of((3, 100)), tokens_of((3, 100), seed=1)
    positions = None
    if not supervises_all:
        targets[:, :40] = -1
        positions = (targets.flatten() >= 0).nonzero().squeeze(1)
    loss = model.loss_sum(tokens, targets, positions)
    loss.backward()
    chunked = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}  # type: ignore[union-attr]
    model.zero_grad()
    plain = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")
    plain.backward()
    assert math.isclose(loss.item(), plain.item(), rel_tol=1e-5)
    for name, parameter in model.named_parameters():
        assert torch.allclose(chunked[name], parameter.grad, atol=2e-4, rtol=1e-4), name  # type: ignore[arg-type]


def test_a_capped_loss_has_the_gradient_of_the_bent_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """With logits far beyond the cap, in chunks, against the same written out."""
    monkeypatch.setattr(core.loss, "_LOGITS_AT_ONCE", 64 * 17)
    generator = torch.Generator().manual_seed(0)
    hidden, head = (torch.randn(n, 32, generator=generator).requires_grad_() for n in (50, 64))
    targets = torch.randint(0, 64, (50,), generator=generator)
    plain = F.cross_entropy(5 * torch.tanh(hidden @ head.t() / 5), targets, reduction="sum")
    expected = torch.autograd.grad(plain, (hidden, head))
    loss = core.loss.summed_cross_entropy(hidden, head, targets, cap=5)
    assert math.isclose(loss.item(), plain.item(), rel_tol=1e-5)
    for found, wanted in zip(torch.autograd.grad(loss, (hidden, head)), expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-5)


def test_chunked_loss_never_holds_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor made on the way is a chunk, not B * T * V."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    monkeypatch.setattr(core.loss, "_LOGITS_AT_ONCE", 2048 * 64)
    gpt = GPT(ModelConfig(layers=1, heads=2, width=32, context=256), 2048)
    gpt.initialise(0)
    tokens = tokens_of((8, 256), 2048)
    with Watch():
        gpt.loss_sum(tokens, tokens).backward()
    assert largest < 8 * 256 * 2048 / 4


@pytest.mark.parametrize(("architecture", "most"), [("gpt2", 11), ("modern", 17)])
def test_norms_and_activations_are_computed_again_instead_of_kept(architecture: str, most: int) -> None:
    """What a layer keeps for the backward pass, in numbers a token and channel; six more without that."""
    config, rows = sizes(architecture), 2
    model = build(config, 512)
    model.initialise(0)
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        hidden = model.hidden(tokens_of((rows, config.context)))
    numbers = sum(size for place, size in kept.items() if place not in weights) / 4
    a_layer = numbers / (hidden.numel() * config.layers)
    assert a_layer < most + 3 / config.layers, a_layer  # the embedding and the last norm keep some too


def test_log_probabilities_equal_the_softmax(model: Transformer) -> None:
    tokens, targets = tokens_of((2, 50)), tokens_of((2, 50), seed=1)
    expected = model(tokens).log_softmax(-1).gather(-1, targets[..., None]).flatten()
    assert torch.allclose(model.log_probabilities(tokens, targets), expected, atol=1e-5)


def test_initialisation_follows_the_seed_alone() -> None:
    first, second, other = GPT(SMALL, 512), GPT(SMALL, 512), GPT(SMALL, 512)
    first.initialise(1)
    torch.manual_seed(99)
    second.initialise(1)
    other.initialise(2)
    assert torch.equal(first.wte.weight, second.wte.weight)
    assert not torch.equal(first.wte.weight, other.wte.weight)
    std = first.h[0].mlp.c_proj.weight.std().item()  # type: ignore[union-attr]
    assert math.isclose(std, 0.02 / math.sqrt(6), rel_tol=0.05)


def test_counted_parameters_are_the_models() -> None:
    from core.launch import count_parameters

    for architecture in ARCHITECTURES:
        config = sizes(architecture)
        assert count_parameters(config, 512) == build(config, 512).num_parameters()
    assert count_parameters(ModelConfig(), 50304) == 124_475_904


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_making_a_model_draws_no_random_number(architecture: str) -> None:
    """A chat that opens a model in another thread must not change the dropout of the run that trains meanwhile."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    model = build(sizes(architecture), 512)
    assert torch.rand(1) == expected
    model.initialise(7)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
