"""A conda channel in a folder, made of packages that are made here: nothing is downloaded."""

import hashlib
import io
import json
import os
import platform
import sys
import tarfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

TIMESTAMP = 1700000000  # [s], so that the same content gives the same archive


class Channel:
    """Packages of one platform below `folder`; `write` makes them known to a solver."""

    def __init__(self, folder: Path, subdir: str) -> None:
        self.folder, self.subdir = folder, subdir
        self.records: dict[str, dict] = {}
        (folder / subdir).mkdir(parents=True)
        (folder / "noarch").mkdir()

    @property
    def url(self) -> str:
        return self.folder.absolute().as_uri()

    def add(
        self,
        name: str,
        version: str,
        files: Mapping[str, tuple[bytes, int]] | None = None,
        links: Mapping[str, str] | None = None,
        depends: Iterable[str] = (),
        build: str = "0",
    ) -> Path:
        """Write one package.

        Args:
            name: its name.
            version: its version.
            files: path below the environment: content and mode.
            links: path below the environment: target of a symbolic link.
            depends: specifications of other packages.
            build: what tells two packages of one version apart; ends in the build number.

        Returns:
            The archive.
        """
        archive = self.folder / self.subdir / f"{name}-{version}-{build}.tar.bz2"
        index = {
            "name": name,
            "version": version,
            "build": build,
            "build_number": int(build.rpartition("_")[2]),
            "depends": list(depends),
            "subdir": self.subdir,
            "timestamp": TIMESTAMP * 1000,
        }
        paths = []
        with tarfile.open(archive, "w:bz2", compresslevel=1) as tar:

            def write(path: str, content: bytes, mode: int = 0o644) -> None:
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode, entry.mtime = len(content), mode, TIMESTAMP
                tar.addfile(entry, io.BytesIO(content))

            for path, (content, mode) in (files or {}).items():
                write(path, content, mode)
                digest = hashlib.sha256(content).hexdigest()
                paths.append({"_path": path, "path_type": "hardlink", "sha256": digest, "size_in_bytes": len(content)})
            for path, target in (links or {}).items():
                entry = tarfile.TarInfo(path)
                entry.type, entry.linkname, entry.mtime = tarfile.SYMTYPE, target, TIMESTAMP
                tar.addfile(entry)
                digest = hashlib.sha256(b"").hexdigest()
                paths.append({"_path": path, "path_type": "softlink", "sha256": digest, "size_in_bytes": 0})
            write("info/index.json", json.dumps(index).encode())
            write("info/paths.json", json.dumps({"paths": paths, "paths_version": 1}).encode())
            write("info/files", "".join(f"{entry['_path']}\n" for entry in paths).encode())
            write("info/about.json", b"{}")
        raw = archive.read_bytes()
        hashes = {"md5": hashlib.md5(raw).hexdigest(), "sha256": hashlib.sha256(raw).hexdigest()}
        self.records[archive.name] = {**index, **hashes, "size": len(raw)}
        return archive

    def add_python(self) -> None:
        """The interpreter that runs this, as a package: links, and a file that makes the environment its prefix."""
        real = Path(sys.executable).resolve()
        version = platform.python_version()
        short = "{}.{}".format(*sys.version_info)
        settings = f"home = {real.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
        links = {"bin/python": str(real), "bin/python3": "python", f"bin/python{short}": "python"}
        self.add("python", version, {"pyvenv.cfg": (settings.encode(), 0o644)}, links)

    def add_installed(self, name: str) -> None:
        """A Python package of the environment that runs this, without its tests and commands."""
        found = metadata.distribution(name)
        short = "{}.{}".format(*sys.version_info)
        files = {}
        for path in found.files or []:
            if {"..", "tests", "__pycache__"}.isdisjoint(path.parts) and path.suffix != ".pyc":
                content = found.locate_file(path).read_bytes()
                files[f"lib/python{short}/site-packages/{path.as_posix()}"] = (content, 0o644)
        self.add(name, found.version, files, depends=[f"python {short}.*"])

    def write(self) -> None:
        """Write the lists of packages that a solver reads."""
        for subdir, records in ((self.subdir, self.records), ("noarch", {})):
            listing = {"info": {"subdir": subdir}, "packages": records, "packages.conda": {}, "repodata_version": 1}
            partial = self.folder / subdir / ".repodata"
            partial.write_text(json.dumps(listing))
            os.replace(partial, self.folder / subdir / "repodata.json")
