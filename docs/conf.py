"""How the documentation is built: ``sphinx-build -W docs docs/_build/html``.

It needs what the extra ``docs`` installs, and no network: mathematics is written as MathML, which browsers draw by
themselves, and fonts are the reader's own.
"""

import importlib.util
import os
import re
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import emkernel

project = "emkernel"
author = "emkernel authors"
copyright = "emkernel authors, MIT licence"
release = version = emkernel.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton", "myst_nb"]
exclude_patterns = ["_build"]

# ---- pages ------------------------------------------------------------------------------------------------------

html_theme = "furo"
html_title = f"emkernel {release}"
html_static_path = ["_static"]
html_css_files = ["emkernel.css"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "native"
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# ---- tutorials --------------------------------------------------------------------------------------------------

os.environ |= {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "COLUMNS": "90"}
nb_execution_mode = "force"  # what is shown is what this version prints; -D nb_execution_mode=cache while writing prose
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_cache_path = str(Path(__file__).parent / "_build" / ".jupyter_cache")
nb_output_stderr = "remove"
nb_execution_show_tb = True
if importlib.util.find_spec("torch_geometric") is None:
    nb_execution_excludepatterns = ["tutorials/pyg.md"]

# ---- the reference ----------------------------------------------------------------------------------------------

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "exclude-members": "extra_repr"}
python_maximum_signature_line_length = 78
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = ["Shapes"]


# one letter with a short index, as x_i, ρ_out, Σ_{j in N(i)}; powers, as g^-1, R^(m d)
SCRIPT = re.compile(
    r"(?<![\w`])(?P<base>dρ|[^\W\d_])_(?:\{(?P<sub>[^}]*)\}|(?P<short>out|\w{1,2})(?!\w))"
    r"|\^(?:\{(?P<sup>[^}]*)\}|\((?P<round>[^)]*)\)|(?P<power>[-+⊗]?\w+))"
)


def _script(match: re.Match) -> str:
    part = match.groupdict()
    low, high = part["sub"] or part["short"], part["sup"] or part["round"] or part["power"]
    return rf"{part['base']}\ :sub:`{low}`\ " if low else rf"\ :sup:`{high}`\ "


def _as_text(app, what, name, obj, options, lines):
    """Docstrings are plain text: |x| is a norm there, n*V a product and x_i an index, which reStructuredText reads
    otherwise or not at all."""
    in_example = False
    for i, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
        if in_example or line.lstrip().startswith(".."):
            continue
        parts = re.split(r"(``.*?``|:\w+:`.*?`|^ *:\w+ [\w*\\]+:)", line)
        for k in range(0, len(parts), 2):
            parts[k] = SCRIPT.sub(_script, re.sub(r"(?<!\\)([|*])", r"\\\1", parts[k]))
        lines[i] = "".join(parts)


def _inline_math(translator, node):
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block_math(translator, node):
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


html_math_renderer = "mathml"


def setup(app):
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", _as_text)
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
