"""What a person may ask of training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingSettings:
    """What the command line may set; None means chosen on the validation images."""

    epochs: int = 60
    batch_size: int | None = None
    """None: 256, and more where there are many images."""
    learning_rate: float | None = None
    weight_decay: float = 0.0
    """Pull of the refinement back to its start, as a factor on the squared distance."""
    label_smoothing: float = 0.0
    class_weights: str = "none"
    """"none": every image counts the same; "balanced": every class does."""
    seed: int = 0
    patience: int = 8
    """Epochs without a better validation cross-entropy before training stops."""
