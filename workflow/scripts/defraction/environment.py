"""The conda environment of a job, closed against the environment that launched the workflow.

With --use-conda a script runs in the environment of its rule, but Snakemake appends the launcher's search path to the
script's, so that its own classes can be read. A package that the environment lacks would then be taken from the
launcher without a word, in another version or built for another Python. Without --use-conda nothing here has an effect.
"""

import importlib.util
import os
import sys
import sysconfig
from pathlib import Path

from defraction import digest

OPTIONAL = frozenset({"abtem", "cupy", "cupyx", "mp_api"})
"""Packages that a stage imports only if its configuration asks for them; an environment may lack them."""


def conda_prefix() -> Path | None:
    """The rule's conda environment in which this job runs, None if it runs in the environment of Snakemake itself."""
    prefix = Path(sys.prefix).resolve()
    launcher = getattr(sys.modules.get("snakemake"), "__file__", None)
    if launcher is None or Path(launcher).resolve().is_relative_to(prefix) or not (prefix / "conda-meta").is_dir():
        return None
    return prefix


def close(script: str) -> Path | None:
    """Take the launcher's folders off the search path of this job and of the processes that it starts.

    Args:
        script: the rule's script, relative to workflow/scripts.

    Returns:
        The environment, None where there is none.

    Raises:
        RuntimeError: the environment lacks packages that the script imports, or one was loaded from elsewhere already;
            names them and the file to mend.
    """
    prefix = conda_prefix()
    if prefix is None:
        return None
    standard = {Path(path).resolve() for key, path in sysconfig.get_paths().items() if key in ("stdlib", "platstdlib")}
    own = {digest.SCRIPTS, *standard, *(path / "lib-dynload" for path in standard)}
    kept = []
    for entry in sys.path:
        folder = Path(entry or ".").resolve()
        if folder in own or folder.suffix == ".zip" or (folder.is_relative_to(prefix) and entry):
            kept.append(entry)
    sys.path[:] = kept
    sys.path_importer_cache.clear()
    os.environ["PYTHONNOUSERSITE"] = "1"
    os.environ["PYTHONPATH"] = str(digest.SCRIPTS)

    needed = digest.imported_packages(script) - OPTIONAL
    lacking = sorted(name for name in needed - sys.modules.keys() if importlib.util.find_spec(name) is None)
    if lacking:
        raise RuntimeError(
            f"the conda environment {prefix} lacks {', '.join(lacking)}, which {script} imports (packages of the "
            "environment that launched the workflow are not used); add what is lacking to the rule's file in "
            "workflow/envs"
        )
    check(prefix, script)
    return prefix


def check(prefix: Path | None, script: str) -> None:
    """Refuse if a package that the script imports was loaded from outside `prefix`; None: nothing to check.

    Raises:
        RuntimeError: names the packages and where they were loaded from.
    """
    if prefix is None:
        return
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in digest.imported_packages(script)}
    foreign = [
        f"{name} from {file}"
        for name, file in sorted(files.items())
        if file is not None and not Path(file).resolve().is_relative_to(prefix)
    ]
    if foreign:
        raise RuntimeError(
            f"not from the rule's conda environment {prefix}: {', '.join(foreign)}; add the package to the rule's "
            "file in workflow/envs"
        )
