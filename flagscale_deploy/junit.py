"""A smoke deploy as JUnit XML, the form CI systems read: one test case per phase and host."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

from flagscale_deploy.errors import InputError
from flagscale_deploy.smoke import Case, Smoke


def write_junit(smoke: Smoke, path: Path, redact: Callable[[str], str]) -> None:
    """Write it; characters that XML can't carry become `?`. Raises InputError where that is not possible."""
    failed = sum(case.state == "failed" for case in smoke.cases)
    skipped = sum(case.state == "skipped" for case in smoke.cases)
    counts = {"tests": str(len(smoke.cases)), "failures": str(failed), "errors": "0", "skipped": str(skipped)}
    took = f"{sum(case.seconds for case in smoke.cases):.3f}"

    def clean(text: str) -> str:
        return _xml_text(redact(text))

    deployment = clean(smoke.deployment)
    suites = ET.Element("testsuites", {"name": "flagscale-deploy", **counts, "time": took})
    suite = ET.SubElement(suites, "testsuite", {"name": deployment, **counts, "time": took})
    for case in smoke.cases:
        _add(suite, deployment, case, clean)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ET.ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise InputError.at(str(path), f"the JUnit file cannot be written: {error.strerror}") from error


def _add(suite: ET.Element, deployment: str, case: Case, clean: Callable[[str], str]) -> None:
    name = f"{case.title} [{case.host}]" if case.host else case.title
    attributes = {"classname": f"{deployment}.{case.phase}", "name": clean(name), "time": f"{case.seconds:.3f}"}
    element = ET.SubElement(suite, "testcase", attributes)
    if case.state == "failed":
        failure = ET.SubElement(element, "failure", {"message": clean(case.message), "type": case.phase})
        failure.text = clean("\n".join(case.lines) or case.message)
    elif case.state == "skipped":
        ET.SubElement(element, "skipped", {"message": clean(case.message)})
    elif case.message:
        ET.SubElement(element, "system-out").text = clean(case.message)


def _xml_text(text: str) -> str:
    return re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|\x7f", "?", text)
