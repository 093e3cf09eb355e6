"""What plans a run, hands its tasks to workers and reports: no TensorFlow here."""
