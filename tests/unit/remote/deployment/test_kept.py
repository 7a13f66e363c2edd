"""Which descriptions of runs and updates a host keeps, and where files may be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from flagscale_deploy.remote.deployment import kept, scripts


def test_what_a_record_names_is_kept_however_old_it_is(tmp_path: Path) -> None:
    (tmp_path / kept.FOLDER).mkdir()
    names = [f"2025{number:02d}" for number in range(30)]
    for name in names:
        (tmp_path / kept.path_of(name)).write_text(name)
    deployed = {"run_id": "202500", "configuration": "202501", "change": {"run_id": "202529", "base": "202502"}}
    named = kept.named_by(cast(Any, deployed))
    assert named == {"202500", "202501", "202502", "202529"}
    kept.forget_old(tmp_path, named)
    assert sorted(kept.digests(tmp_path)) == ["202500", "202501", "202502", *names[-17:]]
    kept.forget_old(tmp_path, named)
    assert len(kept.digests(tmp_path)) == kept.MOST
    assert kept.named_by({}) == set()


@pytest.mark.parametrize(
    "name", ["../x", "/x", "scripts/../../x", "", ".", "..", "scripts//x", "scripts/./x", "scripts/"]
)
def test_nothing_is_written_outside_the_state_directory(tmp_path: Path, name: str) -> None:
    state = tmp_path / "a" / "b"
    with pytest.raises(ValueError, match="cannot be used as a path"):
        scripts.put_all(state, {"scripts/a": ("", "700"), name: ("evil", "700")})
    assert list(tmp_path.iterdir()) == []
