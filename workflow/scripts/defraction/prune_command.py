"""`defraction prune`: files of conditions, crystals, models, sets of patterns and figures that no configuration has any
more.

What a file belongs to is read from the record beside it, never guessed from its name: a file that no record speaks of
is not touched.
"""

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

RESULTS, LOGS = Path("results"), Path("logs")
STATE = RESULTS / ".restart"
STATEFUL = {"aimd": "condition", "elastic": "host", "lattice": "host", "relax": "condition", "train": "model"}
"""Rules that keep restart state in `results/.restart/<rule>-<id>`, and what the id is one of."""


@dataclass
class Orphan:
    """What is left of one job: the wildcards of its rule and the files, largest outputs first."""

    rule: str
    wildcards: dict[str, str]
    files: list[Path] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(path.lstat().st_size for path in self.files)

    def __str__(self) -> str:
        return " ".join([self.rule, *self.wildcards.values()])


def prune(
    config: Annotated[
        list[Path], typer.Option(help="configuration whose files stay; several: what any of them needs stays")
    ],
    delete: Annotated[bool, typer.Option("--delete", help="delete the files; without it they are only listed")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask before deleting")] = False,
) -> None:
    """List the files of conditions and models that are no longer in the configuration; delete them if asked to."""
    from defraction import preflight, provenance

    wanted = [needed(path) for path in config]
    found = orphans(provenance.read_records(RESULTS), wanted)
    if not found:
        typer.echo("no file belongs to a condition or model that the configuration does not have")
        return
    for orphan in found:
        typer.echo(f"{orphan}")
        for path in orphan.files:
            typer.echo(f"  {_readable(path.lstat().st_size):>9}  {path}")
    count, size = sum(len(o.files) for o in found), _readable(sum(o.size for o in found))
    typer.echo(f"{count} files of {len(found)} jobs, {size}")
    if not delete:
        typer.echo("Nothing was deleted; --delete does it.")
        return
    if alive := preflight.running(Path.cwd()):
        raise preflight.Survivor(f"a run works in this folder ({alive[0]}); wait until it ends")
    if not yes and not typer.confirm("Delete them?"):
        typer.echo("Nothing was deleted.")
        return
    remove(found)
    typer.echo(f"Deleted {count} files, {size}. Records of the summary name them until it is made again.")


def needed(config: Path) -> dict[str, set[str]]:
    """All values that the wildcards of the rules take in one configuration (`condition`, `material`, `model`, `host`,
    `pattern_set`, `folder`), conditions over the axes of the article (`shown`), and `rule`: those of the rules without
    wildcards that not every study needs.

    Raises:
        config.ConfigError: the configuration is not valid.
    """
    from defraction import config as schema
    from defraction import expansion, hosts, materials, models, panels

    settings = schema.load(config)
    table = hosts.read_hosts(Path("resources/hosts.csv"))
    conditions = expansion.expand(settings, table)
    crystals = materials.catalogue(schema.plain(settings.materials))
    presets = {(c.host, c.settings.get("preset")) for c in conditions.values()}
    networks = models.expand(settings)
    axes = [list(axis) for axis in settings.diffraction.zone_axes]
    shown = panels.shown_axes(conditions, {name: host.crystal_structure for name, host in table.items()}, axes)
    pixels = [settings.diffraction_of(model["pattern_set"]).pixels for model in networks.values()]
    figures = panels.figures(conditions, panels.panels(conditions, shown, axes), pixels)
    return {
        "condition": set(conditions),
        "material": set(crystals),
        "model": set(networks),
        "host": {c.host for c in conditions.values()} | {f"{host}-{preset}" for host, preset in presets if preset},
        "pattern_set": {"main", *settings.pattern_sets},
        "folder": {models.patterns_folder(name) for name in ("main", *settings.pattern_sets)},
        "shown": set(shown),
        "rule": {f"figure_{name}" for name in figures}
        | ({"displacements"} if {"thermal_displacements", "point_displacements"} & set(figures) else set()),
    }


def orphans(records: Iterable[dict[str, Any]], wanted: list[dict[str, set[str]]]) -> list[Orphan]:
    """Jobs whose files no configuration needs, in the order of the records, then restart state.

    Args:
        records: as `provenance.read_records` gives them.
        wanted: `needed` of each configuration; a job stays if one of them has all its wildcards.
    """
    from defraction import provenance

    def stays(rule: str, wildcards: dict[str, str]) -> bool:
        names = dict(wildcards)
        if rule.startswith("figure_") or rule == "displacements":
            names["rule"] = rule
        if rule.endswith("_shown"):
            names["shown"] = wildcards["condition"]
        return any(all(value in known[name] for name, value in names.items() if name in known) for known in wanted)

    records = list(records)
    staying = [record for record in records if stays(record["rule"], record["wildcards"])]
    kept = {output["path"] for record in staying for output in record["outputs"]} | {r["log"] for r in staying}
    found, models = [], set()
    for record in records:
        if stays(record["rule"], record["wildcards"]):
            continue
        paths = [*(output["path"] for output in record["outputs"]), record["record"]]
        paths += [str(provenance.segments_mark(record["record"])), record["log"], *_segment_logs(record["log"])]
        paths = [path for path in paths if path not in kept]
        files = [path for path in map(Path, paths) if path.is_file() and _inside(path)]
        found.append(Orphan(record["rule"], record["wildcards"], files))
        if "model" in record["wildcards"]:
            models.add(record["wildcards"]["model"])
    models -= set().union(*(known["model"] for known in wanted))
    for model in sorted(models):
        files = _files(LOGS / "tensorboard" / model)
        if files:
            found.append(Orphan("tensorboard", {"model": model}, files))
    for folder in sorted(STATE.glob("*-*")):
        rule, _, name = folder.name.partition("-")
        files = _files(folder)
        if files and rule in STATEFUL and not stays(rule, {STATEFUL[rule]: name}):
            found.append(Orphan(f"restart state of {rule}", {STATEFUL[rule]: name}, files))
    return found


def remove(found: Iterable[Orphan]) -> None:
    """Delete the files, and the folders that are empty then."""
    folders = set()
    for orphan in found:
        for path in orphan.files:
            path.unlink(missing_ok=True)
            folders.update(p for p in path.parents if p not in (Path("."), RESULTS, LOGS, STATE))
    for folder in sorted(folders, key=lambda p: -len(p.parts)):
        if folder.is_dir() and not any(folder.iterdir()):
            shutil.rmtree(folder)


def _segment_logs(log: str) -> list[str]:
    """Logs of the segments of a long job, beside that of the last one (`x.log`): `x.1.log`, `x.2.log` and so on."""
    path = Path(log)
    numbered = re.compile(rf"{re.escape(path.stem)}\.\d+\.log")
    return sorted(str(other) for other in path.parent.glob("*.log") if numbered.fullmatch(other.name))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and _inside(path))


def _inside(path: Path) -> bool:
    """Whether the path, links followed, lies in the results or logs of this study: a record is only a text."""
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in (RESULTS, LOGS))


def _readable(size: int) -> str:
    """Bytes for people, in powers of 1024."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min((max(size, 1).bit_length() - 1) // 10, len(units) - 1)
    return f"{size / 1024**power:.{1 if power else 0}f} {units[power]}"
