"""The `retrain` command: one file for each subcommand."""
