"""The cache: pieces that are slow to make, each named by a hash of what it is made from.

A piece is built beside its place and renamed into it, so what has the name is whole.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path

from . import shell

ROOT = Path(os.environ.get("NOVA_LAB_CACHE", "/var/cache/nova-formula-lab"))
FILES = Path(__file__).parent / "files"


def building() -> object:
    """Return the lock under which pieces are built: two labs never build at once."""
    return shell.lock(ROOT / "lock", "another lab that is filling the cache")


def piece(kind: str, build: Callable[[Path], None], *made_from: object) -> Path:
    """Return the path of a piece, built first if it is missing.

    made_from: values, functions (their source counts) and paths (their content counts);
    the source of `build` always counts.
    """
    path = ROOT / f"{kind}-{_digest(build, *made_from)}"
    if not path.exists():
        fresh = ROOT / f".{path.name}.new"
        shell.remove_tree(fresh)
        fresh.mkdir(parents=True)
        with shell.step(f"build {kind}"):
            build(fresh)
        fresh.rename(path)
    return path


def prune(used: set[Path]) -> None:
    """Remove pieces that newer ones of their kind have replaced and that no lab uses."""
    kinds = {path.name.rpartition("-")[0] for path in used}
    for path in ROOT.iterdir():
        kind = path.name.rpartition("-")[0].lstrip(".")
        if path.is_dir() and kind in kinds and path not in used:
            shell.remove_tree(path)


def _digest(*made_from: object) -> str:
    digest = hashlib.sha256()
    for part in made_from:
        if isinstance(part, Path) and part.is_relative_to(ROOT):
            data = part.name.encode()  # another piece: its name says what it is made from
        elif isinstance(part, Path):
            files = sorted(part.rglob("*")) if part.is_dir() else [part]
            # Of a file's mode git keeps one bit; the others are the umask of whoever cloned.
            data = b"\0".join(
                f"{file.relative_to(part)} {file.stat().st_mode & 0o100}\0".encode()
                + file.read_bytes()
                for file in files if file.is_file())
        elif callable(part):
            data = inspect.getsource(part).encode()
        else:
            data = repr(part).encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:12]
