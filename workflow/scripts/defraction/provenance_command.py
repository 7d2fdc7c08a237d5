"""The commands about where results come from: trace, verify, diff, cost, export and cache."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

DRAWN = (".svg", ".pdf", ".png")

export = typer.Typer(no_args_is_help=True, help="Export a study with its provenance.", rich_markup_mode=None)
cache = typer.Typer(no_args_is_help=True, help="Look into a cache of first-principles results.", rich_markup_mode=None)
Hosts = Annotated[bool, typer.Option("--hosts/--no-hosts", help="whether names of hosts are told")]
CacheFolder = Annotated[
    Path | None, typer.Argument(metavar="[FOLDER]", help="the cache; default: that of DEFRACTION_CACHE")
]


def trace(
    file: Annotated[Path, typer.Argument(help="a result")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON (docs/provenance.md)")] = False,
    graph: Annotated[bool, typer.Option("--graphviz", "--dot", help="print a graph in the DOT language")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="write a file instead: .json, .dot, or drawn by Graphviz .svg .pdf .png"),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="print settings uncut")] = False,
) -> None:
    """Print what made a result, and what made that, back to the sources."""
    from defraction import preflight
    from defraction.lineage import trace as lineage
    from defraction.lineage.study import Study

    traced = lineage.trace(*Study.holding(file))
    suffix = output.suffix if output else ".json" if as_json else ".dot" if graph else None
    if suffix is None:
        _console().print(lineage.draw(traced, full))
        return
    if suffix not in (".json", ".dot", ".gv", *DRAWN):
        raise ValueError(f"{output}: a trace is written as .json, .dot, {', '.join(DRAWN)}")
    text = json.dumps(traced, indent=1) + "\n" if suffix == ".json" else lineage.dot(traced)
    if output is None:
        typer.echo(text, nl=False)
    elif suffix in DRAWN:
        program = shutil.which("dot")
        if program is None:
            raise ValueError(f"{output}: drawing needs the program dot of Graphviz; install it, or write a .dot file")
        command = [program, f"-T{suffix[1:]}", "-o", str(output)]
        done = subprocess.run(command, input=text, text=True, capture_output=True)
        if done.returncode:
            raise RuntimeError(
                f"{output}: dot of Graphviz failed: {preflight.complaint(done)}; mend that, or write a .dot file"
            )
        typer.echo(done.stderr, err=True, nl=False)
    else:
        output.write_text(text)


def verify(
    files: Annotated[
        list[Path] | None, typer.Argument(help="results to check with all that is behind them; default: everything")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="a changed source is a fault too")] = False,
) -> None:
    """Hash every recorded file again and name what changed and what depends on it; exit status 1 if a result did."""
    from defraction.lineage import verify as lineage
    from defraction.lineage.study import Study

    if files:
        study = Study.holding(files[0])[0]
        found = [Study.holding(file, study) for file in files]
        paths = [path for _, path in found]
        if any(other is not study for other, _ in found):
            raise ValueError("the files belong to several studies; check one study at a time")
    else:
        study, paths = Study.load(), None
    with _progress("hashing") as advance:
        verdict = lineage.verify(study, paths, advance)
    typer.echo("\n".join(lineage.lines(verdict)))
    raise typer.Exit(1 if verdict.damaged or verdict.outdated or (strict and verdict.sources) else 0)


def diff(
    a: Annotated[Path, typer.Argument(help="a result")],
    b: Annotated[Path, typer.Argument(help="another one, of this study or another one")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Say why two results differ: settings, code, environment, inputs, and the first differences upstream."""
    from defraction.lineage import diff as lineage
    from defraction.lineage.study import Study

    first = Study.holding(a)
    found = lineage.diff(first, Study.holding(b, first[0]))
    typer.echo(json.dumps(found, indent=1) if as_json else "\n".join(lineage.lines(found)))


def cost() -> None:
    """Print what the jobs behind the present results cost, by rule."""
    from defraction import provenance
    from defraction.lineage.study import Study

    rows = provenance.cost(Study.load().records)
    typer.echo(f"{'rule':24}{'jobs':>6}{'CPU [s]':>10}{'wall [s]':>10}{'memory [MiB]':>14}")
    for row in rows:
        typer.echo(
            f"{row['rule']:24}{row['jobs']:6d}{row['cpu_seconds']:10.0f}{row['seconds']:10.0f}{row['max_rss_mib']:14.0f}"
        )
    typer.echo(f"{'all':24}{sum(r['jobs'] for r in rows):6d}{sum(r['cpu_seconds'] for r in rows):10.0f}")


@export.command("crate")
def export_crate(
    target: Annotated[
        Path, typer.Argument(help="a new folder or .zip file; the study's own folder: the metadata beside the results")
    ],
    hosts: Hosts = True,
    title: Annotated[str, typer.Option(help="name of the crate")] = "Study with defraction",
    license_: Annotated[
        str | None, typer.Option("--license", help="URL of the licence of the results; default: LICENSE")
    ] = None,
) -> None:
    """Write a Workflow Run RO-Crate (Provenance Run Crate) with all recorded files."""
    from defraction.lineage import crate
    from defraction.lineage.study import Study

    with _progress("copying") as advance:
        count = crate.write_crate(
            Study.load(), target, title=title, license_url=license_, with_hosts=hosts, advance=advance
        )
    typer.echo(f"{target}: {count} files")


@export.command("prov")
def export_prov(
    target: Annotated[Path, typer.Argument(help="PROV-JSON (.json), PROV-N (.provn) or Turtle (.ttl)")],
    hosts: Hosts = True,
) -> None:
    """Write the provenance of a study as W3C PROV."""
    from defraction.lineage import prov
    from defraction.lineage.study import Study

    prov.write_prov(Study.load(), target, with_hosts=hosts)


@export.command("library")
def export_library(
    results: Annotated[list[Path], typer.Argument(help="results/first_principles/relax/NAME.extxyz and the like")],
    to: Annotated[Path, typer.Option(help="folder of the library")] = Path("resources/structures"),
    name: Annotated[str | None, typer.Option(help="name of the entry; default: that of the condition")] = None,
) -> None:
    """Add relaxed cells, snapshots or lattice constants to the library of computed structures."""
    from defraction.lineage.shelve import shelve

    if name is not None and len(results) > 1:
        raise ValueError("--name names one entry; give one result with it")
    for result in results:
        for path in (written := shelve(result, to, name)):
            typer.echo(path)
        if not written:
            typer.echo(f"{result}: the library holds it already")


@cache.command("list")
def cache_list(folder: CacheFolder = None) -> None:
    """List the entries of a cache."""
    from defraction import cache as shelf

    for entry in shelf.entries(_cache_folder(folder)):
        content = entry.content
        names = " ".join([content["rule"], *content["wildcards"].values()]) if content else "not readable"
        size = sum(path.stat().st_size for path in entry.path.iterdir())
        typer.echo(f"{entry.key[:16]}  {size / 1e6:8.2f} MB  {names}")


@cache.command("verify")
def cache_verify(folder: CacheFolder = None) -> None:
    """Check every entry of a cache; exit status 1 if one is damaged."""
    from defraction import cache as shelf

    faults, entries = 0, shelf.entries(_cache_folder(folder))
    for entry in entries:
        try:
            entry.check()
        except (ValueError, OSError) as error:
            faults += 1
            typer.echo(f"damaged: {entry.path}: {error}; it is not used, and replaced when its result is made again")
    typer.echo(f"{len(entries)} entries: {faults or 'none'} damaged")
    raise typer.Exit(1 if faults else 0)


def _cache_folder(given: Path | None) -> Path:
    from defraction import cache as shelf

    folder = given or shelf.folder(None)
    if folder is None:
        raise ValueError(f"name the folder of the cache, or set {shelf.VARIABLE}")
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    return folder


def _console():
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


@contextlib.contextmanager
def _progress(what: str) -> Iterator:
    """A progress bar on a terminal, nothing elsewhere; yields a function of (done, all) in bytes."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)
