"""Programs that are installed on a machine and stay there, run by the Python that is on it."""
