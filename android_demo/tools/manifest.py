"""One manifest out of those of the modules, as Gradle's merger makes it for what is used here."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from android_demo.tools.project import ANDROID, APP

__all__ = ["NAMESPACE", "merged"]

NAMESPACE = "http://schemas.android.com/apk/res/android"
TOOLS = "http://schemas.android.com/tools"


def merged(app: Path | None = None, library: Path | None = None) -> str:
    """The app's manifest with the library's permissions and components, and the app's package.

    An element of the app with tools:node="remove" is left out, and so is the library's of that name.

    Raises:
        ValueError: Both have a component of one name, which only Gradle could merge.
    """
    ET.register_namespace("android", NAMESPACE)
    root = ET.parse(app or APP.main / "AndroidManifest.xml").getroot()
    other = ET.parse(library or ANDROID.main / "AndroidManifest.xml").getroot()
    _add(root, other)
    application = root.find("application")
    assert application is not None
    _add(application, other.find("application"))
    if APP.namespace is not None:
        root.set("package", APP.namespace)
    for element in root.iter():
        for name in [name for name in element.attrib if name.startswith(f"{{{TOOLS}}}")]:
            del element.attrib[name]
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add(parent: ET.Element, more: ET.Element | None) -> None:
    """Add the library's children that the app has not, then remove what the app wants removed."""
    present = {_key(child): child for child in parent}
    for child in more if more is not None else ():
        own = present.get(_key(child))
        if child.tag == "application":
            continue
        if own is None:
            parent.append(child)
        elif own.get(f"{{{TOOLS}}}node") != "remove" and child.tag != "uses-permission":
            raise ValueError(f"app and library both have {_key(child)}")
    for child in list(parent):
        if child.get(f"{{{TOOLS}}}node") == "remove":
            parent.remove(child)


def _key(element: ET.Element) -> tuple[str, str | None]:
    return element.tag, element.get(f"{{{NAMESPACE}}}name")
