"""Beats in Redis: beside the messages, where the broker is Redis.

retrain:beat:TASK        the last beat, JSON; expires
retrain:running:QUEUE    sorted set of running tasks by the Redis time of their last beat
retrain:worker:NAME      what a worker says of itself, JSON; expires
retrain:memory:TOKEN     set once; gone when Redis lost what it knew
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from workers.contract.beats import RUNNING, SILENCE_S, Beat, WorkerInfo, running_set
from workers.contract.errors import BrokerUnavailable

_RUNNING_EXPIRES_S = 30
_ENDED_EXPIRES_S = 120
_WORKER_EXPIRES_S = 30
_TOKEN_EXPIRES_S = 30 * 24 * 3600


class RedisBeats:
    """One connection pool, made anew in every process that uses it."""

    expire = True

    def __init__(self, url: str) -> None:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._redis: Redis = Redis.from_url(
            url, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 1)
        )

    def send(self, task: str, beat: Beat) -> None:
        expires = _RUNNING_EXPIRES_S if beat.state == RUNNING else _ENDED_EXPIRES_S
        with _translated(), self._redis.pipeline(transaction=False) as pipe:
            pipe.set(_beat(task), beat.to_json(), ex=expires)
            if beat.queue and beat.state == RUNNING:
                now = self._now_s()
                pipe.zadd(running_set(beat.queue), {task: now})
                # any worker that lives forgets those that died
                pipe.zremrangebyscore(running_set(beat.queue), 0, now - SILENCE_S)
            elif beat.queue:
                pipe.zrem(running_set(beat.queue), task)
            pipe.execute()

    def latest(self, tasks: list[str]) -> dict[str, Beat]:
        if not tasks:
            return {}
        with _translated():
            found: Any = self._redis.mget([_beat(task) for task in tasks])
        return {
            task: Beat.from_json(text)
            for task, text in zip(tasks, found, strict=True)
            if text is not None
        }

    def clear(self, task: str) -> None:
        with _translated():
            self._redis.delete(_beat(task))

    def greet(self, worker: WorkerInfo) -> None:
        with _translated(), self._redis.pipeline(transaction=False) as pipe:
            pipe.set(f"retrain:worker:{worker.name}", worker.to_json(), ex=_WORKER_EXPIRES_S)
            now = self._now_s()
            for queue in worker.queues:
                pipe.zremrangebyscore(running_set(queue), 0, now - SILENCE_S)
            pipe.execute()

    def workers(self) -> list[WorkerInfo]:
        with _translated():
            names = sorted(self._redis.scan_iter("retrain:worker:*", count=1000))
            found: Any = self._redis.mget(names) if names else []
        return [WorkerInfo.from_json(text) for text in found if text is not None]

    def remembers(self, token: str) -> bool:
        with _translated():
            is_new = self._redis.set(f"retrain:memory:{token}", 1, nx=True, ex=_TOKEN_EXPIRES_S)
        return not is_new

    def _now_s(self) -> float:
        seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6


def _beat(task: str) -> str:
    return f"retrain:beat:{task}"


@contextmanager
def _translated() -> Iterator[None]:
    from redis.exceptions import RedisError

    try:
        yield
    except (RedisError, OSError) as error:
        raise BrokerUnavailable(f"Redis does not answer ({type(error).__name__})") from error
