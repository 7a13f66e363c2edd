"""The wheel carries what the tool reads at run time."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_every_package_template_and_table(tmp_path: Path) -> None:
    source = tmp_path / "source"
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True)
    for name in files.stdout.decode().splitlines():
        if name.startswith(("flagscale_deploy/", "templates/")) or "/" not in name:
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*pip, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        *(str(path.relative_to(ROOT)) for path in (ROOT / "flagscale_deploy").rglob("*.py")),
        *(f"flagscale_deploy/templates/{path.name}" for path in (ROOT / "templates").glob("*.j2")),
        "flagscale_deploy/diagnosis/signatures.yaml",
        "flagscale_deploy/py.typed",
    }
    assert wanted <= held
