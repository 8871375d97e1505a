"""``python -m minigrad.bench.gpu``: measure on the GPU of this machine, write JSON and the page."""

import argparse
import json
import sys
from pathlib import Path

from minigrad.bench.gpu import measure, page, rows


def main(arguments=None):
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m minigrad.bench.gpu", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see whether it works")
    options = parser.parse_args(arguments)
    try:
        report = measure.run(rows.rows(options.small), turns=2 if options.small else measure.TURNS,
                             progress=lambda text: print(text, file=sys.stderr))
    except RuntimeError as error:  # no GPU
        print(error, file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    text = page.render(report)
    if options.markdown:
        options.markdown.write_text(text)
    print(text)
    failed = [row["error"] for row in report["rows"] if "error" in row]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
