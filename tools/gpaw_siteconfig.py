"""GPAW build configuration: PyPI packages only, PW mode, MPI (BLAS from scipy-openblas32, MPICH, no LibXC).

Everything is stated because GPAW's own detection depends on what happens to be in PATH. LibXC is not needed:
LDA, PBE, revPBE, RPBE and PW91 are native kernels of GPAW. Read through GPAW_CONFIG (an absolute path).
"""

import shutil

import scipy_openblas32

compiler = shutil.which("mpicxx")  # of the package mpich, in PATH while GPAW is built
mpi = True
nolibxc = True
noblas = False
libraries = ["scipy_openblas"]
library_dirs = [scipy_openblas32.get_lib_dir()]
# _gpaw.*.so lies in site-packages, libmpi three folders above; the wrapper would name the folder of the build
runtime_library_dirs = ["$ORIGIN/scipy_openblas32/lib", "$ORIGIN/../.."]
define_macros += [  # noqa: F821 (defined by GPAW's setup.py before it runs this file)
    (f"{name}_", f"scipy_{name}_") for name in ("dgemm", "zgemm", "dsyrk", "zherk", "dsyr2k", "zher2k")
]
extra_compile_args += ["-O3", "-fopenmp-simd"]  # noqa: F821
