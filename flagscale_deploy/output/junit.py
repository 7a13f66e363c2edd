"""Write test cases as JUnit XML for CI systems: one for each host and phase of `smoke`, or host and check."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from flagscale_deploy.api.cases import Case
from flagscale_deploy.support.file_modes import hand_on
from flagscale_deploy.support.paths import write_file
from flagscale_deploy.text import one_line

JUNIT = "the JUnit file"


def write_junit(
    suite: str,
    cases: Sequence[Case],
    path: Path,
    redact: Callable[[str], str],
    properties: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the file, valid by Jenkins' junit-10.xsd; characters that XML can't contain become `?`.

    No two cases have the same class and name: GitLab keeps one of those only. Class names are the same for every
    deployment, so that CI systems recognise a test. Raises InputError if the file cannot be written.
    """

    def clean(text: str) -> str:
        return _xml_text(redact(one_line(text)))

    failed, skipped = (sum(case.state == state for case in cases) for state in ("failed", "skipped"))
    counts = {"tests": str(len(cases)), "failures": str(failed), "errors": "0"}
    took = f"{sum(case.seconds for case in cases):.3f}"
    root = ET.Element("testsuites", {"name": "flagscale-deploy", **counts, "time": took})
    element = ET.SubElement(root, "testsuite", {"name": clean(suite), **counts, "skipped": str(skipped), "time": took})
    if properties:
        listed = ET.SubElement(element, "properties")
        for name, value in properties.items():
            ET.SubElement(listed, "property", {"name": clean(name), "value": clean(value)})
    used: Counter[str] = Counter()
    for case in cases:
        name = clean(f"{case.title} [{case.host}]" if case.host else case.title)
        used[name] += 1
        _add(element, clean(suite), name if used[name] == 1 else f"{name} ({used[name]})", case, clean)
    write_file(path, ET.tostring(root, encoding="utf-8", xml_declaration=True).decode(), JUNIT)
    hand_on(path)  # CI may read it as another user


def _add(suite: ET.Element, suite_name: str, name: str, case: Case, clean: Callable[[str], str]) -> None:
    attributes = {"classname": f"{suite_name}.{case.phase}", "name": name, "time": f"{case.seconds:.3f}"}
    element = ET.SubElement(suite, "testcase", attributes)
    if case.state == "failed":
        failure = ET.SubElement(
            element, "failure", {"message": clean(case.message), "type": "busy" if case.busy else case.phase}
        )
        failure.text = "\n".join(map(clean, case.lines)) or clean(case.message)
    elif case.state == "skipped":
        ET.SubElement(element, "skipped", {"message": clean(case.message)})
    elif case.message:
        ET.SubElement(element, "system-out").text = clean(case.message)


def _xml_text(text: str) -> str:
    return re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|\x7f", "?", text)
