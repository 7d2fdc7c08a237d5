"""Digest of the code behind a rule: its script and all it imports from this package.

Snakemake judges scripts by modification time and never follows imports. A digest in a rule's `params` makes an edit of
any module rerun exactly the rules that use it, and leaves comments, docstrings, formatting, checkouts and touches
without effect. Only static imports are seen, so the package uses no other kind.
"""

import ast
import hashlib
import sys
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent
PACKAGE = "defraction"
FRAME = ("job", "environment", "provenance", "digest", "config", "expansion")
"""Modules that frame a job (log, records, names of files) and compute nothing of what it writes: not followed, so that
an edit of them does not rerun first-principles calculations. What follows from the configuration (`config`,
`expansion`) is in the rules' own params, so a new key or a better message there reruns nothing either."""


def code_digest(script: str) -> str:
    """SHA-256 (first 16 hexadecimal digits) over the normalised syntax of the script (named relative to
    workflow/scripts) and the modules in its import closure."""
    parts = (f"{p.relative_to(SCRIPTS)}\0{_normalised(p)}" for p in sorted(_closure(SCRIPTS / script)))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def file_digests(script: str) -> dict[str, str]:
    """SHA-256 (first 16 hexadecimal digits) of the normalised syntax of the script and of each module in its import
    closure, by path relative to the repository, sorted."""
    root = SCRIPTS.parent.parent
    return {str(p.relative_to(root)): file_digest(p) for p in sorted(_closure(SCRIPTS / script))}


def file_digest(path: Path) -> str:
    """SHA-256 (first 16 hexadecimal digits) of the normalised syntax of one file."""
    return hashlib.sha256(_normalised(path).encode()).hexdigest()[:16]


@cache
def imported_packages(script: str) -> frozenset[str]:
    """Top-level names of the packages outside this one and the standard library that the script's closure imports."""
    found: set[str] = set()
    for path in _closure(SCRIPTS / script):
        for node in _read(path)[1]:
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            else:
                found.add(node.module.split(".")[0])
    return frozenset(found - sys.stdlib_module_names - {PACKAGE})


@cache
def _read(path: Path) -> tuple[str, tuple[ast.Import | ast.ImportFrom, ...]]:
    """Normalised syntax and import statements of one file, in one pass: every start of the workflow and of a job waits
    for it."""
    imports: list[ast.Import | ast.ImportFrom] = []
    return _text(ast.parse(path.read_text(), str(path)), imports), tuple(imports)


def _normalised(path: Path) -> str:
    return _read(path)[0]


def _text(node, imports: list) -> str:
    """Syntax without docstrings as text that Python 3.11 to 3.13 agree on: `ast.dump` differs in empty fields,
    `ast.unparse` in the quotes of f-strings. Import statements on the way are appended to `imports`."""
    if isinstance(node, list):
        return f"[{','.join([_text(item, imports) for item in node])}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Import | ast.ImportFrom):
        imports.append(node)
    elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        node.body = body or [ast.Pass()]
    parts = []
    for name in node._fields:
        value = getattr(node, name, None)
        if value is not None and value != []:
            parts.append(f"{name}={_text(value, imports)}")
    return f"{type(node).__name__}({','.join(parts)})"


@cache
def _imports(path: Path) -> frozenset[Path]:
    names: set[str] = set()
    for node in _read(path)[1]:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif node.level:
            raise ValueError(f"{path}: relative import in line {node.lineno}; write it out from '{PACKAGE}'")
        else:
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
