"""Programs that are installed on the machines; those in Python use the system's interpreter."""
