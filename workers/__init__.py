"""What runs on a worker: features, training and scoring, and the contract with the orchestrator."""
