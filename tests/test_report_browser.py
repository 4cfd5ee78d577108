"""The page in a browser, where there is one: its script runs under its policy, and does what the scores say."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

from lightning_xai.callbacks.maps import write_sheet
from lightning_xai.cli import main
from lightning_xai.evaluation import Evaluation
from lightning_xai.reporting.colors import scale_end
from lightning_xai.results.scores import Scores
from lightning_xai.results.store import append_scores, read_scores, write_class_names, write_directions

BROWSER = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")]
METRIC, METHODS = "relevance_rank_accuracy", ("gradient", "saliency", "random")
DRIVER = """
const q = s => document.querySelector(s), all = s => [...document.querySelectorAll(s)];
const told = () => ({
  counted: q("#counted").textContent,
  rings: all(".ring").map(ring => [ring.getAttribute("visibility"), ring.getAttribute("cx")]),
  samples: all("#browser tbody th").map(cell => cell.textContent), hash: location.hash,
});
const out = {opened: told()};
const slide = at => { q("#slider input").value = at; q("#slider input").dispatchEvent(new Event("input")); };
slide(0);
out.slid = told();
q("#browser thead [name=disagreement]").click();
out.sorted = told();
q("#controls [name=label]").value = "1";
q("#controls [name=label]").dispatchEvent(new Event("change"));
out.filtered = told();
q("#controls [name=label]").value = "";
q("#controls [name=label]").dispatchEvent(new Event("change"));
const plot = q("#scatter"), box = plot.getBoundingClientRect();
plot.setPointerCapture = () => 0;
for (const [kind, x, y] of [["down", 0.1, 0.1], ["move", 0.3, 0.4], ["up", 0.6, 0.7]])
  plot.dispatchEvent(new PointerEvent(`pointer${kind}`, {
    clientX: box.left + x * box.width, clientY: box.top + y * box.height,
  }));
out.chosen = told();
slide(1);
setTimeout(() => {
  const canvas = all("#browser tbody tr")[0].querySelectorAll("canvas")[1];
  out.pixels = [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
  out.last = told();
  document.body.style.width = "400px";
  out.right = Math.max(...all("#controls select").map(choice => choice.getBoundingClientRect().right))
    - document.body.getBoundingClientRect().right;
  document.body.setAttribute("data-out", JSON.stringify(out));
}, 1500);
"""


@pytest.fixture(params=[40, 520])
def run(request, tmp_path):
    """Two validations, the second with maps: in one file, or with a folder."""
    number, random = request.param, np.random.default_rng(0)
    path, samples = tmp_path / "run" / "xai" / "scores", np.arange(number)
    known = {"sample": samples.tolist(), "row": samples.tolist(), "target": (samples % 3).tolist()}
    known |= {"predicted": (samples % 2).tolist(), "probability": [0.5] * number, "fingerprint": ["x"] * number}
    for epoch in range(2):
        values = {name: {METRIC: random.uniform(0.2, 0.8, number)} for name in METHODS}
        append_scores(path, Scores.from_values("validate", epoch, epoch + 1, samples, values), samples=known)
    write_directions(path, {METRIC: True})
    write_class_names(path, ["\x1b[2J\u202ea", "b" * 99, "c"])
    images = torch.rand(number, 1, 5, 7, generator=torch.Generator().manual_seed(0))
    maps = {name: images - 0.5 + place / 10 for place, name in enumerate(METHODS)}
    index = torch.arange(number)
    evaluation = Evaluation(index, {}, {}, images, index % 3, index % 3, None, maps)
    write_sheet(evaluation, index, tmp_path / "run" / "xai" / "sheets" / "validate-epoch=001-step=2.png")
    main(["report", str(tmp_path / "run")])
    return tmp_path / "run", maps


def opened(page):
    """The page's elements after its script, and what the browser complains of."""
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--enable-logging=stderr"]
    done = subprocess.run(
        [*words, "--virtual-time-budget=5000", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_does_what_the_scores_say(run):
    folder, maps = run
    page = folder / "xai" / "report.html"
    text, complaints = opened(page)
    assert complaints == []
    assert "chosen of" in text  # under the policy of the page, which allows nothing but its own script
    assert "%1B[2J%u202Ea" in text, "names are shown, not obeyed"
    assert not {"\x1b", "\u202e"} & set(text)
    assert text.count("<canvas") == 12 * (1 + len(METHODS))
    source = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    driven = page.with_name("driven.html")
    driven.write_text(source.replace("</body>", f"<script>{DRIVER}</script></body>"), encoding="utf-8")
    text, complaints = opened(driven)
    assert complaints == []
    (out,) = re.findall(r'data-out="([^"]*)"', text)
    out = json.loads(html.unescape(out))
    check(out, read_scores(folder / "xai" / "scores"), maps)


def check(out, scores, maps):
    first, second = (scores.select(epoch=epoch).by_sample()[METRIC] for epoch in range(2))
    number = len(first["gradient"])
    own = [np.array([table[name] for name in METHODS[:2]]) for table in (first, second)]

    def samples(values, chosen=None):
        chosen = np.arange(number) if chosen is None else chosen
        return [str(chosen[place]) for place in np.argsort(values[chosen], kind="stable")[:12]]

    assert out["opened"]["samples"] == samples(own[1].mean(0))
    assert {visible for visible, _ in out["opened"]["rings"]} == {"hidden"}
    assert out["slid"]["samples"] == samples(own[0].mean(0))
    assert {visible for visible, _ in out["slid"]["rings"]} == {"visible"}
    assert f"12 of {number} chosen of {number} samples, validate, epoch 0, step 1" in out["slid"]["counted"]
    assert out["sorted"]["samples"] == samples(own[0].std(0))
    assert out["filtered"]["samples"] == samples(own[0].std(0), np.arange(1, number, 3))
    assert out["filtered"]["hash"] == "#samples?at=0&sort=disagreement&label=1"
    shares = []  # across: the mean; up: the disagreement
    for values in (own[0].mean(0), own[0].std(0)):
        shares.append((values - values.min()) / np.ptp(values))
    across, up = shares
    ends = [1.04 * part - 0.02 for part in (0.1, 0.6, 0.3, 0.9)]
    inside = (across >= ends[0]) & (across <= ends[1]) & (up >= ends[2]) & (up <= ends[3])
    assert 0 < inside.sum() < number
    assert out["chosen"]["samples"] == samples(own[0].std(0), np.flatnonzero(inside))
    assert f"{inside.sum()} chosen of {number} samples" in out["chosen"]["counted"]
    assert out["right"] <= 0, "a choice of long names is not wider than a narrow page"
    sample = int(out["last"]["samples"][0])
    every = maps["gradient"].flatten(0, 2).numpy()
    end = scale_end(every)
    share = (maps["gradient"][sample, 0].numpy() / end).clip(-1, 1)
    red = 255 - np.abs(share) * np.where(share < 0, 255 - 33, 255 - 178)
    shown = np.array(out["pixels"]).reshape(5, 7, 4)
    step = np.abs(every).max() / 127 / end * 255
    assert np.abs(shown[..., 0] - red).max() <= step / 2 + 1
    assert (shown[..., 3] == 255).all()
