#!/usr/bin/env python3
"""The bundled components, read from the installed *.dist-info: as a CycloneDX SBOM, or as debian/copyright.

components.py sbom FOLDER          (needs the libraries of tools.lock)
components.py copyright FOLDER
"""

import datetime
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

OURS = "edge-gateway"
# What has no License-Expression: SPDX, from the licence file beside it.
SPDX = {
    "aiohappyeyeballs": "PSF-2.0",
    "aiohttp-apispec": "MIT",
    "aiosignal": "Apache-2.0",
    "aiosqlite": "MIT",
    "argparse-addons": "MIT",
    "asyncua": "LGPL-3.0-or-later",
    "canopen": "MIT",
    "cantools": "MIT",
    "click-default-group": "BSD-3-Clause",
    "crccheck": "MIT",
    "frozenlist": "Apache-2.0",
    "jinja2": "BSD-3-Clause",
    "multidict": "Apache-2.0",
    "pluggy": "MIT",
    "propcache": "Apache-2.0",
    "pyserial": "BSD-3-Clause",
    "pytz": "MIT",
    "pyyaml": "MIT",
    "revpimodio2": "LGPL-2.1-only",
    "sdnotify": "MIT",
    "sortedcontainers": "Apache-2.0",
    "sqlite-fts4": "Apache-2.0",
    "tzdata": "Apache-2.0",
    "wait-for2": "Apache-2.0",
    "webargs": "MIT",
    "wrapt": "BSD-2-Clause",
    "yarl": "Apache-2.0",
}
# Other people's work inside a component's own files: name, SPDX, copyright, files.
INSIDE = {
    "aiohttp": (("llhttp", "MIT", "Fedor Indutny", "aiohttp/_http_parser*"),),
    "aiohttp-apispec": (("swagger-ui", "Apache-2.0", "SmartBear Software Inc.", "aiohttp_apispec/static/*"),),
    "cffi": (("libffi", "MIT", "Anthony Green, Red Hat, Inc. and others", "_cffi_backend.*"),),
    "cryptography": (
        ("openssl", "Apache-2.0", "The OpenSSL Project Authors", "cryptography/hazmat/bindings/_rust*"),
    ),
    "h5py": (
        (
            "hdf5",
            "BSD-3-Clause",
            "The HDF Group, the Board of Trustees of the University of Illinois",
            "h5py.libs/libhdf5*",
        ),
        (
            "libaec",
            "BSD-2-Clause",
            "Deutsches Klimarechenzentrum, Mathis Rosenhauer, Moritz Hanke, Joerg Behrens, Luis Kornblueh",
            "h5py.libs/lib[as]*",
        ),
    ),
    "numpy": (
        ("openblas", "BSD-3-Clause", "The OpenBLAS Project", "numpy.libs/libscipy_openblas*"),
        (
            "libgfortran",
            "GPL-3.0-or-later WITH GCC-exception-3.1",
            "Free Software Foundation, Inc.",
            "numpy.libs/libgfortran*",
        ),
        ("libquadmath", "LGPL-2.1-or-later", "Free Software Foundation, Inc.", "numpy.libs/libquadmath*"),
    ),
    "zstandard": (("zstd", "BSD-3-Clause", "Meta Platforms, Inc. and affiliates", "zstandard/backend_c*"),),
    "pyyaml": (("libyaml", "MIT", "Kirill Simonov, Ingy döt Net", "yaml/_yaml*"),),
}
_COPYRIGHT = re.compile(
    r"^\W*(?:copyright|©)\s*(?:\(c\)|©)?\s*:?\s*((?:\d{4}|[A-Z]).*)$", re.IGNORECASE | re.MULTILINE
)
_COMMON = {
    "Apache-2.0": "Apache-2.0",
    "MPL-2.0": "MPL-2.0",
    "LGPL-3.0-or-later": "LGPL-3",
    "LGPL-3.0-only": "LGPL-3",
    "LGPL-2.1-or-later": "LGPL-2.1",
    "LGPL-2.1-only": "LGPL-2.1",
    "GPL-3.0-or-later WITH GCC-exception-3.1": "GPL-3",
}
"""What /usr/share/common-licenses holds, under which name."""
_BSD = """\
 Redistribution and use in source and binary forms, with or without modification, are permitted provided that
 the following conditions are met:
 .
 1. Redistributions of source code must retain the above copyright notice, this list of conditions and the
 following disclaimer.
 .
 2. Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the
 following disclaimer in the documentation and/or other materials provided with the distribution.
 .
{third} THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED
 WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A
 PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY
 DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO,
 PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
 CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE
 OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH
 DAMAGE."""
_THIRD = """\
 3. Neither the name of the copyright holder (of zstd: the name Facebook, nor Meta) nor the names of its
 contributors may be used to endorse or promote products derived from this software without specific prior
 written permission.
 .
"""
_MIT = """\
 Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
 documentation files (the "Software"), to deal in the Software without restriction, including without
 limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the
 Software, and to permit persons to whom the Software is furnished to do so, subject to the following
 conditions:
 .
 The above copyright notice and this permission notice shall be included in all copies or substantial portions
 of the Software.
 .
 THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED
 TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL
 THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
 CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER
 DEALINGS IN THE SOFTWARE."""
_TEXTS = {
    "BSD-2-Clause": _BSD.format(third=""),
    "BSD-3-Clause": _BSD.format(third=_THIRD),
    "MIT": _MIT,
}
"""For those whose own text is not installed with them."""
_WITHOUT_TEXT = {"libaec", "libffi", "pyserial", "zstd"}


@dataclass(frozen=True)
class Component:
    name: str
    version: str
    licence: str
    """An SPDX expression."""
    holders: tuple[str, ...]
    files: tuple[str, ...]
    """Top-level names in the private folder."""
    needs: tuple[str, ...] = ()
    inside: str = ""
    """The component whose files hold it."""
    website: str = ""


def components(folder: Path) -> list[Component]:
    """Return every component but ourselves, sorted by name. SystemExit: one has no licence that we know."""
    found = [_component(each) for each in distributions(path=[str(folder)]) if _name(each) != OURS]
    inside = [
        Component(name, "", licence, (holder,), (files,), inside=of)
        for of, parts in INSIDE.items()
        if any(each.name == of for each in found)
        for name, licence, holder, files in parts
    ]
    return sorted([*found, *inside], key=lambda each: each.name)


def _name(distribution: Distribution) -> str:
    return re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()


def _component(distribution: Distribution) -> Component:
    name = _name(distribution)
    metadata = distribution.metadata
    licence = metadata.get("License-Expression") or SPDX.get(name)
    if not licence:
        sys.exit(f"{name} has no License-Expression: look at its licence and add it to SPDX in {__file__}")
    files = {part.parts[0] for part in distribution.files or () if part.parts[0] not in ("..", "__pycache__")}
    needs = {
        re.split(r"[^A-Za-z0-9._-]", each)[0]
        for each in distribution.requires or ()
        if "extra ==" not in each
    }
    return Component(
        name,
        distribution.version,
        licence,
        tuple(_holders(distribution)),
        tuple(sorted(files)),
        tuple(sorted(re.sub(r"[-_.]+", "-", each).lower() for each in needs)),
        website=metadata.get("Home-page") or _url(metadata.get_all("Project-URL") or ()),
    )


def _url(urls: object) -> str:
    each = dict(line.split(", ", 1)[0:2] for line in urls)  # type: ignore[attr-defined]
    lowered = {key.lower(): value for key, value in each.items()}
    return next(
        (lowered[key] for key in ("homepage", "source", "repository", "source code") if key in lowered), ""
    )


def _holders(distribution: Distribution) -> Iterator[str]:
    """Yield the copyright lines of the licence files, else the author."""
    lines: dict[str, None] = {}
    for path in distribution.files or ():
        if re.search(r"licen[cs]e|copying|notice", path.name, re.IGNORECASE) and path.suffix != ".py":
            text = Path(str(path.locate())).read_text(encoding="utf-8", errors="replace")
            for line in _COPYRIGHT.findall(text):
                if not re.search(
                    r"(?i)\[yyyy\]|holder|owner|Free Software Foundation|licen[cs]e|notice|lawsuit|statement",
                    line,
                ):
                    lines[" ".join(line.split())] = None
    metadata = distribution.metadata
    author = metadata.get("Author") or re.sub(r"\s*<.*", "", metadata.get("Author-email") or "")
    yield from list(lines)[:12] or [author or f"the {metadata['Name']} contributors"]


def sbom(folder: Path) -> str:
    """Return the SBOM; the same components at the same SOURCE_DATE_EPOCH make the same text."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component as Part
    from cyclonedx.model.component import ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    own = next(each for each in distributions(path=[str(folder)]) if _name(each) == OURS)
    licences = LicenseFactory()
    parts = {}
    for each in components(folder):
        url = PackageURL("generic" if each.inside else "pypi", name=each.name, version=each.version or None)
        links = (
            [ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(each.website))]
            if each.website
            else []
        )
        parts[each.name] = Part(
            name=each.name,
            version=each.version or None,
            type=ComponentType.LIBRARY,
            purl=url,
            bom_ref=str(url),
            licenses=[licences.make_from_string(each.licence)],
            external_references=links,
        )
    bom = Bom(serial_number=None)
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(epoch, datetime.UTC)
    bom.metadata.tools.components.clear()
    root = Part(name=OURS, version=own.version, type=ComponentType.APPLICATION, bom_ref=OURS)
    bom.metadata.component = root
    bom.components.update(parts.values())
    bom.register_dependency(root, [parts[each.name] for each in components(folder) if not each.inside])
    for each in components(folder):
        needed = [parts[name] for name in each.needs if name in parts]
        bom.register_dependency(parts[each.name], needed)
        if each.inside:
            bom.register_dependency(parts[each.inside], [parts[each.name]])
    text = JsonV1Dot6(bom).output_as_string(indent=1)
    # The library makes a random serial number where none is given.
    return re.sub(r'\n "serialNumber": "[^"]*",', "", text) + "\n"


def copyright_file(folder: Path) -> str:
    """Return debian/copyright."""
    found = components(folder)
    paragraphs = [_HEAD, *map(_paragraph, found)]
    for licence in sorted({_short(each.licence) for each in found}):
        of = [each for each in found if _short(each.licence) == licence]
        paragraphs.append(f"License: {licence}\n{_text(licence, of)}")
    return "\n\n".join(paragraphs) + "\n"


def _paragraph(each: Component) -> str:
    inside = f", inside {each.inside}" if each.inside else ""
    files = [_pattern(name) for name in each.files]
    lines = [
        "Files: " + "\n ".join(f"usr/lib/edge-gateway/{name}" for name in files),
        "Copyright: " + "\n ".join(each.holders),
        f"License: {_short(each.licence)}",
        f"Comment: {each.name}{inside}",
    ]
    return "\n".join(lines)


def _pattern(name: str) -> str:
    """Return what stands for a top-level name, alike for each processor and each Python."""
    if ".cpython-" in name:
        return name.partition(".cpython-")[0] + "*"
    return name if "*" in name or name.endswith(".py") else f"{name}/*"


def _short(expression: str) -> str:
    return expression.replace(" OR ", " or ").replace(" AND ", " and ").replace("(", "").replace(")", "")


def _text(licence: str, of: list[Component]) -> str:
    common = [each for each in re.split(r" or | and ", licence) if each in _COMMON]
    lines = [f" The full text of {each} is in /usr/share/common-licenses/{_COMMON[each]}." for each in common]
    if where := ", ".join(
        sorted({each.inside or each.name for each in of if each.name not in _WITHOUT_TEXT})
    ):
        lines.append(
            " The text with its copyright notices is installed unchanged in /usr/lib/edge-gateway, in the"
        )
        lines.append(f" folder NAME-VERSION.dist-info of: {where}.")
    if without := ", ".join(sorted({each.name for each in of} & _WITHOUT_TEXT)):
        lines.append(f" That of {without}:\n .\n{_TEXTS[licence]}")
    return "\n".join(lines)


_HEAD = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: edge-gateway
Comment: Made by `make lock` from the metadata of the bundled libraries; a test compares it with the SBOM in
 the package. Every library stands in files of its own under /usr/lib/edge-gateway: a module (one under the
 LGPL too) can be exchanged by putting another in its place. The Rust crates inside cryptography and orjson
 are listed in the sboms folder of each one's dist-info.

Files: *
Copyright: the edge-gateway developers
License: undecided
 The licence of edge-gateway itself is undecided: no rights are granted yet."""


if __name__ == "__main__":
    command, named = sys.argv[1:]
    print({"sbom": sbom, "copyright": copyright_file}[command](Path(named)), end="")
