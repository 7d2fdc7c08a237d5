"""The configuration: one schema for every YAML file, checked once, before any job starts.

Every key has its unit and meaning in its description; `config/README.md` and `config/schema.json` are generated from
them (`python -m defraction.config`). A key belongs to exactly one of three groups, written in its section's docstring:
*physics* (a change reruns what depends on it), *runtime* and *presentation* (a change never reruns physics).
"""

from __future__ import annotations

import difflib
import json
import math
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from defraction.diffraction import settings as diffraction

SPACE_GROUPS = (213, 221, 225, 227, 229)
MAX_STRAIN = 0.2
Count = Annotated[int, Field(ge=1)]
Tilt = Annotated[float, Field(ge=-diffraction.MAX_TILT, le=diffraction.MAX_TILT)]
Supercell = Annotated[tuple[Count, Count, Count], Field(description="cells along a, b, c")]
Preset = Literal["smoke", "laptop", "paper"]


class ConfigError(ValueError):
    """The configuration cannot be used; the message says what, where and how to mend it."""


def _distinct(values, what):
    if len(set(values)) < len(values):
        twice = next(v for i, v in enumerate(values) if v in values[:i])
        raise ValueError(f"{what} {twice} is given twice; remove one")
    return values


def _above_zero(words: str) -> BeforeValidator:
    """Refuses a zero, with words that say where it is instead."""

    def check(value):
        if value == 0 and not isinstance(value, bool):
            raise ValueError(words)
        return value

    return BeforeValidator(check)


AT_ZERO = _above_zero(
    "zero is the control (kind pristine), which is always added and is the point at zero of a sweep; leave it out"
)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)


class Changes(Section):
    """Values in place of those of another section, which stand for the keys that are not given here."""

    @model_serializer(mode="wrap")
    def given(self, handler):
        return {key: value for key, value in handler(self).items() if key in self.model_fields_set}


class Materials(Section):
    """Clean crystals for training and for the held-out test (physics)."""

    table: Path | None = Field(
        Path("resources/materials.csv"), description="table of crystals, one per row; null: none"
    )
    folder: Path | None = Field(None, description="folder of your own CIF files, one crystal each; null: none")
    materials_project: list[str] = Field(
        [], description="Materials Project ids (mp-...) to fetch with your key in the environment variable MP_API_KEY"
    )
    space_groups: list[Literal[SPACE_GROUPS]] = Field(  # type: ignore[valid-type]
        list(SPACE_GROUPS), min_length=2, description="space groups (International Tables numbers) that are the classes"
    )
    exclude: list[str] = Field([], description="material ids to leave out")
    max_per_group: Count | None = Field(
        None, description="at most so many crystals of each space group, in the order of the table; null: all"
    )
    drawn: Annotated[int, Field(ge=0, le=999)] = Field(
        0,
        description="so many more crystals of each space group, atoms drawn at random on its Wyckoff positions "
        "(decided by `seed`); they train and are never held out",
    )
    specimens: Annotated[int, Field(ge=0, le=32)] = Field(
        0,
        description="further specimens of each clean crystal beside the block of `specimen.repeat`: blocks whose faces "
        "and thickness are drawn at random; snapshots 1, 2, ... of its pattern file",
    )

    @field_validator("space_groups")
    @classmethod
    def different(cls, groups):
        return _distinct(groups, "space group")


class Specimen(Section):
    """Size of the virtual specimen (physics)."""

    repeat: Supercell = Field((40, 30, 20), description="unit cells along a, b, c (article: 40, 30, 20)")
    supercell_repeat: Supercell = Field(
        (10, 10, 10), description="repeats of a defect supercell along a, b, c (article: 10, 10, 10)"
    )


def _default(key: str) -> Any:
    value = diffraction.DEFAULTS[key]
    return list(value) if isinstance(value, tuple) else value


class DiffractionKeys(Section):
    method: Literal[diffraction.METHODS] = Field(  # type: ignore[valid-type]
        _default("method"),
        description="auto: the cheaper of laue (repeated cells) and nufft (large cells), both exact; direct: the sum "
        "over every atom; spots: one spot per reflection, approximate; multislice: dynamical, by abTEM",
    )
    model: Literal[diffraction.MODELS] = Field(  # type: ignore[valid-type]
        _default("model"), description="physical: curved Ewald sphere, sharp block; article: flat plane, smooth beam"
    )
    scattering_factors: Literal[diffraction.TABLES] = Field(  # type: ignore[valid-type]
        _default("scattering_factors"),
        description="table of electron scattering factors (c4322: International Tables C, 4.3.2.2)",
    )
    zone_axes: list[tuple[int, int, int]] = Field(
        _default("zone_axes"),
        min_length=1,
        description="zone axes [u, v, w] of the reference cell; electrons travel along them",
    )
    voltages: list[Annotated[float, Field(ge=20, le=3000)]] = Field(
        _default("voltages"), min_length=1, description="accelerating voltages [kV]"
    )
    camera_lengths: list[Annotated[float, Field(gt=0, le=10)]] = Field(
        _default("camera_lengths"), min_length=1, description="camera lengths [m]"
    )
    detector_width: float = Field(
        _default("detector_width"), gt=0, le=1000, description="width of the square detector [mm]"
    )
    pixels: int = Field(_default("pixels"), ge=16, le=4096, description="pixels along each edge of the pattern")
    response_sigma: float = Field(
        _default("response_sigma"),
        ge=diffraction.SIGMA_MIN,
        le=5,
        description="Gaussian detector response, standard deviation [px]",
    )
    tilt: tuple[Tilt, Tilt] = Field(
        _default("tilt"),
        description="tilt of the specimen away from the zone axis [mrad], about the pattern's x, then its y axis "
        "(right-handed)",
    )
    rotation: float = Field(
        _default("rotation"),
        ge=-360,
        le=360,
        description="in-plane rotation of the crystal [degree], from x towards y",
    )
    convergence: float = Field(
        _default("convergence"),
        ge=0,
        le=diffraction.MAX_CONVERGENCE,
        description="semi-angle of the cone of illumination [mrad]: incoherent sum over the directions in it",
    )
    shape: Literal[diffraction.SHAPES] = Field(  # type: ignore[valid-type]
        _default("shape"),
        description="outline of the specimen: the whole block, or the cylinder (along c) or sphere inscribed in it",
    )
    debye_waller: dict[str, float] = Field(
        _default("debye_waller"),
        description="Debye-Waller factors {element: B in Å²}; others have none; not with thermal conditions",
    )
    average_snapshots: bool = Field(
        _default("average_snapshots"),
        description="mean of the intensities over the snapshots of a structure file (frozen phonons), in place of one "
        "pattern for each",
    )

    @field_validator("zone_axes")
    @classmethod
    def coprime(cls, axes):
        for axis in axes:
            if not any(axis):
                raise ValueError("[0, 0, 0] is no direction; give at least one index that is not zero")
            if math.gcd(*axis) != 1:
                raise ValueError(f"{list(axis)} has a common factor; divide by {math.gcd(*axis)}")
        return _distinct(axes, "zone axis")

    @field_validator("voltages", "camera_lengths")
    @classmethod
    def distinct(cls, values):
        return _distinct(values, "value")

    @field_validator("debye_waller")
    @classmethod
    def of_elements(cls, factors):
        diffraction.check_debye_waller(factors)
        return factors


class Diffraction(DiffractionKeys):
    """Microscope, detector and method (physics)."""

    @model_validator(mode="after")
    def together(self):
        diffraction.check_together(self.model_dump())
        return self


class PatternSet(Changes, DiffractionKeys):
    """A second set of patterns of the same specimens, under other settings (physics)."""


class FirstPrinciples(Section):
    """GPAW (physics)."""

    source: Literal["library", "compute"] = Field(
        "library",
        description="library: take from resources/structures what it holds for exactly these settings and compute the "
        "rest; compute: compute everything",
    )
    preset: Preset = Field(
        "laptop", description="set of cutoffs, k-meshes and convergence limits; docs/first-principles.md lists them"
    )
    overrides: dict[str, dict[str, Any]] = Field(
        {},
        description="values in place of the preset's: {section: {key: value}} with the sections electronic, lattice, "
        "relax, aimd and elastic; a key of electronic may stand in the section of one task",
    )

    @field_validator("overrides")
    @classmethod
    def known(cls, overrides):
        from defraction.first_principles.tables import check_overrides

        check_overrides(overrides)
        return overrides


class Range(Section):
    """An evenly spaced range that includes both ends."""

    start: float
    stop: float
    step: float = Field(gt=0)

    @model_validator(mode="after")
    def ordered(self):
        if self.stop < self.start:
            raise ValueError(
                f"the range ends ({self.stop:g}) before it starts ({self.start:g}); exchange start and stop"
            )
        count = (self.stop - self.start) / self.step
        if abs(count - round(count)) > 1e-6:
            raise ValueError(f"step {self.step:g} does not divide the range {self.start:g} to {self.stop:g}")
        return self

    def values(self) -> list[float]:
        count = round((self.stop - self.start) / self.step)
        return [round(self.start + i * self.step, 10) for i in range(count + 1)]


class Condition(Section):
    host: str = Field(description="host crystal, a row of resources/hosts.csv")


class Pristine(Condition):
    """The defect-free host at its measured lattice parameter."""

    kind: Literal["pristine"]


class Tensor(Section):
    """Components of a symmetric tensor along the cube axes; those that are left out are zero."""

    xx: float = Field(0.0, allow_inf_nan=False)
    yy: float = Field(0.0, allow_inf_nan=False)
    zz: float = Field(0.0, allow_inf_nan=False)
    yz: float = Field(0.0, allow_inf_nan=False)
    xz: float = Field(0.0, allow_inf_nan=False)
    xy: float = Field(0.0, allow_inf_nan=False)

    def times(self, factor: float) -> dict[str, float]:
        """The components that are not zero, multiplied."""
        return {name: round(factor * value, 10) for name, value in self if value}


class Strain(Condition):
    """Uniform strain by Hooke's law for the anisotropic crystal."""

    kind: Literal["strain"]
    mode: Literal["component", "biaxial", "hydrostatic", "stress", "pressure", "tensor"] = Field(
        "component",
        description="component: one strain component, all other stresses zero; biaxial: mismatch in a free film; "
        "hydrostatic: the same along all axes; stress: one component or a tensor of stress; pressure; tensor: all of "
        "the strain is given",
    )
    component: Literal["xx", "yy", "zz", "xy", "xz", "yz"] | None = Field(
        None, description="normal or shear component, for the modes component and stress"
    )
    plane: tuple[int, int, int] | None = Field(
        None, description="Miller indices of the film's plane, for the mode biaxial (default 0, 0, 1)"
    )
    stress: Tensor | None = Field(
        None,
        description="for the mode stress, in place of a component: several, such as {xx: 0.5, xy: 0.1} [GPa]; the mode "
        "may be left out",
    )
    tensor: Tensor | None = Field(
        None,
        description="for the mode tensor: components of the strain such as {xx: 0.01, xy: 0.004}, as fractions, shear "
        "as engineering strain; those left out are zero; the mode may be left out",
    )
    elastic: Literal["table", "gpaw"] = Field(
        "table",
        description="elastic constants: of resources/hosts.csv, or computed by GPAW at its own lattice constant (then "
        "part of the id); the lattice parameter is the table's",
    )
    preset: Preset | None = Field(
        None, description="preset of those that GPAW computes, and part of the id; none: that of first_principles"
    )
    values: Annotated[
        Annotated[list[float], Tag("list")] | Annotated[Range, Tag("range")],
        Discriminator(lambda given: "range" if isinstance(given, dict | Range) else "list"),
    ] = Field(
        description="a list, or {start, stop, step}: strains as fractions (0.01 is 1 %), shear as engineering strain "
        "[rad]; stress and pressure in GPa; of `stress` or `tensor` multiples (default: 1)"
    )

    @model_validator(mode="before")
    @classmethod
    def tensor_as_it_is(cls, given):
        """A tensor says its mode, and is meant as it is without `values`."""
        if not isinstance(given, dict):
            return given
        named = [key for key in ("stress", "tensor") if given.get(key) is not None]
        if "mode" not in given and named:
            given = {**given, "mode": named[0]}
        if given.get("mode") == "tensor" or (given.get("mode") == "stress" and "stress" in named):
            given = {"values": [1.0], **given}
        return given

    @field_validator("values")
    @classmethod
    def bounded(cls, values, info):
        numbers = values.values() if isinstance(values, Range) else values
        if not numbers:
            raise ValueError("no strain given; write at least one value")
        for value in numbers:
            if abs(value) > MAX_STRAIN and info.data.get("mode") not in ("stress", "pressure", "tensor"):
                raise ValueError(
                    f"strain {value:g} is beyond {MAX_STRAIN:g}: Hooke's law does not hold there "
                    f"(did you mean {value / 100:g}? strains are fractions, 0.01 is 1 %)"
                )
            if value == 0:
                raise ValueError("a strain of zero is the control (kind pristine), which is always added; leave it out")
        return values

    @model_validator(mode="after")
    def consistent(self):
        for key, modes in {
            "component": ("component", "stress"), "plane": ("biaxial",), "stress": ("stress",), "tensor": ("tensor",)
        }.items():  # fmt: skip
            if getattr(self, key) is not None and self.mode not in modes:
                raise ValueError(f"the mode {self.mode} takes no {key}")
        if self.plane is not None and not any(self.plane):
            raise ValueError("plane [0, 0, 0] is none; give at least one index that is not zero")
        if self.mode == "component" and self.component is None:
            raise ValueError("the mode component needs a component, such as xx")
        if self.mode == "stress" and (self.component is None) == (self.stress is None):
            raise ValueError("the mode stress needs either a component, or stress, such as {xx: 1, xy: 0.2}")
        if self.mode == "tensor":
            if self.tensor is None:
                raise ValueError("the mode tensor needs tensor, such as {xx: 0.01, xy: 0.004}")
            largest = max((abs(x) for n in self.numbers() for x in self.tensor.times(n).values()), default=0.0)
            if largest > MAX_STRAIN:
                raise ValueError(f"a strain of {largest:g} is beyond {MAX_STRAIN:g} (fractions: 0.01 is 1 %)")
        for key in ("stress", "tensor"):
            if (given := getattr(self, key)) is not None and not given.times(1.0):
                raise ValueError(f"all components of {key} are zero, which is the control; leave it out")
        if self.elastic == "gpaw" and self.mode in ("hydrostatic", "tensor"):
            raise ValueError(f"the mode {self.mode} gives the strain without elastic constants; leave elastic out")
        if self.preset is not None and self.elastic != "gpaw":
            raise ValueError("preset is that of computed elastic constants; add elastic: gpaw, or leave it out")
        return self

    def numbers(self) -> list[float]:
        return self.values.values() if isinstance(self.values, Range) else list(self.values)


class RandomBlock(Condition):
    """Disorder without a period: the whole specimen is one block of `specimen.repeat` cells."""

    samples: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="independent specimens, kept as the structures of one file"
    )


def _solute_and_site(defect: str, solute: str | None, site: str | None) -> None:
    if (solute is None) != (defect == "vacancy"):
        raise ValueError(f"the defect {defect} {'takes no' if defect == 'vacancy' else 'needs a'} solute")
    if (site is None) == (defect == "interstitial"):
        raise ValueError(f"the defect {defect} {'needs a' if site is None else 'takes no'} site")


class RandomDefects(RandomBlock):
    """Point defects at random sites of the whole specimen, unrelaxed; the control is the pristine crystal."""

    kind: Literal["random_defects"]
    defect: Literal["vacancy", "substitution", "interstitial"] = Field("vacancy", description="kind of defect")
    solute: str | None = Field(None, description="element symbol of the foreign atom; none for a vacancy")
    site: Literal["tetrahedral", "octahedral", "hexagonal"] | None = Field(
        None, description="interstitial site; hexagonal in diamond"
    )
    concentrations: list[Annotated[float, Field(gt=0, le=0.5), AT_ZERO]] = Field(
        min_length=1,
        description="defects per lattice site (the predecessors tested vacancies up to 0.25); without 0, where the "
        "control stands, which is always added",
    )

    @model_validator(mode="after")
    def consistent(self):
        _solute_and_site(self.defect, self.solute, self.site)
        _distinct(self.concentrations, "concentration")
        return self


class RandomDisplacements(RandomBlock):
    """Every atom of the specimen displaced at random (no thermal motion); the control is the pristine crystal."""

    kind: Literal["random_displacements"]
    distribution: Literal["gaussian", "uniform"] = Field("gaussian", description="distribution of each component")
    fractions: list[Annotated[float, Field(gt=0, le=0.25), AT_ZERO]] = Field(
        min_length=1,
        description="gaussian: standard deviation, uniform: largest value of a component, over the distance of "
        "nearest neighbours; without 0, where the control stands, which is always added",
    )

    @field_validator("fractions")
    @classmethod
    def distinct(cls, values):
        return _distinct(values, "fraction")


class Computed(Condition):
    supercell: Supercell
    preset: Preset | None = Field(
        None,
        description="preset of this condition and its control, and part of their ids; none: that of first_principles",
    )


class Defective(Computed):
    unrelaxed: bool = Field(True, description="also the defect at ideal positions, as a condition of its own")
    cell: Literal["fixed", "relaxed"] = Field(
        "fixed", description="relaxed: lengths and angles of the supercell relax with the atoms"
    )
    minimum_separation: Annotated[float, Field(ge=0)] | None = Field(
        None, description="least distance of any two defects, periodic images included [Å]"
    )


class PointDefect(Defective):
    count: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="defects per supercell; several stand at random sites that follow from the seed"
    )
    positions: list[tuple[float, float, float]] | None = Field(
        None, min_length=1, description="chosen sites [u, v, w], in conventional cells from the origin, without count"
    )

    @model_validator(mode="after")
    def placed_once(self):
        if self.positions is not None and self.count != 1:
            raise ValueError("count and positions both say how many defects there are; remove one")
        return self


class Vacancy(PointDefect):
    """One missing atom per supercell, or several, relaxed by GPAW."""

    kind: Literal["vacancy"]


class Substitution(PointDefect):
    """One foreign atom on a lattice site per supercell, or several, relaxed by GPAW."""

    kind: Literal["substitution"]
    solute: str = Field(description="element symbol of the foreign atom")


class Interstitial(PointDefect):
    """One foreign atom between lattice sites per supercell, or several, relaxed by GPAW."""

    kind: Literal["interstitial"]
    solute: str = Field(description="element symbol of the foreign atom")
    site: Literal["tetrahedral", "octahedral", "hexagonal"] = Field(
        "tetrahedral", description="interstitial site; octahedral in fcc and bcc, hexagonal in diamond"
    )


class Neighbour(Section):
    """A site by its distance from a defect that stands before it in the list."""

    shell: Count = Field(1, description="shell of neighbours, counted from 1")
    of: int = Field(0, ge=0, description="number of that defect, counted from 0 over all sites chosen so far")


class Defect(Section):
    """One kind of defect in a list of several."""

    kind: Literal["vacancy", "substitution", "interstitial"] = Field(description="kind of defect")
    solute: str | None = Field(None, description="element symbol of the foreign atom; none for a vacancy")
    site: Literal["tetrahedral", "octahedral", "hexagonal"] | None = Field(None, description="interstitial site")
    positions: list[tuple[float, float, float]] | None = Field(
        None, min_length=1, description="chosen sites [u, v, w], in conventional cells from the origin"
    )
    neighbour: Neighbour | None = Field(None, description="a site by its distance from a defect before this one")
    count: Count | None = Field(None, description="so many random sites")
    concentration: Annotated[float, Field(gt=0, le=0.5), _above_zero("zero is no defect; leave it out")] | None = Field(
        None, description="random sites, defects per lattice site of the perfect cell"
    )

    @model_validator(mode="after")
    def consistent(self):
        _solute_and_site(self.kind, self.solute, self.site)
        given = [k for k in ("positions", "neighbour", "count", "concentration") if getattr(self, k) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} say where the {self.kind} goes; keep one")
        return self


class PointDefects(Defective):
    """Several kinds of point defects in one supercell, such as a vacancy beside a foreign atom, relaxed by GPAW."""

    kind: Literal["point_defects"]
    defects: list[Defect] = Field(
        min_length=1,
        description="a list of {kind: vacancy, substitution or interstitial, solute, site}, each with one of "
        "positions, neighbour: {shell, of}, count and concentration, or with none of them for the default site",
    )


class Thermal(Computed):
    """Snapshots of ab initio molecular dynamics (GPAW)."""

    kind: Literal["thermal"]
    temperatures: list[Annotated[float, Field(gt=0, le=3000)]] = Field(min_length=1, description="temperatures [K]")
    protocol: Literal["published", "equilibrated"] = Field(
        "published",
        description="published: about 20 fs from the perfect lattice; equilibrated: thermostatted, the snapshots' "
        "patterns averaged as intensities",
    )
    flights: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None,
        description="independent runs from the perfect lattice, each with random numbers of its own; none: as many as "
        "the preset has (equilibrated: one)",
    )

    @field_validator("temperatures")
    @classmethod
    def distinct(cls, values):
        return _distinct(values, "temperature")


class Relaxable(Condition):
    """A specimen that an interatomic potential may relax."""

    potential: str | None = Field(
        None,
        description="interatomic potential that relaxes the specimen: default, a name of docs/structures.md or the "
        "path of a file; none: not relaxed",
    )
    fmax: float = Field(0.01, gt=0, description="largest force at which that relaxation ends [eV/Å]")
    rim: float | None = Field(
        None, ge=0, description="width of the rim that is held fixed [Å]; default: twice the potential's cutoff"
    )


class Dislocation(Relaxable):
    """An array of dislocations of equal sign on one slip plane."""

    kind: Literal["dislocation"]
    character: Literal["edge", "screw", "mixed"] = Field(
        "edge", description="angle of line and Burgers vector; mixed: 60 degrees in fcc, 70.5 in bcc"
    )
    method: Literal["elastic", "half-planes"] = Field(
        "elastic", description="elastic: anisotropic elasticity; half-planes: by inserting them, as the article does"
    )
    count: Annotated[int, Field(ge=1, le=20)] = Field(4, description="number of dislocations (article: 4)")
    spacing: Annotated[float, Field(gt=2)] | None = Field(
        32.0, description="distance between neighbours on the slip plane [Å]; not published; null: even, if periodic"
    )
    periodic: bool = Field(False, description="an endless row along the slip plane instead of a finite one")
    size: tuple[float, float] = Field(
        (160.0, 120.0), description="cross-section along the Burgers vector and the plane normal [Å]; not published"
    )
    line_repeat: Count = Field(16, description="periods of the lattice along the dislocation line")

    @model_validator(mode="after")
    def consistent(self):
        if self.spacing is None and not self.periodic:
            raise ValueError("spacing is null; only a periodic row is evenly spaced by itself")
        return self


class Twin(Relaxable):
    """A finite bicrystal with one coherent Sigma 3 boundary, or a stack of twins."""

    kind: Literal["twin"]
    size: tuple[float, float, float] = Field(
        (160.0, 120.0, 80.0),
        description="extent along the twinning direction, the plane normal and their cross product [Å]; not published",
    )
    thickness: Annotated[float, Field(gt=0)] | None = Field(
        None, description="thickness of the lamellae of a stack [Å]; null: one boundary"
    )


AnyCondition = Annotated[
    Pristine
    | Strain
    | Vacancy
    | Substitution
    | Interstitial
    | PointDefects
    | RandomDefects
    | RandomDisplacements
    | Thermal
    | Dislocation
    | Twin,
    Field(discriminator="kind"),
]


class Display(Section):
    """Display transform applied when patterns are read (physics of the classifier)."""

    beam_stop: float = Field(2.0, ge=0, description="radius of the mask over the direct beam [mm]")
    decades: float = Field(3.0, gt=0, le=12, description="decades of intensity below the brightest unmasked pixel")


class Split(Section):
    """What is held out (physics)."""

    by: Literal["material", "prototype", "image"] = Field(
        "material",
        description="material: whole crystals; prototype: whole prototypes of a space group, where it has several; "
        "image: single patterns of every crystal, near duplicates of those that train, "
        "to compare with studies that do so",
    )
    held_out: float = Field(
        0.3, gt=0, lt=1, description="fraction held out of the crystals of each space group (image: of its patterns)"
    )
    hosts: Literal["train", "held_out"] = Field(
        "train", description="the host crystals (Al, Fe) in the training set or held out"
    )
    drawn: bool = Field(True, description="whether the crystals of `materials.drawn` train")
    validation: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="fraction of the rest that does not train but chooses the pass to stop at or to keep; taken "
        "only if `early_stop` or `keep: best` asks for it",
    )


class Augmentation(Section):
    """Random changes of the training patterns (physics)."""

    rotation: float = Field(180.0, ge=0, le=180, description="in-plane rotation up to +- this angle [degree]")
    shift: float = Field(1.0, ge=0, description="shift up to +- this many pixels")
    scale: float = Field(0.02, ge=0, le=0.5, description="magnification up to 1 +- this fraction")
    mirror: bool = Field(
        False,
        description="every second pattern mirrored (labels do not tell mirror images apart); for pictures of unknown "
        "handedness",
    )


class LearningKeys(Section):
    architecture: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = Field(
        "resnet101", description="torchvision network"
    )
    display: Display = Display()
    split: Split = Split()
    augmentation: Augmentation = Augmentation()
    epochs: Count = Field(
        10, description="passes: as many draws each as there are training patterns, all specimens counted as one"
    )
    batch_size: Count = Field(32, description="patterns per step")
    learning_rate: float = Field(1e-3, gt=0, description="largest learning rate of the schedule (AdamW)")
    schedule: Literal["one-cycle", "cosine", "constant"] = Field(
        "one-cycle",
        description="learning rate by step; one-cycle rises over `warmup`, then falls to 0; cosine only falls",
    )
    warmup: float = Field(
        0.2, ge=0, lt=1, description="share of the steps in which the learning rate of a one-cycle rises"
    )
    weight_decay: float = Field(0.05, ge=0, description="weight decay")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="arithmetic of the forward pass; auto: bf16 where the device has instructions for it"
    )
    monitor: Count = Field(
        1000,
        description="held-out patterns watched after each pass, turned as in training (not used to choose anything)",
    )
    keep: Literal["last", "best"] = Field(
        "last", description="weights that predict: of the last step, or of the pass with the lowest validation loss"
    )
    early_stop: Annotated[int, Field(ge=0)] = Field(
        0, description="passes without a lower validation loss after which training ends; 0: never"
    )
    specimens: Literal["all", "block"] = Field(
        "all",
        description="specimens of a crystal that train: the block of `specimen.repeat`, as in the article, or all, "
        "with those of `materials.specimens`",
    )


class Learning(LearningKeys):
    """The classifier (physics)."""


class DisplayChanges(Changes, Display): ...


class SplitChanges(Changes, Split): ...


class AugmentationChanges(Changes, Augmentation): ...


class Model(Changes, LearningKeys):
    """A network to train: its name, patterns and seeds, and any key of `learning` in place of the value there."""

    name: str = Field("main", pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", description="name: small letters, digits, hyphens")
    pattern_set: str = Field("main", description="patterns it trains on: main, or a name of `pattern_sets`")
    seeds: list[Annotated[int, Field(ge=0)]] | None = Field(
        None,
        min_length=1,
        description="seeds of initial weights and draws, a network each (the split follows `seed` of the study); null: "
        "that one",
    )
    display: DisplayChanges = DisplayChanges()
    split: SplitChanges = SplitChanges()
    augmentation: AugmentationChanges = AugmentationChanges()

    @field_validator("seeds")
    @classmethod
    def distinct(cls, seeds):
        return seeds if seeds is None else _distinct(seeds, "seed")


class Evaluation(Section):
    """How accuracies are counted (physics)."""

    rotated_copies: Count = Field(
        4,
        description="test copies of each pattern, the first as it is, the others turned, shifted and magnified within "
        "the ranges of training; averaged, not counted as independent",
    )
    ensemble_sizes: list[Count] = Field([1, 2, 4, 8, 16], description="numbers of zone axes k in an ensemble")
    draws: Count = Field(200, description="random draws of k zone axes per crystal")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="confidence of the intervals")
    calibration_bins: Annotated[int, Field(ge=2, le=100)] = Field(
        15, description="bins of probability in which answers are compared with the truth"
    )


class Runtime(Section):
    """Where and how fast; never changes a result beyond the stated tolerance (runtime)."""

    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="where patterns and networks are computed")
    memory: float = Field(2.0, gt=0, description="memory for a batch of patterns [GiB]")
    training_threads: Count = Field(2, description="CPU threads of one training job")
    training_processes: Count = Field(
        1,
        description="data-parallel processes of one training job, which share its threads; on GPUs one for each",
    )
    deterministic: bool = Field(
        True, description="same seed and machine: same weights to the last bit; false: faster convolutions on a GPU"
    )
    gpaw_ranks: Count = Field(1, description="MPI ranks of one GPAW job; 1 needs no MPI")
    gpaw_gpu: bool = Field(False, description="GPAW on GPUs; needs a build of GPAW for them")
    mpi_launcher: str = Field(
        "mpiexec", min_length=1, description="command that starts MPI ranks, with its arguments (srun --mpi=pmi2)"
    )
    walltime: float | None = Field(
        None, gt=0, description="a GPAW job ends before this time is up, with restart state [s]; null: no limit"
    )
    segments: Annotated[int, Field(ge=1, le=99)] = Field(
        1,
        description="jobs of at most `walltime`, one after the other, in which a relaxation or a run of molecular "
        "dynamics is done",
    )

    cache: str | None = Field(
        None,
        min_length=1,
        description="folder where first-principles results are shared between studies, keyed by settings, inputs, code "
        "and versions; null: that of the environment variable DEFRACTION_CACHE, if it is set",
    )
    record_host: bool = Field(
        True, description="whether records and calculator logs name the host, the user and folders outside the study"
    )

    @model_validator(mode="after")
    def limited(self):
        if self.segments > 1 and self.walltime is None:
            raise ValueError(
                "segments above 1 need a walltime at which a segment ends; give runtime.walltime in seconds"
            )
        return self


class Presentation(Section):
    """How results look (presentation)."""

    colour: str = Field("#1f6f8b", pattern=r"^#[0-9a-fA-F]{6}$", description="main colour of the figures")
    pattern_decades: float = Field(5.0, gt=0, le=12, description="decades shown in pictures of patterns")


class Config(Section):
    """defraction's configuration."""

    seed: int = Field(1, ge=0, description="seed of everything random")
    reductions: list[str] = Field(
        [], description="what this configuration reduces against config/paper.yaml; printed beside every result"
    )
    materials: Materials = Materials()
    specimen: Specimen = Specimen()
    diffraction: Diffraction = Diffraction()
    first_principles: FirstPrinciples = FirstPrinciples()
    conditions: list[AnyCondition] = Field(min_length=1, description="what is tested; see the kinds below")
    learning: Learning = Learning()
    pattern_sets: dict[Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")], PatternSet] = Field(
        {}, description="further sets of patterns by name: keys of `diffraction` with other values"
    )
    models: list[Model] = Field(
        [Model()], min_length=1, description="networks to train; the first with its first seed is the headline"
    )
    evaluation: Evaluation = Evaluation()
    runtime: Runtime = Runtime()
    presentation: Presentation = Presentation()

    @model_validator(mode="after")
    def displacements_once(self):
        thermal = [i for i, condition in enumerate(self.conditions) if condition.kind == "thermal"]
        if self.diffraction.debye_waller and thermal:
            raise ValueError(
                f"diffraction.debye_waller: conditions[{thermal[0]}] (thermal) displaces the atoms itself, so their "
                "motion would be counted twice; empty debye_waller, or remove the thermal conditions"
            )
        return self

    @model_validator(mode="after")
    def resolved(self):
        """Pattern sets and models stand for whole sections, which have to hold too."""
        for name in self.pattern_sets:
            if name == "main":
                raise ValueError("pattern_sets.main: main is the set of `diffraction` itself; give another name")
            if "zone_axes" in self.pattern_sets[name].model_fields_set:
                raise ValueError(
                    f"pattern_sets.{name}.zone_axes: all sets share the zone axes, which define the labels"
                )
            _nested(f"pattern_sets.{name}", self.diffraction_of, name)
        averaged = [name for name in ("main", *self.pattern_sets) if self.diffraction_of(name).average_snapshots]
        if self.materials.specimens and averaged:
            raise ValueError(
                "materials.specimens: average_snapshots would mix the specimens of a crystal into one pattern; set one "
                "of the two back to 0 or false"
            )
        names = [model.name for model in self.models]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"models: {name} is given twice; give each model a name of its own, and one model all its seeds in "
                    "`seeds`"
                )
        for i, model in enumerate(self.models):
            if model.pattern_set not in ("main", *self.pattern_sets):
                near = difflib.get_close_matches(model.pattern_set, ["main", *self.pattern_sets], n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(['main', *self.pattern_sets])}"
                raise ValueError(f"models[{i}].pattern_set: there is no set {model.pattern_set!r}; {hint}")
            _nested(f"models[{i}]", self.learning_of, model)
        return self

    def diffraction_of(self, pattern_set: str) -> Diffraction:
        """The section `diffraction` of a set of patterns."""
        if pattern_set == "main":
            return self.diffraction
        return Diffraction.model_validate(self.diffraction.model_dump() | self.pattern_sets[pattern_set].model_dump())

    def learning_of(self, model: Model) -> Learning:
        """The section `learning` of a model."""
        changes = {k: v for k, v in model.model_dump().items() if k in LearningKeys.model_fields}
        merged = self.learning.model_dump()
        for key, value in changes.items():
            merged[key] = merged[key] | value if isinstance(value, dict) else value
        return Learning.model_validate(merged)


def _nested(where: str, resolve, *arguments) -> None:
    """Faults of a section that is put together, said where its parts stand."""
    try:
        resolve(*arguments)
    except ValidationError as error:
        fault = error.errors()[0]
        key = "".join(f".{part}" for part in fault["loc"])
        raise ValueError(f"{where}{key}: {re.sub('^Value error, ', '', fault['msg'])}") from None


def validate(raw: dict[str, Any], source: str = "config") -> Config:
    """Check a configuration as read from YAML.

    Args:
        raw: nested mapping.
        source: name for messages, usually the file.

    Raises:
        ConfigError: one line per fault: where, what, how to mend it.
    """
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected keys and values, found {type(raw).__name__}; see config/README.md")
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        lines = [f"{source}: {_explain(fault, raw)}" for fault in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def load(path: Path | str) -> Config:
    """Read and check one YAML file.

    Raises:
        ConfigError: the file is absent, is not YAML, or is not a valid configuration.
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give an existing file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    return validate(raw, str(path))


def plain(section: BaseModel) -> dict[str, Any]:
    """A section as plain, sorted values, fit to be a rule's `params` (which are compared as text)."""
    return json.loads(json.dumps(section.model_dump(mode="json"), sort_keys=True))


def gpus_per_job(runtime: Runtime) -> int:
    """The `gpu` resource of jobs that can use one: 1 if one was asked for or this machine shows one, else 0."""
    shown = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()
    return int(runtime.device == "gpu" or (runtime.device == "auto" and shown))


KINDS = {get_args(model.model_fields["kind"].annotation)[0]: model for model in get_args(get_args(AnyCondition)[0])}

TAGS = ("list", "range")


def _explain(fault: dict, raw: dict) -> str:
    location = [part for part in fault["loc"] if part not in KINDS and part not in TAGS]
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location).lstrip(".")
    kind, given = fault["type"], fault.get("input")
    if kind == "extra_forbidden":
        known = _known_keys(fault["loc"][:-1], raw)
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys here: {', '.join(sorted(known))}"
        return f"{where}: unknown key; {hint}"
    if kind == "missing":
        return f"{where}: is missing; add it (see config/README.md)"
    if kind.startswith("union_tag"):
        name = given.get("kind") if isinstance(given, dict) else given
        near = difflib.get_close_matches(str(name), KINDS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        return f"{where}: unknown kind {name!r}; {hint}Known kinds: {', '.join(KINDS)}"
    message = re.sub(r"^Value error, ", "", fault["msg"])
    if kind == "value_error":  # a fault between sections names its key itself
        return f"{where}: {message}" if where else message
    return f"{where}: {message[0].lower()}{message[1:]} (found {given!r})"


def _known_keys(location: tuple, raw: dict) -> list[str]:
    model: Any = Config
    node: Any = raw
    for part in location:
        if part in KINDS:
            model = KINDS[part]
        elif part == "range":
            model = Range
        elif isinstance(part, str) and part not in TAGS:
            field = model.model_fields.get(part)  # none for the names in a mapping of sections
            kinds = [field.annotation, *get_args(field.annotation)] if field else []
            model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
            node = node.get(part, {}) if isinstance(node, dict) else {}
    return list(model.model_fields)


def _rows(model: type[BaseModel], prefix: str = "") -> list[str]:
    rows = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            rows += _rows(annotation, f"{prefix}{name}.")
            continue
        if any(isinstance(kind, type) and issubclass(kind, Changes) for kind in get_args(annotation)):
            continue  # models and pattern_sets have parts of their own
        default = "required" if field.is_required() else f"`{json.dumps(_jsonable(field.default))}`"
        if len(default) > 60:
            default = "see docs/conventions.md"
        choices = get_args(annotation) if getattr(annotation, "__origin__", None) is Literal else ()
        text = field.description or ""
        if choices and name != "kind":
            text += f" ({', '.join(map(str, choices))})"
        rows.append(f"| `{prefix}{name}` | {default} | {text} |")
    return rows


def _jsonable(value):
    return str(value) if isinstance(value, Path) else value


RERUNS = {
    "materials": "the crystals that changed, then training and everything after it",
    "specimen": "all structures (not their first-principles calculations) and everything after them",
    "diffraction": "all patterns and everything after them",
    "first_principles": "lattice constants, relaxations, molecular dynamics and everything after them (`source`: what "
    "comes from another place now)",
    "learning": "training and everything after it (`display`, `split` too)",
    "evaluation": "predictions (`rotated_copies`) or only the summary (the others)",
    "runtime": "nothing",
    "presentation": "figures and report",
}


def reference() -> str:
    """The text of config/README.md."""
    out = [
        "# Configuration",
        "",
        "Generated by `make docs` from `workflow/scripts/defraction/config.py`; edit there.",
        "",
        "`config.yaml` is the default study for a laptop, `smoke.yaml` the shortest whole chain (used by the tests),",
        "`paper.yaml` the published study in full. Choose with `snakemake --configfile config/paper.yaml`.",
        "Unknown keys are refused. `schema.json` is the same as a JSON schema, for editors.",
        "",
        "| key | default | meaning |",
        "|---|---|---|",
        *[r for r in _rows(Config) if not re.match(r"\| `(materials|conditions)", r) and "." not in r.split("|")[1]],
        "| `conditions` | required | list of conditions, see below |",
        "",
    ]
    for name, text in RERUNS.items():
        section = Config.model_fields[name].annotation
        out += [f"## `{name}`", "", (section.__doc__ or "").strip(), "", f"A change reruns: {text}.", ""]
        out += ["| key | default | meaning |", "|---|---|---|", *_rows(section), ""]
    own = [name for name in Model.model_fields if name not in LearningKeys.model_fields]
    out += [
        "## `pattern_sets`",
        "",
        (PatternSet.__doc__ or "").strip(),
        "",
        "A mapping from names (small letters, digits, hyphens) to keys of `diffraction` with other values, such as",
        "`{article: {model: article}, p128: {pixels: 128}}`. Zone axes are common to all sets. Default: none. A change",
        "reruns the patterns of that set and the models trained on it.",
        "",
        "## `models`",
        "",
        (Model.__doc__ or "").strip(),
        "",
        "Default: one model, `main`. The first model with its first seed is the headline: figures and report show it.",
        "A model of name `main` with seed 2 lies in `results/models/main-seed2/`. A change reruns the training of that",
        "model and everything after it; a further model or seed trains only itself.",
        "",
        "| key | default | meaning |",
        "|---|---|---|",
        *[row for row in _rows(Model) if row.split("`")[1] in own],
        "| keys of `learning` | its values | `display`, `split` and `augmentation` key by key |",
        "",
    ]
    out += [
        "## `conditions`",
        "",
        "A list; each entry has a `kind` and a `host`. Its id is made from its parameters (`al-strain-xx+2.5pct`,",
        "`al-vacancy-2x2x2`), and the matched control is added by itself. A change reruns the chain of that condition",
        "and the summary.",
        "",
    ]
    for kind, model in KINDS.items():
        out += [
            f"### `kind: {kind}`",
            "",
            (model.__doc__ or "").strip(),
            "",
            "| key | default | meaning |",
            "|---|---|---|",
        ]
        out += [r for r in _rows(model) if not r.startswith("| `kind`")] + [""]
    return "\n".join(out)


def schema() -> str:
    """The text of config/schema.json."""
    return json.dumps(Config.model_json_schema(), indent=1) + "\n"


if __name__ == "__main__":
    root = Path(__file__).parents[3]
    files = {root / "config/README.md": reference(), root / "config/schema.json": schema()}
    if "--check" in sys.argv:
        stale = [str(file.relative_to(root)) for file, text in files.items() if file.read_text() != text]
        sys.exit(f"{', '.join(stale)}: not up to date; run make docs" if stale else 0)
    for file, text in files.items():
        file.write_text(text)
