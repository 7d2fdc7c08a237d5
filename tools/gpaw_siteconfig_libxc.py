"""GPAW build configuration of the container: tools/gpaw_siteconfig.py and the system's libxc (Debian's libxc-dev)."""

import os
from pathlib import Path

exec(Path(os.environ["GPAW_CONFIG"]).with_name("gpaw_siteconfig.py").read_text())
nolibxc = False
libraries += ["xc"]  # noqa: F821 (defined there)
