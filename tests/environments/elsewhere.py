"""A plugin of pytest that runs tests without what only Linux has: `pytest -p tests.environments.elsewhere …`."""

from tests.only_linux import take_away

take_away()
