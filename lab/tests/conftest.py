import pytest

from lab import authority


@pytest.fixture(autouse=True, scope="session")
def authorities(tmp_path_factory):
    """The tests' own authorities: those of the clone are not created by several processes at a time."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(authority, "FOLDER", tmp_path_factory.mktemp("ca"))
        yield
