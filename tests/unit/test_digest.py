import shutil
import subprocess
import sys

import pytest

from defraction import digest


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package of its own: script.py -> defraction.a -> defraction.b; defraction.c is not used."""
    scripts = tmp_path / "workflow/scripts"
    (scripts / "defraction").mkdir(parents=True)
    (scripts / "script.py").write_text("def main():\n    from defraction.a import f\n    f()\n")
    (scripts / "defraction/__init__.py").write_text("")
    (scripts / "defraction/a.py").write_text(
        '"""Doc."""\nfrom defraction import b\n\ndef f():\n    return b.X  # why\n'
    )
    (scripts / "defraction/b.py").write_text("X = 1\n")
    (scripts / "defraction/c.py").write_text("Y = 1\n")
    monkeypatch.setattr(digest, "SCRIPTS", scripts)

    def forget():
        for function in (digest._read, digest._imports, digest._closure):
            function.cache_clear()

    def current():
        forget()
        return digest.code_digest("script.py")

    yield scripts / "defraction", current
    forget()


def test_closure_follows_imports(package):
    _, current = package
    current()
    names = [f"workflow/scripts/{name}" for name in ("defraction/__init__.py", "defraction/a.py", "defraction/b.py")]
    assert list(digest.file_digests("script.py")) == [*names, "workflow/scripts/script.py"]


def test_code_changes_it_and_comments_do_not(package):
    folder, current = package
    before = current()
    (folder / "a.py").write_text('"""Other doc."""\n\nfrom defraction import b\n\n\ndef f():\n    return (b.X)\n')
    assert current() == before
    (folder / "c.py").write_text("Y = 2\n")
    assert current() == before
    (folder / "b.py").write_text("X = 2\n")
    assert current() != before


def test_relative_imports_are_refused(package):
    folder, current = package
    (folder / "a.py").write_text("from . import b\n")
    with pytest.raises(ValueError, match="relative import"):
        current()


def test_python_versions_agree(root):
    program = (
        "from defraction import digest\n"
        "print([digest.hashlib.sha256(digest._normalised(p).encode()).hexdigest()"
        " for p in sorted(digest.SCRIPTS.rglob('*.py'))])"
    )

    def run(python):
        return subprocess.run([python, "-c", program], cwd=root / "workflow/scripts", capture_output=True, text=True)

    others = [run(p) for v in ("3.12", "3.13") if (p := shutil.which(f"python{v}"))]
    outputs = [o.stdout for o in others if o.returncode == 0]
    if not outputs:
        pytest.skip("no second Python version on this machine")
    assert {run(sys.executable).stdout} == set(outputs)
