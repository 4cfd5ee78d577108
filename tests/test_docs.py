"""The documentation: every public name is in the API reference, samples run, links and names lead somewhere."""

import importlib.util
import re
from importlib import import_module
from pathlib import Path

import pytest
import quantus

from lightning_xai.carried import carried_file
from lightning_xai.cli import COMMANDS
from lightning_xai.names import known

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if not {"_build", "generated"} & set(path.relative_to(DOCS).parts)),
]
ROOMS = (
    "",
    "callbacks",
    "data",
    "explainers",
    "metrics",
    "modules",
    "networks",
    "outputs",
    "results",
    "sanity",
    "shortcuts",
)
STUDIES = ("engine", "lab", "metrics", "study")  # whose public classes are those of studies


def names(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page, language):
    return re.findall(rf"^```(?:{{code-cell}} )?{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)


def found(path):
    """What a dotted path names."""
    room, _, name = path.rpartition(".")
    return getattr(import_module(room), name)


def public_names():
    for room in ROOMS:
        home = import_module(f"lightning_xai.{room}".rstrip("."))
        yield from (getattr(home, name) for name in home.__all__ if name != "__version__")
    for room in STUDIES:
        home = import_module(f"lightning_xai.studies.{room}")
        values = [value for name, value in vars(home).items() if not name.startswith("_")]
        yield from (value for value in values if isinstance(value, type) and value.__module__ == home.__name__)


def test_every_public_name_has_a_page_of_the_reference():
    entries = [line for page in (DOCS / "api").glob("*.md") for line in blocks(page, "{eval-rst}")]
    listed = re.findall(r"^   ~(lightning_xai\.[\w.]+)$", "\n".join(entries), re.M)
    assert len(set(listed)) == len(listed)
    pages = [found(path) for path in listed]
    assert not [value for value in public_names() if not any(value is page for page in pages)]


def run(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    values = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        exec(compile(block, names(page), "exec"), values)


@pytest.mark.filterwarnings("ignore")  # of Lightning
def test_the_samples_of_the_readme_run(tmp_path, monkeypatch, capsys):
    run(PAGES[0], tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert "smooth_grad" in printed
    assert "edges FAIL - " in printed
    assert [*tmp_path.rglob("xai/panels/*.png")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "guides"], ids=names)
def test_the_samples_of_a_guide_run(page, tmp_path, monkeypatch):
    run(page, tmp_path, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_to_files_and_to_their_headings_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = page.parent / path if path else page
        assert file.is_file(), f"{names(page)}: {target}"
        headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w\- ]", "", line).lower().replace(" ", "-") for line in headings]


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_commands_and_configurations_are_there(page):
    text = page.read_text(encoding="utf-8")
    said = re.findall(r"^lightning-xai ([a-z]+)", "\n".join(blocks(page, "bash")), re.M)
    assert not set(said) - set(COMMANDS)
    for config in re.findall(r"--config (?:configs/)?([a-z][\w.]*)", text):
        assert Path(carried_file("configs", config)).is_file(), config
    for script in re.findall(r"\bscripts/(\w+(?:\.py)?)", text):
        assert (ROOT / "scripts" / script).is_file(), script


LEADS = r"\]\([^)]*(results/|benchmarks|notebooks/)[^)]*\)"
SOURCE = re.compile(rf"lightning-xai [a-z]+|scripts/\w+|tests/\w+\.py|manifest\.yaml|{LEADS}")
RESULT = re.compile(r"(?<![\w.])\d[\d,]*\.\d+|\d ?%|\d times\b")
CONSTANTS = {  # sections whose numbers are settings, versions, dates, or follow from a formula
    "docs/cite.md: Sources",
    "docs/concepts/methods.md: AdaptGrad",
    "docs/concepts/metrics.md: Localization",
    "docs/concepts/metrics.md: Sensitivity",
    "docs/concepts/trust.md: What is trusted",
    "docs/concepts/verdicts.md: The rule",
    "docs/guides/inputs_outputs.md: Outputs",
    "docs/guides/shortcuts.md: How it decides",
}


def sections(page):
    """Headings, texts without code, formulae and what stands in backticks, and whole texts."""
    whole = page.read_text(encoding="utf-8")
    whole = re.sub(r"^```.*?^```", lambda code: code[0].replace("\n#", "\n //"), whole, flags=re.S | re.M)
    for part in re.split(r"^(?=#+ )", whole, flags=re.M):
        said = re.sub(r"^```.*?^```|`[^`]*`|\$[^$]*\$", "", part, flags=re.S | re.M)
        yield part.partition("\n")[0].lstrip("# "), said, part


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name not in ("api", "notebooks")], ids=names)
def test_numbers_stand_with_what_makes_them(page):
    """Each section names a command, a script or a test, or leads to results; pages of results begin so."""
    found = list(sections(page))
    begins_so = page.parent.name == "results" and SOURCE.search("".join(part for *_, part in found[:2]))
    without = {title for title, said, part in found if RESULT.search(said) and not SOURCE.search(part)}
    assert begins_so or {f"{names(page)}: {title}" for title in without} <= CONSTANTS


def test_the_readme_counts_right():
    (row,) = re.findall(r"^\| metrics \|(.*)$", PAGES[0].read_text(encoding="utf-8"), re.M)
    assert f" {len(known('metrics'))}, and all of Quantus's " in row
    assert f" **{sum(map(len, quantus.AVAILABLE_METRICS.values()))}** " in row


@pytest.fixture
def links():
    spec = importlib.util.spec_from_file_location("check_links", ROOT / "scripts" / "check_links.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_file_lists_exactly_the_addresses_of_the_texts(links):
    assert links.LIST.read_text(encoding="utf-8").split() == links.addresses(), "scripts/check_links.py --write"


def test_links_that_cannot_be_reached_are_named(links, tmp_path, monkeypatch, capsys):
    there, lost = (tmp_path / name for name in ("there", "lost"))
    there.touch()
    monkeypatch.setattr(links, "LIST", tmp_path / "list")
    links.LIST.write_text(f"{there.as_uri()}\n{lost.as_uri()}\n")
    assert links.main([]) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert first == f"{there.as_uri()}: there"
    assert second.startswith(f"{lost.as_uri()}: NOT REACHED, ")
    assert last == "1 of 2 addresses reached, 1 NOT REACHED"
    links.LIST.write_text(f"{there.as_uri()}\n")
    assert links.main([]) == 0


def test_the_readme_is_short():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 160
