"""Digest of the code behind a rule: its script and all it imports from this package.

Snakemake judges scripts by modification time and never follows imports. A digest in a rule's `params` makes an edit of
any module rerun exactly the rules that use it, and leaves comments, docstrings, formatting, checkouts and touches
without effect. Only static imports are seen, so the package uses no other kind.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent
PACKAGE = "defraction"
FRAME = ("job", "provenance", "digest")
"""Modules that frame a job (log, records, names of files) and compute nothing of what it writes: not followed, so that
an edit of them does not rerun first-principles calculations."""


def code_files(script: str) -> list[str]:
    """The script (named relative to workflow/scripts) and the modules in its import closure, sorted, as paths
    relative to the repository."""
    return [str(p.relative_to(SCRIPTS.parent.parent)) for p in sorted(_closure(SCRIPTS / script))]


def code_digest(script: str) -> str:
    """SHA-256 (first 16 hexadecimal digits) over the normalised syntax of `code_files(script)`."""
    parts = (f"{p.relative_to(SCRIPTS)}\0{_normalised(p)}" for p in sorted(_closure(SCRIPTS / script)))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def _normalised(path: Path) -> str:
    tree = ast.parse(path.read_text(), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            node.body = body or [ast.Pass()]
    return _text(tree)


def _text(node) -> str:
    """Syntax as text that Python 3.11 to 3.13 agree on: `ast.dump` differs in empty fields, `ast.unparse` in the
    quotes of f-strings."""
    if isinstance(node, ast.AST):
        fields = [(k, v) for k, v in ast.iter_fields(node) if v is not None and v != []]
        return f"{type(node).__name__}({','.join(f'{k}={_text(v)}' for k, v in fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    return repr(node)


@cache
def _imports(path: Path) -> frozenset[Path]:
    names: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}: relative import in line {node.lineno}; write it out from '{PACKAGE}'")
            names.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    found = set()
    for name in names:
        if name.split(".")[0] == PACKAGE:
            base = SCRIPTS / Path(*name.split("."))
            found.update(p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file())
    return frozenset(found - {SCRIPTS / PACKAGE / f"{name}.py" for name in FRAME})


@cache
def _closure(path: Path) -> frozenset[Path]:
    done, todo = set(), {path}
    while todo:
        current = todo.pop()
        done.add(current)
        todo |= _imports(current) - done
    return frozenset(done)
