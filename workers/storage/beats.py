"""Beats as small objects of the store, where the broker is no Redis."""

from workers.contract.beats import Beat, WorkerInfo
from workers.contract.errors import ObjectMissing
from workers.storage.base import Store


class StoreBeats:
    """`beats/TASK.json`: one small PUT for each running task every few seconds."""

    expire = False

    def __init__(self, store: Store) -> None:
        self._store = store

    def send(self, task: str, beat: Beat) -> None:
        self._store.write(_key(task), beat.to_json().encode())

    def latest(self, tasks: list[str]) -> dict[str, Beat]:
        found = {}
        for task in tasks:
            try:
                found[task] = Beat.from_json(self._store.read(_key(task)))
            except ObjectMissing:
                continue
        return found

    def clear(self, task: str) -> None:
        self._store.delete(_key(task))

    def greet(self, worker: WorkerInfo) -> None:
        pass

    def workers(self) -> list[WorkerInfo] | None:
        return None

    def remembers(self, token: str) -> bool:
        return True  # a durable broker keeps its messages


def _key(task: str) -> str:
    return f"beats/{task}.json"
