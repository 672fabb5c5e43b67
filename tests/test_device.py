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
