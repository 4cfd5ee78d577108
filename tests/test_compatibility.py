"""docs/compatibility.md says what is so: every cell is tried again."""

import re
import sys
from pathlib import Path

import pytest

from lightning_xai.names import known

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "compatibility.md").read_text()
ROWS = re.findall(r"^\| (?!network|---)([^|]+) \| ([^|]+) \|", PAGE.partition("## Metrics")[0], re.MULTILINE)
CELLS = r"^(\| (?!network|---)[^|]+ \| [^|]+ \|).*"
QUICK = ("CNN, one logit", "MLP of tables")
pytestmark = pytest.mark.filterwarnings("ignore")  # of many packages


@pytest.fixture(scope="module")
def script():
    """The script, as the files that it writes know it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        import compatibility

        yield compatibility
        del sys.modules["compatibility"]


def test_the_page_has_all_networks_methods_metrics_and_reasons(script):
    assert [(name, row.task) for name, row in script.NETWORKS.items()] == ROWS
    assert {row.task for row in script.NETWORKS.values()} == set(script.TASKS)
    for kind, groups in (("methods", script.METHODS), ("metrics", script.METRICS)):
        assert sorted(name for members in groups.values() for name in members) == sorted(known(kind))
    columns = [*script.METHODS, *script.METRICS, *script.USES]
    expected = script.document({name: dict.fromkeys(columns, "") for name, _ in ROWS}, "")
    assert without_cells(PAGE) == without_cells(expected)


def without_cells(page):
    """And without versions."""
    return re.sub(r"^With .*", "", re.sub(CELLS, r"\1", page, flags=re.MULTILINE), flags=re.MULTILINE)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name, _ in ROWS]
)
def test_every_cell_says_what_is_so(script, name):
    row = script.NETWORKS[name]
    pytest.importorskip(row.package)
    found = script.cells(name)
    for columns in (script.METHODS, script.METRICS, script.USES):
        assert script.line(name, row.task, found, columns) in PAGE.splitlines()


def test_what_is_neither_right_nor_refused_fails(script, capsys, monkeypatch):
    def wall():
        raise RuntimeError("a wall")

    monkeypatch.setattr(script, "cells", lambda name: {"callback": script.tried(wall)})
    assert script.main(["--networks", "CNN"]) == 1
    assert "callback: FAILED (RuntimeError: a wall)" in capsys.readouterr().out
