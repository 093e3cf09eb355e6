"""A worker whose extraction takes no time: it writes an empty result.

python -m tests.fleet.idle_worker BROKER_URL
"""

import sys

from workers.app import app
from workers.contract.messages import ExtractShard
from workers.contract.settings import Settings
from workers.fleet import run_worker
from workers.tasks.base import Context, task


@task(ExtractShard)
def nothing(message: ExtractShard, context: Context) -> None:
    context.store.write(message.result_key(), b"")


if __name__ == "__main__":
    app.conf.include = []
    sys.exit(run_worker(Settings(broker_url=sys.argv[1], queues=("extract",))))
