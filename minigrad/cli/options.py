"""Types of command line options: each turns a string into a value or says what it expected."""

import argparse


def whole_number(at_least):
    """A type for integers not below `at_least`."""
    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < at_least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {at_least}, got {text!r}")
        return value

    return parse


def positive_number(text):
    """A type for finite numbers above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return value


def device(text):
    """A type for the names of devices."""
    from minigrad.device import get_device

    try:
        return get_device(text)
    except (ValueError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
