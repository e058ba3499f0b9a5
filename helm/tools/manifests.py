"""k8s/: the chart rendered for those who do not use Helm.

Each folder has the values that its manifests are made with, beside the documents of a deployment
folder. Nothing random and no secret is in them: the smoke test's key is left out, and so are the
tenants where values.yaml names a Secret that holds them.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from helm.tools.binary import helm

from paretoserve.app.chart_values import chart_values, values_text

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "paretoserve"
KUBERNETES = "1.33.0"


@dataclass(frozen=True)
class Set:
    """One folder of k8s/: its deployment folder, and where the pods have that one's models."""

    name: str
    deployment: str
    models_path: str

    @property
    def values(self) -> Path:
        """What is set beside the documents."""
        return ROOT / "k8s" / self.name / "values.yaml"

    @property
    def manifests(self) -> Path:
        """What is made."""
        return ROOT / "k8s" / self.name / "paretoserve.yaml"


SETS = (
    Set("dgx-b200", "deployments/dgx-b200", "/models"),
    Set("kind", "deployments/local", "/models"),
)
_HELMS = re.compile(
    r" +annotations:\n +helm\.sh/resource-policy: keep\n"
    r"| +(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n"
)
"""What says that Helm manages an object."""
_HEAD = """\
# Made by `make generate` from helm/paretoserve with the documents of {deployment} and
# k8s/{name}/values.yaml. Do not edit; k8s/README.md says how to use it.
"""


def all_of_them() -> dict[Path, str]:
    """What each manifest file must hold. Raises NoHelm, and RuntimeError with what Helm said."""
    return {each.manifests: render(each) for each in SETS}


def render(each: Set) -> str:
    """The chart's objects for one folder of k8s/."""
    own: dict[str, Any] = yaml.safe_load(each.values.read_text(encoding="utf-8"))
    values = chart_values(ROOT / each.deployment, each.models_path)
    if own.get("tenants", {}).get("existingSecret"):
        del values["documents"]["tenants"]
    command = [helm(), "template", "paretoserve", str(CHART), "--namespace", "paretoserve"]
    options = ["--no-hooks", "--kube-version", KUBERNETES, "--values", "-", "--values"]
    run = subprocess.run(
        [*command, *options, str(each.values)],
        input=values_text(values),
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise RuntimeError(f"k8s/{each.name}: {run.stderr}")
    return _HEAD.format(name=each.name, deployment=each.deployment) + _HELMS.sub("", run.stdout)
