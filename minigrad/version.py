"""The version: read by setuptools without importing the package, and by everybody else as ``minigrad.__version__``."""

__version__ = "0.1.0"
