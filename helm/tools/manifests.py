"""k8s/: the chart rendered for those who do not use Helm.

Each folder has the values that it was made with. Nothing random or secret is in it: tenants come from
a Secret that k8s/README.md says how to make.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from helm.tools.binary import helm

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "paretoserve"
SETS = ("dgx-b200", "kind")
_HEAD = "# Made by `make generate` from the chart, with {values}. Do not edit.\n"


def all_of_them() -> dict[Path, str]:
    """What each file in k8s/ must hold. Raises NoHelm."""
    return {
        ROOT / "k8s" / name / "paretoserve.yaml": render(ROOT / "k8s" / name / "values.yaml")
        for name in SETS
    }


def render(values: Path) -> str:
    """The chart's objects with these values. Raises subprocess.CalledProcessError."""
    command = [helm(), "template", "paretoserve", str(CHART), "--namespace", "paretoserve"]
    documents = values.with_name("documents.yaml")
    files = ["--values", str(documents), "--values", str(values)]
    options = ["--no-hooks", "--kube-version", "1.33.0"]
    run = subprocess.run(command + files + options, capture_output=True, text=True, check=True)
    head = _HEAD.format(values=f"k8s/{values.parent.name}/{values.name} and documents.yaml")
    return head + run.stdout
