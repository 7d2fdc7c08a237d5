"""Run the public RO-Crate validator without network: `python validate.py CRATE [required|recommended]`.

Runs in the validator's own environment (`make crate-validator`). The validator brings the profiles; the two JSON-LD
contexts that a crate names are on the web, so the terms that our crates use are defined here by what those contexts
say of them. A term that is not listed stays undefined and is ignored, as a misspelt one would be.
"""

import json
import sys

from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester

SCHEMA_ORG = """
    CreativeWork Dataset SoftwareSourceCode SoftwareApplication ComputerLanguage PropertyValue CreateAction
    ControlAction OrganizeAction HowTo HowToStep Person Organization
    about actionStatus additionalType agent author contentSize contentUrl creator datePublished description
    encodingFormat endTime error exampleOfWork hasPart identifier instrument license mainEntity mentions name object
    position programmingLanguage propertyID publisher result softwareRequirements softwareVersion startTime step
    subjectOf unitCode url value version workExample defaultValue valueRequired
""".split()  # noqa: SIM905
RO_CRATE = {
    **{term: f"http://schema.org/{term}" for term in SCHEMA_ORG},
    "File": "http://schema.org/MediaObject",
    "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
    "FormalParameter": "https://bioschemas.org/FormalParameter",
    "conformsTo": "http://purl.org/dc/terms/conformsTo",
    "input": "https://bioschemas.org/ComputationalWorkflow#input",
    "output": "https://bioschemas.org/ComputationalWorkflow#output",
}
RUN = "https://w3id.org/ro/terms/workflow-run#"
CONTEXTS = {
    "https://w3id.org/ro/crate/1.1/context": RO_CRATE,
    "https://w3id.org/ro/terms/workflow-run/context": {
        term: RUN + term
        for term in ("ParameterConnection", "connection", "containerImage", "environment", "resourceUsage", "sha256")
    },
}


class Answer:
    """What the web would answer to a request for one of CONTEXTS."""

    status_code = 200

    def __init__(self, url: str) -> None:
        known = url in CONTEXTS
        self.status_code, self.headers = (200 if known else 404), {"Content-Type": "application/ld+json"}
        self.text = json.dumps({"@context": CONTEXTS.get(url, {})})

    def json(self) -> dict:
        return json.loads(self.text)


HttpRequester.get = lambda self, url, **_: Answer(url)
result = services.validate(
    services.ValidationSettings(
        rocrate_uri=sys.argv[1],
        profile_identifier="provenance-run-crate-0.5",
        requirement_severity=models.Severity[sys.argv[2].upper() if len(sys.argv) > 2 else "REQUIRED"],
    )
)
issues = [
    {"severity": i.severity.name, "check": i.check.identifier, "message": i.message, "entity": str(i.violatingEntity)}
    for i in result.get_issues()
]
checks = len(result.executed_checks)
print(json.dumps({"passed": result.passed(), "checks": checks, "issues": issues}, indent=1))
