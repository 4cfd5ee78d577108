"""Means over draws, to the last digit but one, in whatever blocks the draws come."""

import math

import pytest
import torch

from lightning_xai.functional.moments import Moments, Sum

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def maps(draws, dtype, kind):
    """Draws of 2 x 5 elements: all of one sign, of both, far from 0 beside their spread, or cancelling nearly."""
    noise = torch.randn(draws, 2, 5, generator=torch.Generator().manual_seed(draws), dtype=torch.float64)
    if kind == "cancelling":
        noise[1::2] = -noise[: draws // 2 * 2 : 2]
    return {"signed": noise, "positive": noise.abs(), "shifted": 1000 + noise, "cancelling": noise}[kind].to(dtype)


def blocks(every, size):
    return every.split([1, *[size] * ((len(every) - 1) // size), *filter(None, [(len(every) - 1) % size])])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["signed", "positive", "shifted", "cancelling"])
@pytest.mark.parametrize(("draws", "size"), [(1, 1), (2, 1), (50, 7), (1000, 1), (1000, 64), (1000, 999)])
@pytest.mark.parametrize("make", [Sum, Moments])
def test_mean_lies_within_two_roundings_of_the_exact_one(dtype, kind, draws, size, make):
    every = maps(draws, dtype, kind)
    found = make()
    for block in blocks(every, size):
        found.add(block)
    mean = found.mean(draws) if make is Sum else found.mean
    assert mean.dtype == dtype
    columns = every.double().flatten(1).T.tolist()
    exact = [math.fsum(column) / draws for column in columns]
    absolute = [math.fsum(map(abs, column)) / draws for column in columns]
    allowed = 2 * torch.finfo(dtype).eps * torch.tensor(absolute, dtype=torch.float64)
    # a float16 number below its smallest normal one has no relative precision
    allowed = allowed.clamp(min=torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps)
    assert ((mean.double().flatten() - torch.tensor(exact, dtype=torch.float64)).abs() <= allowed).all()


def test_a_mean_in_single_precision_would_not_pass():
    """The law can fail: what a plain sum in the maps' own dtype gives is further away."""
    every = maps(1000, torch.float32, "shifted")
    total = torch.zeros(2, 5)
    for draw in every:
        total = total + draw
    exact = torch.tensor([math.fsum(c) / 1000 for c in every.double().flatten(1).T.tolist()], dtype=torch.float64)
    assert ((total / 1000).double().flatten() - exact).abs().max() > 2 * torch.finfo(torch.float32).eps * 1000


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_moments_of_every_dtype_are_those_of_the_values(dtype):
    every = maps(300, dtype, "shifted")
    moments = Moments()
    for block in blocks(every, 9):
        moments.add(block)
    values = every.double()
    options = {"rtol": max(1e-9, 4 * torch.finfo(dtype).eps), "atol": 0.0}  # the mean is 1000 times the deviation
    torch.testing.assert_close(moments.variance.double(), values.var(0, correction=0), **options)
    error = values.std(0) / math.sqrt(300)
    torch.testing.assert_close(moments.standard_error.double(), error, **options)
    if dtype != torch.float16:  # whose greatest number is 65504
        torch.testing.assert_close(moments.mean_square.double(), values.square().mean(0), **options)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_samples_can_leave_and_join_again(dtype):
    every = maps(40, dtype, "signed")
    whole, first = Moments(), Moments()
    whole.add(every)
    first.add(every[:25])
    rest = first.select(torch.tensor([1]))
    rest.add(every[25:, 1:])
    joined = Moments.join([first.select(torch.tensor([0])), rest])
    torch.testing.assert_close(joined.mean[1], whole.mean[1])
    torch.testing.assert_close(joined.mean[0], every[:25].double().mean(0)[0].to(dtype))
    torch.testing.assert_close(joined.variance[1], whole.variance[1])
    assert joined.count.flatten().tolist() == [25, 40]
