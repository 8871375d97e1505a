"""Blocks of a Markdown page that a script writes."""

import re


def replace(text, block, content):
    """A text with the content of one generated block replaced: what stands between ``<!-- BLOCK: by whom -->`` and
    ``<!-- end -->``."""
    pattern = re.compile(rf"(<!-- {re.escape(block)}: [^>]*-->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"replace: there is no block {block!r}")
    return pattern.sub(lambda match: f"{match[1]}{content.strip()}\n{match[2]}", text)
