"""The command `defraction build`: one structure of any kind that the configuration knows.

Its options are the keys of the configuration's conditions, read from their models: nothing is listed twice. A key that
is a list there, because a condition may be a sweep, is an option for one value here.
"""

import difflib
import hashlib
import json
import os
import re
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
import yaml
from typer.core import TyperCommand

ROOT = Path(__file__).resolve().parents[3]
SWEEPS = {"values": "value", "temperatures": "temperature", "concentrations": "concentration", "fractions": "fraction"}
"""Keys that hold a list of the varied quantity, and the options for one value of it."""
TENSORS = ("stress", "tensor")
"""Keys whose value is written as COMPONENT=NUMBER."""
LISTS = ("defects",)
"""Keys that hold a list of which each word is an entry."""
NOT_OPTIONS = ("kind", "host", "unrelaxed", "samples")
RELAXED = ("vacancy", "substitution", "interstitial", "point_defects")
SUFFIXES = (".cif", ".extxyz")
MEASURED = "-measured"
"""End of the id of a point defect on the measured lattice constant."""
GENERAL = (
    "For all: --repeat A B C (cells of the specimen, or the size of a random block; not for dislocation and twin), "
    "--seed N, --control (the matched control). Components of a tensor are written xx=0.5 xy=0.1; each of several "
    "defects as YAML: --defects '{kind: vacancy}' '{kind: substitution, solute: Si, neighbour: {shell: 1}}'. Point "
    "defects have ideal positions and the measured lattice parameter, and an id in -measured (no condition of a "
    "study), unless --relax, --unrelaxed or --preset asks for GPAW; thermal needs --preset. What the library holds at "
    "those settings is taken from there, unless --source compute."
)
SCRIPTS = {"block": "structure_block.py", "dislocation": "structure_dislocation.py", "twin": "structure_twin.py"}


class BuildCommand(TyperCommand):
    """A command that takes the keys of all conditions as options, with as many values as stand behind them."""

    def parse_args(self, ctx, args):
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before numpy; threads make plane waves slower
            os.environ.setdefault(variable, "1")
        own = {name for parameter in self.params for name in parameter.opts} | {"--help"}
        known = _option_names()
        given: dict[str, Any] = {}
        rest: list[str] = []
        words = list(args)
        while words:
            word = words.pop(0)
            name, equals, value = word.partition("=")
            if name in known:
                values = [value] if equals else []
                while not equals and words and not _is_option(words[0]):
                    values.append(words.pop(0))
                given[name] = values
            elif word.startswith("--") and name not in own:
                near = difflib.get_close_matches(name, [*known, *sorted(own)], n=1)
                hint = f"did you mean {near[0]}?" if near else "defraction build --list names them all"
                raise ValueError(f"unknown option {name}; {hint}")
            else:
                rest.append(word)
        ctx.meta["conditions"] = given
        return super().parse_args(ctx, rest)


def build(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(metavar="NAME", help="host crystal, such as Al")] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="kind of structure, such as twin")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help=".cif; an .extxyz is written beside it")
    ] = None,
    repeat: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            metavar="A B C",
            help="cells that make the specimen [default: 40 30 20; supercells 10 10 10]; the size of a random block",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="seed of everything random")] = 1,
    control: Annotated[bool, typer.Option("--control", help="the matched control instead: the same without defect")] = (
        False
    ),
    relax: Annotated[
        bool, typer.Option("--relax", help="relax a point defect with GPAW at --preset [default: laptop]")
    ] = False,
    unrelaxed: Annotated[
        bool,
        typer.Option("--unrelaxed", help="ideal positions of a point defect at GPAW's lattice constant (--preset)"),
    ] = False,
    source: Annotated[
        str,
        typer.Option(metavar="library|compute", help="take a computed structure from the library where it has it"),
    ] = "library",
    as_table: Annotated[bool, typer.Option("--list", help="print what can be built, with all options, and end")] = (
        False
    ),
) -> None:
    """Build one structure with a defect: a CIF and an extended XYZ file, with their origin inside.

    All options of a kind: defraction build --list. They are the keys of the configuration's conditions, and the result
    is the structure that the study makes of a condition of this id with the same seed.
    """
    if as_table:
        typer.echo(what_can_be_built())
        return
    missing = [name for name, value in (("--host", host), ("--kind", kind), ("-o", output)) if value is None]
    if missing:
        raise ValueError(f"build needs {', '.join(missing)}; defraction build --list shows what can be built")
    from defraction.simulate_command import _check_output, _log_to_terminal, _whole_file

    _check_output(output, SUFFIXES)
    condition, row, first_principles = plan(
        kind, host, context.meta["conditions"], repeat, seed, control, relax, unrelaxed
    )
    if source not in ("library", "compute"):
        raise ValueError(f"--source: {source!r} is neither library nor compute")
    _log_to_terminal(20)
    cif, extxyz = output.with_suffix(".cif"), output.with_suffix(".extxyz")
    images, computed = make(condition, row, seed, first_principles, source, output)
    from defraction.digest import code_digest
    from defraction.structures import write_structures

    origin = {
        "command": "defraction build",
        "condition": condition.id,
        "host": asdict(row),
        "settings": condition.settings,
        "seed": seed,
        **({"lattice": "measured"} if condition.id.endswith(MEASURED) else {}),
        "version": metadata.version("defraction"),
        "code": code_digest(SCRIPTS.get(condition.family, f"structure_{condition.family}.py")),
        **({"first_principles": computed} if computed else {}),
    }
    with _whole_file(cif) as first, _whole_file(extxyz) as second:
        write_structures(images, first, second, origin)
    atoms = images[0]
    several = f"{len(images)} snapshots of " if len(images) > 1 else ""
    cells = " x ".join(map(str, atoms.info["repeat"]))
    typer.echo(f"{condition.id}: {several}{len(atoms)} atoms, repeated {cells}, {cif} and {extxyz}")


def plan(kind: str, host: str, options: Mapping, repeat, seed: int, control: bool, relax: bool, unrelaxed: bool):
    """The condition that is meant, its host and the settings of first principles (None if none are needed).

    A study puts point defects on a lattice constant of GPAW. One on the measured constant is no condition of a study,
    and its id says so.

    Raises:
        ValueError: one line that names the option and how to mend it.
    """
    from defraction import config, expansion, hosts
    from defraction.defects import potentials

    table = hosts.read_hosts(ROOT / "resources/hosts.csv")
    entry: dict[str, Any] = {"kind": kind, "host": host}
    if kind in config.KINDS:
        fields = _options(kind)
        for name, values in options.items():
            if name not in fields:
                near = difflib.get_close_matches(name, fields, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise ValueError(f"{name}: {kind} takes no such option; {hint}It takes {', '.join(fields) or 'none'}")
            key, field = fields[name]
            entry[key] = _value(name, key, values, field)
        if repeat is not None and kind in ("dislocation", "twin"):
            raise ValueError(f"--repeat: {kind} takes no repeat; its size is --size")
    specimen = {} if repeat is None else {"repeat": repeat, "supercell_repeat": repeat}
    try:
        settings = config.validate({"conditions": [entry], "seed": seed, "specimen": specimen}, "build")
        expanded = list(expansion.expand(settings, table).values())
        potentials.check_conditions(expanded, table)
    except ValueError as error:
        raise ValueError(_with_options(str(error))) from None
    preset = entry.get("preset")
    computes = kind == "thermal" or (kind in RELAXED and (relax or unrelaxed or preset is not None))
    if unrelaxed and (relax or kind not in RELAXED):
        raise ValueError(f"--unrelaxed: is for {', '.join(RELAXED)}, and does not go with --relax")
    if relax and kind not in RELAXED:
        raise ValueError(
            f"--relax: GPAW relaxes {', '.join(RELAXED)}; "
            + ("a dislocation or twin takes --potential default" if kind in ("dislocation", "twin") else f"not {kind}")
        )
    if entry.get("cell") == "relaxed" and (unrelaxed or not computes):
        raise ValueError(
            "--cell: a relaxed cell takes GPAW; add --relax, or --preset smoke, laptop or paper; no --unrelaxed"
        )
    if kind == "thermal" and preset is None and not control:
        raise ValueError(
            "thermal takes molecular dynamics by GPAW: add --preset smoke (a minute, means nothing), laptop (minutes) "
            "or paper (hours); what the library holds is taken from there"
        )
    if control:
        chosen = next(c for c in expanded if c.id == c.control)
    elif kind in RELAXED:
        chosen = next(c for c in expanded if c.id != c.control and c.relaxed == (computes and not unrelaxed))
    else:
        chosen = expanded[-1]
    if kind in RELAXED and not computes:
        chosen = replace(chosen, id=chosen.id.removesuffix("-unrelaxed") + MEASURED)
    if not (computes or chosen.computed):
        return chosen, table[host], None
    overrides = {}
    if chosen.settings.get("cell") == "relaxed":
        overrides["relax"] = {"cell": "relaxed"}
    if flights := chosen.settings.get("flights"):
        overrides["aimd"] = {"flights": flights}
    return chosen, table[host], {"preset": preset or "laptop", "overrides": overrides}


def make(condition, host, seed: int, first_principles: dict | None, source: str, output: Path):
    """Structures of a condition, and what first principles were taken for them (None if none were).

    Long computations keep their restart state in `.NAME.state` beside the output and go on from there.
    """
    from defraction.conditions import seed_of

    settings = dict(condition.settings)
    family = settings.pop("family")
    own_seed = seed_of(seed, condition.id)
    if family == "strain":
        from defraction.defects import strain

        if first_principles is None:
            return [strain.build(host, settings)], None
        computed = _Computed(host, settings, first_principles, source, output, own_seed)
        images = [strain.build(host, settings, elastic=computed.elastic())]
        computed.done()
        return images, computed.origin
    if family == "block":
        from defraction.defects import displacements

        return displacements.build_samples(host, settings, own_seed), None
    if family in ("dislocation", "twin"):
        from defraction.defects import dislocation, twin

        module = {"dislocation": dislocation, "twin": twin}[family]
        perfect = settings.pop("perfect")
        return [(module.build_control if perfect else module.build)(host, settings)], None
    from defraction.defects import point

    if first_principles is None:
        return [point.build(host, settings)], None
    computed = _Computed(host, settings, first_principles, source, output, own_seed)
    if family == "thermal":
        images = computed.snapshots()
        for atoms in images:
            atoms.info["repeat"] = settings["repeat"]
    elif settings.get("relaxed"):
        images = [point.build(host, settings, relaxed=computed.relaxed())]
    else:
        images = [point.build(host, settings, lattice=computed.lattice())]
    computed.done()
    return images, computed.origin


class _Computed:
    """Files of first-principles tasks for one structure: from the library, or computed beside the output."""

    def __init__(self, host, settings: Mapping, first_principles: dict, source: str, output: Path, seed: int) -> None:
        from defraction.first_principles.library import FOLDER, Library

        self.host, self.row, self.settings, self.fp, self.seed = host, asdict(host), settings, first_principles, seed
        self.library = Library(ROOT / FOLDER if source == "library" else None)
        self.output, self.state = output, output.with_name(f".{output.stem}.state")
        self.origin: dict[str, Any] = {"preset": first_principles["preset"]}

    def lattice(self) -> Path:
        if entry := self.library.lattice(self.row, self.fp):
            return self._from_library("lattice", entry, "json")
        from defraction.first_principles import lattice

        settings = self._for("lattice")
        asked = hashlib.sha256(json.dumps([self.row, settings], sort_keys=True).encode()).hexdigest()
        path = self.state / f"lattice-{asked[:12]}.json"
        if not path.exists():
            self.state.mkdir(exist_ok=True)
            lattice.compute(self.row, settings, path, None, self.state / "lattice")
        self.origin["lattice"] = {"parameter": json.loads(path.read_text())["lattice_parameter"]}
        return path

    def elastic(self) -> Path:
        from defraction.first_principles import elastic

        summary, log = self.output.with_suffix(".json"), self.output.with_suffix(".gpaw.txt")
        settings = self._for("elastic")
        elastic.compute(self.row, self.lattice(), settings, summary, log, self.state / "elastic")
        self.origin["elastic"] = {"settings": settings, "sha256": {f.name: _sha256(f) for f in (summary, log)}}
        return summary

    def relaxed(self) -> Path:
        cells, defect = self.settings["supercell"], self.settings["defect"]
        if entry := self.library.relaxation(self.row, cells, defect, self.fp, self.fp):
            return self._from_library("relax", entry, "extxyz")
        from defraction.defects import point
        from defraction.first_principles.relax import relax_file

        atoms = point.build(self.host, {**self.settings, "repeat": [1, 1, 1]}, lattice=self.lattice())
        settings = self._for("relax", elements=sorted(set(atoms.symbols)), supercell=cells)
        return self._compute("relax", relax_file, atoms, settings)

    def snapshots(self) -> list:
        from defraction.structures import read_structures

        keys = ("supercell", "temperature", "protocol")
        asked = {key: self.settings[key] for key in keys}
        if entry := self.library.dynamics(self.row, *asked.values(), self.fp, self.fp):
            return read_structures(self._from_library("aimd", entry, "extxyz"))
        from defraction.defects import point
        from defraction.first_principles.aimd import run_file

        perfect = {"defect": None, "supercell": asked["supercell"], "repeat": [1, 1, 1]}
        atoms = point.build(self.host, perfect, lattice=self.lattice())
        settings = self._for("aimd", seed=self.seed, **asked)
        return read_structures(self._compute("aimd", run_file, atoms, settings))

    def done(self) -> None:
        import shutil

        shutil.rmtree(self.state, ignore_errors=True)

    def _for(self, task: str, **values) -> dict:
        from defraction.first_principles.settings import settings_for

        return settings_for(self.row, task=task, **values, **self.fp)

    def _from_library(self, task: str, entry, suffix: str) -> Path:
        self.origin[task] = {
            "library": entry.stem.name,
            "sha256": {path.name: _sha256(path) for path in map(entry.file, (suffix, "record.json"))},
        }
        return entry.file(suffix)

    def _compute(self, task: str, compute, atoms, settings: dict) -> Path:
        """The structure file; summary and log come to lie beside the output."""
        path = self.state / f"{task}.extxyz"
        self.state.mkdir(exist_ok=True)
        summary, log = self.output.with_suffix(".json"), self.output.with_suffix(".gpaw.txt")
        compute(atoms, settings, path, summary, log, self.state / task)
        self.origin[task] = {"settings": settings, "sha256": {f.name: _sha256(f) for f in (summary, log)}}
        return path


def what_can_be_built() -> str:
    """The table of `--list`: kinds, options with defaults and meaning, hosts; from the models of the configuration."""
    from defraction import config, hosts
    from defraction.defects import dislocation, potentials, twin

    table = hosts.read_hosts(ROOT / "resources/hosts.csv")
    lines = ["defraction build --host HOST --kind KIND [options] -o FILE.cif", ""]
    lines.append("Hosts (structure, lattice parameter [Å]); lengths follow from these or, with GPAW, from its own:")
    for structure in hosts.BASIS:
        rows = [f"{h.name} {h.lattice_parameter:g}" for h in table.values() if h.crystal_structure == structure]
        lines.append(f"  {structure}: {', '.join(rows)}")
    shipped = [f"{name} ({' '.join(potential.elements)})" for name, potential in potentials.SHIPPED.items()]
    lines.append(f"Potentials: {', '.join(shipped)}")
    structures = {"dislocation": dislocation.FRAMES, "twin": twin.FRAMES}
    for kind, model in config.KINDS.items():
        only = f" Hosts: {' and '.join(structures[kind])}." if kind in structures else ""
        lines += ["", f"{kind}: {(model.__doc__ or '').strip()}{only}"]
        rows = [(name, _default(field), _meaning(field)) for name, (_, field) in _options(kind).items()]
        wide = max((len(name) for name, _, _ in rows), default=0)
        deep = max((len(default) for _, default, _ in rows), default=0)
        for name, default, meaning in rows:
            start = f"  {name:{wide}}  {default:{deep}}  "
            lines += textwrap.wrap(start + meaning, 110, subsequent_indent=" " * len(start))
    lines += ["", *textwrap.wrap(GENERAL, 110)]
    return "\n".join(lines)


def _options(kind: str) -> dict[str, tuple[str, Any]]:
    """Options of a kind: {"--spacing": (key of the model, its field)}."""
    from defraction import config

    fields = config.KINDS[kind].model_fields
    return {
        f"--{SWEEPS.get(key, key).replace('_', '-')}": (key, field)
        for key, field in fields.items()
        if key not in NOT_OPTIONS
    }


def _option_names() -> list[str]:
    from defraction import config

    return sorted({name for kind in config.KINDS for name in _options(kind)})


def _is_option(word: str) -> bool:
    return word.startswith("-") and not re.fullmatch(r"-(\d|\.\d).*", word)


def _value(name: str, key: str, words: list[str], field) -> Any:
    """The value of a key of the configuration from the words behind its option; its model checks it."""
    if field.annotation is bool and not words:
        return True
    if not words:
        raise ValueError(f"{name}: needs a value ({field.description})")
    if key in TENSORS:
        return {component: yaml.safe_load(number) for component, _, number in (w.partition("=") for w in words)}
    wanted = len(get_args(field.annotation)) if get_origin(field.annotation) is tuple else 0
    if wanted and len(words) != wanted:
        raise ValueError(f"{name}: takes {wanted} values, not {len(words)}")
    if key in SWEEPS and len(words) != 1:
        raise ValueError(f"{name}: takes one value, not {len(words)}; a sweep belongs into a configuration")
    is_text = str in (field.annotation, *get_args(field.annotation))  # "No" is nobelium there, not false
    values = [word if is_text and word not in ("null", "none") else yaml.safe_load(word) for word in words]
    found = values if key in (*SWEEPS, *LISTS) or len(values) > 1 else values[0]
    one_site = key == "positions" and isinstance(found, list) and not isinstance(found[0], list)
    return [found] if one_site else found


def _default(field) -> str:
    if field.is_required():
        return "required"
    match field.default:
        case None:
            return "none"
        case bool(value):
            return "yes" if value else "no"
        case tuple(values):
            return " ".join(f"{x:g}" for x in values)
        case float(value):
            return f"{value:g}"
        case value:
            return str(value)


def _meaning(field) -> str:
    choices = _choices(field.annotation)
    text = (field.description or "").removeprefix("a list, or {start, stop, step}: ")
    return f"{text} ({', '.join(map(str, choices))})" if choices else text


def _choices(annotation) -> tuple:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for part in get_args(annotation) if (found := _choices(part))), ())


def _with_options(message: str) -> str:
    """A fault of the configuration, in the words of the command: one line."""

    def option(match: re.Match) -> str:
        return f"--{SWEEPS.get(match[1], match[1]).replace('_', '-')}"

    lines = [line.removeprefix("build: ") for line in message.splitlines()]
    text = "; ".join(re.sub(r"conditions\[0\]\.(\w+)(\[\d+\])?", option, line) for line in lines)
    text = re.sub(r"\bspecimen\.(supercell_)?repeat\b", "--repeat", text).replace("conditions[0]: ", "")
    return text.replace("(see config/README.md)", "(see defraction build --list)")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
