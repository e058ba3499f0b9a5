"""Makes what is made from the chart's sources: `python -m helm.tools.generate [--check]`.

values.yaml's comments become descriptions in values.schema.json and the table in the chart's README;
dashboards.py becomes the chart's dashboards; the chart, rendered, becomes k8s/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml
from helm.tools import dashboards, manifests, readme, schema
from helm.tools.binary import NoHelm
from helm.tools.comments import read_values

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "paretoserve"


def sources() -> dict[Path, str]:
    """What the files must hold that need no Helm to be made. They are the chart's own."""
    values = read_values(CHART / "values.yaml")
    moved = yaml.safe_load((CHART / "moved.yaml").read_text(encoding="utf-8"))
    document = (CHART / "README.md").read_text(encoding="utf-8")
    made = {
        CHART / "values.schema.json": schema.text(schema.build(values, moved)),
        CHART / "README.md": readme.with_table(document, values),
    }
    for name, text in dashboards.all_of_them().items():
        made[CHART / "dashboards" / name] = text
    return made


def main() -> int:
    """Write what has changed, or say that something would have."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if not current")
    check = parser.parse_args().check
    stale = _settle(sources(), check=check)
    try:
        stale += _settle(manifests.all_of_them(), check=check)
    except NoHelm as missing:
        print(f"k8s/ is not looked at: {missing}")
    if stale and check:
        print(f"not current: {', '.join(stale)}; run `make generate`")
    return 1 if stale and check else 0


def _settle(made: dict[Path, str], *, check: bool) -> list[str]:
    stale = []
    for path, text in made.items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main())
