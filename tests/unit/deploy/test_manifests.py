"""The Kubernetes manifests: built as kubectl builds them, valid, and true to the code they run."""

import functools
import ipaddress
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import click
import jsonschema
import kubernetes_validate
import pytest
import yaml

from orchestrator.cli.main import main
from tests.unit.deploy.files import DEPLOY, IMAGES, load, unknown_settings
from workers.contract.backbones import BACKBONES
from workers.contract.errors import ExitCode
from workers.contract.messages import QUEUES

KUBERNETES = DEPLOY / "kubernetes"
BASE = KUBERNETES / "base"
OVERLAYS = sorted(folder for folder in (KUBERNETES / "overlays").iterdir() if folder.is_dir())
SCALED = [folder for folder in OVERLAYS if folder.name in ("keda", "spot")]
ON_GPU = [folder for folder in OVERLAYS if folder.name in ("gpu", "spot")]
SECRET = load(KUBERNETES / "secret.example.yaml")
BROKER_OUTAGE_S = 15 * 60

every = pytest.mark.parametrize("folder", [BASE, *OVERLAYS], ids=lambda folder: folder.name)

Manifest = dict[str, Any]


@functools.cache
def build(folder: Path) -> list[Manifest]:
    if shutil.which("kubectl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("kubectl is not on the PATH")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(folder: Path, kind: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in build(folder) if each["kind"] == kind}


class Pod(NamedTuple):
    name: str
    labels: dict[str, str]
    spec: dict[str, Any]
    environment: dict[str, str]
    """Of its one container; the value of a secret is what the example has."""

    @property
    def container(self) -> dict[str, Any]:
        (container,) = self.spec["containers"]
        assert isinstance(container, dict)
        return container

    @property
    def volumes(self) -> dict[str, dict[str, Any]]:
        return {volume.pop("name"): volume for volume in map(dict, self.spec["volumes"])}

    @property
    def writable(self) -> list[str]:
        """Folders that something is mounted on."""
        return [mount["mountPath"] for mount in self.container["volumeMounts"]]


def pods(folder: Path) -> Iterator[Pod]:
    for kind in ("Deployment", "CronJob"):
        for name, manifest in of_kind(folder, kind).items():
            spec = manifest["spec"]
            template = (
                spec["jobTemplate"]["spec"]["template"] if kind == "CronJob" else spec["template"]
            )
            environment = environment_of(folder, template["spec"]["containers"][0])
            yield Pod(name, template["metadata"]["labels"], template["spec"], environment)


def environment_of(folder: Path, container: dict[str, Any]) -> dict[str, str]:
    """A reference to a ConfigMap, a Secret or a key that does not exist is a KeyError."""
    secrets = {SECRET["metadata"]["name"]: SECRET["stringData"]}
    environment: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            environment |= of_kind(folder, "ConfigMap")[source["configMapRef"]["name"]]["data"]
        else:
            environment |= secrets[source["secretRef"]["name"]]
    for variable in container["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        value = secrets[reference["name"]][reference["key"]] if reference else variable["value"]
        environment[variable["name"]] = value
    return environment


def workers(folder: Path) -> list[Pod]:
    return [pod for pod in pods(folder) if pod.labels.get("app.kubernetes.io/component") == "worker"]


def jobs(folder: Path) -> list[Pod]:
    return [
        pod for pod in pods(folder) if pod.labels.get("app.kubernetes.io/component") == "orchestrator"
    ]


@pytest.mark.parametrize("version", ["1.32", kubernetes_validate.latest_version()])
@every
def test_every_object_is_valid(folder: Path, version: str) -> None:
    for manifest in build(folder):
        if manifest["kind"] in KEDA:
            jsonschema.validate(manifest, KEDA[manifest["kind"]])
        else:
            kubernetes_validate.validate(manifest, version, strict=True)


@every
def test_all_parts_are_there(folder: Path) -> None:
    assert set(of_kind(folder, "Deployment")) == {"redis", *(f"worker-{queue}" for queue in QUEUES)}
    assert set(of_kind(folder, "CronJob")) == {"retrain-run", "retrain-predict"}
    assert of_kind(folder, "CronJob")["retrain-run"]["spec"]["suspend"] is True
    assert of_kind(folder, "CronJob")["retrain-predict"]["spec"]["concurrencyPolicy"] == "Forbid"
    assert not of_kind(folder, "Secret"), "secrets are made by hand"
    assert {each["metadata"].get("namespace", "retrain") for each in build(folder)} == {"retrain"}


def test_the_overlay_of_the_documentation_builds(tmp_path: Path) -> None:
    (example,) = re.findall(
        r"```yaml\n(.*?)```", (DEPLOY / "docs" / "kubernetes.md").read_text(), re.DOTALL
    )
    # kustomize takes no absolute paths
    example = example.replace("../deploy", os.path.relpath(DEPLOY, tmp_path.resolve()))
    (tmp_path / "kustomization.yaml").write_text(example)

    for pod in [*jobs(tmp_path), *workers(tmp_path)]:
        assert pod.container["image"].startswith("registry.example.com/retrain-")
        assert pod.container["image"].removeprefix("registry.example.com/") in IMAGES
        assert pod.environment["RETRAIN_STORE"] == "s3://my-features/flowers"
    assert len(of_kind(tmp_path, "ScaledObject")) == len(QUEUES)


@every
def test_every_pod_is_confined(folder: Path) -> None:
    for pod in pods(folder):
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        assert pod.spec["securityContext"]["runAsUser"] > 0
        assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["serviceAccountName"] in of_kind(folder, "ServiceAccount")
        assert pod.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(pod.container["resources"]["requests"])
        assert "memory" in pod.container["resources"]["limits"]
        for volume in pod.volumes.values():
            assert volume["emptyDir"]["sizeLimit"]


@every
def test_images_are_built_here_or_pinned(folder: Path) -> None:
    for pod in pods(folder):
        image = pod.container["image"]
        assert image in IMAGES or re.fullmatch(r"redis:\d+\.\d+\S*", image)


@every
def test_every_setting_is_known(folder: Path) -> None:
    assert not {name for pod in pods(folder) for name in unknown_settings(pod.environment)}


@every
def test_every_command_is_one_of_the_command_line(folder: Path) -> None:
    for pod in [*jobs(folder), *workers(folder)]:
        name, *words = (expanded(word, pod.environment) for word in pod.container["args"])
        command = main.get_command(click.Context(main), name)
        assert command is not None, f"retrain {name}"
        command.make_context(name, words)


def expanded(word: str, environment: dict[str, str]) -> str:
    """As the kubelet does it."""
    return re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], word)


@every
def test_each_queue_has_its_workers(folder: Path) -> None:
    served = {pod.name: pod.environment["RETRAIN_QUEUES"] for pod in workers(folder)}

    assert served == {f"worker-{queue}": queue for queue in QUEUES}
    assert {pod.name: pod.labels["retrain/queue"] for pod in workers(folder)} == served
    for deployment in of_kind(folder, "Deployment").values():
        assert "replicas" not in deployment["spec"], "applying again would undo the scaling"


@every
def test_a_worker_has_longer_than_its_drain(folder: Path) -> None:
    for pod in workers(folder):
        grace_s = pod.spec["terminationGracePeriodSeconds"]
        assert grace_s >= int(pod.environment["RETRAIN_DRAIN_S"]) + 5


@every
def test_what_a_worker_writes_is_on_a_volume(folder: Path) -> None:
    for pod in workers(folder):
        names = ("HOME", "RETRAIN_CACHE_DIR", "TFHUB_CACHE_DIR", "RETRAIN_HEARTBEAT_FILE")
        for path in ["/tmp", *(pod.environment[name] for name in names)]:
            assert any(PurePosixPath(path).is_relative_to(folder) for folder in pod.writable), path
    for pod in jobs(folder):
        assert {"/tmp", pod.environment["HOME"]} <= set(pod.writable)


@every
def test_the_fleet_may_reach_what_it_is_asked_to(folder: Path) -> None:
    for pod in [*workers(folder), *jobs(folder)]:
        allowed = tuple(pod.environment["RETRAIN_ALLOW"].split(","))
        for name in ("RETRAIN_STORE", "TRAIN_SOURCE", "PREDICT_SOURCE"):
            assert pod.environment[name].startswith(allowed)
        assert pod.environment["BACKBONE"] in BACKBONES
        assert pod.environment["REDIS_PASSWORD"] in pod.environment["RETRAIN_BROKER_URL"]
        (redis,) = of_kind(folder, "Service").values()
        address = f"@{redis['metadata']['name']}:{redis['spec']['ports'][0]['port']}/"
        assert address in pod.environment["RETRAIN_BROKER_URL"]


@every
def test_probes_ask_for_the_heartbeat_alone(folder: Path) -> None:
    for pod in workers(folder):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            shell, flag, script = pod.container[probe]["exec"]["command"]
            assert (shell, flag) == ("sh", "-c")
            assert re.findall(r'"\$\w+"|/\S+', script) == ['"$RETRAIN_HEARTBEAT_FILE"']


@pytest.mark.parametrize(
    ("age_s", "passing"),
    [
        (None, set()),
        (5, {"startupProbe", "readinessProbe", "livenessProbe"}),
        # left behind by the container before
        (120, {"readinessProbe", "livenessProbe"}),
        (BROKER_OUTAGE_S, {"readinessProbe", "livenessProbe"}),
        (2 * BROKER_OUTAGE_S, {"readinessProbe"}),
    ],
)
def test_probes_tell_a_worker_that_stands_still(
    age_s: float | None, passing: set[str], tmp_path: Path
) -> None:
    heartbeat = tmp_path / "heart beat"
    if age_s is not None:
        heartbeat.touch()
        os.utime(heartbeat, (time.time() - age_s,) * 2)
    environment = {"PATH": os.environ["PATH"], "RETRAIN_HEARTBEAT_FILE": str(heartbeat)}

    for pod in workers(BASE):
        probes = {name: probe for name, probe in pod.container.items() if name.endswith("Probe")}
        assert passing == {
            name
            for name, probe in probes.items()
            if not subprocess.run(
                probe["exec"]["command"], env=environment, capture_output=True, check=False
            ).returncode
        }


@every
def test_a_job_that_cannot_succeed_is_not_tried_again(folder: Path) -> None:
    final = {ExitCode.FAILED, ExitCode.USAGE, ExitCode.BAD_INPUT, ExitCode.BACKBONE}
    for cronjob in of_kind(folder, "CronJob").values():
        job = cronjob["spec"]["jobTemplate"]["spec"]
        fail, ignore = job["podFailurePolicy"]["rules"]
        assert (fail["action"], ignore["action"]) == ("FailJob", "Ignore")
        assert set(fail["onExitCodes"]["values"]) == {int(code) for code in final}
        assert fail["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
        assert job["template"]["spec"]["restartPolicy"] == "Never"


@every
def test_disruptions_are_bounded(folder: Path) -> None:
    budgets = of_kind(folder, "PodDisruptionBudget").values()
    guarded = [
        [pod.name for pod in pods(folder) if selects(budget["spec"]["selector"], pod)]
        for budget in budgets
    ]
    assert guarded == [["worker-extract"], ["worker-score"]]
    train = of_kind(folder, "Deployment")["worker-train"]["spec"]["template"]["metadata"]["annotations"]
    assert train == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }


def selects(selector: dict[str, Any], pod: Pod) -> bool:
    labels: dict[str, str] = selector["matchLabels"]
    return labels.items() <= pod.labels.items()


@every
def test_pods_talk_to_nobody_but_those_they_need(folder: Path) -> None:
    policies = of_kind(folder, "NetworkPolicy")
    assert policies["deny-all"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ours = {pod.name for pod in [*workers(folder), *jobs(folder)]}

    egress = policies["retrain-egress"]["spec"]
    assert {pod.name for pod in pods(folder) if selects(egress["podSelector"], pod)} == ours
    assert {port["port"] for rule in egress["egress"] for port in rule["ports"]} == {53, 6379, 443}
    (ingress,) = policies["redis-ingress"]["spec"]["ingress"]
    assert {pod.name for pod in pods(folder) if selects(ingress["from"][0]["podSelector"], pod)} == ours
    (redis,) = of_kind(folder, "Service").values()
    reached = [pod for pod in pods(folder) if redis["spec"]["selector"].items() <= pod.labels.items()]
    assert [pod.name for pod in reached] == ["redis"]


@pytest.mark.parametrize("metadata_service", ["169.254.169.254", "fd00:ec2::254"])
@every
def test_no_pod_reaches_the_metadata_service(folder: Path, metadata_service: str) -> None:
    address = ipaddress.ip_address(metadata_service)
    for policy in of_kind(folder, "NetworkPolicy").values():
        for rule in policy["spec"].get("egress", []):
            for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer):
                excepted = any(
                    address in ipaddress.ip_network(each) for each in block.get("except", [])
                )
                assert excepted or address not in ipaddress.ip_network(block["cidr"])


@pytest.mark.parametrize("folder", ON_GPU, ids=lambda folder: folder.name)
def test_extraction_has_a_gpu_and_nothing_else_has(folder: Path) -> None:
    for pod in pods(folder):
        gpus = pod.container["resources"]["limits"].get("nvidia.com/gpu")
        on_gpu = pod.name == "worker-extract"
        assert gpus == ("1" if on_gpu else None)
        assert pod.container["image"].startswith("retrain-worker-gpu:") == on_gpu
    (extract,) = (pod for pod in workers(folder) if pod.name == "worker-extract")
    assert "nvidia.com/gpu" in {toleration["key"] for toleration in extract.spec["tolerations"]}


@pytest.mark.parametrize("folder", SCALED, ids=lambda folder: folder.name)
@pytest.mark.parametrize("queue", QUEUES)
def test_scaling_counts_waiting_and_running_tasks(folder: Path, queue: str) -> None:
    (redis,) = of_kind(folder, "Service").values()
    where = redis["metadata"]
    scaled = of_kind(folder, "ScaledObject")[f"worker-{queue}"]["spec"]

    assert scaled["scaleTargetRef"]["name"] in of_kind(folder, "Deployment")
    assert scaled["minReplicaCount"] == 0
    assert scaled["advanced"]["scalingModifiers"] == {
        "formula": "waiting + running",
        "target": "1",
        "activationTarget": "0",
    }
    assert {trigger["name"]: trigger["metadata"] for trigger in scaled["triggers"]} == {
        name: {
            "address": f"{where['name']}.{where['namespace']}.svc:{redis['spec']['ports'][0]['port']}",
            "listName": key,
        }
        for name, key in (("waiting", queue), ("running", f"retrain:running:{queue}"))
    }
    for trigger in scaled["triggers"]:
        assert trigger["type"] == "redis"
        login = of_kind(folder, "TriggerAuthentication")[trigger["authenticationRef"]["name"]]
        (password,) = login["spec"]["secretTargetRef"]
        assert password["name"] == SECRET["metadata"]["name"]
        assert password["key"] in SECRET["stringData"]


def strict(required: str, **properties: Any) -> dict[str, Any]:
    """The schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


STRING, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
METADATA = strict("name namespace", name=STRING, namespace=STRING)
KEDA: dict[str, dict[str, Any]] = {
    "ScaledObject": strict(
        "apiVersion kind metadata spec",
        apiVersion={"const": "keda.sh/v1alpha1"},
        kind=STRING,
        metadata=METADATA,
        spec=strict(
            "scaleTargetRef triggers",
            scaleTargetRef=strict("name", name=STRING),
            minReplicaCount=COUNT,
            maxReplicaCount=COUNT,
            pollingInterval=COUNT,
            cooldownPeriod=COUNT,
            advanced=strict(
                "",
                scalingModifiers=strict(
                    "formula target", formula=STRING, target=STRING, activationTarget=STRING
                ),
                horizontalPodAutoscalerConfig=strict(
                    "", behavior=strict("", scaleDown=strict("", stabilizationWindowSeconds=COUNT))
                ),
            ),
            triggers={
                "type": "array",
                "minItems": 1,
                "items": strict(
                    "type metadata",
                    type=STRING,
                    name=STRING,
                    metadata={"type": "object", "additionalProperties": STRING},
                    authenticationRef=strict("name", name=STRING),
                ),
            },
        ),
    ),
    "TriggerAuthentication": strict(
        "apiVersion kind metadata spec",
        apiVersion={"const": "keda.sh/v1alpha1"},
        kind=STRING,
        metadata=METADATA,
        spec=strict(
            "secretTargetRef",
            secretTargetRef={
                "type": "array",
                "items": strict("parameter name key", parameter=STRING, name=STRING, key=STRING),
            },
        ),
    ),
}
"""Kubernetes' own schemas have none of KEDA: the part of its definitions that is used here."""
