"""Runs the CUDA kernels on a CPU: the same source, compiled by g++ with a header that stands in for CUDA.

The threads of a block take turns between two barriers, one block after the other. A barrier that only some threads of a
block reach, shared memory beyond what was asked for, or wrong argument types are errors.
"""

import ctypes
import re
import subprocess
from pathlib import Path

import numpy as np

HEADER = Path(__file__).with_name("cuda_emulator.h")
OPTIONS = (
    "-std=c++17", "-O2", "-march=native", "-ffp-contract=fast", "-Wall", "-Werror", "-Wno-unknown-pragmas",
    "-U_FORTIFY_SOURCE",  # longjmp between stacks is what it forbids
)  # fmt: skip
TYPES = {"int": np.int32, "long long": np.int64, "float": np.float32, "double": np.float64}
CANARY = 0x5A


class Emulator:
    """Compiles ``source`` in ``folder`` and is a gpu.Launcher over NumPy arrays; counts ``launches`` by kernel."""

    def __init__(self, source: str, names: tuple[str, ...], folder: Path):
        self.parameters = {name: _parameters(source, name) for name in names}
        self.launches: dict[str, int] = {}
        cases = "".join(f'if (!std::strcmp(name, "{n}")) return emulator::launch({n}, a, grid, block);' for n in names)
        text = (
            f'#include "{HEADER}"\n'
            # dynamic shared memory is one global array here; what is declared static has the same life as a block
            + source.replace("extern __shared__", "extern")
            + "\nalignas(16) float4 shared_memory[(228 * 1024) / 16];\n"
            + 'extern "C" void* dynamic_shared_memory() { return shared_memory; }\n'
            + 'extern "C" void order_threads(bool backwards) { emulator::backwards = backwards; }\n'
            + 'extern "C" bool launch_kernel(const char* name, void** a, const unsigned* grid, const unsigned* block)'
            + " { " + cases + " std::abort(); }\n"
        )  # fmt: skip
        file, library = folder / "kernels.cpp", folder / "kernels.so"
        file.write_text(text)
        subprocess.run(["g++", *OPTIONS, "-shared", "-fPIC", "-o", library, file], check=True)
        self.library = ctypes.CDLL(str(library))
        self.library.launch_kernel.restype = ctypes.c_bool
        self.library.dynamic_shared_memory.restype = ctypes.c_void_p

    def order_threads(self, backwards: bool) -> None:
        """Let the threads of a block take turns from the last to the first, or again from the first to the last."""
        self.library.order_threads(ctypes.c_bool(backwards))

    def __call__(self, kernel: str, grid, block, arguments, shared: int) -> None:
        parameters = self.parameters[kernel]
        assert len(arguments) == len(parameters), kernel
        values = []
        for argument, (name, kind) in zip(arguments, parameters, strict=True):
            if kind is None:
                assert isinstance(argument, np.ndarray) and argument.flags.c_contiguous, (kernel, name)
                values.append(ctypes.c_void_p(argument.ctypes.data))
            else:
                assert type(argument) is kind, (kernel, name, type(argument))
                values.append(np.ctypeslib.as_ctypes(np.array(argument)))
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        sizes = [(ctypes.c_uint * 3)(*(tuple(map(int, size)) + (1, 1))[:3]) for size in (grid, block)]
        assert np.prod(block) <= 1024 and max(grid[1:], default=1) < 65536
        room = (ctypes.c_ubyte * (228 * 1024)).from_address(self.library.dynamic_shared_memory())
        memory = np.frombuffer(room, np.uint8)
        memory[:] = CANARY
        assert self.library.launch_kernel(kernel.encode(), pointers, *sizes), f"{kernel}: threads miss a barrier"
        assert (memory[shared:] == CANARY).all(), f"{kernel} writes beyond its shared memory"
        self.launches[kernel] = self.launches.get(kernel, 0) + 1


def _parameters(source: str, name: str) -> list[tuple[str, type | None]]:
    """Return name and NumPy type of a kernel's parameters, None for pointers."""
    text = re.search(rf'extern "C" __global__ void (?:__launch_bounds__\(\w+(?:, \w+)?\) )?{name}\(([^)]*)\)', source)
    parameters = []
    for parameter in text.group(1).split(","):
        kind, word = parameter.strip().rsplit(maxsplit=1)
        parameters.append((word, None if "*" in kind else TYPES[kind]))
    return parameters
