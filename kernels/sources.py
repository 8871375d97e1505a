"""The kernels' sources as a hash: what is made of them is known by it."""

import hashlib


def digest_of_sources(folder):
    """A hash of all Python files of a folder, as a str."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
