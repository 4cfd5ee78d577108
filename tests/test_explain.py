"""`lightning-xai explain`: pictures in; maps, panels and a table out, the same in any company, also after SIGKILL."""

import csv
import gc
import json
import os
import subprocess
import sys
import time
import tracemalloc
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pytorch_lightning import LightningModule
from safetensors import safe_open
from torch import nn

import lightning_xai as lx
from lightning_xai.cli import main
from lightning_xai.data import DigitsDataModule
from lightning_xai.experiments.pictures import Preparation, explain_pictures, probabilities
from lightning_xai.reporting.explanations import ExplanationFolder, sample_index
from tests.forked import forked

ROOT = Path(__file__).parent.parent
SMALL = {"gradient": lx.Gradient(), "smooth": lx.smooth_grad(num_draws=3), "noise": lx.noise_grad(num_draws=2)}
METHODS = (
    "--methods={gradient: {class_path: lightning_xai.Gradient}, "
    "smooth: {class_path: lightning_xai.smooth_grad, init_args: {num_draws: 3}}, "
    "noise: {class_path: lightning_xai.noise_grad, init_args: {num_draws: 2}}}"
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse


class Prepared(LightningModule):
    """A module that says how a picture becomes an input, and what its classes are called."""

    class_names = ("crane", "Egyptian cat", "crane", "espresso")
    bounds = (torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    image_size = 8

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 4))

    def preprocess(self, picture):
        return torch.tensor(np.asarray(picture.resize((8, 8))) / np.float32(255)).permute(2, 0, 1)

    def forward(self, images):
        return self.network(images)


class Plain(LightningModule):
    """A module that does not say it."""

    def forward(self, images):
        return images.flatten(1)


@pytest.fixture(autouse=True)
def _called_without_arguments(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photographs(tmp_path):
    """Seven small pictures, one of them in a subfolder, and two files that are no pictures."""
    return make_pictures(tmp_path / "photographs", 7)


def make_pictures(folder, number):
    random = np.random.default_rng(0)
    for i in range(number):
        path = folder / ("more" if i == 3 else "") / f"p{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "empty.png").touch()
    return folder


def explain(*words):
    """The command with the module above, which is found by the name of this file."""
    sys.modules.setdefault(Prepared.__module__, sys.modules[__name__])
    options = [f"--model={Prepared.__module__}.Prepared", "--device=cpu", "--progress=false"]
    main(["explain", *options, *map(str, words)])


quickly = partial(explain, METHODS, "--panels=false")


def rows(folder="explanations"):
    return {row["picture"]: row for row in csv.DictReader((Path(folder) / "explanations.csv").read_text().splitlines())}


def maps(folder="explanations"):
    return {path.name: stored(path)[0] for path in (Path(folder) / "maps").glob("*.safetensors")}


def stored(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def test_maps_panels_and_a_table(photographs, capsys):
    explain(METHODS, photographs)
    table = rows()
    assert list(table) == [str(photographs / name) for name in sorted_names(photographs)]
    for row in table.values():
        assert (Path("explanations") / row["maps"]).is_file()
        with Image.open(Path("explanations") / row["panel"]) as panel:
            assert panel.format == "PNG"
            assert min(panel.size) > 100
        assert (row["width"], row["height"]) == ("16", "12")
        assert row["predicted"] == row["target"]
        assert row["predicted_name"] == Prepared.class_names[int(row["predicted"])]
        assert float(row["smooth/gradients"]) == 3
        assert 0 < float(row["smooth/sparseness"]) < 1
    printed = capsys.readouterr().out
    assert "explained        7 pictures\n" in printed
    assert "refused          2 pictures\n" in printed
    assert f"  {photographs}/broken.jpg: it is damaged or cut short" in printed or "broken.jpg: it is no pic" in printed
    assert f"  {photographs}/empty.png: it is empty; replace it\n" in printed
    for written in ("explanations.csv", "maps", "panels", "refused.csv"):
        assert f"written          explanations/{written}\n" in printed
    refused = list(csv.reader(Path("explanations/refused.csv").read_text().splitlines()))
    assert [row[0] for row in refused] == ["picture", str(photographs / "broken.jpg"), str(photographs / "empty.png")]


def sorted_names(folder):
    loose = sorted(path.name for path in folder.glob("p*.png"))
    return [*loose, "more/p0003.png"]


def test_maps_are_those_of_explain(photographs):
    quickly(photographs, "--seed=5")
    module = Prepared()
    for picture, row in rows().items():
        images = module.preprocess(Image.open(picture))[None]
        index = torch.tensor([sample_index(row["sha256"])])
        found, metadata = stored(Path("explanations") / row["maps"])
        assert metadata["index"] == str(int(index))
        with torch.no_grad():
            logits = module(images)
        assert int(row["predicted"]) == int(logits.argmax())
        assert float(row["predicted_probability"]) == pytest.approx(float(logits.softmax(1).max()), rel=1e-5)
        for name, method in SMALL.items():
            expected = lx.explain(module, images, None, method, bounds=module.bounds, index=index, seed=5)[0]
            torch.testing.assert_close(found[name], expected)


def test_maps_and_rows_are_the_same_in_any_company(photographs):
    quickly(photographs, "--output=whole")
    quickly(photographs / "more", *sorted(photographs.glob("p*.png"), reverse=True), "--batch_size=2", "--output=parts")
    quickly(photographs / "p0005.png", "--max_rows=1", "--output=one")
    (photographs / "p0005.png").rename("p0005.png")
    quickly("p0005.png", "--output=moved")
    whole = maps("whole")
    assert len(whole) == 7
    for other, number in (("parts", 7), ("one", 1), ("moved", 1)):
        assert len(maps(other)) == number
        for name, found in maps(other).items():
            torch.testing.assert_close(found, whole[name])
    for picture, row in rows("parts").items():
        for column, value in row.items():
            assert value == rows("whole")[picture][column] or float(value) == pytest.approx(
                float(rows("whole")[picture][column]), rel=1e-4
            )


def test_equal_content_is_explained_equally_also_in_one_batch(photographs):
    (photographs / "copy.png").write_bytes((photographs / "p0001.png").read_bytes())
    quickly(photographs / "copy.png", photographs / "p0001.png", photographs / "p0001.png")
    first, second = rows().values()
    assert first["maps"] != second["maps"]
    assert float(first["smooth/sparseness"]) == pytest.approx(float(second["smooth/sparseness"]), rel=1e-5)
    one, other = maps().values()  # other rows of one pass may be rounded otherwise
    for name, values in one.items():
        torch.testing.assert_close(values, other[name], rtol=0, atol=1e-5 * values.abs().max().item())


def test_the_settings_are_in_the_metadata(photographs):
    quickly(photographs / "p0000.png", "--seed=3", "--target=espresso")
    ((picture, row),) = rows().items()
    found, metadata = stored(Path("explanations") / row["maps"])
    assert list(found) == sorted(SMALL)
    assert {value.shape for value in found.values()} == {(3, 8, 8)}
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert metadata["picture"] == picture
    assert metadata["sha256"] == row["sha256"]
    assert (metadata["seed"], metadata["explained"]) == ("3", "class 3")
    assert (metadata["target"], metadata["target_name"]) == ("3", "espresso")
    assert (metadata["predicted"], metadata["predicted_name"]) == (row["predicted"], row["predicted_name"])
    assert json.loads(metadata["methods"]) == {name: repr(method) for name, method in SMALL.items()}
    preprocessing = json.loads(metadata["preprocessing"])
    assert preprocessing == {"by": "Prepared", "image_size": "8", "background": "white"}
    assert (metadata["lightning_xai"], metadata["torch"]) == (lx.__version__, torch.__version__)
    assert (metadata["model"], metadata["device"]) == ("Prepared", "cpu")
    assert len(metadata["weights"]) == 16


@pytest.mark.parametrize(("given", "index"), [("espresso", 3), ("egyptian CAT", 1), ("2", 2), ("0", 0)])
def test_a_class_is_asked_for_by_its_name_or_its_index(photographs, given, index):
    quickly(photographs, f"--target={given}")
    module = Prepared()
    for picture, row in rows().items():
        with torch.no_grad():
            shares = module(module.preprocess(Image.open(picture))[None]).softmax(1)[0]
        assert (row["target"], row["target_name"]) == (str(index), Prepared.class_names[index])
        assert float(row["target_probability"]) == pytest.approx(float(shares[index]), rel=1e-5)
        assert int(row["predicted"]) == int(shares.argmax())
    expected = lx.explain(module, module.preprocess(Image.open(picture))[None], index, lx.Gradient())[0]
    torch.testing.assert_close(stored(Path("explanations") / row["maps"])[0]["gradient"], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target=crane"], r"`target`: the classes 0, 2 are called 'crane'; give the index"),
        (["--target=espreso"], r"`target` must be a class of the network, a name such as 'espresso', or an index; got"),
        (["--target=4"], r"`target` must be in 0 .. 3, the outputs of `model`, got values from 4 to 4"),
        (["--target=-1"], r"`target` must be a class of the network"),
        (["--batch_size=0"], r"`batch_size` must be at least 1, got 0"),
        (["--max_rows=0"], r"`max_rows` must be at least 1, got 0"),
        (["--methods={}"], r"`methods` must name at least one explainer"),
        (["--device=abacus"], r"`device`: 'abacus' cannot be used \(.*\); choose `auto`, `cpu` or `cuda`"),
        (["--ckpt_path=nowhere.ckpt"], r"`ckpt_path`: nowhere.ckpt does not exist"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(photographs, options, message):
    with pytest.raises(ValueError, match=message):
        explain(METHODS, photographs, *options)
    assert not Path("explanations").exists()


def test_a_module_that_does_not_say_how_to_prepare_pictures_is_refused(photographs):
    with pytest.raises(
        ValueError, match=r"`model`: Plain does not say how a .* has no `data`. Name a module with a met"
    ):
        Preparation.of(Plain())
    with pytest.raises(ValueError, match=r"and neither has Plain\. Name a module with a method `preprocess`, which"):
        Preparation.of(Plain(), Plain())
    assert Preparation.of(Plain(), DigitsDataModule()).settings["by"] == "DigitsDataModule"
    assert Preparation.of(Prepared(), DigitsDataModule()).settings["by"] == "DigitsDataModule"
    assert Preparation.of(Prepared(), Plain()).settings["by"] == "Prepared"


@pytest.mark.parametrize("made", [torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8), "a tensor"])
def test_what_is_no_input_is_refused_before_anything_is_written(photographs, made):
    preparation = Preparation(lambda picture: made, None, None, {"by": "Mine"})
    with pytest.raises(TypeError, match=r"`preprocess` of Mine must make a floating-point tensor \(channel, .*, got "):
        explain_pictures(Prepared(), [photographs], preparation, SMALL, "out")
    assert not Path("out").exists()


def test_what_is_given_twice_and_what_is_passed_over_is_told(photographs, capsys):
    (photographs / "copy.png").write_bytes((photographs / "p0001.png").read_bytes())
    (photographs / "notes.xcf").touch()
    quickly(photographs, photographs / "p0002.png")
    printed = capsys.readouterr().out
    assert "explained        8 pictures\n" in printed
    assert "given twice      2 pictures\n" in printed
    assert f"  {photographs}/p0001.png: has the content of {photographs}/copy.png\n" in printed
    assert f"  {photographs}/p0002.png: named twice\n" in printed
    assert f"passed over      {photographs}/notes.xcf: no pictures by their suffix\n" in printed
    quickly(photographs, "--output=" + str(photographs / "out"))
    capsys.readouterr()
    quickly(photographs, "--output=" + str(photographs / "out"))
    assert f"passed over      {photographs}/notes.xcf: no" in capsys.readouterr().out, "but not our own results"


def test_names_that_are_formulas_are_escaped_and_known_again(photographs, monkeypatch, capsys):
    monkeypatch.chdir(photographs)
    Path("p0001.png").rename("=1+1.png")
    for earlier in ("", ", 1 of them earlier"):
        quickly("=1+1.png")
        assert f"explained        1 picture{earlier}\n" in capsys.readouterr().out
    assert list(rows()) == ["'=1+1.png"]


def test_the_exit_code_is_1_where_nothing_could_be_explained_or_where_asked(photographs, capsys):
    quickly(photographs)  # returns, although two are refused
    with pytest.raises(SystemExit) as stopped:
        quickly(photographs, "--strict=true")
    assert stopped.value.code == 1
    for words in (["nowhere.png"], [photographs / "empty.png", photographs / "broken.jpg", "--output=other"]):
        with pytest.raises(SystemExit) as stopped:
            quickly(*words)
        assert stopped.value.code == 1
    assert "nowhere.png: it does not exist\n" in capsys.readouterr().out
    assert list(csv.reader(Path("explanations/refused.csv").read_text().splitlines())) == [
        ["picture", "reason"],
        ["nowhere.png", "it does not exist"],
    ]
    assert not Path("other/explanations.csv").exists()
    quickly(photographs / "p0001.png", "--strict=true")
    assert not Path("explanations/refused.csv").exists(), "there was nothing to refuse the last time"


def test_many_refused_pictures_are_not_all_listed_in_the_terminal(tmp_path, capsys):
    for i in range(25):
        (tmp_path / f"{i}.png").touch()
    with pytest.raises(SystemExit):
        quickly(tmp_path)
    assert "... and 5 more\n" in capsys.readouterr().out
    assert len(Path("explanations/refused.csv").read_text().splitlines()) == 26


def test_started_again_only_what_is_missing_is_explained(photographs, capsys):
    explain(METHODS, photographs)
    before = {path: path.stat().st_mtime_ns for path in Path("explanations").rglob("*.*") if path.name != "refused.csv"}
    explain(METHODS, photographs)
    assert "explained        7 pictures, 7 of them earlier\n" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    table = Path("explanations/explanations.csv").read_text()
    panel = next(Path("explanations/panels").iterdir())
    panel.unlink()
    explain(METHODS, photographs)
    assert "explained        7 pictures, 6 of them earlier\n" in capsys.readouterr().out
    assert panel.exists()
    assert Path("explanations/explanations.csv").read_text() == table


def test_a_picture_that_changed_gets_another_row(photographs):
    quickly(photographs)
    Image.new("RGB", (16, 12), "red").save(photographs / "p0002.png")
    quickly(photographs)
    table = list(csv.DictReader(Path("explanations/explanations.csv").read_text().splitlines()))
    changed = [row for row in table if row["picture"].endswith("p0002.png")]
    assert len(table) == 8
    assert len({row["sha256"] for row in changed}) == len({row["maps"] for row in changed}) == 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--seed=1"], "seed was 0, is 1"),
        (["--target=1"], "explained was 'the predicted class', is 'class 1'"),
        (["--methods={gradient: {class_path: lightning_xai.Gradient}}"], "methods"),
    ],
)
def test_results_of_other_settings_are_not_mixed(photographs, options, named):
    quickly(photographs)
    before = {path: path.read_bytes() for path in Path("explanations").rglob("*.*")}
    with pytest.raises(
        ValueError, match=rf"`output`: explanations has results of other settings: {named}.*another fol"
    ):
        quickly(photographs, *options)
    assert {path: path.read_bytes() for path in Path("explanations").rglob("*.*")} == before


def test_other_weights_and_another_preprocessing_are_other_settings(photographs):
    module = Prepared()
    call = partial(explain_pictures, pictures=[photographs], methods=SMALL, folder="out", panels=False)
    call(module, preparation=Preparation.of(module))
    with pytest.raises(ValueError, match=r"other settings: preprocessing\.\w+ was .*, is "):
        call(module, preparation=Preparation.of(None, DigitsDataModule()))
    module.network[0].bias.data.add_(1)
    with pytest.raises(ValueError, match="other settings: weights was "):
        call(module, preparation=Preparation.of(module))


def test_a_folder_with_another_table_is_refused(photographs):
    Path("explanations").mkdir()
    Path("explanations/explanations.csv").write_text("a,b\n1,2\n")
    with pytest.raises(
        ValueError, match=r"explanations.csv is not a table of explanations: expected the columns pictu"
    ):
        quickly(photographs)


def test_a_row_cut_short_is_written_anew(photographs):
    quickly(photographs)
    table = Path("explanations/explanations.csv")
    whole = table.read_bytes()
    for length in (len(whole) - 1, len(whole) - 30, whole.index(b"\n") + 40, 10, 0):
        table.write_bytes(whole[:length])
        quickly(photographs, "--batch_size=1")
        assert set(rows()) == set(csv_pictures(whole))
        assert len(table.read_text().splitlines()) == 8


def csv_pictures(content):
    return [row["picture"] for row in csv.DictReader(content.decode().splitlines())]


def test_killed_and_started_again_it_ends_as_if_nothing_had_happened(tmp_path):
    folder = make_pictures(tmp_path / "photographs", 24)
    config = {
        "model": {
            "class_path": "lightning_xai.modules.ClassifierModule",
            "init_args": {"network": {"class_path": "lightning_xai.networks.LeNet"}},
        },
        "data": {"class_path": "lightning_xai.data.DigitsDataModule"},
    }
    Path("config.yaml").write_text(yaml.safe_dump(config))
    words = ["explain", str(folder), "--config=config.yaml", METHODS, "--batch_size=1", "--device=cpu"]
    words += ["--panels=false", "--progress=false"]
    process = forked(main, [*words, "--output=killed"])
    deadline, table = time.monotonic() + 600, Path("killed/explanations.csv")
    while not table.exists() or table.read_bytes().count(b"\n") < 10:
        assert time.monotonic() < deadline
        assert process.is_alive()
        time.sleep(0.002)
    process.kill()
    process.join()
    finished = rows("killed")
    assert 8 <= len(finished) < 24
    times = {row["maps"]: (Path("killed") / row["maps"]).stat().st_mtime_ns for row in finished.values()}
    for output in ("killed", "whole"):
        with pytest.warns(
            UserWarning, match="No `ckpt_path` was given: the weights are those that ClassifierModule was"
        ):
            main([*words, f"--output={output}"])
    assert {name: (Path("killed") / name).stat().st_mtime_ns for name in times} == times
    assert len(rows("killed")) == len(csv_pictures(table.read_bytes())) == 24
    assert rows("killed").keys() == rows("whole").keys()
    whole = maps("whole")
    for name, found in maps("killed").items():
        torch.testing.assert_close(found, whole[name])
    assert not list(Path("killed").rglob("*.partial"))


def test_interrupted_by_the_user_it_says_how_to_go_on(photographs, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ExplanationFolder, "add", interrupted)
        with pytest.raises(SystemExit) as stopped:
            quickly(photographs)
    assert stopped.value.code == 130
    assert capsys.readouterr().out.startswith("interrupted; what is finished is in explanations,")
    quickly(photographs)
    assert len(rows()) == 7


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path, monkeypatch):
    """Neither that of Python's objects, which `tracemalloc` sees, nor the number of tensors, which it does not."""
    folder = make_pictures(tmp_path / "photographs", 240)
    module, add = Prepared(), ExplanationFolder.add
    measured = []

    def watched(self, explanations):
        add(self, explanations)
        if len(rows("out")) in (80, 240):
            gc.collect()
            tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
            measured.append((tensors, tracemalloc.get_traced_memory()[0]))

    monkeypatch.setattr(ExplanationFolder, "add", watched)
    call = partial(
        explain_pictures, module, preparation=Preparation.of(module), folder="out", batch_size=40, panels=False
    )
    tracemalloc.start()
    try:
        assert call(pictures=[folder], methods={"gradient": lx.Gradient()}).now == 240
    finally:
        tracemalloc.stop()
    (tensors, early), (tensors_later, late) = measured
    assert tensors_later == tensors
    assert late - early < 160 * 1000, "of each picture its name and digest are kept, to know what is done"


def test_the_methods_are_those_of_the_configuration_and_the_network_is_the_shipped_one(tmp_path):
    """Nothing of the data set is there, and nothing is downloaded."""
    data = DigitsDataModule()
    source = data.load("test")
    for i in range(10):
        Image.fromarray(source.images[i, 0].numpy()).save(tmp_path / f"digit{int(source.labels[i])}.png")
    config = ROOT / "configs" / "mnist_lenet.yaml"
    callback = "--trainer.callbacks.methods={g: {class_path: lightning_xai.smooth_grad}}"
    spent = "--trainer.callbacks.num_gradients=4"
    words = [f"--config={config}", f"--ckpt_path={ROOT / 'checkpoints' / 'mnist_lenet.ckpt'}", callback, spent]
    main(
        [
            "explain",
            *map(str, tmp_path.glob("*.png")),
            *words,
            "--data.root=nowhere",
            "--device=cpu",
            "--progress=false",
        ]
    )
    right = [Path(picture).stem == f"digit{row['predicted_name']}" for picture, row in rows().items()]
    assert sum(right) >= 0.8 * len(right)
    for row in rows().values():
        found, metadata = stored(Path("explanations") / row["maps"])
        assert found["g"].shape == (1, 28, 28)
        assert "num_draws=4" in metadata["methods"]
        assert json.loads(metadata["preprocessing"])["mean"].startswith("[0.130")


def test_a_pretrained_network_recognizes_photographs_and_other_classes_can_be_asked_for():
    photographs = [files("skimage") / "data" / name for name in ("chelsea.png", "coffee.png")]
    config = ROOT / "configs" / "photographs.yaml"
    method = "--methods={gradient: {class_path: lightning_xai.Gradient}}"
    words = ["explain", *map(str, photographs), f"--config={config}", method, "--device=cpu", "--progress=false"]
    main([*words, "--panels=false", "--target=Egyptian cat"])
    cat, coffee = rows().values()
    assert "cat" in cat["predicted_name"]
    assert coffee["predicted_name"] == "espresso"
    assert float(coffee["predicted_probability"]) > 0.9 > 0.01 > float(coffee["target_probability"])
    assert cat["target_name"] == coffee["target_name"] == "Egyptian cat"
    found, metadata = stored(Path("explanations") / coffee["maps"])
    assert found["gradient"].shape == (3, 224, 224)
    preprocessing = json.loads(metadata["preprocessing"])
    assert (preprocessing["by"], preprocessing["interpolation"]) == ("PretrainedClassifier", "bilinear")


def test_methods_may_be_in_a_file_of_their_own(photographs):
    """As `calibrate` writes one."""
    Path("methods.yaml").write_text(METHODS.partition("=")[2])
    explain(photographs / "p0000.png", "--methods=methods.yaml", "--output=file")
    explain(photographs / "p0000.png", METHODS, "--output=words")
    assert rows("file") == rows("words")


def test_options_of_other_commands_in_a_configuration_are_passed_over(photographs):
    Path("config.yaml").write_text("{verbose: true, return_predictions: null, weights_only: null}")
    quickly(photographs / "p0000.png", "--config=config.yaml")
    assert len(rows()) == 1
    Path("config.yaml").write_text("{verbos: true}")
    with pytest.raises(SystemExit):
        quickly(photographs / "p0000.png", "--config=config.yaml")


def test_the_default_methods(photographs):
    explain(photographs / "p0000.png", "--batch_size=1")
    (row,) = rows().values()
    names = ["adapt_grad", "fusion_grad", "gradient", "noise_grad", "saliency", "smooth_grad"]
    assert list(stored(Path("explanations") / row["maps"])[0]) == names


def test_names_of_all_kinds(photographs, capsys):
    first = (photographs / "p0000.png").read_bytes()
    folder = Path("names")
    folder.mkdir()
    names = ["$a$ b.png", "a\nb.png", "猫 кот.png", "long" * 60 + ".png", "a,b;\"c'.png", "a..png", "CON:.png"]
    paths = [folder / name for name in names] + [folder / os.fsdecode(b"caf\xe9.png")]
    for path in paths:
        path.write_bytes(first)
    explain(METHODS, folder)
    table = rows()
    assert len(table) == len(paths)
    assert r"names/a\nb.png" in table
    assert r"names/caf\xe9.png" in table
    for picture, row in table.items():
        assert stored(Path("explanations") / row["maps"])[1]["picture"] == picture
        assert (Path("explanations") / row["panel"]).is_file()
    explain(METHODS, folder)
    assert f"{len(paths)} pictures, {len(paths)} of them earlier" in capsys.readouterr().out


def test_earlier_panels_are_not_explained(photographs, capsys):
    explain(METHODS, photographs, f"--output={photographs}/out")
    explain(METHODS, photographs, f"--output={photographs}/out")
    assert "explained        7 pictures, 7 of them earlier" in capsys.readouterr().out


def test_help_names_the_options(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["explain", "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    for option in ("IMAGE", "--target", "--output", "--methods", "--ckpt_path", "--strict", "--device"):
        assert option in printed


def test_maps_of_the_command_are_read_again_and_score_alike(photographs):
    """`Precomputed` finds them by the content of the picture, and refuses another class."""
    quickly("--output=first", photographs)
    kept = "{class_path: Precomputed, init_args: {path: first/maps, method: smooth}}"
    explain(f"--methods={{kept: {kept}}}", "--panels=false", "--output=second", photographs)
    for name, found in maps("second").items():
        assert torch.equal(found["kept"], maps("first")[name]["smooth"])
    for name, row in rows("second").items():
        assert row["kept/sparseness"] == rows("first")[name]["smooth/sparseness"]
        assert float(row["kept/gradients"]) == 0
    with pytest.raises(ValueError, match=r"has maps of sample \d+ for class \d, but class \d is explained"):
        explain(f"--methods={{kept: {kept}}}", "--panels=false", "--output=third", "--target=1", photographs)
    with pytest.raises(ValueError, match=r"`method` must be one of those in .*gradient.*got None"):
        lx.explainers.Precomputed("first/maps")(None, torch.zeros(1, 3, 8, 8))


def assert_same_results(one, other):
    """To rounding: another batch may take another kernel."""
    ours, theirs = rows(one), rows(other)
    assert {name: row["sha256"] for name, row in ours.items()} == {name: row["sha256"] for name, row in theirs.items()}
    lines = (Path(folder, "explanations.csv").read_text().splitlines() for folder in (one, other))
    assert len(set(map(len, lines))) == 1
    torch.testing.assert_close(maps(one), maps(other))


def test_shards_in_any_order_are_the_whole_and_go_on_in_other_shards(photographs):
    quickly("--output=whole", photographs)
    for shard in ("3/3", "1/3"):
        quickly(f"--shard={shard}", photographs)
    assert len(rows()) == 5  # of 7 pictures and 2 that are none, by their place
    quickly("--shard=2/2", "--batch_size=1", photographs)
    quickly("--shard=1/2", photographs)
    assert_same_results("explanations", "whole")
    refused = [path.read_text() for path in Path("explanations").glob("refused-*-of-2.csv")]
    assert sum("empty.png" in text for text in refused) == sum("broken.jpg" in text for text in refused) == 1


def test_a_picture_that_is_named_twice_is_in_one_shard_and_a_shard_may_be_empty(photographs, capsys):
    picture = photographs / "p0000.png"
    for shard in ("1/3", "2/3", "3/3"):
        quickly(f"--shard={shard}", picture, picture, photographs / "p0001.png")
    assert len(Path("explanations/explanations.csv").read_text().splitlines()) == 1 + 2
    assert "explained        0 pictures" in capsys.readouterr().out


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "1/0", "a/b", "1/3/4"])
def test_a_shard_that_there_is_not_is_refused(photographs, shard):
    with pytest.raises(ValueError, match=r"`shard` must be k/n with k from 1 to n"):
        quickly(f"--shard={shard}", photographs)


def test_processes_of_torchrun_part_the_shard(photographs, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        quickly("--shard=1/2", photographs)
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    quickly("--shard=1/2", "--output=alone", photographs)
    assert_same_results("explanations", "alone")


@pytest.mark.slow
def test_processes_write_into_one_folder_at_once(photographs):
    for number in range(40):
        Image.fromarray(np.full((8, 8, 3), number, dtype=np.uint8)).save(photographs / f"more{number}.png")
    code = "import sys, test_explain; test_explain.quickly(*sys.argv[1:])"
    words = [sys.executable, "-c", code, "--batch_size=1", "--output=together", str(photographs)]
    place = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]), "WORLD_SIZE": "3"}
    running = [subprocess.Popen(words, env={**place, "RANK": str(rank)}) for rank in range(3)]
    assert [process.wait(300) for process in running] == [0, 0, 0]
    quickly("--output=alone", photographs)
    assert_same_results("together", "alone")


def test_a_single_logit_has_the_probabilities_of_its_two_classes():
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), torch.rand(2, 1, 2, 2)
    p = model(images).detach().sigmoid()
    torch.testing.assert_close(probabilities(model, images), torch.cat([1 - p, p], 1))


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["--explained=margin"], lx.outputs.Margin()),
        (["--explained=lightning_xai.outputs.At", "--explained.index=2"], lx.outputs.At(2)),
    ],
)
def test_what_is_explained_can_be_said(photographs, words, output):
    """By a plain name, or by a class with its arguments; what has no probability says so."""
    quickly(photographs / "p0000.png", *words)
    ((_, found),) = maps().items()
    with Image.open(photographs / "p0000.png") as picture:
        image = Prepared().preprocess(picture.convert("RGB"))[None]
    expected = lx.explain(Prepared(), image, method=lx.Gradient(), output=output)
    torch.testing.assert_close(found["gradient"], expected[0])
    assert (rows()[str(photographs / "p0000.png")]["predicted_probability"] == "nan") == (output == lx.outputs.At(2))
