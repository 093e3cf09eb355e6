"""What the orchestrator and the workers must agree on. Imports nothing else of this project."""
