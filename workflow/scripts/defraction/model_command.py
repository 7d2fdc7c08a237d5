"""The commands `defraction export-model` and `defraction export-onnx`: a trained network for others."""

import logging
from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="folder of a trained model, such as results/models/NAME", show_default=False),
]


def export_model(
    model: Model,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="folder to make", show_default=False)],
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="configuration of the study, whose reductions the card repeats")
    ] = None,
    accuracy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="results/accuracy.csv, whose rows the card repeats")
    ] = None,
    unseen: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON of benchmarks/unseen_crystals.py, for the card")
    ] = None,
    patterns: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="clean pattern files, to compare half with single precision "
            "[default: those of the model's study, else made-up spots]",
            show_default=False,
        ),
    ] = None,
    command: Annotated[str, typer.Option(metavar="TEXT", help="command that trained the model, for the card")] = "",
) -> None:
    """Write a trained model for others: half-precision weights, card, README and open-set statistics.

    The model needs its open-set statistics: `snakemake results/models/NAME/openset.json`.
    """
    from defraction import config as schema

    logging.basicConfig(format="defraction: %(message)s", level=logging.WARNING)
    reductions = list(schema.load(config).reductions) if config else []
    folder = patterns or _clean_patterns(model)

    from defraction.learning.shipping import ship

    card = ship(model, target, reductions, command, accuracy, unseen, folder)
    shipped = card["shipped"]
    half = shipped["half_precision"]
    typer.echo(
        f"{target}: {shipped['bytes'] / 1e6:.1f} MB; half precision changes a probability by at most "
        f"{half['largest_difference']:.1e} and {half['labels_changed']:.2%} of the labels ({half['patterns']} "
        f"{half['images']})"
    )


def _clean_patterns(model: Path) -> Path | None:
    """The folder of the clean patterns that a model of a study was trained on; None if it lies in no study."""
    from defraction import models

    results = model.resolve().parent.parent
    table = results / "models.csv"
    sets = {row["model"]: row["pattern_set"] for row in models.read_table(table)} if table.is_file() else {}
    folder = results / models.patterns_folder(sets.get(model.resolve().name, "main")) / "clean"
    return folder if folder.is_dir() else None


def export_onnx(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="file to write (.onnx)", show_default=False)
    ],
) -> None:
    """Write a trained model as ONNX (dynamic batch), checked against torch with onnxruntime.

    Needs onnx, onnxruntime and onnxscript: make setup installs them.
    """
    if output.suffix != ".onnx":
        raise ValueError(f"{output}: give an output that ends in .onnx")
    if not output.parent.is_dir():
        raise ValueError(f"{output}: there is no folder {output.parent}; make it first")

    from defraction.learning.onnx_export import export

    found = export(model, output)
    typer.echo(
        f"{output}: {found['bytes'] / 1e6:.1f} MB, opset {found['opset']}; onnxruntime and torch differ by at most "
        f"{found['largest_difference']:.1e}"
    )
