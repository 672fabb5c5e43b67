"""Training: tokens a second of one optimizer step, and the most memory that it takes."""

from collections.abc import Iterator

from core.bench import operations
from core.bench.measurement import Measurement, Precision, Sizes
from core.probe import ProbeRequest
from core.probe_bench import Bench


def train_step(
    sizes: Sizes, rounds: int, precision: Precision = "auto", warm_up: int = 1
) -> Iterator[Measurement]:
    """Steps of a single micro-batch, on random numbers: forward, backward, clipping, update."""
    config = sizes.config(precision)
    request = ProbeRequest(
        config=config.model_dump_json(),
        vocabulary=sizes.vocabulary,
        rows_per_step=sizes.micro_batch,
        row_tokens=sizes.context,
        supervised_share=1.0,
    )
    bench = Bench(request, config)
    for _ in range(warm_up):
        bench.step(sizes.micro_batch)
    samples = tuple(sizes.tokens / bench.step(sizes.micro_batch) for _ in range(rounds))
    yield Measurement(
        name="train",
        what=f"training, {bench.model.num_parameters() / 1e6:.0f}M parameters",
        unit="tokens/s",
        samples=samples,
        memory_bytes=bench.placement.peak_memory_bytes(),
        device=bench.placement.device.type,
        precision=bench.placement.precision,
        limit="operations",
        cost=operations.per_trained_token(bench.model),
        note=sizes.in_words(),
    )
