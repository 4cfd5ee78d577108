"""Copies to a device."""

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor on the device. Where it comes from the CPU nobody waits for what the device still has to do.

    For tensors that are not written to afterwards: Apple's GPUs read them late, so that there the copy does wait.
    """
    device = torch.device(device)
    return tensor.to(device, dtype or tensor.dtype, non_blocking=tensor.device.type == "cpu" and device.type != "mps")
