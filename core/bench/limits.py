"""The fastest that this machine multiplies matrices and reads memory."""

import time
from collections.abc import Callable, Iterator

import psutil
import torch

from core.bench.measurement import Measurement, Precision, Sizes
from core.device import Placement, choose

_SQUARE = (1024, 2048, 4096)
_LOGITS_AT_ONCE = 1 << 24
"""As `core.loss` has it."""
_LONGEST_S = 2.0
"""A product that would take longer is left out: smaller ones are as fast."""
_READ_BYTES = 1 << 29
_REPEATS = 3

Shape = tuple[int, int, int]
"""(rows, inner, columns) of a product."""


def precision() -> Iterator[Measurement]:
    """No measurement, only where and in which precision this machine would train."""
    placement = choose()
    yield Measurement(
        name="precision", what="", unit="", device=placement.device.type, precision=placement.precision
    )


def matmul(sizes: Sizes, rounds: int, precision: Precision) -> Iterator[Measurement]:
    """Billions of operations a second of matrix products in one precision: square ones, and those of the model.

    Each sample is the best of several shapes.
    """
    placement = choose(precision=precision)
    c, tokens = sizes.width, sizes.tokens
    rows = min(tokens, max(16, _LOGITS_AT_ONCE // sizes.vocabulary))
    shapes = {
        "square": [(n, n, n) for n in _SQUARE if n <= max(_SQUARE[0], 8 * c)],
        "the model's shapes": [
            (tokens, c, 3 * c),
            (tokens, c, 4 * c),
            (tokens, 4 * c, c),
            (rows, c, sizes.vocabulary),
        ],
    }
    for kind, some in shapes.items():
        products = _affordable(some, placement)
        samples = [max(_rate(shape, call, placement) for shape, call in products) for _ in range(rounds)]
        yield Measurement(
            name="matmul",
            what=f"matrix product, {placement.precision}, {kind}",
            unit="GFLOP/s",
            samples=tuple(samples),
            device=placement.device.type,
            precision=placement.precision,
            note="best of " + ", ".join("x".join(map(str, shape)) for shape, _ in products),
        )


def _affordable(shapes: list[Shape], placement: Placement) -> list[tuple[Shape, Callable[[], object]]]:
    """The products that take no longer than some seconds, each done once already; the first one in any case."""
    products: list[tuple[Shape, Callable[[], object]]] = []
    fastest = 0.0
    for shape in shapes:
        if fastest and _operations(shape) / (fastest * 1e9) > _LONGEST_S:
            continue
        call = _product(shape, placement)
        call()
        fastest = max(fastest, _rate(shape, call, placement))
        products.append((shape, call))
    return products


def _product(shape: Shape, placement: Placement) -> Callable[[], object]:
    rows, inner, columns = shape
    draw = torch.Generator().manual_seed(7)
    number = getattr(torch, placement.precision)
    left, right = (
        torch.randn(size, generator=draw).to(placement.device, number)
        for size in ((rows, inner), (columns, inner))
    )
    result = torch.empty(rows, columns, device=placement.device, dtype=number)
    # The weights lie as a linear layer holds them.
    return lambda: torch.mm(left, right.t(), out=result)


def _rate(shape: Shape, call: Callable[[], object], placement: Placement) -> float:
    return _operations(shape) / _seconds(call, placement) / 1e9


def _operations(shape: Shape) -> int:
    return 2 * shape[0] * shape[1] * shape[2]


def bandwidth(rounds: int) -> Iterator[Measurement]:
    """Billions of bytes a second that are read from memory: the best of adding up and of a matrix times a vector."""
    placement = choose()
    width = 4096
    size = min(_READ_BYTES, psutil.virtual_memory().available // 4)
    rows = max(1, size // (4 * width))
    matrix = torch.ones(rows, width, device=placement.device)
    vector = torch.ones(width, device=placement.device)
    calls: list[Callable[[], object]] = [matrix.sum, lambda: torch.mv(matrix, vector)]
    for call in calls:
        call()
    moved = matrix.numel() * matrix.element_size()
    samples = [
        max(moved / _seconds(call, placement) / 1e9 for call in calls for _ in range(_REPEATS))
        for _ in range(rounds)
    ]
    yield Measurement(
        name="bandwidth",
        what=f"memory read, {moved >> 20} MiB",
        unit="GB/s",
        samples=tuple(samples),
        device=placement.device.type,
    )


def _seconds(call: Callable[[], object], placement: Placement) -> float:
    placement.synchronise()
    started_s = time.perf_counter()
    call()
    placement.synchronise()
    return time.perf_counter() - started_s
