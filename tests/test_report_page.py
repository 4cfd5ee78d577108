"""The page of a report: its numbers come from the scores in it, it asks for nothing, and it obeys no name."""

import base64
import hashlib
import io
import itertools
import json
import math
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from lightning_xai.callbacks.maps import write_sheet
from lightning_xai.cli import main
from lightning_xai.evaluation import Evaluation
from lightning_xai.experiments.findings import find
from lightning_xai.reporting.page.beside import with_room
from lightning_xai.reporting.page.charts import Axis, calibration_of, curves_of, scatter_of
from lightning_xai.reporting.page.data import FIELDS
from lightning_xai.reporting.page.numbers import text as words
from lightning_xai.reporting.page.render import _foldable, render
from lightning_xai.reporting.page.sentences import sentences
from lightning_xai.reporting.tables import write_validations
from lightning_xai.results.findings import Findings
from lightning_xai.results.pareto import Validation
from lightning_xai.results.sanity import Verdict
from lightning_xai.results.scores import Scores
from lightning_xai.results.store import append_scores, read_scores, write_class_names, write_directions
from lightning_xai.statistics.intervals import mean_interval

METRICS = {"relevance_rank_accuracy": True, "auroc": True, "inherent_noise": False, "own <metric>": None}
METHODS = ("smooth_grad", "gradient", "saliency", "edges", "random")
NASTY = "\"><img src=x onerror=alert(1)>{{7*7}}</script><script>alert(2)</script>\x1b[2J\u202e&amp;'"


def write_run(
    folder, names=METHODS, seed=0, metrics=METRICS, num_samples=12, validations=3, undefined=True, explained=None
):
    """A run with validations, one sample undefined for one method, and what is known of the samples."""
    random = np.random.default_rng(seed)
    path = folder / "xai" / "scores"
    samples = [*range(0, 2 * num_samples, 2)]
    for epoch in range(validations):
        values = {
            name: {m: random.uniform(0, 1, num_samples) / (1 + place) for m in metrics}
            for place, name in enumerate(names)
        }
        if undefined:
            values[names[1]]["auroc"][3] = np.nan
        scores = Scores.from_values("validate", epoch, 10 * (epoch + 1), np.array(samples), values)
        known = {
            **{"sample": samples, "row": samples, "target": [s % 3 for s in samples]},
            **{"predicted": [s % 3 if s else 9 for s in samples], "probability": [0.75] * num_samples},
            "fingerprint": [f"{s:x}" for s in samples],
        }
        known |= {} if explained is None else {"explained": [explained] * num_samples}
        append_scores(path, scores, samples=known)
    write_directions(path, metrics)
    return folder


class Page(HTMLParser):
    """The marked numbers with their texts, the data of programs, tags and texts."""

    def __init__(self, text):
        super().__init__()
        self.numbers, self.tags, self.plain, self.scripts, self.open = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "circle", "line", "input", "br", "img"):
            self.open.append(tag)
        if tag == "data":
            self.numbers.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, text):
        if self.open[-1:] == ["data"]:
            self.numbers[-1] = self.numbers[-1][0], self.numbers[-1][1] + text
        (self.scripts if self.open[-1:] in (["script"], ["style"]) else self.plain).append(text)

    def data(self, name):
        place = next(
            n
            for n, (_, a) in enumerate(t for t in self.tags if t[0] in ("script", "style") and "src" not in t[1])
            if a.get("id") == name
        )
        return json.loads(self.scripts[place])


@pytest.fixture(scope="module", autouse=True)
def few_resamples():
    """For all pages here: what a page says is made again with as many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_xai.statistics.intervals.NUM_RESAMPLES", 199)
        yield


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("run") / "version_0")
    main(["report", str(folder)])
    return folder / "xai" / "report.html"


def tables(page):
    """Of the evaluation that is reported: by metric, the methods' scores of the samples that all have defined."""
    (evaluation,) = [e for e in page.data("scores") if (e["stage"], e["epoch"]) == ("validate", 2)]
    found = {}
    for metric, methods in evaluation["values"].items():
        values = np.array(list(methods.values()), dtype=float)
        found[metric] = dict(zip(methods, values[:, np.isfinite(values).all(0)], strict=True))
    return found, evaluation


def holm(p_values):
    """Step down: the k-th smallest times the number not yet rejected, never falling."""
    order, running, found = np.argsort(p_values), 0.0, np.empty(len(p_values))
    for place, which in enumerate(order):
        running = found[which] = min(1.0, max(running, p_values[which] * (len(order) - place)))
    return found


def recomputed(page):
    """Every kind of number, from the embedded scores."""
    scores, evaluation = tables(page)
    found = {}
    for metric, methods in scores.items():
        found |= {("n", metric, ""): len(next(iter(methods.values()))), ("num_common", metric, ""): 12}
        for method, values in methods.items():
            found["mean", metric, method] = values.mean()
            found["low", metric, method], found["high", metric, method] = mean_interval(values, 0.95)
            undefined = sum(value is None for value in evaluation["values"][metric][method])
            found["num_undefined", metric, method] = undefined
        if METRICS[metric] is None:
            continue
        sign = 1 if METRICS[metric] else -1
        best = max([m for m in methods if m not in ("edges", "random")], key=lambda m: sign * methods[m].mean())
        pairs = list(itertools.combinations(methods, 2))
        corrected = holm(np.array([stats.wilcoxon(methods[a], methods[b]).pvalue for a, b in pairs]))
        for (a, b), p_value in zip(pairs, corrected, strict=True):
            if best in (a, b):
                other = a if b == best else b
                differences = sign * (methods[other] - methods[best])
                low, high = mean_interval(differences, 0.95)
                found |= {
                    ("p_holm", metric, other): p_value,
                    ("difference", metric, other): differences.mean(),
                    ("worse_by", metric, other): -differences.mean(),
                    ("worse_by_low", metric, other): -high,
                    ("worse_by_high", metric, other): -low,
                }
    right = sum(a == b for a, b in zip(evaluation["target"], evaluation["predicted"], strict=True))
    low, high = stats.binomtest(right, 12).proportion_ci(method="wilson")
    numbers = {"right": right, "num_samples": 12}
    accuracy = {"accuracy": right / 12, "low": low, "high": high}
    found |= {(of, "", "version_0"): value for of, value in numbers.items()}
    return found | {(of, "accuracy", "version_0"): value for of, value in accuracy.items()}


def test_every_number_on_the_page_is_made_again_from_the_scores_in_it(report):
    page = Page(report.read_text(encoding="utf-8"))
    expected, seen = recomputed(page), set()
    for attributes, text in [number for number in page.numbers if "data-sample" not in number[0]]:
        key = attributes["data-of"], attributes["data-metric"], attributes["data-method"]
        value = float(attributes["value"])
        np.testing.assert_allclose(value, expected[key], rtol=1e-9, atol=1e-12, err_msg=str(key))
        seen.add(key[0])
        plain = text.strip().replace("−", "-").replace(" ", "").lstrip("+")
        if plain.startswith("<"):
            assert value < float(plain[1:])
        elif value == value:
            share = key[1] in ("relevance_rank_accuracy", "inherent_noise", "accuracy")
            digits = len(plain.partition(".")[2].partition("e")[0]) if "." in plain else 0
            shown = 100 * value if share and key[0] not in ("n", "num_common", "num_undefined", "p_holm") else value
            if "e" not in plain:
                assert abs(float(plain) - shown) <= 0.5000001 * 10**-digits, (key, text)
    assert seen >= {
        "mean",
        "low",
        "high",
        "n",
        "num_common",
        "num_undefined",
        "difference",
        "p_holm",
        "right",
        "accuracy",
    }


def test_the_samples_shown_are_the_worst_and_the_most_disputed(report):
    page = Page(report.read_text(encoding="utf-8"))
    (evaluation,) = [e for e in page.data("scores") if e.get("reported")]
    values = evaluation["values"]["relevance_rank_accuracy"]
    own = np.array([values[method] for method in METHODS[:3]])
    shown = {}
    for attributes, _ in page.numbers:
        if "data-sample" in attributes:
            shown.setdefault(int(attributes["data-sample"]), []).append(attributes)
    assert list(shown) == np.array(evaluation["samples"])[own.mean(0).argsort()].tolist()
    for sample, numbers in shown.items():
        place = evaluation["samples"].index(sample)
        expected = [own[:, place].mean(), own[:, place].std(), *(values[method][place] for method in METHODS)]
        np.testing.assert_allclose([float(number["value"]) for number in numbers], expected, rtol=1e-9)


def test_the_answer_has_no_number_that_is_not_marked(report):
    text = report.read_text(encoding="utf-8")
    (answer,) = re.findall(r'<ol class="answer">(.*?)</ol>', text, re.S)
    bare = unescape(re.sub(r"<[^>]*>", "", re.sub(r"<data.*?</data>", "", answer)))
    assert set(re.findall(r"\d+(?:\.\d+)?", bare)) <= {"95", "0.05"}  # level of the intervals, of the tests


def test_the_curves_in_the_json_are_means_of_the_scores_in_the_page(report):
    record = json.loads(report.with_suffix(".json").read_text())
    evaluations = {e["epoch"]: e for e in Page(report.read_text(encoding="utf-8")).data("scores")}
    (run,) = record["runs"]
    assert [curves["metric"] for curves in run["curves"]] == [*METRICS, "accuracy"]
    accuracy = run["curves"].pop()
    right = [np.equal(evaluations[e]["target"], evaluations[e]["predicted"]).mean() for e in accuracy["epochs"]]
    np.testing.assert_allclose(accuracy["means"]["network"], right)
    for curves in run["curves"]:
        assert curves["epochs"] == [0, 1, 2]
        for method, means in curves["means"].items():
            scores = [
                np.array(evaluations[e]["values"][curves["metric"]][method], dtype=float) for e in curves["epochs"]
            ]
            np.testing.assert_allclose(means, [np.nanmean(own) for own in scores], rtol=1e-12)


def paths(value, place=""):
    """All places of a JSON value, as `FIELDS` names them."""
    if isinstance(value, dict):
        whole = place.endswith(("settings", "checksums", "means", "fields"))
        for key, own in value.items():
            yield from paths(own, place + "{}") if whole else paths(own, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for own in value:
            yield from paths(own, place + "[]")
    else:
        yield place.removesuffix("{}") if place == "fields{}" else place


def test_each_field_of_the_json_is_documented(report):
    record = json.loads(report.with_suffix(".json").read_text())
    assert (record["schema"], record["version"]) == ("lightning_xai.report", 2)
    means = re.sub(r"\[\]$", "", "runs[].curves[].means{}")
    found = {path.replace(means + "[]", means) for path in paths(record)}
    assert found <= FIELDS.keys()
    rare = ("pairs", "sanity", "shortcuts", "runs[].checkpoints", "runs[].settings")
    absent = {name for name in FIELDS if not name.startswith(rare)}
    assert absent <= found


def test_the_page_asks_for_nothing_and_runs_nothing_but_its_own(report):
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    for kind, element in (("style", r"<style>(.*?)</style>"), ("script", r"<script>(.*?)</script>")):
        (content,) = re.findall(element, text, re.S)
        assert content.count("\n") <= 200
        assert f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" in policy
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))


def test_no_name_is_obeyed(tmp_path):
    """Names of methods, metrics, runs, files and what is written in the configuration are text, and nothing else."""
    names = [f"{NASTY}{number}" for number in range(2)]
    folder = write_run(
        tmp_path / "run<q>&", [*names, "random"], metrics={f"a{NASTY}": True, "auroc": True}, validations=2
    )
    (folder / "config.yaml").write_text(f"# {NASTY}\nseed_everything: '<q>1'\n", encoding="utf-8")
    write_class_names(folder / "xai" / "scores", [NASTY, "<q>", "last"])
    check = folder / "sanity" / "<kbd>"
    check.mkdir(parents=True)
    columns = ",".join(Verdict.__dataclass_fields__)
    (check / "verdicts.csv").write_text(
        f'{columns}\nparameters,<u>m,FAIL,ssim,.1,0,.2,.3,.05,8,"<script>x</script> why",<u>\n'
    )
    main(["report", str(folder)])
    text = (folder / "xai" / "report.html").read_text(encoding="utf-8")
    assert text.count("<script") == 2
    assert not re.search(r"<(img src=x|q>|kbd>|u>)", text)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "{{7*7}}" in text
    page = Page(text)
    (browser,) = [attributes for tag, attributes in page.tags if attributes.get("id") == "browser"]
    assert json.loads(browser["data-told"])["names"] == [NASTY, "<q>", "last"]
    assert page.plain.count("<q>") == 9  # four samples, class and prediction, and a choice
    assert {name for e in page.data("scores") for m in e["values"].values() for name in m} == {*names, "random"}
    assert json.loads((folder / "xai" / "report.json").read_text())["sanity"][0]["method"] == "<u>m"


@pytest.mark.parametrize(("explained", "header"), [("label", "the label"), ("2", "class 2")])
def test_the_page_says_which_class_is_explained(tmp_path, explained, header):
    """A sample is right or wrong only where it is its label that is explained, or may be."""
    folder = write_run(tmp_path / "run", validations=1, explained=explained)
    main(["report", str(folder)])
    text = (folder / "xai" / "report.html").read_text(encoding="utf-8")
    assert (f"12 samples, {header} explained" in text) == bool(header)
    assert ('class="wrong"' in text) == (explained != "2")
    assert ("The accuracy of the network is not known here" in text) == (explained == "2")
    record = json.loads((folder / "xai" / "report.json").read_text())["runs"][0]
    assert (record["explained"], record["accuracy"] is None) == (explained, explained == "2")


def test_many_samples_take_a_folder_whose_files_a_page_from_disk_may_read(tmp_path):
    """Scripts, not data: each fills its own element with a text, which has all that one file has in itself."""
    both = {"relevance_rank_accuracy": True, "auroc": True}
    folder = write_run(tmp_path / "run", METHODS[2:], metrics=both, num_samples=501, validations=1, undefined=False)
    random = torch.Generator().manual_seed(0)
    images, samples = torch.rand(501, 1, 40, 60, generator=random), torch.arange(0, 1002, 2)
    maps = {name: images + place for place, name in enumerate(METHODS[2:])}
    target = samples % 3
    evaluation = Evaluation(samples, {}, {}, images, target, target, None, maps)
    write_sheet(evaluation, samples, folder / "xai" / "sheets" / "validate-epoch=000-step=10.png")
    main(["report", str(folder)])
    page, beside = folder / "xai" / "report.html", folder / "xai" / "report_files"
    text = page.read_text(encoding="utf-8")
    tags = Page(text).tags
    asked = {a[name] for _, a in tags for name in ("src", "href") if not a.get(name, "#").startswith(("#", "data:"))}
    assert asked == {"report_files/scores.js"}
    (policy,) = [a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.count("'self' file:") == 2
    (evaluation,) = json.loads(handed_over(beside / "scores.js"))
    scores = read_scores(folder / "xai" / "scores").by_sample()
    values = scores["auroc"]["saliency"]
    assert evaluation["samples"] == values.index.tolist() == samples.tolist()
    np.testing.assert_array_equal(evaluation["values"]["auroc"]["saliency"], values)
    (sheet,) = Page(text).data("sheets")
    assert {part["source"] for part in sheet["parts"]} == {f"report_files/sheet-0-{n}.js" for n in range(3)}
    assert {path.name for path in beside.iterdir()} == {"scores.js", *(f"sheet-0-{n}.js" for n in range(3))}
    rows = [row for part in sheet["parts"] for row in part["rows"]]
    mean = np.mean([scores["relevance_rank_accuracy"][name] for name in METHODS[2:3]], axis=0)
    assert rows == np.argsort(mean, kind="stable").tolist()  # the worst first
    part, scale = sheet["parts"][1], sheet["scales"][1]
    picture = base64.b64decode(handed_over(beside / "sheet-0-1.js").partition(",")[2])
    gray = np.asarray(Image.open(io.BytesIO(picture))).astype(float)
    place, across = 5, part["across"]
    top, left = (2 * across + place // across) * 40, place % across * 60
    shown = (gray[top : top + 40, left : left + 60] - 128) / 127 * scale
    assert np.abs(shown - maps["edges"][part["rows"][place], 0].numpy()).max() <= scale / 254 + 1e-6


def handed_over(path):
    """What a script puts into its element."""
    (text,) = re.fullmatch(r"document\.currentScript\.textContent = (.*);\n", path.read_text(encoding="utf-8")).groups()
    return json.loads(text)


def test_pictures_have_the_room_that_a_file_has(tmp_path):
    """Those that are wanted are there, of the others as many as fit, with the same number left out between them."""
    paths = [tmp_path / str(n) for n in range(9)]
    for path in paths:
        path.write_bytes(bytes(300))
    assert with_room(paths, 4000.0, [4]) == [*range(9)]
    assert with_room(paths, 2050.0, [4]) == [0, 2, 4, 6, 8]
    assert with_room(paths, 0.0, [4]) == [4]
    assert with_room([], 0.0, []) == []


def test_the_outline_of_a_distribution_is_its_histogram(report):
    page = Page(report.read_text(encoding="utf-8"))
    scores, _ = tables(page)
    outlines = [a["points"] for tag, a in page.tags if a.get("class") == "outline"]
    assert len(outlines) == len(METRICS) * len(METHODS)
    corners = np.array([pair.split(",") for pair in outlines[0].split()][1:-1], dtype=float)
    (name, *_) = [own for _, a in page.tags if (own := a.get("aria-label", "")).startswith("Scores of ")]
    values = scores["relevance_rank_accuracy"][name.removeprefix("Scores of ")]
    every = np.concatenate([*scores["relevance_rank_accuracy"].values()])
    room = 0.04 * np.ptp(every)
    counts, _ = np.histogram(values, 40, (every.min() - room, every.max() + room))
    np.testing.assert_allclose((20 - corners[::2, 1]) / 18, counts / counts.max(), atol=0.05 / 18)


def test_scores_without_a_run_have_a_page_too(tmp_path):
    scores = read_scores(write_run(tmp_path / "run", METHODS[2:], metrics={"auroc": True}) / "xai" / "scores")
    path = scores.report({"auroc": True}, tmp_path / "own.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert [(e["epoch"], bool(e.get("reported"))) for e in page.data("scores")] == [(0, False), (1, False), (2, True)]
    assert json.loads((tmp_path / "own.json").read_text())["runs"][0]["name"] == "scores"
    with pytest.raises(ValueError, match=r"`path` must be the name of a page, ending in \.html, got .*own\.txt"):
        scores.report({}, tmp_path / "own.txt")


def test_calibration_is_of_tenths_with_the_scores_interval(tmp_path):
    """Wilson's interval has the ends p at which (right - p)² = z² p (1 - p) / n."""
    path = tmp_path / "xai" / "scores"
    probability = [0.31, 0.39, 0.39, 0.72, 0.78, 0.95, 1.0, 1.0, None]
    right = [True, False, False, True, True, True, True, False, True]
    known = {"sample": [*range(9)], "row": [*range(9)], "target": [1] * 9, "predicted": [2 - is_so for is_so in right]}
    values = {"gradient": {"auroc": np.linspace(0.5, 0.9, 9)}}
    scores = Scores.from_values("validate", 0, 1, np.arange(9), values)
    known |= {"probability": [math.nan if p is None else p for p in probability], "fingerprint": ["x"] * 9}
    append_scores(path, scores, samples=known)
    write_directions(path, {"auroc": True})
    (run,) = find([tmp_path]).runs
    found = calibration_of(run)
    assert [(tenth.num_samples, round(tenth.right * tenth.num_samples)) for tenth in found] == [(3, 1), (2, 2), (3, 2)]
    np.testing.assert_allclose([tenth.probability for tenth in found], [1.09 / 3, 0.75, 2.95 / 3])
    z = stats.norm.ppf(0.975)
    for tenth in found:
        for end in (tenth.low, tenth.high):
            assert (tenth.right - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / tenth.num_samples, abs=1e-9)
        assert tenth.low <= tenth.right <= tenth.high
    main(["report", str(tmp_path)])
    assert (tmp_path / "xai" / "report.html").read_text(encoding="utf-8").count('"Calibration of the network"') == 1
    perfect = replace(run, samples=run.samples.assign(predicted=1))
    assert calibration_of(perfect) == []
    assert calibration_of(replace(run, samples=run.samples.assign(probability=math.nan))) == []
    told = words([part for s in sentences(Findings(find([tmp_path]).comparison, (perfect,))) for part in s.parts])
    assert re.search(
        r"is right on 9 of 9 samples \(100.* % \[70.1, 100.*\]\), if it is their labels that are explained\.", told
    )


def test_two_runs_are_paired_by_sample(tmp_path):
    folders = [write_run(tmp_path / name, seed=seed, validations=1) for seed, name in enumerate("ab")]
    main(["report", *map(str, folders), "--output", str(tmp_path / "both.html")])
    page = Page((tmp_path / "both.html").read_text(encoding="utf-8"))
    one, two = (e["values"] for e in page.data("scores"))
    pairs = {
        (a["data-of"], a["data-metric"], a["data-method"]): float(a["value"])
        for a, _ in page.numbers
        if "data-runs" in a
    }
    assert len(pairs) == 7 * len(METRICS) * len(METHODS)
    p_values = {}
    for of, metric, method in pairs:
        a, b = (np.array(values[metric][method], dtype=float) for values in (one, two))
        known = np.isfinite(a) & np.isfinite(b)
        a, b = a[known], b[known]
        low, high = mean_interval(b - a, 0.95)
        means = {"pair_first": a.mean(), "pair_second": b.mean(), "pair_difference": (b - a).mean()}
        expected = {**means, "pair_low": low, "pair_high": high, "pair_num_samples": len(a)}
        p_values.setdefault(metric, {})[method] = 1.0 if (a == b).all() else stats.wilcoxon(b, a).pvalue
        if of != "pair_p_holm":
            np.testing.assert_allclose(pairs[of, metric, method], expected[of], rtol=1e-9)
    for metric, own in p_values.items():
        corrected = [pairs["pair_p_holm", metric, method] for method in own]
        np.testing.assert_allclose(corrected, holm(np.array(list(own.values()))), rtol=1e-9)


def test_without_a_direction_there_is_a_page_too(tmp_path):
    folder = write_run(tmp_path / "run", validations=1, metrics={"auroc": None})
    main(["report", str(folder)])
    text = (folder / "xai" / "report.html").read_text(encoding="utf-8")
    assert "No method has a defined score in a metric with a direction." in text
    assert "(no masks)" not in text
    assert 'id="samples"' not in text


def test_the_pareto_front_is_a_scatter(tmp_path):
    folder = write_run(tmp_path / "run", METHODS[2:], metrics={"auroc": True}, validations=2)
    validations = [Validation(epoch, 10 * (epoch + 1), (0.9 + epoch / 100, 0.5 - epoch / 10)) for epoch in range(3)]
    validations.append(Validation(3, 40, (0.9, 0.1)))
    write_validations(folder / "xai" / "pareto.csv", validations, {"val/accuracy": "max", "xai/m/<auroc>": "max"})
    (found,) = find([folder]).runs
    scatter = scatter_of(found)
    assert scatter.names == ("val/accuracy", "xai/m/<auroc>")
    assert {(epoch, on_front) for *_, epoch, on_front in scatter.points} == {
        ("0", True),
        ("1", True),
        ("2", True),
        ("3", False),
    }
    assert sorted(scatter.points) == list(scatter.points)
    main(["report", str(folder)])
    assert "xai/m/&lt;auroc&gt;" in (folder / "xai" / "report.html").read_text(encoding="utf-8")
    (folder / "xai" / "pareto.csv").write_text("something,else\n1,2\n")
    assert find([folder]).runs[0].validations == ()


def test_a_sample_has_a_row_for_each_target(tmp_path):
    path = tmp_path / "run" / "xai" / "scores"
    rows = [(sample, target) for sample in range(4) for target in range(2)]
    scores = Scores.from_rows(
        ("validate", 0, 5, method, "auroc", sample, place + sample + target / 10, target)
        for place, method in enumerate(("gradient", "random"))
        for sample, target in rows
    )
    samples, targets = ([row[place] for row in rows] for place in (0, 1))
    known = {"sample": samples, "row": samples, "target": targets, "predicted": [1] * 8, "probability": [0.5] * 8}
    append_scores(path, scores, samples={**known, "fingerprint": ["x"] * 8})
    write_directions(path, {"auroc": True})
    main(["report", str(tmp_path / "run")])
    (evaluation,) = Page((tmp_path / "run" / "xai" / "report.html").read_text(encoding="utf-8")).data("scores")
    assert list(zip(evaluation["samples"], evaluation["target"], strict=True)) == rows
    assert evaluation["values"]["auroc"]["gradient"] == [sample + target / 10 for sample, target in rows]
    index, target = torch.tensor(samples).flip(0), torch.tensor(targets).flip(0)
    images = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    sheet = tmp_path / "run" / "xai" / "sheets" / "validate-epoch=000-step=5.png"
    write_sheet(Evaluation(index, {}, {}, images, target, target, None, {"gradient": images}), index, sheet)
    findings = find([tmp_path / "run"])
    (shown,) = Page(render(findings)[0]).data("sheets")
    assert shown["parts"][0]["rows"] == [*range(8)][::-1]  # of the sample and the target
    (run,) = findings.runs
    earlier = {name: value for name, value in run.sheets[0].about.items() if name != "targets"}
    old = replace(run, sheets=(replace(run.sheets[0], about=earlier),))
    assert 'id="sheets"' not in render(replace(findings, runs=(old,)))[0]  # whose maps are of which is not known


def test_the_output_must_be_a_page(tmp_path):
    folder = write_run(tmp_path / "run", METHODS[2:], metrics={"auroc": True}, validations=1)
    with pytest.raises(ValueError, match=r"`output` must be the name of a page, ending in \.html, got .*x\.json"):
        main(["report", str(folder), "--output", str(tmp_path / "x.json")])


def test_seed_and_settings_are_those_of_the_training_or_of_the_stream(tmp_path):
    folder = write_run(tmp_path / "run", METHODS[2:], metrics={"auroc": True}, validations=1)
    (folder / "settings-0.json").write_text(
        '{"common": {"seed": 3}, "methods": {"sg": {"fraction": 0.2}}, "metrics": {}}'
    )
    (run,) = find([folder]).runs
    assert (run.seed, run.settings) == ("3", {"sg": "fraction: 0.2"})
    method = "{class_path: smooth_grad, init_args: {fraction: 0.1}}"
    callbacks = f"[{{class_path: A}}, {{class_path: B, init_args: {{methods: {{sg: {method}}}}}}}]"
    (folder / "config.yaml").write_text(f"seed_everything: 7\ntrainer: {{callbacks: {callbacks}}}\n")
    (run,) = find([folder]).runs
    assert (run.seed, run.settings) == ("7", {"sg": "class_path: smooth_grad\ninit_args:\n  fraction: 0.1"})
    assert list(run.checksums) == ["config.yaml", "xai/scores/000001.parquet"]
    (folder / "config.yaml").write_text("- no configuration: [")
    (run,) = find([folder]).runs
    assert (run.seed, run.settings, run.config) == ("", {}, "- no configuration: [")


def test_a_damaged_verdict_is_refused_with_its_line(tmp_path):
    folder = write_run(tmp_path / "run", METHODS[2:], metrics={"auroc": True}, validations=1)
    check = folder / "sanity" / "parameters"
    check.mkdir(parents=True)
    former = "check,method,outcome,similarity,mean,low,high,threshold,margin,networks,reason"
    (check / "verdicts.csv").write_text(f"{former}\ndata,m,PASS,ssim,0,0,0,0,0,1,why\n")
    assert find([folder]).runs[0].verdicts["parameters"][0].step == ""
    (check / "verdicts.csv").write_text(f"{','.join(Verdict.__dataclass_fields__)}\na,b,PASS,ssim,x,0,0,0,0,1,why,\n")
    with pytest.raises(ValueError, match=r"verdicts\.csv, line 2: not a verdict .* Make the sanity check anew"):
        main(["report", str(folder)])


def test_ticks_are_round_and_inside():
    assert Axis(0.13, 0.87).ticks() == [
        (pytest.approx(100 * (v - 0.13) / 0.74, abs=1e-3), f"{v:.1f}") for v in (0.2, 0.4, 0.6, 0.8)
    ]
    assert [text for _, text in Axis(0.0, 1.0, True).ticks()] == ["0 %", "25 %", "50 %", "75 %", "100 %"]


def test_names_of_curves_do_not_cover_each_other():
    rows = [("validate", e, e, f"m{k}", "auroc", 0, 0.5 + k * 1e-6) for e in range(2) for k in range(9)]
    curves = curves_of(Scores.from_rows(rows), "auroc", True, {1: "best.ckpt"})
    labels = [curve.label for curve in curves.curves]
    assert np.diff(labels).min() >= 7.5 - 1e-9
    assert max(labels) <= 100
    assert curves.marks == ((100.0, "best.ckpt"),)


def test_a_long_name_folds_between_its_parts():
    assert _foldable("a/<b>_c:d\x1b") == "a/<wbr>&lt;b&gt;_<wbr>c:<wbr>d\\x1b"
