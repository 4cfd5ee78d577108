"""A page in files: HTML, the same as JSON, and what is large in a folder beside them."""

import json
from pathlib import Path

from lightning_xai.reporting.page.data import report_record
from lightning_xai.reporting.page.render import render
from lightning_xai.results.files import replacing, write_text
from lightning_xai.results.findings import Findings


def write_report(findings: Findings, page: Path, command: str = "") -> list[Path]:
    """Write the page, `.json` of the same name, and where it is not one file the folder `NAME_files`.

    The page comes last: what it needs is there before it.

    Args:
        findings: What runs tell.
        page: Path of the page.
        command: That makes it again; empty to leave it out.

    Raises:
        OSError: if the folder cannot be written to.
    """
    folder = page.with_name(f"{page.stem}_files")
    text, beside = render(findings, command, folder.name)
    for name, content in beside.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)
    record = json.dumps(report_record(findings, command), indent=1)
    written = [write_text(page.with_suffix(".json"), f"{record}\n"), write_text(page, f"{text}\n")]
    return [*written[::-1], *([folder] if beside else [])]
