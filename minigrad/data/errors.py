"""The error of everything that reads a data set."""


class DataError(ValueError):
    """A data file is missing, damaged or not what its name says; the message names the file."""
