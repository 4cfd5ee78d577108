"""Sphinx: `sphinx-build -W -n docs docs/_build`. Nothing is asked of the network."""

import re
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

import lightning_xai

project = "lightning_xai"
author = copyright = "The lightning_xai developers"
release = version = lightning_xai.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "examples"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"lightning_xai {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False

myst_enable_extensions = ["colon_fence", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_in_temp = True  # what notebooks write stays out of this folder
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars

autosummary_generate = True
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar, napoleon_use_rtype = True, False

# What stands in backticks in a docstring is looked up, and linked where it is a name of the package.
default_role = "py:obj"
# References to other packages would need their inventories; those that begin with this package's name must be right,
# but for the private bases of public classes, and the one of records that print as tables.
nitpick_ignore_regex = [("py:.*", r"(?s)(?!lightning_xai\.).*|.*\._.*|.*\.T|.*\.tables\.Printed")]

SOURCE = r"\b([A-Z][\w-]+)(?: et al\.,?| and [A-Z][\w-]+) (\d{4})\b"  # authors and year, as docs/cite.md has them

html_math_renderer = "mathml"  # formulae as the page's own elements: no script, nothing from the network


def as_mathml(display):
    def visit(writer, node):
        writer.body.append(convert(node.astext(), display=display))
        raise SkipNode

    return visit, None


def setup(app):
    """Formulae as MathML. In docstrings sources are links, and |gradient| and (batch, *places) no markup."""

    app.add_html_math_renderer("mathml", as_mathml("inline"), as_mathml("block"))

    known = re.findall(r"^\(([\w-]+)\)=$", (Path(__file__).parent / "cite.md").read_text(encoding="utf-8"), re.M)

    def linked(said):
        """A source as pages name it, such as Yeh et al. 2019, with a link to its title."""
        label = f"{said[1].lower().replace('ö', 'o')}-{said[2]}"
        return f":ref:`{said[0]} <{label}>`" if label in known else said[0]

    def escape(app, what, name, obj, options, lines):
        for number, line in enumerate(lines):
            parts = re.split(r"(`[^`]*`)", line)
            parts[::2] = [re.sub(r"\||(?<=[ (])\*(?=\w+[,) .])", r"\\\g<0>", part) for part in parts[::2]]
            if not line.lstrip().startswith((">>>", "...")):
                parts[::2] = [re.sub(SOURCE, linked, part) for part in parts[::2]]
            lines[number] = "".join(parts)

    app.connect("autodoc-process-docstring", escape, priority=900)  # after napoleon

    def lead_back(app, page, template, context, doctree):
        """From the code to the page of the name: viewcode takes all names of a file to be of one module."""
        if page.startswith("_modules/"):
            wrong = r'/([\w.]+\.)(\w+)\.html#[\w.]+?\.\2((?:\.\w+)*)"'
            context["body"] = re.sub(wrong, r'/\1\2.html#\1\2\3"', context["body"])

    app.connect("html-page-context", lead_back)
