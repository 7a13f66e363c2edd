from __future__ import annotations

from flagscale_deploy.diagnosis.docs import page
from tests.docs.readme import REPOSITORY

PAGE = REPOSITORY / "docs" / "diagnosis.md"
AGAIN = (
    "python -c 'import pathlib; from flagscale_deploy.diagnosis.docs import page;"
    ' pathlib.Path("docs/diagnosis.md").write_text(page(), encoding="utf-8")\''
)


def test_the_page_about_diagnoses_is_that_of_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"make it anew: {AGAIN}"
