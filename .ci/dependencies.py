#!/usr/bin/env python3
"""Checks licences, duplicates and sources of all dependencies against deny.toml, where cargo-deny is not installed.

What it does not do is look for known vulnerabilities: that needs the advisory database, and so cargo-deny.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"


def metadata(manifest: Path) -> list[dict]:
    """The packages that a workspace needs on our one target."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET]
    data = json.loads(subprocess.check_output([*command, "--manifest-path", str(manifest)]))
    used = {node["id"] for node in data["resolve"]["nodes"]}
    return [package for package in data["packages"] if package["id"] in used]


def licence_fits(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be met: AND of OR of licences, which "/" separates in old manifests."""
    expression = re.sub(r"\s*/\s*", " OR ", expression).strip()
    while expression.startswith("(") and matching(expression) == len(expression) - 1:
        expression = expression[1:-1].strip()
    for operator, combine in ((" OR ", any), (" AND ", all)):
        parts = split(expression, operator)
        if len(parts) > 1:
            return combine(licence_fits(part, allowed) for part in parts)
    return expression in allowed


def matching(text: str) -> int:
    depth = 0
    for at, char in enumerate(text):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if depth == 0:
            return at
    return -1


def split(text: str, operator: str) -> list[str]:
    """Splits at an operator outside of parentheses."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if depth == 0 and text.startswith(operator, at):
            parts.append(text[start:at])
            start = at + len(operator)
    return [*parts, text[start:]]


def problems(packages: list[dict], rules: dict) -> list[str]:
    found = []
    allowed = set(rules["licenses"]["allow"])
    versions = defaultdict(set)
    for package in packages:
        name = f"{package['name']}@{package['version']}"
        versions[package["name"]].add(package["version"])
        if not licence_fits(package["license"] or "", allowed):
            found.append(f"{name}: licence {package['license']!r} is not on the list")
        if package["source"] and not package["source"].startswith("registry+"):
            found.append(f"{name}: comes from {package['source']}")
    known = {entry["crate"] for entry in rules["bans"]["skip"]}
    for name, several in sorted(versions.items()):
        unknown = {version for version in several if f"{name}@{version}" not in known}
        if len(several) > 1 and len(unknown) > 1:
            found.append(f"{name}: several versions: {', '.join(sorted(several))}")
    duplicated = {f"{name}@{version}" for name, several in versions.items() if len(several) > 1 for version in several}
    found += [f"{crate}: is no duplicate any more; take it off the list" for crate in sorted(known - duplicated)]
    return found


def main() -> int:
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    found = problems(metadata(ROOT / "Cargo.toml"), rules)
    guest = [package for package in metadata(ROOT / "sandbox-vmm/guest/Cargo.toml")]
    allowed = set(rules["licenses"]["allow"])
    found += [
        f"guest: {package['name']}: licence {package['license']!r} is not on the list"
        for package in guest
        if package["source"] and not licence_fits(package["license"] or "", allowed)
    ]
    for line in found:
        print(line, file=sys.stderr)
    if not found:
        print("dependencies: licences, duplicates and sources are as deny.toml has them")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
