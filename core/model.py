"""Transformers from linear and embedding layers, to be read from top to bottom: GPT-2, and what came of it since.

Letters: B batch, T time (tokens), C width, H heads, D head width (C / H), V vocabulary, N supervised positions.
Sources: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; sizes and initialisation as in
the released GPT-2, whose attribute names `GPT` follows. `ModernGPT` gathers what the speed records for GPT-2 have found
to pay, under the attribute names of the architecture nanochat; it has a form that is nanochat's to the letter.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from core.config import ModelConfig
from core.kv_cache import KVCache
from core.loss import capped, summed_cross_entropy, target_log_probabilities

_PLAIN_UP_TO = 512
"""Tokens of a row up to which plain attention is the faster one in bfloat16 on a CPU."""


class LayerNorm(nn.Module):
    """Zero mean and unit variance over the width, then a learned scale and shift."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


def attend_plainly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention written out: the reference that the fast path is tested against.

    Shapes: q (B, H, T, D); k and v (B, H, S, D) with S >= T, the last T of them being the queries' own.
    """
    t, s = q.size(-2), k.size(-2)
    # A query sees itself and all before it: row i of the last T tokens sees the first S - T + i + 1.
    unseen = q.new_full((t, s), float("-inf")).triu(diagonal=s - t + 1)
    scores = (q / math.sqrt(q.size(-1))) @ k.transpose(-2, -1)
    return (scores + unseen).softmax(dim=-1) @ v


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same the fastest way. Shapes as in `attend_plainly`, with T = S or T = 1.

    That is PyTorch's fused kernel, except for short rows of bfloat16 on a CPU: there the plain form takes less
    than two thirds of its time.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.size(-2) <= _PLAIN_UP_TO:
        return attend_plainly(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, is_causal=q.size(-2) > 1)


def recomputed(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """part(x), of which only x is kept for the backward pass; what lies between is computed there once more.

    For what costs little time and much memory: a norm or an activation before a linear layer, which itself is not
    computed again.
    """
    if not torch.is_grad_enabled():
        return part(x)
    return checkpoint(part, x, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.c_attn = nn.Linear(config.width, 3 * config.width)
        self.c_proj = nn.Linear(config.width, config.width)
        self.attend = attend

    def forward(self, x: Tensor, norm: nn.Module, cache: KVCache | None, layer: int) -> Tensor:
        b, t, c = x.shape
        projected = recomputed(lambda x: self.c_attn(norm(x)), x)
        # (B, T, 3C) -> three of (B, H, T, D)
        q, k, v = projected.view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        y = self.attend(q, k, v)
        return self.c_proj(y.transpose(1, 2).reshape(b, t, c))


class MLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.width, 4 * config.width)
        self.c_proj = nn.Linear(4 * config.width, config.width)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        h = recomputed(lambda x: self.c_fc(norm(x)), x)
        return recomputed(lambda h: self.c_proj(F.gelu(h, approximate="tanh")), h)


class Block(nn.Module):
    """Each half reads the residual stream through a norm and adds to it.

    Dropout falls on what the halves add, not on attention weights: that would rule out the fused kernel.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.ln_1 = LayerNorm(config.width)
        self.attn = Attention(config)
        self.ln_2 = LayerNorm(config.width)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KVCache | None, layer: int) -> Tensor:
        x = x + F.dropout(self.attn(x, self.ln_1, cache, layer), self.dropout, self.training)
        return x + F.dropout(self.mlp(x, self.ln_2), self.dropout, self.training)


class Transformer(nn.Module):
    """What all architectures share: from what the head reads to logits and losses.

    Subclasses are made from (config, vocabulary), the rows of the embedding (V), padding included.
    """

    logit_cap: float | None = None
    """Logits bend towards this bound on either side; None lets them grow."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def blocks(self) -> nn.ModuleList:
        raise NotImplementedError

    @property
    def head(self) -> Tensor:
        """What turns (.., C) into logits: (V, C)."""
        raise NotImplementedError

    def initialise(self, seed: int) -> None:
        """The architecture's initialisation, the same for the same seed whatever else draws random numbers."""
        raise NotImplementedError

    def hidden(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """What the head reads: (B, T) ids -> (B, T, C), the last norm applied.

        A cache may be empty with any T, or hold tokens already with T = 1; it is extended.
        """
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return self.head.device

    def num_parameters(self) -> int:
        """Learned numbers; a tied head counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def use_plain_attention(self) -> None:
        """Attend by the written-out form instead of the fused kernel."""
        for module in self.modules():
            if isinstance(module, (Attention, RotaryAttention)):
                module.attend = attend_plainly

    def new_cache(self, batch: int = 1) -> KVCache:
        c = self.config
        shape = (c.layers, batch, c.heads, c.context, c.width // c.heads)
        return KVCache(shape, self.device, self.head.dtype)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits of every next token: (B, T) ids -> (B, T, V)."""
        return self.logits(self.hidden(tokens, cache))

    def logits(self, hidden: Tensor) -> Tensor:
        """What the head makes of hidden vectors: (.., C) -> (.., V)."""
        return capped(F.linear(hidden, self.head), self.logit_cap)

    def loss_sum(self, tokens: Tensor, targets: Tensor, positions: Tensor | None = None) -> Tensor:
        """Summed nats of the targets, a float32 scalar; logits exist for a chunk of positions at a time.

        Shapes: tokens and targets (B, T), a target of -1 being unsupervised; positions (N,) indices into B * T of
        the supervised ones, or None where all are.
        """
        hidden, wanted = self._supervised(self.hidden(tokens), targets, positions)
        return summed_cross_entropy(hidden, self.head, wanted, self.logit_cap)

    @torch.no_grad()
    def log_probabilities(self, tokens: Tensor, targets: Tensor, positions: Tensor | None = None) -> Tensor:
        """Log probability of each supervised target, (N,) float32. Shapes as in `loss_sum`."""
        hidden, wanted = self._supervised(self.hidden(tokens), targets, positions)
        return target_log_probabilities(hidden, self.head, wanted, self.logit_cap)

    @staticmethod
    def _supervised(hidden: Tensor, targets: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        hidden, targets = hidden.flatten(0, 1), targets.flatten()
        return (hidden, targets) if positions is None else (hidden[positions], targets[positions])


class GPT(Transformer):
    """GPT-2. Its head is its token embedding, transposed."""

    def __init__(self, config: ModelConfig, vocabulary: int) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(vocabulary, config.width)
        self.wpe = nn.Embedding(config.context, config.width)
        self.h = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_f = LayerNorm(config.width)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.h

    @property
    def head(self) -> Tensor:
        return self.wte.weight

    def initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        # Each block adds to the residual stream twice; the scale keeps its variance level with depth.
        residual = 0.02 / math.sqrt(2 * self.config.layers)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 1:
                nn.init.ones_(parameter)
            else:
                std = residual if name.endswith("c_proj.weight") else 0.01 if name == "wpe.weight" else 0.02
                nn.init.normal_(parameter, std=std, generator=generator)

    def hidden(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        past = cache.length if cache else 0
        positions = torch.arange(past, past + tokens.size(1), device=tokens.device)
        x = self.wte(tokens) + self.wpe(positions)
        x = F.dropout(x, self.config.dropout, self.training)
        for layer, block in enumerate(self.h):
            x = block(x, cache, layer)
        if cache is not None:
            cache.length += tokens.size(1)
        return self.ln_f(x)


# ---------------------------------------------------------------- ModernGPT


def normalised(x: Tensor) -> Tensor:
    """Root mean square 1 over the last dimension; nothing learned."""
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


def angles(positions: Tensor, head_width: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angles by which each pair of numbers turns at each position: two of (T, D / 2)."""
    speeds = 10_000.0 ** (-torch.arange(0, head_width, 2, device=positions.device) / head_width)
    by_position = torch.outer(positions.float(), speeds)
    return by_position.cos(), by_position.sin()


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: each pair (i, i + D / 2) of (B, H, T, D) turned by its angle, so that the product of a query
    and a key depends on their distance alone. Source: Su et al. 2021, "RoFormer", arXiv 2104.09864."""
    one, other = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((one * cos + other * sin, other * cos - one * sin), dim=-1)


class RMSNorm(nn.Module):
    """Root mean square 1 over the width, then a learned scale; nanochat has none."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.width)) if config.architecture == "modern" else None

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, eps=1e-6)


class RotaryAttention(nn.Module):
    """Attention with rotary positions and normalised queries and keys, which keep its scores within bounds."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_proj = nn.Linear(config.width, config.width, bias=False)
        self.k_proj = nn.Linear(config.width, config.width, bias=False)
        self.v_proj = nn.Linear(config.width, config.width, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)
        self.attend = attend

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], cache: KVCache | None, layer: int) -> Tensor:
        b, t, c = x.shape
        q, k, v = (
            project(x).view(b, t, self.heads, c // self.heads).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = normalised(turned(q, *turn)), normalised(turned(k, *turn))
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        y = self.attend(q, k, v)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, c))


class SquaredReluMLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, 4 * config.width, bias=False)
        self.fc2 = nn.Linear(4 * config.width, config.width, bias=False)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        h = recomputed(lambda x: self.fc1(norm(x)), x)
        return recomputed(lambda h: self.fc2(F.relu(h).square()), h)


class ModernBlock(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.input_layernorm = RMSNorm(config)
        self.self_attn = RotaryAttention(config)
        self.post_attention_layernorm = RMSNorm(config)
        self.mlp = SquaredReluMLP(config)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], cache: KVCache | None, layer: int) -> Tensor:
        attended = self.self_attn(self.input_layernorm(x), turn, cache, layer)
        x = x + F.dropout(attended, self.dropout, self.training)
        return x + F.dropout(self.mlp(x, self.post_attention_layernorm), self.dropout, self.training)


class ModernGPT(Transformer):
    """Rotary positions, root-mean-square norms, normalised queries and keys, squared ReLU, no biases.

    What each block adds begins at zero: the first steps train the embedding. There are two forms:

    - modern: norms have a scale, the head is tied, and each token's embedding is smeared with the one before, so that
      a single layer can look for what followed a token earlier.
    - nanochat: the layout of NanoChatForCausalLM in transformers. No scale, no smear, a head of its own, capped logits.
    """

    def __init__(self, config: ModelConfig, vocabulary: int) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(vocabulary, config.width)
        self.layers = nn.ModuleList(ModernBlock(config) for _ in range(config.layers))
        self.norm = RMSNorm(config)
        self.smear = self.lm_head = None
        if config.architecture == "modern":
            self.smear = nn.Parameter(torch.zeros(config.width))
        else:
            self.lm_head = nn.Linear(config.width, vocabulary, bias=False)
            self.logit_cap = 15.0

    @property
    def blocks(self) -> nn.ModuleList:
        return self.layers

    @property
    def head(self) -> Tensor:
        return (self.lm_head or self.embed_tokens).weight

    def initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith(("smear", "o_proj.weight", "fc2.weight", "lm_head.weight")):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 1:
                nn.init.ones_(parameter)
            else:
                std = 0.02 if name == "embed_tokens.weight" else 0.5 / math.sqrt(self.config.width)
                nn.init.normal_(parameter, std=std, generator=generator)

    def hidden(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        past = cache.length if cache else 0
        positions = torch.arange(past, past + tokens.size(1), device=tokens.device)
        turn = angles(positions, self.config.width // self.config.heads)
        x = self.embed_tokens(tokens)
        if self.smear is not None:
            x = x + self.smear * _one_before(x, cache)
        x = normalised(x)
        for layer, block in enumerate(self.layers):
            x = block(x, turn, cache, layer)
        if cache is not None:
            cache.length += tokens.size(1)
        return self.norm(x)


def _one_before(x: Tensor, cache: KVCache | None) -> Tensor:
    """What stood a token earlier, (B, T, C): zeros before the first token."""
    before = torch.zeros_like(x[:, :1]) if cache is None else cache.exchange_last(x)
    return torch.cat((before, x[:, :-1]), dim=1)


def build(config: ModelConfig, vocabulary: int, device: str = "cpu") -> Transformer:
    """The model of the architecture that the configuration names, its weights not yet set; without memory on `meta`.

    No random number is drawn: all threads share them, and dropout in a training that goes on counts on its own.
    """
    with torch.device("meta"):
        model = (GPT if config.architecture == "gpt2" else ModernGPT)(config, vocabulary)
    return model if device == "meta" else model.to_empty(device=device)
