"""Entry point of registry-tree: `python -m programs.registry_tree` in a checkout, and the zipapp on the machine."""

from .cli import run

if __name__ == "__main__":
    run()
