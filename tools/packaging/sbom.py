"""What the binary is made of, as SPDX 2.3: sbom.py Package.resolved VERSION BINARY > FILE"""
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

resolved, version, binary = sys.argv[1:4]
digest = hashlib.sha256(pathlib.Path(binary).read_bytes()).hexdigest()
date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"])))


def package(name, version, location, licence, **more):
    identifier = "SPDXRef-" + re.sub(r"[^A-Za-z0-9.]", "-", name)
    return {"SPDXID": identifier, "name": name, "versionInfo": version, "downloadLocation": location,
            "licenseConcluded": licence, "licenseDeclared": licence, "copyrightText": "NOASSERTION",
            "filesAnalyzed": False} | more


def purl(pin):
    host, path = re.match(r"https://([^/]+)/(.*?)(?:\.git)?$", pin["location"]).groups()
    owner = path.rpartition("/")[0]
    return f"pkg:swift/{host}/{owner}/{pin['identity']}@{pin['state']['version']}"


def compiled(pin):
    """Whether a target of the package is inside the binary. Without a build here, all packages are named."""
    lists = list(pathlib.Path(".build").glob("*/release/nibble.product/Objects.LinkFileList"))
    if not lists:
        return True
    modules = set(re.findall(r"/([A-Za-z0-9_]+)\.build/", lists[0].read_text()))
    sources = pathlib.Path(".build/checkouts") / pin["identity"] / "Sources"
    return any((sources / module).is_dir() for module in modules)


pins = [pin for pin in json.load(open(resolved))["pins"] if compiled(pin)]
toolchain = re.search(r"Swift version (\S+)", subprocess.check_output(["swift", "--version"], text=True)).group(1)
root = package("nibble", version, "NOASSERTION", "Apache-2.0", primaryPackagePurpose="APPLICATION",
               checksums=[{"algorithm": "SHA256", "checksumValue": digest}])
parts = [package("swift-runtime", toolchain, "https://swift.org/install", "Apache-2.0 WITH Swift-exception")]
for pin in pins:
    reference = {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl(pin)}
    location = f"git+{pin['location']}@{pin['state']['revision']}"
    parts.append(package(pin["identity"], pin["state"]["version"], location, "Apache-2.0", externalRefs=[reference]))
document = {
    "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"nibble-{version}",
    "documentNamespace": f"https://spdx.org/spdxdocs/nibble-{version}-{digest[:16]}",
    "creationInfo": {"created": date, "creators": ["Tool: tools/release"]},
    "packages": [root] + parts,
    "relationships": [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": root["SPDXID"]}]
    + [{"spdxElementId": root["SPDXID"], "relationshipType": "CONTAINS", "relatedSpdxElement": part["SPDXID"]} for part in parts],
}
json.dump(document, sys.stdout, indent=2)
print()
