"""The command ``minigrad``.

A command is a module of this package with a one-line docstring (its help), ``add_options(parser)`` and
``run(options)``; its name stands in `COMMANDS`. ``run`` raises to report a failure: `main` turns what was raised
into one sentence on standard error and an exit status.
"""

import argparse
import difflib
import importlib
import os
import sys

from minigrad.version import __version__

COMMANDS = ("train", "info", "warmup", "bench", "study")

FAILED, USAGE, INTERRUPTED = 1, 2, 130
EXPECTED = (ArithmeticError, ImportError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


class UsageError(Exception):
    """The command line is wrong; the message says how."""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are raised, and whose options are never guessed from a part of their name."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message):
        raise UsageError(f"{self.prog}: {message}")

    def options(self):
        return [name for action in self._actions for name in action.option_strings]


def main(arguments=None):
    """Run the command line and return its exit status: 0, 1 (failed), 2 (usage) or 130 (interrupted).

    Parameters
    ----------
    arguments : list of str, optional
        In place of the process's own.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    show_traceback = "--traceback" in arguments
    try:
        options = _parse(arguments)
        options.run(options)
        sys.stdout.flush()
        return 0
    except UsageError as error:
        return _complain(error, USAGE)
    except KeyboardInterrupt:
        return _complain("minigrad: interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone, as in `minigrad info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if show_traceback:
            raise
        return _complain(_sentence(error), FAILED)


def _sentence(error):
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] == "rich":
        return "minigrad: this command needs rich: pip install 'minigrad-numba[cli]'"
    if isinstance(error, EXPECTED):
        return f"minigrad: {str(error) or type(error).__name__}"
    return f"minigrad: unexpected {type(error).__name__}: {error} (--traceback shows where)"


def _complain(message, status):
    print(" ".join(str(message).split()), file=sys.stderr)
    return status


def _parse(arguments):
    parser = _Parser(prog="minigrad", description="Train small neural nets; every kernel is Numba.")
    parser.add_argument("--version", action="version", version=f"minigrad {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", parser_class=_Parser)
    parsers = {}
    for name in COMMANDS:
        module = importlib.import_module(f"minigrad.cli.{name}")
        summary = module.__doc__.splitlines()[0]
        parsers[name] = commands.add_parser(name, help=summary, description=summary)
        parsers[name].add_argument("--traceback", action="store_true", help="show where an error was raised")
        parsers[name].set_defaults(run=module.run)
        module.add_options(parsers[name])
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise UsageError(_unknown(unknown[0], parsers.get(options.command, parser)))
    if options.command is None:
        raise UsageError(f"minigrad: expected a command ({', '.join(COMMANDS)}); minigrad --help explains them")
    return options


def _unknown(argument, parser):
    if not argument.startswith("-"):
        return f"{parser.prog}: unexpected argument {argument!r}"
    name = argument.split("=")[0]
    similar = difflib.get_close_matches(name, parser.options(), n=1)
    return f"{parser.prog}: unknown option {name}" + (f"; did you mean {similar[0]}?" if similar else "")
