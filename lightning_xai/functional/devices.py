"""Copies to a device, and what devices cannot do."""

import torch
from torch import Tensor

_APPLE = "mps"


def sent(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor on the device. Where it comes from the CPU nobody waits for what the device still has to do.

    For tensors that are not written to afterwards: Apple's GPUs read them late, so that there the copy does wait.
    """
    patient = tensor.device.type == "cpu" and not is_apple(device)
    return tensor.to(device, dtype or tensor.dtype, non_blocking=patient)


def is_apple(device: torch.device | str) -> bool:
    """Whether it is one of Apple's GPUs: they have no float64, and integers of 64 bits are not to be relied on there.

    (`pytorch/pytorch#147889`: shifts gave other numbers in some releases, without a word.)
    """
    return torch.device(device).type == _APPLE


def with_float64(tensor: Tensor) -> Tensor:
    """The tensor where float64 is to be had: where it is, or on the CPU if it is on one of Apple's GPUs."""
    return tensor.cpu() if is_apple(tensor.device) else tensor


def wide_dtype(values: Tensor) -> torch.dtype:
    """What sums of these values are kept in where they are: float64, or on Apple's GPUs float32."""
    return torch.float32 if is_apple(values.device) else torch.float64
