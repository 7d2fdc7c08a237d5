"""A trained network as ONNX, checked against torch with onnxruntime."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from defraction.learning.classify import Classifier
from defraction.learning.labels import space_group_given_label, space_groups_of
from defraction.learning.openset import made_up

log = logging.getLogger(__name__)

OPSET = 18
TOLERANCE = 1e-4  # of a probability or a log probability above -10, against torch
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
BATCHES = (1, 5)  # sizes that are compared; the batch is dynamic


class _Answer(torch.nn.Module):
    """A network with its two answers: log P(label | pattern) and P(space group | pattern)."""

    def __init__(self, network: torch.nn.Module, given: np.ndarray) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("given", torch.from_numpy(given).float())

    def forward(self, grey: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logs = torch.log_softmax(self.network(grey), dim=1)
        return logs, logs.exp() @ self.given


def export(folder: Path | str, output: Path | str) -> dict[str, Any]:
    """Write the model of a folder as ONNX and return how far it is from torch.

    The file takes `grey` (batch, 1, pixels, pixels), float32 in [0, 1] as docs/learning.md makes it, and gives
    `log_probability` (batch, label) and `space_group_probability` (batch, space group). Its metadata hold `labels`,
    `space_groups`, `image`, `display` (JSON) and the digest of the training data. Weights are in single precision.

    Raises ModuleNotFoundError naming the extra if a package is missing, ValueError if the file does not give torch's
    answers within 1e-4; nothing is left behind then.
    """
    missing = [name for name in PACKAGES if not _present(name)]
    if missing:
        raise ModuleNotFoundError(
            f"ONNX needs {', '.join(missing)}: make setup installs it; elsewhere pip install '.[onnx]' in the clone"
        )
    import onnx

    output = Path(output)
    classifier = Classifier.load(folder, "cpu")
    card, pixels = classifier.card, classifier.frame.pixels
    answer = _Answer(classifier.network, space_group_given_label(classifier.table)).eval()
    answer = answer.to(memory_format=torch.contiguous_format)
    program = torch.onnx.export(
        answer,
        (torch.zeros(2, 1, pixels, pixels),),
        input_names=["grey"],
        output_names=["log_probability", "space_group_probability"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    proto = program.model_proto
    facts = {
        "labels": card["labels"],
        "space_groups": space_groups_of(classifier.table),
        "image": card["image"],
        "display": card["display"],
        "training_digest": card["data"]["training_digest"],
        "producer": "defraction",
    }
    onnx.helper.set_model_props(proto, {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()})
    onnx.checker.check_model(proto)
    partial = output.with_name(output.name + ".part")
    try:
        partial.write_bytes(proto.SerializeToString())
        found = compare(answer, partial, pixels)
        if found["largest_difference"] > TOLERANCE:
            raise ValueError(
                f"{output}: onnxruntime and torch differ by {found['largest_difference']:.1e}, more than "
                f"{TOLERANCE:g}; not written"
            )
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return found | {"bytes": output.stat().st_size, "opset": OPSET}


def compare(answer: torch.nn.Module, path: Path, pixels: int) -> dict[str, Any]:
    """Largest difference between torch and onnxruntime over made-up patterns in batches of several sizes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for size in BATCHES:
        grey = made_up("spots", size, pixels, size)[:, None]
        with torch.inference_mode():
            expected = [value.numpy() for value in answer(torch.from_numpy(grey))]
        given = session.run(None, {"grey": grey})
        # far below, a log probability has no influence and only rounding
        pairs = [(np.maximum(given[0], -10), np.maximum(expected[0], -10)), (given[1], expected[1])]
        largest = max(largest, *(float(np.abs(a - b).max()) for a, b in pairs))
    return {"largest_difference": largest, "batches": list(BATCHES)}


def _present(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
