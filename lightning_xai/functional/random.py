"""Random numbers that depend on *what* is drawn, never on the order or the company in which it is drawn.

Every sample has a 64-bit key made of the seed and the sample's index; `fold_in` derives from it one key for each
draw (and for a draw within a draw). A row of noise is then a function of its key alone: it is the same, bit for bit,
for any batch size, chunk size and number of processes. Keys live on the CPU, so that nothing waits for a GPU.

The mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
2014). The numbers themselves come from PyTorch's own generator of the device, seeded with the key; the generator of
the CPU uses the lower 32 bits of its seed, so two of n rows share their noise with probability about n² / 2³³.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lightning_xai.shapes import Keys


def root_keys(seed: int, index: Int64[Tensor, " batch"]) -> Keys:
    """One key for each sample index."""
    return fold_in(torch.full(index.shape, _mix_int(seed)), index)


def fold_in(keys: Int64[Tensor, "..."], data: int | Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """New keys from old ones and a number (a draw, a path step, a layer); `keys` and `data` broadcast."""
    data = torch.as_tensor(data, dtype=torch.int64).cpu()
    return _mix(_mix(keys + _GOLDEN) ^ _mix(data * _GOLDEN))


def fold_in_int(seed: int, data: int) -> int:
    """`fold_in` for one key that is a Python integer."""
    return int(fold_in(torch.tensor(_mix_int(seed)), data))


def standard_normal(keys: Keys, shape: Sequence[int], device: torch.device | str = "cpu") -> Float[Tensor, "batch ..."]:
    """Independent N(0, 1) float32 values, (len(keys), *shape); row i depends on keys[i], shape and device type only."""
    return _fill_rows(keys, shape, device, Tensor.normal_)


def uniform(keys: Keys, shape: Sequence[int], device: torch.device | str = "cpu") -> Float[Tensor, "batch ..."]:
    """Independent U[0, 1) float32 values, (len(keys), *shape); row i depends on keys[i], shape and device type only."""
    return _fill_rows(keys, shape, device, Tensor.uniform_)


def _fill_rows(keys: Tensor, shape: Sequence[int], device: torch.device | str, fill: Callable[..., Tensor]) -> Tensor:
    generator = torch.Generator(device)
    rows = torch.empty((len(keys), *shape), dtype=torch.float32, device=device)
    for row, key in zip(rows, keys.tolist(), strict=True):
        generator.manual_seed(key)
        fill(row, generator=generator)
    return rows


def _int64(value: int) -> int:
    """The low 64 bits of an integer, read as a signed number."""
    return (value + 2**63) % 2**64 - 2**63


_GOLDEN = _int64(0x9E3779B97F4A7C15)
_FACTORS = _int64(0xBF58476D1CE4E5B9), _int64(0x94D049BB133111EB)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser; int64 arithmetic wraps, and the shifts are made logical by a mask."""
    x = (x ^ _shift(x, 30)) * _FACTORS[0]
    x = (x ^ _shift(x, 27)) * _FACTORS[1]
    return x ^ _shift(x, 31)


def _mix_int(seed: int) -> int:
    return int(_mix(torch.tensor(_int64(seed)) + _GOLDEN))


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)
