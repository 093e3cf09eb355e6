"""The installed `retrain` command, run as a person runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_S = 200


@dataclass(frozen=True)
class Finished:
    """What a command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; more or less than one is an error."""
        value = json.loads(self.stdout)
        assert isinstance(value, dict), self.stdout
        return value

    @property
    def error(self) -> str:
        """The one line of stderr that says what went wrong; it is the last."""
        lines = self.stderr.splitlines()
        assert "Traceback" not in self.stdout + self.stderr, self.stderr
        assert [line for line in lines if line.startswith("Error: ")] == lines[-1:], self.stderr
        return lines[-1].removeprefix("Error: ")


@dataclass(frozen=True)
class Retrain:
    """Runs the command in a folder of its own, with nothing but `environment` set for it."""

    folder: Path
    environment: Mapping[str, str]

    def __call__(self, *arguments: object, **environment: str) -> Finished:
        process = self.start(*arguments, **environment)
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Finished(process.returncode, stdout, stderr)

    def command(self, *arguments: object) -> list[str]:
        return [str(Path(sys.executable).with_name("retrain")), *map(str, arguments)]

    def start(self, *arguments: object, **environment: str) -> "subprocess.Popen[str]":
        """The command under way."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def clean_environment(caches: Path) -> dict[str, str]:
    """This process's environment without what would steer the command, and without a network.

    A proxy on a port that nobody listens on makes every fetch from elsewhere fail at once.
    """
    foreign = ("RETRAIN_", "AWS_", "TFHUB_", "TF_", "KERAS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    nowhere = "http://127.0.0.1:9"
    return kept | {
        "http_proxy": nowhere,
        "https_proxy": nowhere,
        "no_proxy": "127.0.0.1,localhost",
        "RETRAIN_CACHE_DIR": str(caches / "retrain"),
        "TFHUB_CACHE_DIR": str(caches / "tfhub"),
        "KERAS_HOME": str(caches / "keras"),
    }
