"""The images: what they hold, who they run as, and what a signal reaches."""

import re

import pytest

from tests.unit.deploy.files import (
    DOCKERFILE,
    PROJECT,
    REPOSITORY,
    TARGETS,
    dockerfile_stages,
    exec_form,
    last,
    unknown_settings,
    whole,
)

EXTRAS = {"orchestrator": set(), "worker": {"openvino"}, "worker-gpu": {"gpu"}}


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_retrain_as_an_unprivileged_user(target: str) -> None:
    instructions = whole(target)

    user, group = last(instructions, "USER").split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert exec_form(last(instructions, "ENTRYPOINT")) == ["retrain"]
    assert exec_form(last(instructions, "CMD"))
    assert last(instructions, "STOPSIGNAL") == "SIGTERM"
    environment = " ".join(each.value for each in instructions if each.name == "ENV")
    assert "PYTHONDONTWRITEBYTECODE=1" in environment
    assert not unknown_settings(re.findall(r"\bRETRAIN_\w+", environment))


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_python_slim_and_a_finished_environment(target: str) -> None:
    instructions = whole(target)

    base = re.fullmatch(r"python:(3\.\d+)-slim AS \w+", instructions[0].value)
    assert base, "another base image"
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert [*map(int, base[1].split("."))] >= [*map(int, lowest.split("."))]
    installing = re.compile(r"\b(pip|apt-get|gcc)\b")
    assert not [each for each in instructions if each.name == "RUN" and installing.search(each.value)]
    copied = [each.value for each in instructions if each.name == "COPY"]
    assert copied == [f"--from=build-{target} /opt/retrain /opt/retrain"]


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_holds_the_extras_it_needs_and_no_others(target: str) -> None:
    installed = " ".join(each.value for each in whole(f"build-{target}") if each.name == "RUN")

    extras = set(re.findall(r"\.\[(\w+)\]", installed))
    assert extras == EXTRAS[target]
    assert extras <= set(PROJECT["optional-dependencies"])


def test_stages_build_on_python_or_on_one_another() -> None:
    stages = dockerfile_stages()

    bases = {instructions[0].value.partition(" AS ")[0] for instructions in stages.values()}
    assert {base for base in bases if not base.startswith("python:")} <= set(stages)


def test_the_build_is_given_what_it_copies_and_nothing_else() -> None:
    rules = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()

    given = {rule[1:] for rule in rules if rule.startswith("!")}
    assert "*" in rules
    assert all((REPOSITORY / name).exists() for name in given)
    copied = [each.value for each in whole("build") if each.name == "COPY"]
    assert {name for value in copied for name in value.split()[:-1]} <= given
    assert {"workers", "orchestrator"} <= given
