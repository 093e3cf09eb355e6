"""The files of deploy/, as the tests read them."""

import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

REPOSITORY = Path(__file__).resolve().parents[3]
DEPLOY = REPOSITORY / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"

PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
TARGETS = ("orchestrator", "worker", "worker-gpu")
IMAGES = {f"retrain-{target}:{PROJECT['version']}" for target in TARGETS}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def unknown_settings(names: Iterable[str]) -> set[str]:
    """The RETRAIN_ names among these that the one module which reads the environment does not know."""
    known = set(re.findall(r"\bRETRAIN_\w+", (REPOSITORY / "workers/contract/settings.py").read_text()))
    return {name for name in names if name.startswith("RETRAIN_")} - known


class Instruction(NamedTuple):
    name: str
    value: str


def dockerfile_stages() -> dict[str, list[Instruction]]:
    """The instructions of each stage, FROM first."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    stages: dict[str, list[Instruction]] = {}
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "FROM":
            _, separator, stage = value.partition(" AS ")
            assert separator, f"a stage without a name: {line}"
            stages[stage] = []
        stages[stage].append(Instruction(name, value.strip()))
    return stages


def whole(target: str) -> list[Instruction]:
    """The instructions that made a stage, those of the stages below it first."""
    stages = dockerfile_stages()
    base = stages[target][0].value.partition(" AS ")[0]
    return [*(whole(base) if base in stages else []), *stages[target]]


def last(instructions: list[Instruction], name: str) -> str:
    return [each.value for each in instructions if each.name == name][-1]


def exec_form(value: str) -> list[str]:
    """The words of an instruction in exec form; in shell form, a shell would get the signals."""
    words = json.loads(value)
    assert isinstance(words, list)
    return words
