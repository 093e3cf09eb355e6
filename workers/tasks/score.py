"""The task of the score queue: one feature shard to one prediction shard."""

from workers.contract import layout
from workers.contract.messages import ScoreShard
from workers.features.extract import feature_matrix
from workers.prediction.score import predictions
from workers.storage.tables import read_table, write_table
from workers.tasks.base import Context, task
from workers.tasks.models import open_model


@task(ScoreShard)
def score_shard(message: ScoreShard, context: Context) -> None:
    rows = read_table(context.store, layout.shard_rows(message.run_id, message.plan, message.shard))
    shard = read_table(context.store, layout.features(message.fingerprint, message.shard))
    scorer = open_model(context.store, message.model_id)
    table = predictions(scorer, rows, shard, feature_matrix(shard), message.top_k)
    write_table(context.store, message.result_key(), table)
