"""Where a backbone's name leads: a SavedModel folder on this disk, or a Keras application."""

import hashlib
import os
import urllib.error
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from workers.contract.backbones import BACKBONES
from workers.contract.errors import BackboneUnavailable, ObjectMissing
from workers.contract.settings import Settings
from workers.storage import check_allowed, open_store

_HUB_SCHEMES = ("http://", "https://", "gs://")


@dataclass(frozen=True)
class SavedModelFolder:
    path: Path


@dataclass(frozen=True)
class KerasApplication:
    application: str
    weights: str
    """"imagenet", "none" (random, but the same in every process) or a file."""


def find(name: str) -> SavedModelFolder | KerasApplication:
    """Resolve a --backbone value, fetching the model where it is elsewhere.

    Raises BackboneUnavailable, whose message names the handle and the remedy.
    """
    if name.startswith("keras:"):
        return _keras(name)
    if name in BACKBONES:
        return SavedModelFolder(_from_hub(BACKBONES[name].handle))
    if name.startswith("s3://"):
        return SavedModelFolder(_from_store(name))
    if name.startswith("http://") and not Settings.from_environment().allow_http_models:
        raise BackboneUnavailable(
            f"{name}: a model runs as code, so it is fetched over https:// alone; set "
            "RETRAIN_ALLOW_HTTP_MODELS=1 to trust this network"
        )
    if name.startswith(_HUB_SCHEMES):
        return SavedModelFolder(_from_hub(name))
    path = Path(name.removeprefix("file://")).expanduser()
    if not path.exists():
        raise BackboneUnavailable(
            f"no backbone {name!r}: it is no folder here, no URL, and none of "
            f"{', '.join(BACKBONES)}, keras:InceptionV3 and the like"
        )
    check_allowed(str(path))
    if not (path / "saved_model.pb").is_file():
        raise BackboneUnavailable(f"{name} is no SavedModel: it holds no saved_model.pb")
    return SavedModelFolder(path)


def folder_digest(path: Path) -> str:
    """A digest of a SavedModel's graph and weights that does not depend on where it lies."""
    whole = hashlib.sha256()
    files = [path / "saved_model.pb", *sorted((path / "variables").glob("*"))]
    files += sorted(each for each in (path / "assets").glob("**/*") if each.is_file())
    for file in files:
        whole.update(f"{file.relative_to(path)}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()


def _keras(name: str) -> KerasApplication:
    application, _, query = name.removeprefix("keras:").partition("?")
    options = parse_qs(query)
    if unknown := set(options) - {"weights"}:
        raise BackboneUnavailable(f"{name}: unknown option {sorted(unknown)[0]!r}; there is weights=")
    weights = options.get("weights", ["imagenet"])[0]
    if weights not in ("imagenet", "none"):
        check_allowed(weights)
    return KerasApplication(application, weights)


def _from_hub(handle: str) -> Path:
    """The folder to which tensorflow_hub fetches the handle, or has fetched it before."""
    import tensorflow_hub as hub

    try:
        return Path(hub.resolve(handle))
    except (OSError, ValueError, RuntimeError, EOFError, urllib.error.URLError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise BackboneUnavailable(
            f"cannot fetch the backbone {handle} ({reason}): give the path of a local copy, or set "
            "TFHUB_CACHE_DIR to a folder where it was fetched before"
        ) from error


def _from_store(url: str) -> Path:
    """A SavedModel in a bucket, copied once to the cache: a changed object is another copy."""
    store = open_store(url)
    files = sorted(store.objects(), key=lambda each: each.key)
    if not any(each.key == "saved_model.pb" for each in files):
        raise BackboneUnavailable(f"{url} is no SavedModel: it holds no saved_model.pb")
    state = hashlib.sha256(repr([url, files]).encode()).hexdigest()[:24]
    folder = Settings.from_environment().cache_dir / "backbones" / state
    if not (folder / "saved_model.pb").exists():
        # saved_model.pb is written last: its presence says that the rest is there
        for each in sorted(files, key=lambda each: each.key == "saved_model.pb"):
            _copy(store.read(each.key), folder, each.key)
    return folder


def _copy(data: bytes, folder: Path, key: str) -> None:
    path = Path(os.path.normpath(folder / key))
    if folder not in path.parents:
        raise ObjectMissing(f"{key!r} leads out of the backbone's folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    beside.replace(path)
