"""Random numbers that depend on *what* is drawn, never on the order or the company in which it is drawn.

Every sample has a 64-bit key made of the seed and the sample's index; `fold_in` derives from it one key for each
draw (and for a draw within a draw). A row of noise is then a function of its key alone: it is the same, bit for bit,
for any batch size, chunk size and number of processes. Keys live on the CPU, so that nothing waits for a GPU.

The mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
2014). On a CPU the numbers themselves come from PyTorch's own generator, seeded with the key; it uses the lower 32
bits of its seed, so two of n rows share their noise with probability about n² / 2³³. On other devices, where a launch
for each row would take longer than a small network's gradients, all rows are made at once: each is the SplitMix64
sequence that starts at its key.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lightning_xai.shapes import Keys


def root_keys(seed: int, index: Int64[Tensor, " batch"]) -> Keys:
    """One key for each sample index."""
    return fold_in(torch.full(index.shape, _mix_int(seed + _GOLDEN)), index)


def fold_in(keys: Int64[Tensor, "..."], data: int | Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """New keys from old ones and a number (a draw, a path step, a layer); `keys` and `data` broadcast."""
    numbers = torch.as_tensor(data, dtype=torch.int64).cpu()
    mixed = _mix(_mix(_array(keys) + _GOLDEN) ^ _mix(_array(numbers) * _GOLDEN))
    return torch.from_numpy(mixed.reshape(np.broadcast_shapes(keys.shape, numbers.shape)))


def fold_in_int(seed: int, data: int) -> int:
    """`fold_in` for one key that is a Python integer."""
    return _mix_int(_mix_int(_mix_int(seed + _GOLDEN) + _GOLDEN) ^ _mix_int(data * _GOLDEN))


def standard_normal(keys: Keys, shape: Sequence[int], device: torch.device | str = "cpu") -> Float[Tensor, "batch ..."]:
    """Independent N(0, 1) float32 values, (len(keys), *shape); row i depends on keys[i], shape and device type only.

    Do not write to them: they may be remembered (`remembering_noise`).
    """
    memory = _memory.get()
    return _normal(keys, shape, device) if memory is None else memory.normal(keys, shape, device)


def uniform(keys: Keys, shape: Sequence[int], device: torch.device | str = "cpu") -> Float[Tensor, "batch ..."]:
    """Independent U[0, 1) float32 values, (len(keys), *shape); row i depends on keys[i], shape and device type only."""
    if torch.device(device).type == "cpu":
        return _fill_rows(keys, shape, Tensor.uniform_)
    return _fraction(_bits(keys, math.prod(shape), device)).reshape(len(keys), *shape)


@contextmanager
def remembering_noise(most: int = 2**28) -> Iterator[None]:
    """Within it, normal noise that is asked for again is not drawn again.

    Methods and metrics of an evaluation see the same draws: the same noisy weights, and each method the same noise on
    the same samples for every input that a sensitivity metric explains.

    Args:
        most: Bytes that are remembered; what does not fit any more is drawn anew each time.
    """
    token = _memory.set(_Memory(most))
    try:
        yield
    finally:
        _memory.reset(token)


class _Memory:
    """Noise by what it depends on, first come first served: dropping the oldest would lose all in a long cycle."""

    def __init__(self, most: int) -> None:
        self.room = most
        self.known: dict[tuple, Tensor] = {}

    def normal(self, keys: Keys, shape: Sequence[int], device: torch.device | str) -> Tensor:
        what = (keys.numpy().tobytes(), tuple(shape), str(device))
        if what in self.known:
            return self.known[what]
        noise = _normal(keys, shape, device)
        if noise.nbytes <= self.room:
            self.room -= noise.nbytes
            self.known[what] = noise
        return noise


_memory: ContextVar[_Memory | None] = ContextVar("remembered noise", default=None)


def _normal(keys: Keys, shape: Sequence[int], device: torch.device | str) -> Tensor:
    if torch.device(device).type == "cpu":
        return _fill_rows(keys, shape, Tensor.normal_)
    return _box_muller(keys, math.prod(shape), device).reshape(len(keys), *shape)


def _fill_rows(keys: Tensor, shape: Sequence[int], fill: Callable[..., Tensor]) -> Tensor:
    generator = torch.Generator()
    rows = torch.empty((len(keys), *shape), dtype=torch.float32)
    for row, key in zip(rows, keys.tolist(), strict=True):
        generator.manual_seed(key)
        fill(row, generator=generator)
    return rows


def _box_muller(keys: Tensor, number: int, device: torch.device | str) -> Tensor:
    """(len(keys), number) normal values, two from each word of the keys' sequences."""
    words = _bits(keys, (number + 1) // 2, device)
    radius = (_fraction(words) + 2.0**-24).log_().mul_(-2).sqrt_()  # of a number in (0, 1]
    angle = _fraction(words << 24).mul_(2 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :number]


def _bits(keys: Tensor, number: int, device: torch.device | str) -> Tensor:
    """The first words, (len(keys), number), of the SplitMix64 sequences that start at the keys."""
    steps = torch.arange(1, number + 1, device=device) * _GOLDEN
    return _mix(keys.to(device)[:, None] + steps)


def _fraction(words: Tensor) -> Tensor:
    """The upper 24 bits as a float32 in [0, 1)."""
    return _shift(words, 40).to(torch.float32) * 2.0**-24


def _int64(value: int) -> int:
    """The low 64 bits of an integer, read as a signed number."""
    return (value + 2**63) % 2**64 - 2**63


_GOLDEN = _int64(0x9E3779B97F4A7C15)
_FACTORS = _int64(0xBF58476D1CE4E5B9), _int64(0x94D049BB133111EB)


def _array(keys: Tensor) -> np.ndarray:
    """For arithmetic on the CPU, where NumPy's calls take a fraction of the time of PyTorch's.

    A single number becomes an array too: NumPy would warn of a scalar that wraps, as it shall here.
    """
    return np.atleast_1d(keys.numpy())


def _mix(x: Any) -> Any:
    """SplitMix64's finaliser of an int64 tensor or array: its arithmetic wraps, and a mask makes the shifts logical."""
    x = (x ^ _shift(x, 30)) * _FACTORS[0]
    x = (x ^ _shift(x, 27)) * _FACTORS[1]
    return x ^ _shift(x, 31)


def _mix_int(x: int) -> int:
    """`_mix` of one number."""
    x %= 2**64
    x = ((x ^ (x >> 30)) * _FACTORS[0]) % 2**64
    x = ((x ^ (x >> 27)) * _FACTORS[1]) % 2**64
    return _int64(x ^ (x >> 31))


def _shift(x: Any, bits: int) -> Any:
    return (x >> bits) & ((1 << (64 - bits)) - 1)
