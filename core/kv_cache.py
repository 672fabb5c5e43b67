"""What the model keeps of the tokens already read, so that each new token costs one pass of one token."""

import torch
from torch import Tensor


class KVCache:
    """Room for the keys and values of every layer, allocated once.

    Args:
        shape: (layers, B, H, T, D), T being the longest sequence.
    """

    def __init__(
        self, shape: tuple[int, int, int, int, int], device: torch.device, dtype: torch.dtype
    ) -> None:
        self._keys = torch.zeros(shape, device=device, dtype=dtype)
        self._values = torch.zeros(shape, device=device, dtype=dtype)
        self._last: Tensor | None = None
        self.length = 0
        """Tokens held so far; the model raises it once all its layers have added theirs."""

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens so far, the new ones included: two views (B, H, length + T, D)."""
        end = self.length + k.size(2)
        self._keys[layer, :, :, self.length : end] = k
        self._values[layer, :, :, self.length : end] = v
        return self._keys[layer, :, :, :end], self._values[layer, :, :, :end]

    def exchange_last(self, x: Tensor) -> Tensor:
        """Remember the last of these vectors, (B, T, C); returns the one remembered before, (B, 1, C), or zeros."""
        before = torch.zeros_like(x[:, :1]) if self._last is None else self._last
        self._last = x[:, -1:].detach()
        return before
