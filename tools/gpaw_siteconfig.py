"""GPAW build configuration: PyPI packages only, serial, PW mode (BLAS from scipy-openblas32, no LibXC, no MPI).

Everything is stated because GPAW's own detection depends on what happens to be in PATH. LibXC is not needed:
LDA, PBE, revPBE, RPBE and PW91 are native kernels of GPAW. Read through GPAW_CONFIG (an absolute path).
"""

import scipy_openblas32

compiler = "g++"
mpi = False
nolibxc = True
noblas = False
libraries = ["scipy_openblas"]
library_dirs = [scipy_openblas32.get_lib_dir()]
runtime_library_dirs = ["$ORIGIN/scipy_openblas32/lib"]  # _gpaw.*.so lies in site-packages
define_macros += [  # noqa: F821 (defined by GPAW's setup.py before it runs this file)
    (f"{name}_", f"scipy_{name}_") for name in ("dgemm", "zgemm", "dsyrk", "zherk", "dsyr2k", "zher2k")
]
extra_compile_args += ["-O3", "-fopenmp-simd"]  # noqa: F821
