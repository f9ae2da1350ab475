"""Entry point of gitlab-backup-volume: `python -m programs.volume_backup`, and the zipapp on the machine."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
