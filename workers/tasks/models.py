"""Models of a store, as tasks use them."""

from workers.contract import layout
from workers.contract.errors import NoSuchModel, ObjectMissing
from workers.prediction.score import Scorer, load_head
from workers.storage import Store


def open_model(store: Store, model_id: str) -> Scorer:
    """The head and labels of a model. Raises NoSuchModel."""
    try:
        labels = store.read(layout.model(model_id, "labels.txt")).decode().split("\n")[:-1]
        return load_head(store.read(layout.model(model_id, "head.npz")), labels)
    except ObjectMissing as error:
        raise NoSuchModel(f"there is no model {model_id} in {store.url}") from error
