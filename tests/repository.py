"""Copies of the repository for tests that run or plan the workflow."""

import shutil
from pathlib import Path

NOT_CLONED = (".venv", ".tools", ".git", ".snakemake", "results", "logs", "__pycache__", ".*_cache")


def copy_repository(root: Path, folder: Path, *left_out: str) -> None:
    """Copy what a clone has, changes of the working tree included, to a new folder.

    Args:
        root: the repository.
        folder: made here.
        left_out: further names that are not copied, patterns as of a shell.
    """
    shutil.copytree(root, folder, ignore=shutil.ignore_patterns(*NOT_CLONED, *left_out))
