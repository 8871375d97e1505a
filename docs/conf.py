"""The site: `make docs` writes it to docs/_build/html. It needs no network, neither to be built nor to be read."""

import html
import re
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import flowchart  # noqa: E402

from minigrad.version import __version__  # noqa: E402

project, author, copyright = "minigrad", "The minigrad authors", "the minigrad authors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]

html_theme, html_title = "furo", f"minigrad {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = html_show_sourcelink = False
highlight_language = "none"
pygments_style, pygments_dark_style = "friendly", "github-dark"
copybutton_exclude = ".linenos, .gp, .go"

# The pages are GitHub's Markdown; a formula is $...$ or $$...$$, a heading's anchor GitHub's.
myst_enable_extensions = ["dollarmath", "fieldlist"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
myst_url_schemes = ["http", "https", "repository"]
templates_path = ["_templates"]
html_math_renderer = "mathml"

autosummary_generate = True
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False


def repository_file(target, page):
    """The file of the repository, outside the site, that a link of a page leads to; None if it leads elsewhere."""
    path = (page.parent / target).resolve()
    inside = path.is_file() and path.is_relative_to(ROOT)
    return path.relative_to(ROOT).as_posix() if inside and path.suffix not in (".png", ".gif") else None


# What the side bar lists: not in the pages themselves, where GitHub would show it as code.
CONTENTS = {
    "index": ("course/index", "batchnorm", "api/index", "benchmarks", "benchmarks-avx2", "benchmarks-gpu",
              "cuda-kernels", "decisions"),
    "course/index": tuple(f"course/{path.stem}" for path in sorted((ROOT / "docs/course").glob("[0-9][0-9]-*.md"))),
}


def with_contents(docname, text):
    """A page with the list of the pages below it."""
    return f"{text}\n```{{toctree}}\n:hidden:\n\n" + "".join(f"/{name}\n" for name in CONTENTS[docname]) + "```\n"


LINK = re.compile(r"(?<!!)(\[[^]]*\]\()([^)#:\s]+)(#[^)\s]*)?\)")


def prepare_page(app, docname, source):
    """Mark the links to files outside the site, which GitHub resolves by itself and `lead_to_listings` here."""
    page = Path(app.env.doc2path(docname))

    def marked(match):
        path = repository_file(match[2], page)
        if path is None or (path.startswith("docs/") and path.endswith(".md")):
            return match[0]
        return f"{match[1]}repository:{path}{match[3] or ''})"

    if page.suffix == ".md":
        source[0] = LINK.sub(marked, source[0])
    if docname in CONTENTS:
        source[0] = with_contents(docname, source[0])


def listing(path):
    """The site's page with a file of the repository."""
    return f"files/{path}"


def lead_to_listings(app, doctree, docname):
    """Resolve the links to files of the repository: they lead to a listing, to the line that they name."""
    for reference in doctree.findall(nodes.reference):
        uri = reference.get("refuri", "")
        if uri.startswith("repository:"):
            path, _, anchor = uri.removeprefix("repository:").partition("#")
            app.env.repository_files.add(path)
            target = app.builder.get_relative_uri(docname, listing(path))
            reference["refuri"] = f"{target}#{anchor}" if anchor else target


def prepare(app, env, docnames):
    """Begin the list of the files that need a listing."""
    env.repository_files = set()


def listings(app):
    """The pages that show files of the repository, a line of the file a line with an anchor (L12)."""
    for path in sorted(app.env.repository_files):
        text = (ROOT / path).read_text("utf-8")
        try:
            lexer = get_lexer_for_filename(path)
        except ClassNotFound:
            lexer = TextLexer()
        code = highlight(text, lexer, HtmlFormatter(nowrap=True))
        lines = "\n".join(f'<span id="L{number}">{line}</span>' for number, line in enumerate(code.split("\n"), 1))
        title = html.escape(path)
        body = f'<h1>{title}</h1><div class="highlight listing"><pre>{lines}</pre></div>'
        yield listing(path), {"title": title, "body": body}, "page.html"


def draw_flowcharts(app, doctree):
    """Put a drawing in the place of a Mermaid block."""
    for block in list(doctree.findall(nodes.literal_block)):
        if block.get("language") == "mermaid":
            block.replace_self(nodes.raw("", flowchart.to_svg(block.astext()), format="html"))


def mathml(self, node, display):
    """Write a formula as MathML, which browsers draw by themselves."""
    self.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def setup(app):
    """Connect the above to Sphinx."""
    app.add_html_math_renderer(
        "mathml",
        (lambda self, node: mathml(self, node, "inline"), None),
        (lambda self, node: mathml(self, node, "block"), None),
    )
    app.connect("env-before-read-docs", prepare)
    app.connect("source-read", prepare_page)
    app.connect("doctree-read", draw_flowcharts)
    app.connect("doctree-resolved", lead_to_listings)
    app.connect("html-collect-pages", listings)
    return {"parallel_read_safe": False, "parallel_write_safe": False}
