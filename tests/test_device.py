"""The device and precision are chosen once, and one that is not there is said so."""

import pytest
import torch

from core import device
from core.config import load_stage
from core.errors import UsageError
from core.runs import find_root


def test_auto_takes_what_is_there() -> None:
    placement = device.choose()
    assert placement.precision in ("float32", "bfloat16")
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        assert placement.device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named_with_the_fix() -> None:
    with pytest.raises(UsageError, match="no cuda") as caught:
        device.choose("cuda")
    assert "device=cpu" in str(caught.value)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_forward_pass_computes_in_the_precision_asked_for(precision: str, dtype: torch.dtype) -> None:
    placement = device.choose("cpu", precision)
    layer = torch.nn.Linear(4, 4)
    with placement.autocast():
        assert layer(torch.ones(1, 4)).dtype == dtype
    assert layer.weight.dtype == torch.float32
    placement.synchronise()


def test_a_stage_says_where_it_computes() -> None:
    config = load_stage("smoke", "pretrain", find_root(), ["device=cpu"])
    placement = device.of(config)
    assert (placement.device.type, placement.precision) == ("cpu", "float32")


def test_a_process_without_a_gpu_of_its_own_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes each take the GPU of their number; on a CPU the number says nothing."""
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert str(device.choose("cuda", "float32", gpu=1).device) == "cuda:1" and taken == [1]
    assert str(device.choose("cpu", "float32", gpu=1).device) == "cpu"
    with pytest.raises(UsageError, match="2 GPUs"):
        device.choose("cuda", "float32", gpu=2)
