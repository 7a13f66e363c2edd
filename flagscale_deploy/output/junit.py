"""Write test cases as JUnit XML for CI systems: one for each host and phase of `smoke`, or host and check."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path

from flagscale_deploy.api.cases import Case
from flagscale_deploy.support.file_modes import hand_on
from flagscale_deploy.support.paths import write_file
from flagscale_deploy.text import one_line

JUNIT = "the JUnit file"


def write_junit(deployment: str, cases: Sequence[Case], path: Path, redact: Callable[[str], str]) -> None:
    """Write the file; characters that XML can't contain become `?`. Raises InputError if it cannot be written."""
    failed = sum(case.state == "failed" for case in cases)
    skipped = sum(case.state == "skipped" for case in cases)
    counts = {"tests": str(len(cases)), "failures": str(failed), "errors": "0", "skipped": str(skipped)}
    took = f"{sum(case.seconds for case in cases):.3f}"

    def clean(text: str) -> str:
        return _xml_text(redact(one_line(text)))

    deployment = clean(deployment)
    suites = ET.Element("testsuites", {"name": "flagscale-deploy", **counts, "time": took})
    suite = ET.SubElement(suites, "testsuite", {"name": deployment, **counts, "time": took})
    for case in cases:
        _add(suite, deployment, case, clean)
    write_file(path, ET.tostring(suites, encoding="utf-8", xml_declaration=True).decode(), JUNIT)
    hand_on(path)  # CI may read it as another user


def _add(suite: ET.Element, deployment: str, case: Case, clean: Callable[[str], str]) -> None:
    name = f"{case.title} [{case.host}]" if case.host else case.title
    attributes = {"classname": f"{deployment}.{case.phase}", "name": clean(name), "time": f"{case.seconds:.3f}"}
    element = ET.SubElement(suite, "testcase", attributes)
    if case.state == "failed":
        failure = ET.SubElement(element, "failure", {"message": clean(case.message), "type": case.phase})
        failure.text = "\n".join(map(clean, case.lines)) or clean(case.message)
    elif case.state == "skipped":
        ET.SubElement(element, "skipped", {"message": clean(case.message)})
    elif case.message:
        ET.SubElement(element, "system-out").text = clean(case.message)


def _xml_text(text: str) -> str:
    return re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|\x7f", "?", text)
