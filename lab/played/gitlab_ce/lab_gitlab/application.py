"""State shared by all parts of the application."""

import json
from dataclasses import dataclass, field
from typing import Any

from lab_gitlab import paths
from lab_gitlab.crypto import Cipher
from lab_gitlab.database import Database
from lab_gitlab.ip_rate_limiter import DEFAULTS, IpRateLimiter


@dataclass
class Application:
    """The application. `settings` is the gitlab.yml of the last reconfigure."""

    settings: dict[str, Any]
    cipher: Cipher
    database: Database = field(default_factory=Database)
    rate_limiter: IpRateLimiter = field(default_factory=lambda: IpRateLimiter(DEFAULTS))

    @property
    def registry(self) -> dict[str, Any]:
        """The registry section of gitlab.yml."""
        part: dict[str, Any] = self.settings["registry"]
        return part


def load() -> Application:
    """Read the files that reconfigure wrote for the application, as the user git."""
    secrets = json.loads(paths.RAILS_SECRETS.read_text())
    settings = json.loads(paths.RAILS_CONFIGURATION.read_text())
    return Application(
        settings=settings,
        cipher=Cipher(secrets["db_key_base"]),
        rate_limiter=IpRateLimiter(settings["rack_attack"]["git_basic_auth"]),
    )
