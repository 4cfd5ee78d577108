"""A study as a file says it: networks x methods x metrics, variables, published numbers, claims."""

import itertools
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypedDict

from jsonargparse import ArgumentError, ArgumentParser

from lightning_xai.explainers import Explainer, with_controls
from lightning_xai.explainers.base import check_count
from lightning_xai.metrics import SampleMetric
from lightning_xai.names import specifications
from lightning_xai.results.scores import GRADIENTS
from lightning_xai.studies.entries import Coordinates, expanded, filled_in, known_values, resolved

VOC = "voc"
WEIGHT_NOISE = "weight_noise"
"""The variable that each network has a value of its own of: the level that costs 5 % of its accuracy."""
ANY_LEVEL = 0.1
"""In its place, where all that matters is that there is a level."""


class Source(TypedDict, total=False):
    """Where a network comes from: a file or the name of a configuration, the network's name where there is none; a
    checkpoint of it, without which it is trained or taken from those that the package brings; values that replace the
    configuration's, by dotted name; weights of a network that others trained, see `PretrainedClassifier`.

    Example:
        >>> from lightning_xai.studies.study import Source
        >>> Source(config="mnist_lenet", changes={"trainer.max_epochs": 3})
        {'config': 'mnist_lenet', 'changes': {'trainer.max_epochs': 3}}
    """

    config: str
    changes: dict[str, Any]
    ckpt_path: str
    weights: str


class Claims(TypedDict):
    """Claims that are corrected together (Holm) for each network: each in all `metrics`, "BETTER > WORSE" or
    `{claim: ..., for: ...}`.

    Example:
        >>> from lightning_xai.studies.study import Claims
        >>> claims = Claims(title="Sparsity", metrics=["sparseness"], pairs=["adapt_grad > smooth_grad"])
        >>> claims["pairs"]
        ['adapt_grad > smooth_grad']
    """

    title: str
    metrics: list[str]
    pairs: list[Any]


class Panel(TypedDict):
    """Maps side by side, under a title: in each of its `rows`, by name, "TITLE | METHOD" for each column or
    `{column: ..., for: ...}`; all rows have the columns of the first.

    Example:
        >>> from lightning_xai.studies.study import Panel
        >>> panel = Panel(title="Smoothing", rows={"LeNet": ["none | gradient", "input | smooth_grad"]})
        >>> list(panel["rows"])
        ['LeNet']
    """

    title: str
    rows: dict[str, list[Any]]


class _Over(TypedDict):
    over: str


class CurveOptions(_Over, total=False):
    """Curves `over` a name in some `for`, `where` others have these values; with a label of the axis, whether the
    network's `level` of weight noise is shown, and from where to where a paper sees the best (`published`).

    Example:
        >>> from lightning_xai.studies.study import CurveOptions
        >>> CurveOptions(over="n", label="number of draws")
        {'over': 'n', 'label': 'number of draws'}
    """

    where: dict[str, Any]
    label: str
    level: bool
    published: tuple[float, float]


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
        networks: By name, each with none or some of the parts of `Source`. A list of names is enough. Bounds are those
            of a configuration's AttributionCallback, where it has some; what else it says of what is explained is
            refused, and its methods, metrics and `mask` are not read: the study has its own.
        summary: A line for the list of studies.
        variables: By name. They can be given on the command line as options.
        target: Class that is explained: the "label", or the model's "prediction".
        num_samples: Test samples of each network's data, evenly spaced; null for all.
        images: Folder of pictures for networks that others trained; `voc` for VOC 2012, which has masks; null for eight
            photographs that installed packages carry.
        image_size: Side of the input of networks that others trained; null for what they were trained with.
        masks: Names of the data's masks; localization in those after the first has the mask in the metric's name.
            Without any, metrics that need masks are left out.
        proven: Explain those samples alone of which the network uses the evidence: it is right, and says something else
            when the evidence is swapped. For data modules of known truth, `TruthDataModule`.
        level_samples: Validation samples for the level of weight noise; null looks for none.
        weight_noise: The level, instead of looking for it.
        kept_under: Levels of weight noise: which share of the predicted classes do noisy networks keep?
        kept_draws: Noisy networks for that.
        equal_costs: Numbers of gradients, each with a table of the methods that spend it.
        procedure: Which tests are one family; see `compare_methods`.
        published: By metric, by method: a number, or numbers by network.
        claims: Groups of claims, see `Claims`.
        curves: Curves of a figure, see `CurveOptions`.
        grid: Grid of a figure: two names in some `for`.
        maps: Samples whose maps are shown for each network.
        panels: Figures of their maps by name; without any, one of all methods.
        tables: Whether several networks have a table each, or several metrics, with the networks across.
        batch_size: Samples at a time; what is finished is kept.
        changes: Values that replace the configurations', by dotted name; those of a network's own give way.
        fast: Values of these arguments and of variables for a version that takes a minute; its numbers mean nothing.
        whole: Whether this is all that was written; in a version with changes, claims and published numbers of methods
            that are left out are no mistakes.

    Raises:
        ValueError: when it is made by `study_of` or run, not before: naming the part that is wrong.

    Example:
        >>> from lightning_xai.studies.study import Study
        >>> each = {"for": {"n": {"from": "draws"}}, "class_path": "smooth_grad"}
        >>> each["init_args"] = {"num_draws": {"from": "n"}}
        >>> study = Study(
        ...     source="Does the number of draws matter?",
        ...     methods={"gradient": "gradient", "sg_{n}": each},
        ...     metrics=["sparseness"],
        ...     networks=["mnist_lenet"],
        ...     variables={"draws": [10, 50]},
        ... )
        >>> list(study.explainers()), study.directions()["sparseness"]
        (['gradient', 'sg_10', 'sg_50', 'edges', 'random'], True)
    """

    source: str
    methods: list[str] | dict[str, Any]
    metrics: list[str] | dict[str, Any]
    networks: list[str] | dict[str, Source]
    summary: str = ""
    variables: dict[str, Any] = field(default_factory=dict)
    target: Literal["label", "prediction"] = "label"
    num_samples: int | None = 256
    images: str | None = None
    image_size: int | None = None
    masks: list[str] = field(default_factory=list)
    proven: bool = False
    level_samples: int | None = None
    weight_noise: float | None = None
    kept_under: list[Any] = field(default_factory=list)
    kept_draws: Any = 10
    equal_costs: list[int] | dict[str, Any] = field(default_factory=list)
    procedure: Literal["all_pairs", "published"] = "all_pairs"
    published: dict[str, dict[str, float | dict[str, float]]] = field(default_factory=dict)
    claims: list[Claims] = field(default_factory=list)
    curves: CurveOptions | None = None
    grid: list[str] | None = None
    maps: int = 0
    panels: dict[str, Panel] = field(default_factory=dict)
    tables: Literal["network", "metric"] = "network"
    batch_size: int = 64
    changes: dict[str, Any] = field(default_factory=dict)
    fast: dict[str, Any] = field(default_factory=dict)
    whole: bool = True

    @property
    def named_networks(self) -> dict[str, Source]:
        return self.networks if isinstance(self.networks, dict) else {name: {} for name in self.networks}

    def changes_of(self, network: str) -> dict[str, Any]:
        """Values that replace those of a network's configuration."""
        return {**self.named_networks[network].get("changes", {}), **self.changes}

    def changed(self, changes: Mapping[str, Any]) -> "Study":
        """With other values of its arguments and variables."""
        variables = {name: changes.get(name, value) for name, value in self.variables.items()}
        own = {name: value for name, value in changes.items() if name not in variables}
        return replace(self, variables=variables, whole=False, **own)

    def at(self, level: float | None = None) -> dict[str, Any]:
        """The variables, with a network's level of weight noise; None where it was not reached."""
        level = level if self.weight_noise is None else self.weight_noise
        return {**self.variables, WEIGHT_NOISE: level if level is not None and math.isfinite(level) else None}

    def explainers(self, level: float | None = None) -> dict[str, Explainer]:
        """The methods by name, with the controls."""
        return with_controls(self._built("methods", Explainer, level))

    def measures(self, level: float | None = None) -> dict[str, SampleMetric]:
        """The metrics by name; without masks those alone that need none."""
        found = self._built("metrics", SampleMetric, level)
        return {name: metric for name, metric in found.items() if self.masks or not asks_mask(metric)}

    def directions(self) -> dict[str, bool | None]:
        """`higher_is_better` of all metrics, those in further masks too."""
        found = self._built("metrics", SampleMetric, ANY_LEVEL)
        known = {name: metric.higher_is_better for name, metric in found.items()} | {GRADIENTS: None}
        masked = [(in_mask(name, mask), name) for mask in self.masks[1:] for name in found if asks_mask(found[name])]
        return known | {of_mask: known[name] for of_mask, name in masked}

    def specified(self, part: Literal["methods", "metrics"], level: float | None = None) -> dict[str, Any]:
        """What the file says of methods or metrics, with the variables filled in."""
        return {name: entry.value for name, entry in expanded(getattr(self, part), self.at(level)).items()}

    def _built(self, part: Literal["methods", "metrics"], kind: Any, level: float | None) -> dict[str, Any]:
        """Objects of their descriptions, or of plain names.

        Raises:
            ValueError: if one cannot be made; with the parser's reason.
        """
        specified = {part: specifications(part, self.specified(part, level))}  # its errors name the part themselves
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument(f"--{part}", type=dict[str, kind])
        try:
            return getattr(parser.instantiate_classes(parser.parse_object(specified)), part)
        except Exception as error:
            raise ValueError(f"`{part}`: {error}") from error

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
                line = filled_in(template, {**self.at(level), **entry.bound})
                found.setdefault(line, {})[float(entry.bound[over])] = method
        return {line: dict(sorted(points.items())) for line, points in found.items()}

    def pairs(
        self, key: Literal["claim", "column"], parts: Sequence[Any], level: float | None
    ) -> list[tuple[str, str]]:
        """(better, worse) of each claim, (title, method) of each column."""
        between, form, texts = *_FORMS[key], list[str]()
        for part in parts:
            entry = dict(part) if isinstance(part, Mapping) else {key: part}
            if not isinstance(entry.get(key), str):
                raise ValueError(f"`{key}` must be a text, or a mapping must have it, got {part!r}.")
            texts += expanded({entry.pop(key): entry}, self.at(level))
        if wrong := [text for text in texts if text.count(between) != 1]:
            raise ValueError(f"`{key}` must read {form!r}, got {wrong[0]!r}.")
        return [tuple(text.split(between)) for text in texts]  # type: ignore[misc]

    def columns(self, panel: Panel, level: float | None = None) -> dict[str, dict[str, str]]:
        """By row of a panel, the methods by column."""
        return {row: dict(self.pairs("column", columns, level)) for row, columns in panel["rows"].items()}


_FORMS = {"claim": (" > ", "BETTER > WORSE"), "column": (" | ", "TITLE | METHOD")}


def study_of(values: Any, where: str | Path = "study", taken: Sequence[str] = ()) -> Study:
    """The study of a file.

    Args:
        values: As YAML has them.
        where: The file, for messages.
        taken: Names that variables must not have, as other options have them.

    Raises:
        ValueError: if they are no mapping, or have a key that `Study` does not know, lack one, or have one of another
            type, or as `check`.

    Example:
        >>> import yaml
        >>> from lightning_xai.studies.study import study_of
        >>> text = '''
        ... source: Is AdaptGrad sparser than SmoothGrad?
        ... networks: [mnist_lenet]
        ... methods: [smooth_grad, adapt_grad]
        ... metrics: [sparseness]
        ... claims: [{title: Sparsity, metrics: [sparseness], pairs: [adapt_grad > smooth_grad]}]
        ... '''
        >>> study_of(yaml.safe_load(text)).num_samples
        256
        >>> study_of({"source": "nothing else"})
        Traceback (most recent call last):
        ...
        ValueError: study: a study needs methods, metrics, networks.
    """
    _check_file(values, where, taken)
    study = Study(**values)
    check(study)
    return study


_NAMED = ("methods", "metrics", "variables")


def _check_file(values: Any, where: str | Path, taken: Sequence[str]) -> None:
    """Refuse what `Study` could not be made of."""
    known = [one.name for one in fields(Study) if one.name != "whole"]
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected a mapping with {', '.join(known[:4])}, ...; got {type(values).__name__}.")
    if missing := [name for name in known[:4] if not values.get(name)]:
        raise ValueError(f"{where}: a study needs {', '.join(missing)}.")
    _refuse_unknown(str(where), "part of a study", values, known)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Study, as_group=False, skip={"whole"})
    try:
        parser.parse_object(dict(values))
        parser.parse_object(
            {**values, **{name: value for name, value in values.get("fast", {}).items() if name in known}}
        )
    except ArgumentError as error:
        raise ValueError(f"{where}: {error}") from error
    if wrong := [name for part in _NAMED for name in values.get(part, ()) if not isinstance(name, str)]:
        raise ValueError(f"{where}: names of {', '.join(_NAMED)} must be texts, got {wrong[0]!r}; put it in quotes.")
    variables = values.get("variables", {})
    if wrong := [name for name in variables if not name.isidentifier() or name in (*known, *taken)]:
        own = "names of their own, of letters, digits and _"
        raise ValueError(f"{where}: `variables` must have {own}, got {wrong[0]!r}.")
    _refuse_unknown(
        f"{where}: `fast`", "argument or variable of the study", values.get("fast", {}), [*known, *variables]
    )


def check(study: Study) -> None:
    """Refuse what is wrong in the study itself: what its parts say of each other.

    Raises:
        ValueError: naming the part.
    """
    known = study.directions()
    check_count("maps", study.maps, 0)
    if GRADIENTS in study.metrics:
        raise ValueError(f"`metrics`: the name {GRADIENTS!r} is taken, for what the methods spend.")
    if not study.measures(ANY_LEVEL):
        raise ValueError(f"`metrics`: all of {', '.join(study.metrics)} need `masks`, and the study has none.")
    known_values(study.kept_under, study.at(ANY_LEVEL))
    _, costs = resolved([study.kept_draws, study.equal_costs], study.variables)
    if not isinstance(costs, list) or not all(isinstance(cost, int) and cost > 0 for cost in costs):
        raise ValueError(f"`equal_costs` must be a list of numbers of gradients, got {costs!r}.")
    methods = replace(study, weight_noise=None).explainers(ANY_LEVEL)
    _refuse_unknown("`published`", "metric of the study", study.published, known)
    titles, claimed = [group["title"] for group in study.claims], list[str]()
    judged = [metric for metric, higher_is_better in known.items() if higher_is_better is not None]
    for group in study.claims:
        if titles.count(group["title"]) > 1:
            raise ValueError(f"`claims`: two groups have the title {group['title']!r}.")
        _refuse_unknown("`claims`", "metric of the study that has a better side", group["metrics"], judged)
        claimed += itertools.chain(*study.pairs("claim", group["pairs"], ANY_LEVEL))
    shown = [row for panel in study.panels.values() for row in study.columns(panel, ANY_LEVEL).values()]
    if study.whole:
        _refuse_unknown("`panels`", "method of the study", [name for row in shown for name in row.values()], methods)
        _refuse_unknown("`claims`", "method of the study", claimed, methods)
        _refuse_unknown("`published`", "method of the study", itertools.chain(*study.published.values()), methods)
    _check_figures(study)


def _refuse_unknown(part: str, kind: str, names: Iterable[str], known: Collection[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        near = get_close_matches(unknown[0], known, 1)
        hint = f" did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{part}: {unknown[0]!r} is no {kind};{hint} there are {', '.join(sorted(known))}.")


def _check_figures(study: Study) -> None:
    """Curves and grids are over numbers in the `for` of some methods, and each cell has one method."""
    coordinates, grid = study.coordinates(ANY_LEVEL), study.grid or []
    varied = {name: value for bound in coordinates.values() for name, value in bound.items()}
    drawn = [("curves", study.curves["over"])] if study.curves else []
    for part, name in drawn + [("grid", name) for name in grid]:
        if name not in varied:
            names = ", ".join(varied) or "none"
            raise ValueError(f"`{part}`: no method has {name!r} in its `for`; there are {names}.")
        if not isinstance(varied[name], int | float):
            raise ValueError(f"`{part}`: {name!r} must have numbers for its values, got {varied[name]!r}.")
    if len(grid) not in (0, 2):
        raise ValueError(f"`grid` must be two names, got {grid!r}.")
    cells: dict[tuple[Any, ...], str] = {}
    for method, bound in coordinates.items() if grid else ():
        place = tuple(bound.get(name) for name in grid)
        if None not in place and cells.setdefault(place, method) != method:
            raise ValueError(f"`grid`: {cells[place]} and {method} have the same cell. Draw one kind of method.")


def carried_studies() -> dict[str, Path]:
    """The files that the package brings, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def asks_mask(metric: SampleMetric) -> bool:
    """Whether it needs a mask of the evidence."""
    return "mask" in signature(metric.update).parameters


def in_mask(metric: str, mask: str) -> str:
    """The name of a metric in a further mask."""
    return f"{metric}_of_{mask}"
