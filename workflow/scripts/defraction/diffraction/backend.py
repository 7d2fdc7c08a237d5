"""The array module that does the work: the only place that knows CuPy exists."""

import logging
from dataclasses import dataclass
from types import ModuleType

import numpy as np

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class Backend:
    """Where arrays live: ``device`` (cpu or gpu), ``xp`` the array module (NumPy or CuPy), ``name`` for the log."""

    device: str
    xp: ModuleType
    name: str

    def to_host(self, array) -> np.ndarray:
        """Return ``array`` as a NumPy array, whichever device it is on."""
        return array if self.device == "cpu" else self.xp.asnumpy(array)


def select_backend(device: str = "auto") -> Backend:
    """Choose the array module for ``device``: ``auto`` (a GPU if there is one), ``cpu`` or ``gpu``.

    Raises
    ------
    ValueError
        for an unknown device.
    RuntimeError
        if ``gpu`` was asked for and CuPy or the GPU is missing.
    """
    if device not in DEVICES:
        raise ValueError(f"device: {device!r} is not one of {', '.join(DEVICES)}")
    cpu = Backend("cpu", np, "CPU")
    if device == "cpu":
        return cpu
    try:
        import cupy

        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    except ImportError as error:
        reason = f"CuPy cannot be imported ({error})"
    except RuntimeError as error:  # the CUDA errors of CuPy are RuntimeErrors
        reason = f"CuPy finds no usable GPU ({error})"
    else:
        return Backend("gpu", cupy, properties["name"].decode())
    if device == "gpu":
        raise RuntimeError(
            f"device: gpu was asked for, but {reason}; install the extra 'gpu', or set device to auto or cpu"
        )
    logger.debug("no GPU: %s", reason)
    return cpu
