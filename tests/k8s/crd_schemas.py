"""Schemas of the custom resources in k8s/, as far as we use them; and of whole CRDs where a test is given them.

The hand-written ones know every field that our manifests have and no other, so a misspelt field is refused. They are
written after the projects' API references, and are no substitute for those: CRD_SCHEMAS=FOLDER has the manifests
checked against the CRD files (*.yaml) in that folder too, strictly.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
from tests.k8s.rendering import Manifest, documents

Schema = dict[str, Any]

CRD_SCHEMAS = "CRD_SCHEMAS"
"""Variable with the folder of CRD files."""

_TEXT: Schema = {"type": "string", "minLength": 1}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_FLAG: Schema = {"type": "boolean"}
_DURATION: Schema = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h))+$"}
_TEXTS: Schema = {"type": "object", "additionalProperties": _TEXT}
_ANYTHING: Schema = {}


def _object(required: dict[str, Schema], **optional: Schema) -> Schema:
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of, "minItems": 1}


def _resource(api: str, kind: str, spec: Schema) -> Schema:
    metadata = _object({"name": _TEXT}, namespace=_TEXT, labels=_TEXTS, annotations=_TEXTS)
    return _object({"apiVersion": {"const": api}, "kind": {"const": kind}, "metadata": metadata, "spec": spec})


_ALERT = _object(
    {
        "alert": {"type": "string", "pattern": "^Tensorquay[A-Z]"},
        "expr": _TEXT,
        "labels": _TEXTS,
        "annotations": _TEXTS,
    },
    **{"for": _DURATION},
)
_ENDPOINT = _object({"port": _TEXT}, path=_TEXT, interval=_DURATION, scrapeTimeout=_DURATION)
_TRIGGER = _object(
    {
        "type": {"const": "prometheus"},
        "metadata": _object(
            {"serverAddress": {"type": "string", "pattern": "^https?://"}, "query": _TEXT, "threshold": _TEXT}
        ),
    },
    name=_TEXT,
    metricType={"enum": ["AverageValue", "Value"]},
)
_FORMAT = _object({"name": _TEXT}, version=_TEXT, autoSelect=_FLAG, priority=_COUNT)
_MODEL = _object(
    {
        "modelFormat": _object({"name": _TEXT}, version=_TEXT),
        "storageUri": {"type": "string", "pattern": "^[a-z0-9]+://"},
    },
    runtime=_TEXT,
    protocolVersion={"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]},
)

OURS: dict[str, Schema] = {
    "ServiceMonitor": _resource(
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        _object({"selector": _object({"matchLabels": _TEXTS}), "endpoints": _list(_ENDPOINT)}),
    ),
    "PrometheusRule": _resource(
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        _object({"groups": _list(_object({"name": _TEXT, "rules": _list(_ALERT)}))}),
    ),
    "ScaledObject": _resource(
        "keda.sh/v1alpha1",
        "ScaledObject",
        _object(
            {"scaleTargetRef": _object({"name": _TEXT}), "triggers": _list(_TRIGGER)},
            minReplicaCount=_COUNT,
            maxReplicaCount=_COUNT,
            pollingInterval=_COUNT,
            cooldownPeriod=_COUNT,
            fallback=_object({"failureThreshold": _COUNT, "replicas": _COUNT}),
            # What is inside is an HPA's own, and checked as one.
            advanced=_object({"horizontalPodAutoscalerConfig": _object({"behavior": _ANYTHING})}),
        ),
    ),
    "ClusterServingRuntime": _resource(
        "serving.kserve.io/v1alpha1",
        "ClusterServingRuntime",
        _object(
            # Containers and volumes are a pod's own, and checked as such.
            {"containers": _list(_ANYTHING), "supportedModelFormats": _list(_FORMAT), "protocolVersions": _list(_TEXT)},
            annotations=_TEXTS,
            multiModel=_FLAG,
            volumes=_list(_ANYTHING),
        ),
    ),
    "InferenceService": _resource(
        "serving.kserve.io/v1beta1",
        "InferenceService",
        _object({"predictor": _object({"model": _MODEL}, minReplicas=_COUNT, maxReplicas=_COUNT)}),
    ),
}
"""Kind → schema."""


def check(schema: Schema, manifest: Manifest) -> None:
    """Raises `jsonschema.ValidationError`."""
    jsonschema.Draft202012Validator(schema).validate(manifest)


def given_crds() -> dict[tuple[str, str], Schema]:
    """(apiVersion, kind) → schema of every CRD in the folder that CRD_SCHEMAS names; empty when it names none."""
    folder = os.environ.get(CRD_SCHEMAS)
    if not folder:
        return {}
    found: dict[tuple[str, str], Schema] = {}
    for file in sorted(Path(folder).glob("*.yaml")):
        for crd in documents(file.read_text()):
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    assert found, f"{CRD_SCHEMAS}={folder}: no CRD in it"
    return found


def strict(schema: Any) -> Any:
    """A CRD's schema as JSON schema in which unknown fields are refused, as `kubectl apply --validate=strict` does."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    # Under "properties" keys are names of fields, which may be called like keywords.
    made = {
        key: {name: strict(each) for name, each in value.items()} if key == "properties" else strict(value)
        for key, value in schema.items()
    }
    if "properties" in made and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made
