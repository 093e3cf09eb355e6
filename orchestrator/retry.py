"""`retrain retry`: a run's failed images once more, and what follows from them."""

from typing import Any

from orchestrator.evaluate import EvaluateRequest, evaluate
from orchestrator.listing import SplitRule
from orchestrator.pipeline import ExtractionOptions
from orchestrator.predict import PredictRequest, predict
from orchestrator.progress import Reporter
from orchestrator.records import read_run
from orchestrator.run import RunRequest, run
from workers.contract.training import TrainingSettings
from workers.storage import open_store


def retry(run_id: str, store: str, broker_url: str, reporter: Reporter) -> tuple[str, dict[str, Any]]:
    """The run's command and its new result: asked as it was, with failed images extracted anew.

    Raises NoSuchRun.
    """
    record = read_run(open_store(store), run_id)
    asked = record["request"] | {"store": store, "broker_url": broker_url}
    asked["extraction"] = ExtractionOptions(**{**asked["extraction"], "retry_failed": True})
    command = record["command"]
    if command != "run":  # "latest" may be another model by now
        asked["model"] = record["model_id"]
    if command == "run":
        asked["split"] = SplitRule(**asked["split"])
        asked["training"] = TrainingSettings(**asked["training"])
        return command, run(RunRequest(**asked), reporter)
    if command == "predict":
        return command, predict(PredictRequest(**asked), reporter)
    asked["rule"] = SplitRule(**asked["rule"])
    return command, evaluate(EvaluateRequest(**asked), reporter)
