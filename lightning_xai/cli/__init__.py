"""The program: `lightning-xai COMMAND ...`. What is imported is decided here: help does not wait for torch."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from lightning_xai._version import __version__

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "fit": "train, and score explanations at every validation end",
    "validate": "score explanations on the validation samples",
    "test": "score explanations on the test samples",
    "predict": "predict",
    "evaluate": "score explanations on all samples, in shards, and go on where it stopped",
    "sanity": "do explanations depend on weights and labels, and only on what the network computes?",
    "shortcuts": "is a class decided by what should not decide it?",
    "calibrate": "find the weight noise for NoiseGrad and FusionGrad",
    "visualize": "what does a class look like, to one network and to noisy ones?",
    "explain": "explain pictures from files",
    "compare": "compare the methods of finished runs",
    "report": "write what finished runs found as one page of HTML",
    "export": "write the scores of a finished run as CSV",
    "methods": "list the explanation methods",
    "metrics": "list the metrics",
    "study": "run the experiment in a file: networks x methods x metrics, claims, figures",
    "reproduce": "repeat an experiment of a paper",
}
"""What there is, a line each."""


def main(args: Any = None) -> None:
    """Run one command; `args` are the words after the program's name, by default those it was called with.

    Called without `args`, as a program, what is refused is one sentence and exit code 2, and with `--debug` the
    traceback; from Python it is an exception. LightningCLI's other form of arguments, `{"subcommand": NAME, NAME:
    OPTIONS}`, is taken as well.
    """
    words = sys.argv[1:] if args is None else args
    debug = isinstance(words, Sequence) and "--debug" in words
    if isinstance(words, Sequence):
        words = [word for word in words if word != "--debug"]
        command, rest = (words[0], list(words[1:])) if words else ("--help", [])
    else:
        command = words["subcommand"]
        rest = words[command]
    if command in ("-h", "--help"):
        print(overview())
    elif command == "--version":
        print(f"lightning-xai {__version__}")
    elif command not in COMMANDS:
        print(unknown(command), file=sys.stderr)
        sys.exit(2)
    else:
        try:
            from lightning_xai.cli.commands import run  # torch and Lightning: seconds

            run(command, rest, as_program=args is None, debug=debug)
        except (KeyboardInterrupt, SystemExit) as leaving:
            if args is not None or debug or not is_interruption(leaving):
                raise
            print("lightning-xai: interrupted", file=sys.stderr)
            sys.exit(130)


def is_interruption(leaving: BaseException) -> bool:
    """Whether the user has interrupted; the Trainer makes a SystemExit of it."""
    return isinstance(leaving, KeyboardInterrupt) or isinstance(leaving.__context__, KeyboardInterrupt)


def overview() -> str:
    """What `--help` says."""
    lines = (f"  {name:<11}{line}" for name, line in COMMANDS.items())
    return "\n".join(
        [
            "usage: lightning-xai COMMAND --config FILE [--OPTION VALUE ...]",
            "",
            "Train classifiers with PyTorch Lightning and measure how good their explanations are.",
            "",
            *lines,
            "",
            "`lightning-xai COMMAND --help` has the options of one, `lightning-xai --version` the version. FILE is the",
            "path of a configuration, or the name of one that the package brings: quickstart, mnist_lenet, ...",
            "What is refused is one sentence; `--debug` shows the traceback behind it.",
        ]
    )


def unknown(command: str) -> str:
    """The error for a word that is no command."""
    near = get_close_matches(command, COMMANDS, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"lightning-xai: error: {command!r} is not a command. {hint}There are {', '.join(COMMANDS)}."
