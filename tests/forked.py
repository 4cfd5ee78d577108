"""Processes that have imported everything already: a new Python needs seconds of a processor for that."""

import multiprocessing
import os
import warnings
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import pytest


def forked(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """The process, which runs; what it warns of is nobody's business, what it raises is its exit code."""
    if not hasattr(os, "fork"):
        pytest.skip("forks")
    process = multiprocessing.get_context("fork").Process(target=_quietly, args=(function, *arguments))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the threads of this one, none of which the other needs
        process.start()
    return process


def _quietly(function: Callable[..., Any], *arguments: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function(*arguments)


def finish(*processes: BaseProcess) -> None:
    """Waits until all are done, well."""
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0] * len(processes)
