"""Asks the network for every address that the texts name; no test and no build does.

python scripts/check_links.py           # asks for each address of docs/links.txt; exit code 1 where one is not reached
python scripts/check_links.py --write   # writes docs/links.txt anew; tests/test_docs.py keeps it in step with the texts

An arXiv number, in a docstring or a table, counts as the address of its page.
"""

import re
import sys
import urllib.request
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIST = ROOT / "docs" / "links.txt"
ADDRESS = re.compile(r"https?://[^\s<>\"'`)\]]+")
PREPRINT = re.compile(r"\barxiv:?\s+(\d{4}\.\d{5})", re.IGNORECASE)


def texts() -> Iterable[str]:
    """README and change log, the documentation, the package with its docstrings, the community's files."""
    files = [*ROOT.glob("*.md"), ROOT / "CITATION.cff", ROOT / "pyproject.toml", *ROOT.glob(".github/**/*.md")]
    pages = [path for path in ROOT.glob("docs/**/*.md") if not {"_build", "generated"} & set(path.parts)]
    code = [path for kind in ("py", "yaml", "html") for path in ROOT.glob(f"lightning_xai/**/*.{kind}")]
    for path in [*files, *pages, *code, *ROOT.glob("docs/examples/*.py"), *ROOT.glob("configs/**/*.yaml")]:
        yield path.read_text(encoding="utf-8")


def addresses() -> list[str]:
    found = set()
    for text in texts():
        found |= {address.rstrip(".,;:") for address in ADDRESS.findall(text)}
        found |= {f"https://arxiv.org/abs/{number}" for number in PREPRINT.findall(text)}
    return sorted(found)


def fault(address: str) -> str | None:
    """Why an address cannot be reached, or None."""
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (lightning_xai link check)"})
    try:
        with urllib.request.urlopen(request, timeout=20):
            return None
    except (OSError, ValueError) as error:  # URLError and HTTPError are OSErrors
        return str(error)


def main(arguments: list[str]) -> int:
    if arguments == ["--write"]:
        LIST.write_text("\n".join(addresses()) + "\n", encoding="utf-8")
        return 0
    if arguments:
        sys.exit(__doc__)
    listed = LIST.read_text(encoding="utf-8").split()
    lost = 0
    for address in listed:
        reason = fault(address)
        lost += reason is not None
        print(f"{address}: {'there' if reason is None else f'NOT REACHED, {reason}'}", flush=True)
    print(f"{len(listed) - lost} of {len(listed)} addresses reached" + (f", {lost} NOT REACHED" if lost else ""))
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
