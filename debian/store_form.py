#!/usr/bin/env python3
"""Prints the form of what this version writes to the store; two versions of one form read each other's.

It becomes the field Store-Form of the package, by which a way back knows whether the store can stay as it is.
Read from the source, because nothing of the target processor is run in a build.
"""

import ast
import sys
from pathlib import Path

STORE = Path(__file__).resolve().parents[1] / "gateway" / "store"
PARTS = {"segment": "segment", "block": "codec", "chunk": "chunk", "deletion": "tombstones"}


def store_form() -> str:
    """Return as hot2.segment1.block1: a name and a version for each kind of thing in the store."""
    migrations = assigned("schema", "MIGRATIONS")
    if not isinstance(migrations, ast.Tuple):
        sys.exit("gateway/store/schema.py: MIGRATIONS is no tuple")
    versions = {name: ast.literal_eval(assigned(module, "VERSION")) for name, module in PARTS.items()}
    return ".".join(
        f"{name}{version}" for name, version in ({"hot": len(migrations.elts)} | versions).items()
    )


def assigned(module: str, name: str) -> ast.expr:
    for node in ast.parse((STORE / f"{module}.py").read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and name in map(_name, targets):
            return node.value
    sys.exit(f"gateway/store/{module}.py has no {name}: say in debian/store_form.py what took its place")


def _name(target: ast.expr | None) -> str:
    return target.id if isinstance(target, ast.Name) else ""


if __name__ == "__main__":
    print(store_form())
