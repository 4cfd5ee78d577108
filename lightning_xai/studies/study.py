"""A study as a file says it: networks x methods x metrics, variables, published numbers, claims."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from jsonargparse import ArgumentParser

from lightning_xai.explainers import Explainer, with_controls
from lightning_xai.metrics import SampleMetric
from lightning_xai.names import specifications

VOC = "voc"
WEIGHT_NOISE = "weight_noise"
"""The variable that each network has a value of its own of: the level that costs 5 % of its accuracy."""
Coordinates = Mapping[str, Any]


class Entry(NamedTuple):
    """An entry of a file, with its variables filled in.

    Attributes:
        value: What the file says of it.
        bound: Values of the names in its `for`.
        template: Its name in the file.
    """

    value: Any
    bound: Coordinates
    template: str


@dataclass(frozen=True)
class Study:
    """What is compared, on what, and what was expected.

    A value `{from: NAME}` anywhere in methods, metrics and claims is the variable of this name, `{from: NAME, times:
    0.5}` half of it; `{from: NAME.KEY}` a part of it. An entry with `for: {NAME: LIST}` stands for one entry for each
    value in the list (for each combination, if there are several), with `{NAME}` in its name filled in by `str.format`.
    The variable `weight_noise` is the network's own level (see `level_samples`); methods that take it are left out
    where the level was not reached.

    Args:
        source: Paper, and table or figure in it; or what the study is about.
        methods: By name, a plain name of `lightning_xai.explainers` or `class_path` and `init_args`; a list of plain
            names is enough.
        metrics: By name, likewise.
        networks: By name; of each, none or some of `config` (file or name of a configuration; the network's name where
            there is none), `ckpt_path` (a checkpoint; without one the network is trained, or taken from those that the
            package brings) and `weights` (of a network that others trained, see `PretrainedClassifier`). A list of
            names is enough.
        summary: A line for the list of studies.
        variables: By name. They can be given on the command line as options.
        target: Class that is explained: the "label", or the model's "prediction".
        num_samples: Test samples of each network's data, evenly spaced; null for all.
        images: Folder of pictures for networks that others trained; `voc` for VOC 2012, which has masks; null for eight
            photographs that installed packages carry.
        image_size: Side of the input of networks that others trained; null for what they were trained with.
        masks: Names of the data's masks; localization in those after the first has the mask in the metric's name.
            Without any, metrics that need masks are left out.
        level_samples: Validation samples for the level of weight noise; null looks for none.
        weight_noise: The level, instead of looking for it.
        kept_under: Levels of weight noise: which share of the predicted classes do noisy networks keep?
        kept_draws: Noisy networks for that.
        equal_costs: Numbers of gradients, each with a table of the methods that spend it.
        procedure: Which tests are one family; see `compare_methods`.
        published: By metric, by method: a number, or numbers by network.
        claims: Groups of claims, corrected together (Holm) for each network: `title`, `metrics`, `pairs`, each
            "BETTER > WORSE" or `{claim: ..., for: ...}`.
        curves: Of a figure: `over`, a name in some `for`, and `where`, values of the others.
        grid: Of a figure: two names in some `for`.
        maps: Samples whose maps are shown for each network.
        batch_size: Samples at a time; what is finished is kept.
        changes: Values that replace the configurations', by dotted name.
        fast: Values of these arguments and of variables for a version that takes a minute; its numbers mean nothing.
    """

    source: str
    methods: list[str] | dict[str, Any]
    metrics: list[str] | dict[str, Any]
    networks: list[str] | dict[str, dict[str, Any]]
    summary: str = ""
    variables: dict[str, Any] = field(default_factory=dict)
    target: Literal["label", "prediction"] = "label"
    num_samples: int | None = 256
    images: str | None = None
    image_size: int | None = None
    masks: list[str] = field(default_factory=list)
    level_samples: int | None = None
    weight_noise: float | None = None
    kept_under: list[Any] = field(default_factory=list)
    kept_draws: Any = 10
    equal_costs: Any = field(default_factory=list)
    procedure: Literal["all_pairs", "published"] = "all_pairs"
    published: dict[str, dict[str, Any]] = field(default_factory=dict)
    claims: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, Any] | None = None
    grid: list[str] | None = None
    maps: int = 0
    batch_size: int = 64
    changes: dict[str, Any] = field(default_factory=dict)
    fast: dict[str, Any] = field(default_factory=dict)

    @property
    def named_networks(self) -> dict[str, dict[str, Any]]:
        return dict(self.networks) if isinstance(self.networks, Mapping) else {name: {} for name in self.networks}

    def at(self, level: float | None = None) -> dict[str, Any]:
        """The variables, with a network's level of weight noise; None where it was not reached."""
        level = level if self.weight_noise is None else self.weight_noise
        return {**self.variables, WEIGHT_NOISE: level if level is not None and math.isfinite(level) else None}

    def explainers(self, level: float | None = None) -> dict[str, Explainer]:
        """The methods by name, with the controls."""
        specified = {name: entry.value for name, entry in expanded(self.methods, self.at(level)).items()}
        return with_controls(built("methods", specified, Explainer))

    def measures(self, level: float | None = None) -> dict[str, SampleMetric]:
        """The metrics by name; without masks those alone that need none."""
        found = self.all_measures(level)
        return found if self.masks else {name: metric for name, metric in found.items() if not asks_mask(metric)}

    def all_measures(self, level: float | None = None) -> dict[str, SampleMetric]:
        """The metrics by name."""
        return built("metrics", self.measured(level), SampleMetric)

    def measured(self, level: float | None = None) -> dict[str, Any]:
        """What the file says of the metrics, with the variables filled in."""
        return {name: entry.value for name, entry in expanded(self.metrics, self.at(level)).items()}

    def coordinates(self, level: float | None = None) -> dict[str, Coordinates]:
        """Of each method, the values of the names in its `for`."""
        return {name: entry.bound for name, entry in expanded(self.methods, self.at(level)).items()}

    def lines(self, over: str, where: Coordinates, level: float | None = None) -> dict[str, dict[float, str]]:
        """The methods by their values of one name: those that differ in nothing else are a line, named after them.

        Args:
            over: A name in the `for` of some methods.
            where: Values of other names; methods with others are left out.
        """
        found: dict[str, dict[float, str]] = {}
        for method, entry in expanded(self.methods, self.at(level)).items():
            if over in entry.bound and where.items() <= entry.bound.items():
                template = re.sub(rf"\{{{over}([\[.!:][^}}]*)?}}", over, entry.template)
                line = _filled(template, {**self.at(level), **entry.bound})
                found.setdefault(line, {})[float(entry.bound[over])] = method
        return {line: dict(sorted(points.items())) for line, points in found.items()}

    def pairs(self, group: Mapping[str, Any], level: float | None = None) -> list[tuple[str, str]]:
        """(better, worse) of each claim of a group."""
        claims: list[str] = []
        for pair in group["pairs"]:
            entry = dict(pair) if isinstance(pair, Mapping) else {"claim": pair}
            if not isinstance(entry.get("claim"), str):
                raise ValueError(f"`claims`: a pair must be a text or have a `claim`, got {pair!r}.")
            claims += expanded({entry.pop("claim"): entry}, self.at(level))
        wrong = next((claim for claim in claims if claim.count(" > ") != 1), None)
        if wrong is not None:
            raise ValueError(f"`claims`: a pair must read 'BETTER > WORSE', got {wrong!r}.")
        return [tuple(claim.split(" > ")) for claim in claims]  # type: ignore[misc]


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("variables", "changes", "published", "curves", "fast"), (dict,)),
    **dict.fromkeys(("claims", "masks", "grid", "kept_under"), (list,)),
    **dict.fromkeys(("methods", "metrics", "networks"), (dict, list)),
}


def checked(values: Any, where: str | Path, taken: Sequence[str] = ()) -> dict[str, Any]:
    """What a file says, as arguments of `Study`.

    Args:
        values: As YAML has them.
        where: The file, for messages.
        taken: Names that variables must not have, as other options have them.

    Raises:
        ValueError: if it is no mapping, or has an argument that `Study` does not know, or lacks one.
    """
    known = [one.name for one in fields(Study)]
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected a mapping with {', '.join(known[:4])}, ...; got {type(values).__name__}.")
    for name in values:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{where}: {name!r} is not part of a study.{hint} There are {', '.join(known)}.")
    if missing := [name for name in known[:4] if not values.get(name)]:
        raise ValueError(f"{where}: a study needs {', '.join(missing)}.")
    for part, kinds in _KINDS.items():
        if not isinstance(values.get(part) or kinds[0](), kinds):
            wanted = " or a ".join("mapping" if kind is dict else "list" for kind in kinds)
            raise ValueError(f"{where}: `{part}` must be a {wanted}, got {values[part]!r}.")
    variables = values.get("variables") or {}
    if wrong := [name for name in variables if not str(name).isidentifier()]:
        raise ValueError(f"{where}: `variables` must have names of letters, digits and _, got {wrong[0]!r}.")
    if wrong := [name for part in ("methods", "metrics") for name in values[part] if not isinstance(name, str)]:
        raise ValueError(f"{where}: names of methods and metrics must be texts, got {wrong[0]!r}; put it in quotes.")
    if clash := [name for name in variables if name in (*known, *taken)]:
        raise ValueError(f"{where}: `variables` must have names of their own, got {', '.join(clash)}.")
    if unknown := [name for name in values.get("fast") or {} if name not in (*known, *variables)]:
        raise ValueError(f"{where}: `fast` must have arguments of a study or variables, got {', '.join(unknown)}.")
    return dict(values)


def known_values(parts: Sequence[Any], variables: Mapping[str, Any]) -> list[Any]:
    """The parts, resolved, without those that need a variable without a value."""
    return [entry.value for entry in expanded({str(n): part for n, part in enumerate(parts)}, variables).values()]


def carried_studies() -> dict[str, Path]:
    """The files that the package brings, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def carried_study(name: str, **changes: Any) -> Study:
    """One that the package brings, with other values of its arguments and variables."""
    values = yaml.safe_load(carried_studies()[name].read_text(encoding="utf-8"))
    return study_of(values, changes)


def study_of(values: Mapping[str, Any], changes: Mapping[str, Any]) -> Study:
    """The study of a file's values, with other values of its arguments and variables."""
    variables = {name: changes.get(name, value) for name, value in (values.get("variables") or {}).items()}
    own = {name: value for name, value in changes.items() if name not in variables}
    return Study(**{**values, **own, "variables": variables})


def expanded(parts: Mapping[str, Any] | Sequence[str], variables: Mapping[str, Any]) -> dict[str, Entry]:
    """The entries, those with `for` once for each combination.

    Entries that need a variable without a value (None) are left out. Equal names must stand for the same.
    """
    found: dict[str, Entry] = {}
    for name, part in parts.items() if isinstance(parts, Mapping) else zip(parts, parts, strict=True):
        entry = dict(part) if isinstance(part, Mapping) else part
        loops = entry.pop("for", {}) if isinstance(entry, dict) else {}
        if not isinstance(loops, Mapping):
            raise ValueError(f"`for` of {name!r} must be a mapping of names to lists, got {loops!r}.")
        for bound in _combinations(name, loops, variables):
            known = {**variables, **bound}
            try:
                filled, value = _filled(name, known), resolved(entry, known)
            except _Missing:
                continue
            if found.setdefault(filled, Entry(value, bound, name)).value != value:
                raise ValueError(
                    f"{filled!r} stands for two different things. Put the names of its `for` in braces into its name,"
                    " or give the two other names."
                )
    return found


def resolved(part: Any, variables: Mapping[str, Any]) -> Any:
    """With values in the place of `{from: NAME, times: FACTOR}`."""
    if isinstance(part, Mapping):
        if "from" in part and part.keys() <= {"from", "times"}:
            value = _looked_up(str(part["from"]), variables)
            return value * part["times"] if "times" in part else value
        return {key: resolved(value, variables) for key, value in part.items()}
    return [resolved(value, variables) for value in part] if isinstance(part, list | tuple) else part


def built(what: Literal["methods", "metrics"], specified: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """Objects of their descriptions, or of plain names.

    Raises:
        ValueError: if one cannot be made; with the parser's reason.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{what}", type=dict[str, kind])
    try:
        return getattr(parser.instantiate_classes(parser.parse_object({what: specifications(what, specified)})), what)
    except Exception as error:
        raise ValueError(f"`{what}`: {error}") from error


def asks_mask(metric: SampleMetric) -> bool:
    """Whether it needs a mask of the evidence."""
    return "mask" in signature(metric.update).parameters


class _Missing(Exception):
    """A variable has no value."""


def _combinations(name: str, loops: Mapping[str, Any], variables: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    lists = [
        known_values(values, variables) if isinstance(values, list) else resolved(values, variables)
        for values in loops.values()
    ]
    for key, values in zip(loops, lists, strict=True):
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise ValueError(f"`for` of {name!r}: {key} must have a list of values, got {values!r}.")
    for values in itertools.product(*lists):
        yield dict(zip(loops, values, strict=True))


def _looked_up(name: str, variables: Mapping[str, Any]) -> Any:
    value: Any = variables
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = ", ".join(map(str, value)) if isinstance(value, Mapping) else repr(value)
            raise ValueError(f"`from`: there is no variable {name!r}; there are {known}. Name it in `variables`.")
        value = value[part]
    if value is None:
        raise _Missing(name)
    return value


def _filled(name: str, variables: Mapping[str, Any]) -> str:
    try:
        return name.format(**variables)
    except (KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"{name!r}: the part in braces must be a variable or in `for`, {error} is neither.") from error
    except (TypeError, ValueError) as error:
        if any(value is None for value in variables.values()) and "{" in name:
            raise _Missing(name) from error  # a level that was not reached has no digits
        raise ValueError(f"{name!r} cannot be filled in: {error}.") from error
