"""The callback that says since when a network has been deciding by a shortcut, while it trains."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from lightning_xai.callbacks.files import thin_out
from lightning_xai.callbacks.processes import attempted, raise_together
from lightning_xai.callbacks.recurring import RecurringCallback, Stage, epoch_and_step
from lightning_xai.callbacks.samples import Samples
from lightning_xai.callbacks.summary import PANELS, SHORTCUT
from lightning_xai.data.input_space import InputSpace
from lightning_xai.data.truth import TruthDataModule
from lightning_xai.evaluation import OnError
from lightning_xai.explainers import Explainer, Gradient
from lightning_xai.explainers.base import check_count, check_kind, check_level, check_rows, parse_bounds
from lightning_xai.explainers.chunks import in_chunks
from lightning_xai.explainers.conditions import Conditions
from lightning_xai.explainers.precision import Precision, in_precision
from lightning_xai.functional.warn import described, warn_caller
from lightning_xai.outputs import Output
from lightning_xai.reporting.loggers import log_picture, log_table
from lightning_xai.reporting.saving import save_figure
from lightning_xai.reporting.shortcut_figure import MOST_FINDINGS, Example, shortcut_figure
from lightning_xai.reporting.shortcuts import sentences, shortcut_table
from lightning_xai.results.shortcuts import (
    SHORTCUTS,
    Finding,
    ShortcutReport,
    accepted,
    alike,
    as_record,
    read_shortcuts,
    report_of,
    stage_of,
    write_shortcuts,
)
from lightning_xai.shortcuts import find_shortcuts
from lightning_xai.shortcuts.audit import LEAST, audited, check_operators
from lightning_xai.shortcuts.examples import shown_in
from lightning_xai.shortcuts.find import in_first_half


class ShortcutSentinel(RecurringCallback):
    """Looks for shortcuts in the same samples at every validation and test end: finds, proves, dates and shows them.

    A shortcut is a region, or an operator on whole pictures, that decides a class and should not: it is found on one
    half of the samples and proven on the other by interventions beside matched controls (`find_shortcuts`). What was
    proven once is carried along, and looked at again at each later epoch. Labels are not needed.

    Logs `xai/shortcut`, the share of the predictions that depend on proven shortcuts, and `xai/shortcut_of/<class>` for
    each class, 0 for one that is not predicted, for `ModelCheckpoint` and `EarlyStopping` to monitor; of a class's name
    what not all loggers admit is `_`. They are NaN at a look at which fewer than two classes are predicted: a
    checkpoint that monitors them takes that for the worst, and `EarlyStopping` ends the training unless it has
    `check_finite: false`. Writes a report a look to `xai/shortcuts.json` (`results.shortcuts.read_shortcuts`), beside
    the run's checkpoints; and pictures before and after to `xai/panels/`, where a class is proven that never was
    before, and at the last epoch.
    TensorBoard, Weights & Biases and MLflow get the pictures and a table too. At the end the conclusion is told: which
    classes, since when, by what, and what proves it.

    Training goes on exactly as it would without it. Samples, loaders, files, resumed trainings and `test` as in
    `AttributionCallback`; a new training sets the file of an earlier one aside. The first of several processes looks,
    the others wait, and all log the same.

    Attributes:
        reports: By stage, in order of time.
        folder: Where the latest files were written; None before, and in a `fast_dev_run`, which tries one sample.

    Args:
        num_samples: Samples looked at, spread evenly over the rows.
        every_n_epochs: Look after every n-th epoch of training; validation and test runs are always looked at. By
            default after each, so that what is proven has its epoch and can be monitored. A look takes as many passes
            whatever the network is and however many samples it is trained on (`fit --dry_run` tells them): about a
            tenth of an epoch of a LeNet on MNIST, up to a fifth where all ten classes are proven, and less of larger
            networks. 2 halves that.
        mask: Which mask of the data is the known evidence; null for the one that a `TruthDataModule` says, or else the
            first where there are masks; false for none: then only what is sufficient by paste in pictures of five other
            classes is a shortcut.
        operators: What changes a picture without hiding the evidence: of color, frequency, background; null for what a
            `TruthDataModule` says, or none.
        accept: What is evidence whatever is proven of it: names as in the table, `place/24x4x5x5` for all classes or
            `3:place/24x4x5x5` for one, or mappings with `label`, `kind` and `box`.
        method: The explainer that says where to look, one gradient a picture.
        alpha: Chance that anything is said to decide that does not, in one look.
        panel_size: Pictures of each finding in the panel; 0 for no panel.
        bounds: As in `AttributionCallback`, like all arguments that follow.
        seed: Seed of halves, controls and donors.
        batch_size: Samples read at a time.
        max_rows: Rows that pass through the network at once.
        precision: As in `AttributionCallback`.
        unpack: Likewise.
        name: Likewise: metrics are then `xai/<name>/shortcut`.
        output: Whose classes are looked at.
        forward: Likewise, without `carried`.
        keep_panels: Likewise.
        on_error: "raise", or with "warn" a look that fails is told, and logs NaN.
        summary: Whether the conclusion is printed at the end of a run.

    Example:
        >>> from lightning_xai.callbacks import ShortcutSentinel
        >>> sentinel = ShortcutSentinel(num_samples=512, accept=["place/24x4x5x5"])
        >>> sentinel.reports  # none before the first validation end
        {}
    """

    def __init__(
        self,
        num_samples: int = 512,
        every_n_epochs: int = 1,
        mask: bool | str | None = None,
        operators: list[str] | None = None,
        accept: list[str | dict[str, Any]] | None = None,
        method: Explainer | str = Gradient(),
        alpha: float = 0.05,
        panel_size: int = 6,
        bounds: Any = None,  # (low, high); tensors, which a command line cannot name, as well
        seed: int = 0,
        batch_size: int = 64,
        max_rows: int | None = None,
        precision: Precision = "32-true",
        unpack: Callable[[Any], Samples] | None = None,
        name: str | None = None,
        output: Output | str = "logit",
        forward: dict[str, Any] | None = None,
        keep_panels: int | None = 20,
        on_error: OnError = "raise",
        summary: bool = True,
    ) -> None:
        given = "prediction", bounds, seed, batch_size, unpack, name, output, forward, 1, max_rows, precision
        check_kind("method", method, Explainer | str, "an explainer such as lightning_xai.Gradient(), or a plain name")
        methods = {"method": method}
        super().__init__(every_n_epochs, summary, "its reports", methods, num_samples, *given, on_error=on_error)
        check_level("alpha", alpha)
        check_count("panel_size", panel_size, 0)
        check_count("keep_panels", 2 if keep_panels is None else keep_panels, 2)
        known_evidence(None, mask)  # refuses what it cannot be
        if (forward or {}).get("carried"):
            raise ValueError(
                f"`forward`: ShortcutSentinel swaps parts of pictures between samples, and what is carried along, "
                f"{forward['carried']}, would not go with them. Look at a module that needs the pictures alone."  # type: ignore[index]
            )
        self.method = cast(dict[str, Explainer], self.methods)["method"]
        self.given_mask, self.operators, self.alpha = mask, operators, alpha
        self.accept: list[Any] = [accepted(own) for own in accept or ()]
        self.panel_size, self.keep_panels = panel_size, keep_panels
        self.reports: dict[str, list[ShortcutReport]] = {}
        self.folder: Path | None = None
        self.panel: Path | None = None
        self._samples: dict[str, Samples] = {}
        self._begins = self._resumed = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._samples.clear()
        self.learn_evidence(getattr(trainer, "datamodule", None))
        if stage == "fit":  # before a checkpoint's state is loaded
            self.reports = {}

    def learn_evidence(self, data: Any) -> None:
        """Which masks of a data module, or of none, are read as the known evidence."""
        self.mask, self._masked = known_evidence(data, self.given_mask)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._files.begin(trainer, self._output(trainer) / SHORTCUTS)
            self._begins, self._resumed = True, bool(trainer.ckpt_path)

    def state_dict(self) -> dict[str, Any]:
        """What was proven at each look, in plain types, safe to load; the samples of the last look alone."""
        return {"reports": {stage: [_lean(r, r is own[-1]) for r in own] for stage, own in self.reports.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.reports = {stage: list(map(report_of, own)) for stage, own in state_dict["reports"].items()}

    def measure(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        for own in self.staged(trainer, stage):
            self._measure(trainer, pl_module, own)

    def _rehearse(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> set[str]:
        with isolate_rng(), torch.inference_mode(False):
            samples = self._chosen(trainer, pl_module, stage)
            number = self.scores(pl_module, samples.images[: self.batch_size]).shape[1]
            return set(self._names(self.class_names(pl_module, getattr(trainer, "datamodule", None), number), stage))

    def _names(self, class_names: Sequence[str], stage: str) -> list[str]:
        """Of the metrics: the scalar, then those of the classes."""
        whole = f"{self.prefixed(stage)}/{SHORTCUT}"  # which in MLflow's files nothing else may begin with, and a slash
        plain = distinct([re.sub(r"[^\w.\- :]", "_", name) for name in class_names])
        return [whole, *(f"{whole}_of/{name}" for name in plain)]

    def _measure(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        with isolate_rng(), torch.inference_mode(False):
            try:
                samples = self._chosen(trainer, pl_module, stage)
                if trainer.fast_dev_run:  # type: ignore[attr-defined]
                    return
                report = self._report(trainer, pl_module, samples, stage)
            except Exception as error:  # in all processes
                if self.on_error == "raise":
                    raise
                warn_caller(f"{type(self).__name__} has no report of this {stage} end: {described(error)}")
                whole = self._names((), stage)[0]
                for key in {whole, *(key for key in self._logged or () if key.startswith(f"{whole}_of/"))}:
                    pl_module.log(key, math.nan, batch_size=1)
                return
            names = report.settings["class_names"]
            none = math.nan if math.isnan(report.dependence) else 0.0
            shares = [report.dependence, *(report.by_class.get(label, none) for label in range(len(names)))]
            for key, share in zip(self._names(names, stage), shares, strict=True):
                pl_module.log(key, float(share), batch_size=1)
            self._keep(report, stage)
            folder = self._output(trainer)
            if self._files.attempt(partial(self._write, trainer, pl_module, samples, stage, folder)):
                self.folder = folder

    def _keep(self, report: ShortcutReport, stage: str) -> None:
        earlier = self.reports.get(stage, [])
        if earlier and earlier[-1].samples != report.samples:
            rank_zero_info(f"{type(self).__name__} dates anew: these are other {stage} samples than before.")
            earlier = []
        moment = report.epoch, report.step
        self.reports[stage] = [*(own for own in earlier if (own.epoch, own.step) != moment), report]

    def _chosen(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> Samples:
        """The same ones for a whole run; in the processes that do not look the first one alone."""
        if stage not in self._samples:
            found, failure = attempted(lambda: self.chosen_samples(trainer, pl_module, stage, whole=True))
            raise_together(trainer, failure)
            samples, _ = cast(tuple[Samples, Any], found)
            samples = self.looked_at(samples, getattr(trainer, "datamodule", None))
            self._samples[stage] = samples if trainer.is_global_zero else samples.select(torch.arange(1))
        return self._samples[stage]

    def looked_at(self, samples: Samples, data: Any) -> Samples:
        """Samples without masks that are no evidence; those that cannot be looked at are refused."""
        if samples.images.ndim != 4:
            raise ValueError(
                f"{type(self).__name__} looks for shortcuts in images (batch, channel, height, width), got inputs "
                f"of the shape {tuple(samples.images.shape)}. Leave it out of this training."
            )
        if not self._masked:
            samples = replace(samples, masks=None)
        operators = keeping_evidence(data, self.operators, samples.masks is not None)
        check_operators(operators, samples.images, samples.masks)
        return samples

    def _report(self, trainer: Trainer, pl_module: LightningModule, samples: Samples, stage: str) -> ShortcutReport:
        """Of this look: the first process's, in all of them."""
        data, moment = getattr(trainer, "datamodule", None), epoch_and_step(trainer)
        work = partial(self.search, pl_module, data, samples, stage, moment)
        found, failure = attempted(work) if trainer.is_global_zero else (None, None)
        raise_together(trainer, failure)
        return cast(ShortcutReport, trainer.strategy.broadcast(found))

    def search(
        self, module: LightningModule, data: Any, samples: Samples, stage: str, moment: tuple[int, int]
    ) -> ShortcutReport:
        """Look for shortcuts in samples on the module's device, and at those that this stage's earlier reports have.

        Args:
            module: Which is examined.
            data: Its data module, or None.
            samples: Looked at.
            stage: Whose samples they are.
            moment: Epoch and step that the weights are of.
        """
        conditions, model = InputSpace(module, data).completed(self.conditions), self.adapted(module)
        with in_precision(model, conditions.precision):
            try:
                known = carried(self.reports.get(stage, ()))
                report = self.found(model, data, samples, conditions, carried=known, epoch=moment[0], step=moment[1])
            except ValueError:
                masked = slice(None) if samples.masks is None else samples.masks.flatten(1).any(1).cpu()
                predicted, index = (
                    self.scores(module, samples.images).argmax(1).cpu()[masked],
                    samples.index.cpu()[masked],
                )
                if not (why := too_early(predicted, index, conditions.seed)):
                    raise
                about = tuple(index.tolist()), {"reason": why}
                report = ShortcutReport("INCONCLUSIVE", math.nan, {}, (), *moment, *about)
        names = self.class_names(module, data, self.scores(module, samples.images[: self.batch_size]).shape[1])
        shape = list(samples.images.shape[2:])
        return replace(report, settings={**report.settings, "stage": stage, "class_names": names, "shape": shape})

    def found(
        self, model: nn.Module, data: Any, samples: Samples, conditions: Conditions, **options: Any
    ) -> ShortcutReport:
        """What `find_shortcuts` says of a network, with these arguments of the callback.

        Args:
            model: From a tensor to a tensor.
            data: The data module, or None.
            samples: Looked at.
            conditions: The callback's, completed.
            options: Further arguments.
        """
        return find_shortcuts(
            model,
            samples.images,
            masks=samples.masks,
            bounds=conditions.bounds,
            index=samples.index,
            operators=keeping_evidence(data, self.operators, samples.masks is not None),
            accept=self.accept,
            alpha=self.alpha,
            seed=conditions.seed,
            max_rows=conditions.max_rows,
            **({"method": self.method, "output": self.output} | options),
        )

    def scores(self, module: LightningModule, images: Tensor) -> Tensor:
        """Of all classes, (samples, classes); what is predicted is the greatest."""
        model = self.adapted(module)
        with self.conditions.explaining(model), torch.no_grad():
            return in_chunks(
                lambda rows: self.output.scores(check_rows(model(rows), len(rows))),
                model,
                self.conditions.max_rows,
                images,
            )

    def class_names(self, module: LightningModule, data: Any, number: int) -> list[str]:
        """Of all outputs, each another: a name that several have gets the class's number, which is one without."""
        known = InputSpace(module, data).class_names or ()
        return distinct([str(known[label]) if label < len(known) else str(label) for label in range(max(2, number))])

    def examples(
        self, module: LightningModule, data: Any, samples: Samples, report: ShortcutReport
    ) -> list[tuple[Finding, Sequence[Example]]]:
        """Pictures that show what is proven, before and after, with the strongest findings first."""
        conditions, model = InputSpace(module, data).completed(self.conditions), self.adapted(module)
        low, high = parse_bounds(conditions.bounds) or (samples.images.min().cpu(), samples.images.max().cpu())

        def pixels(image: Tensor) -> np.ndarray:
            return ((image.cpu() - low) / (high - low)).float().clamp(0, 1).numpy()

        def example(finding: Finding, found: Any) -> Example:
            told = found.probability, found.probability_after
            pictures = pixels(found.before), pixels(found.after)
            return Example(*pictures, edges(found.region.cpu()), told, (finding.label, found.predicted_after))

        chosen = carried([report])[: MOST_FINDINGS if self.panel_size else 0]
        given = conditions.bounds, samples.index, self.output, conditions.seed, conditions.max_rows
        with in_precision(model, conditions.precision), audited(model, samples.images, samples.masks, *given) as audit:
            shown = [(finding, shown_in(audit, finding, self.panel_size)) for finding in chosen]
        return [(finding, [example(finding, own) for own in found]) for finding, found in shown]

    def _write(self, trainer: Trainer, pl_module: LightningModule, samples: Samples, stage: str, folder: Path) -> None:
        """The reports, and a panel where something is proven; by the first process."""
        if not trainer.is_global_zero:
            return
        first, reports = self._begins or folder != self.folder, self.reports[stage]
        self._make_room(trainer, folder)
        write_shortcuts(folder, *(reports if first else reports[-1:]))
        report = reports[-1]
        if not (self.panel_size and report.shortcuts and self._is_news(trainer, reports)):
            return
        examples = self.examples(pl_module, getattr(trainer, "datamodule", None), samples, report)
        self.panel = path = write_panel(folder, reports, examples)
        for logger in trainer.loggers:
            log_picture(logger, f"{self.prefix}/{SHORTCUT}/panel/{stage}", path, report.step)
        if self.keep_panels is not None:
            thin_out(folder / PANELS, path.name.partition("-epoch=")[0], report.step, self.keep_panels)

    def _is_news(self, trainer: Trainer, reports: Sequence[ShortcutReport]) -> bool:
        """Whether a class is proven that never was before, or there is no next look: pictures take time."""
        before = {own.label for report in reports[:-1] for own in report.shortcuts}
        end = trainer.max_epochs
        last = end is not None and end >= 0 and trainer.current_epoch + self.every_n_epochs >= end
        return trainer.state.fn != "fit" or last or any(own.label not in before for own in reports[-1].shortcuts)

    def _make_room(self, trainer: Trainer, folder: Path) -> None:
        """A new training begins with a file of its own, a resumed one with the looks of its checkpoint."""
        if not self._begins or trainer.state.fn != "fit":
            return
        self._begins = False
        path = folder / SHORTCUTS
        if self._resumed and path.exists():
            tests = [report for report in read_shortcuts(folder) if stage_of(report).startswith("test")]
            path.unlink()
            write_shortcuts(folder, *tests)
        elif path.exists():
            other = next(p for n in count(1) if not (p := path.with_stem(f"{path.stem}-{n}")).exists())
            path.rename(other)
            rank_zero_warn(
                f"{type(self).__name__}: {path} holds reports of an earlier training in this folder; "
                f"they are in {other.name} now."
            )

    def conclude(self, trainer: Trainer) -> None:
        """Tell what was found in this kind of run, and hand a table of it to the loggers."""
        kind = "test" if trainer.state.fn == "test" else "validate"
        for stage, reports in self.reports.items():
            if not trainer.is_global_zero or not reports or stage.partition("/")[0] != kind:
                continue
            table = shortcut_table(reports[-1])
            for logger in trainer.loggers if self.folder is not None else ():
                log_table(logger, f"{self.prefix}/{SHORTCUT}/table/{stage}", table, reports[-1].step)
        if self.summary and trainer.is_global_zero:
            print_shortcuts(self, trainer)


def print_shortcuts(callback: ShortcutSentinel, trainer: Trainer) -> None:
    """The conclusion of a run's kind of samples, and where its files are, to the terminal."""
    from lightning_xai.reporting.console import console  # rich, which is to be imported behind Lightning

    terminal, kind = console(), "test" if trainer.state.fn == "test" else "validate"
    for stage, reports in callback.reports.items():
        if reports and stage.partition("/")[0] == kind:
            for line in sentences(reports):
                terminal.tell(line)
    if callback.folder is not None:
        terminal.print(f"{'shortcuts':<16} {callback.folder / SHORTCUTS}")
        if callback.panel is not None:
            terminal.print(f"{'before and after':<16} {callback.panel}")


def distinct(names: Sequence[str]) -> list[str]:
    """The names; what several have with its number."""
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names)]


def edges(region: Tensor) -> tuple[int, ...]:
    """Top, left, height and width of what a region is within; () for the whole picture, or nothing of it."""
    if region.all() or not region.any():
        return ()
    (top, bottom), (left, right) = ((int(p.min()), int(p.max())) for p in region.nonzero().unbind(1))
    return top, left, bottom - top + 1, right - left + 1


def known_evidence(data: Any, given: bool | str | None) -> tuple[str | None, bool]:
    """Name of the mask of the known evidence, None for the first one, and whether there is any; see `mask`.

    Args:
        data: A data module, which may know it once it is set up; or None.
        given: The argument `mask`.
    """
    if given is True:
        raise ValueError("`mask` must be the name of a mask, null, or false for no known evidence; got True.")
    chosen = data.evidence if isinstance(data, TruthDataModule) and given is None else given
    return chosen or None, chosen is None or bool(chosen)


def too_early(predicted: Tensor, index: Tensor, seed: int) -> str | None:
    """Why a network cannot be looked at yet: it predicts hardly more than one class. None if it can be."""
    first = in_first_half(index, seed)
    counts = [
        (int((predicted[first] == label).sum()), int((predicted[~first] == label).sum()))
        for label in predicted.unique()
    ]
    if sum(min(pair) >= LEAST for pair in counts) > 1:
        return None
    return f"Less than two classes are predicted for {LEAST} samples in each half of the {len(index)} looked at."


def keeping_evidence(data: Any, given: Sequence[str] | None, masked: bool) -> tuple[str, ...]:
    """The operators that keep the evidence readable: those given, or what the data module says of what can be tested.

    Args:
        data: A data module, or None.
        given: The argument `operators`.
        masked: Whether there are masks, without which there is no background.
    """
    if given is not None:
        return tuple(given)
    known = data.operators if isinstance(data, TruthDataModule) else ()
    return tuple(name for name in known if masked or name != "background")


def write_panel(
    folder: Path, reports: Sequence[ShortcutReport], examples: Sequence[tuple[Finding, Sequence[Example]]]
) -> Path:
    """Draw the last report's findings, into `panels` of a folder."""
    report, stage = reports[-1], stage_of(reports[-1])
    file = f"{SHORTCUT}-{stage.replace('/', '-')}-epoch={report.epoch:03d}-step={report.step}.png"
    title = stage if report.epoch < 0 else f"{stage}, epoch {report.epoch}, step {report.step}"
    save_figure(shortcut_figure(reports, examples, title), folder / PANELS / file)
    return folder / PANELS / file


def carried(reports: Sequence[ShortcutReport]) -> list[Finding]:
    """What was ever proven a shortcut: of hypotheses about the same thing the one proven last."""
    found: list[Finding] = []
    for own in chain.from_iterable(report.shortcuts for report in reversed(reports)):
        if not any(alike(own, other) for other in found):
            found.append(own)
    return found


def _lean(report: ShortcutReport, last: bool) -> dict[str, Any]:
    """What is needed to go on: of a checkpoint's size the rest would be most."""
    decisive = tuple(own for own in report.findings if own.verdict in ("SHORTCUT", "EVIDENCE"))
    return as_record(replace(report, findings=decisive, samples=report.samples if last else ()))
