"""The array module that does the work: the only place that knows CuPy exists."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np

from defraction import provenance

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "gpu")

# Starts a kernel: its name, grid, block, arguments (arrays and NumPy scalars), bytes of dynamic shared memory.
Launcher = Callable[[str, tuple[int, ...], tuple[int, ...], tuple, int], None]


@dataclass(frozen=True)
class Backend:
    """Where arrays live: ``device`` (cpu or gpu), ``xp`` the array module (NumPy or CuPy), ``name`` for the log."""

    device: str
    xp: ModuleType
    name: str

    def to_host(self, array) -> np.ndarray:
        """Return ``array`` as a NumPy array, whichever device it is on."""
        return array if self.device == "cpu" else self.xp.asnumpy(array)

    def to_device(self, array: np.ndarray):
        """Return ``array`` as a contiguous array of ``xp``."""
        return self.xp.ascontiguousarray(self.xp.asarray(array))

    def compile(self, source: str, options: tuple[str, ...]) -> Launcher:
        """Return what starts the kernels of CUDA C++ ``source``, compiled when the first one is started.

        Raises ValueError without a GPU.
        """
        if self.device != "gpu":
            raise ValueError(f"these kernels need a GPU, but the device is {self.name}; use the method's own module")
        module = _module(self.xp, source, options)

        def launch(kernel, grid, block, arguments, shared):
            module.get_function(kernel)(grid, block, arguments, shared_mem=shared)

        return launch

    def inverse_transform(self, planes):
        """Return sum_m planes[..., m_y, m_x] exp(+2 pi i m n / length) for every n, over both axes; may overwrite."""
        if self.device == "cpu":
            from scipy import fft
        else:
            from cupyx.scipy import fft
        return fft.ifft2(planes, axes=(-2, -1), norm="forward", overwrite_x=True)

    @property
    def out_of_memory(self) -> type[BaseException]:
        """What an array that does not fit raises inside of :meth:`limited_to`."""
        return MemoryError if self.device == "cpu" else self.xp.cuda.memory.OutOfMemoryError

    def give_back(self) -> None:
        """Return to the device what the pool of :meth:`limited_to` keeps.

        A block of which a part is still an array stays: small arrays that outlive large ones tie these down.
        """
        if self.device == "gpu":
            self.xp.fft.config.get_plan_cache().clear()
            _pool(self.xp, self.xp.cuda.Device().id).free_all_blocks()

    @contextmanager
    def limited_to(self, memory: float) -> Iterator[None]:
        """Take the device's memory for new arrays from a pool of at most ``memory`` [GiB], empty at the beginning.

        Raises MemoryError, which names the setting, if that is not enough or the device has less to give.
        """
        if self.device == "cpu":
            yield
            return
        provenance.used_gpus.add(self.name)
        self.give_back()
        pool = _pool(self.xp, self.xp.cuda.Device().id)
        pool.set_limit(size=int(memory * 2**30))

        def allocate(size):
            try:
                return pool.malloc(size)
            except self.out_of_memory:  # what is kept for arrays and transforms of other sizes counts against the limit
                self.give_back()
                return pool.malloc(size)

        try:
            with self.xp.cuda.using_allocator(allocate):
                yield
        except self.out_of_memory as error:
            raise MemoryError(
                f"memory: {memory:g} GiB are not enough for one pattern on {self.name}, or the device has less free "
                f"({error}); give more, or ask for fewer pixels or a larger response_sigma"
            ) from error


@cache
def _pool(cupy: ModuleType, device: int):
    return cupy.cuda.MemoryPool()


@cache
def _module(cupy: ModuleType, source: str, options: tuple[str, ...]):
    return cupy.RawModule(code=source, options=options, backend="nvrtc")


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
