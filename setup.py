"""Maps the top-level folders to their import names; everything else stands in pyproject.toml.

``kernels/`` and ``layers/`` install as ``minigrad.kernels`` and ``minigrad.layers``: a wheel with a global
package named ``kernels`` would overwrite somebody else's. Subpackages are found, so none can be forgotten.
"""

from setuptools import find_packages, setup

inside = find_packages(include=["minigrad", "minigrad.*"])
beside = find_packages(include=["kernels", "kernels.*", "layers", "layers.*"])

setup(
    packages=inside + [f"minigrad.{name}" for name in beside],
    package_dir={"minigrad": "minigrad", "minigrad.kernels": "kernels", "minigrad.layers": "layers"},
    package_data={"minigrad.study": ["web/*"]},  # the page: HTML, CSS, JavaScript
)
