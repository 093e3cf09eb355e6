"""Real servers and workers for tests: started on free ports, stopped with the test."""
