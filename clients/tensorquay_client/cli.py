"""`tensorquay infer`: one prediction from the command line, for people.

Found by the server's command through the entry-point group "tensorquay.commands"; imports nothing but click until it
is run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tensorquay_client.api import Client
    from tensorquay_client.messages import ModelMetadata, TensorMetadata
    from tensorquay_client.tensors import TensorLike
    from tensorquay_client.tls import Tls

_CLASSES_OF_AN_IMAGE = 3
_FILE = click.Path(path_type=Path)
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([\t\x20-\x7e]*)")


def _read_headers(_ctx: click.Context, _parameter: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for text in given:
        found = _HEADER.fullmatch(text)
        if found is None:
            # The value may be a secret, so it is not repeated.
            raise click.BadParameter("expected NAME=VALUE, a header's name and its value in printable ASCII")
        headers[found[1]] = found[2]
    return headers


@click.command(
    short_help="Send one prediction to a running server.", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.argument("model")
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="[NAME=]FILE",
    help="A picture, fitted to the model's input; repeat for a batch.",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="[NAME=]FILE",
    help="An array: .npy, .npz or .json (a list, an object of lists, or a V2 request).",
)
@click.option("--version", default="", help="Model version; the server chooses if not given.")
@click.option(
    "--url",
    default=None,
    metavar="URL",
    help="Server; localhost:8000, or localhost:8001 with --grpc. Also TENSORQUAY_URL, TENSORQUAY_GRPC_URL.",
)
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_read_headers,
    help="HTTP header or gRPC metadata sent with every request; repeatable.",
)
@click.option("--ca", type=_FILE, metavar="FILE", help="https, grpcs: whom to trust instead of the usual, in PEM.")
@click.option("--cert", type=_FILE, metavar="FILE", help="https, grpcs: our own certificate, in PEM.")
@click.option("--key", type=_FILE, metavar="FILE", help="The key of --cert, if it is in a file of its own.")
@click.option("--insecure", is_flag=True, help="https: believe any server; for trials only.")
@click.option("--grpc", "use_grpc", is_flag=True, help="Use gRPC instead of HTTP.")
@click.option(
    "--scale",
    default=None,
    metavar="LOW..HIGH",
    help="What black and white become; else the model's parameter image_range, else 0..1 (integers: 0..255).",
)
@click.option("--invert", is_flag=True, help="Swap black and white of the pictures.")
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=None,
    help="Show the N best classes of float outputs; 3 with --image, 0 shows all numbers.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds for each call.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def infer(
    *,
    model: str,
    images: Sequence[str],
    inputs: Sequence[str],
    version: str,
    url: str | None,
    headers: Mapping[str, str],
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    insecure: bool,
    use_grpc: bool,
    scale: str | None,
    invert: bool,
    top: int | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Send one prediction for MODEL to a running server and show the answer.

    \b
    tensorquay infer digits --image docs/images/digit.png
    tensorquay infer simple --input INPUT0=a.npy --input INPUT1=b.npy --grpc
    """
    from tensorquay_client.cli_output import as_json as to_json  # noqa: PLC0415 - `--help` stays instant
    from tensorquay_client.cli_output import print_tables  # noqa: PLC0415
    from tensorquay_client.errors import ClientError  # noqa: PLC0415
    from tensorquay_client.tls import Tls  # noqa: PLC0415

    if not images and not inputs:
        raise click.UsageError("nothing to send: give --image FILE or --input FILE")
    try:
        tls = Tls(ca, cert, key, insecure) if ca or cert or key or insecure else None
        with _connect(url, use_grpc=use_grpc, timeout_s=timeout_s, headers=headers, tls=tls) as client:
            metadata = client.model_metadata(model, version or None)
            tensors = _tensors(client, metadata, version, images, inputs, scale=scale, invert=invert)
            classes = _classes(client, metadata, top, by_default=bool(images))
            result = client.infer(
                model,
                tensors,
                version=version or None,
                outputs=[entry.name for entry in metadata.outputs] if classes else None,
                classification=classes,
                cast=True,
            )
        if as_json:
            click.echo(to_json(result, classes))
        else:
            print_tables(result, classes)
    except ClientError as exc:
        raise click.ClickException(exc.message) from exc


def _connect(
    url: str | None, *, use_grpc: bool, timeout_s: float, headers: Mapping[str, str], tls: Tls | None = None
) -> Client:
    """A client for the address given, in the environment, or by default."""
    if use_grpc:
        from tensorquay_client.grpc_client import GrpcClient  # noqa: PLC0415

        return GrpcClient(
            url or os.environ.get("TENSORQUAY_GRPC_URL") or "localhost:8001",
            timeout_s=timeout_s,
            # Names of metadata are lower case.
            headers={name.lower(): value for name, value in headers.items()},
            tls=tls,
        )
    from tensorquay_client.http_client import HttpClient  # noqa: PLC0415

    return HttpClient(
        url or os.environ.get("TENSORQUAY_URL") or "localhost:8000", timeout_s=timeout_s, headers=headers, tls=tls
    )


def _tensors(
    client: Client,
    metadata: ModelMetadata,
    version: str,
    images: Sequence[str],
    inputs: Sequence[str],
    *,
    scale: str | None,
    invert: bool,
) -> dict[str, TensorLike]:
    """All inputs by name."""
    from tensorquay_client.cli_images import image_tensor  # noqa: PLC0415
    from tensorquay_client.cli_inputs import read_inputs, split_name  # noqa: PLC0415
    from tensorquay_client.errors import InvalidArgument  # noqa: PLC0415

    result: dict[str, TensorLike] = dict(read_inputs(inputs, metadata))
    pictures: dict[str, list[Path]] = {}
    for given in images:
        name, path = split_name(given, metadata)
        pictures.setdefault(name or _image_input(metadata).name, []).append(path)
    for name, paths in pictures.items():
        if name in result:
            raise InvalidArgument(f"input '{name}' is given twice")
        spec = next(entry for entry in metadata.inputs if entry.name == name)
        darkest, brightest = _range(client, metadata, version, spec, scale)
        result[name] = image_tensor(paths, spec, darkest=darkest, brightest=brightest, invert=invert)
    return result


def _image_input(metadata: ModelMetadata) -> TensorMetadata:
    """The only input that takes images."""
    from tensorquay_client.cli_images import layout_of  # noqa: PLC0415
    from tensorquay_client.errors import InvalidArgument  # noqa: PLC0415

    fitting = [entry for entry in metadata.inputs if layout_of(entry)]
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(f"'{entry.name}' {entry.datatype} {list(entry.shape)}" for entry in metadata.inputs)
    which = "several inputs of" if fitting else "no input of"
    hint = "say which with --image NAME=FILE" if fitting else "send arrays with --input"
    raise InvalidArgument(f"{which} '{metadata.name}' take images ({shown}): {hint}")


def _range(
    client: Client, metadata: ModelMetadata, version: str, spec: TensorMetadata, scale: str | None
) -> tuple[float, float]:
    """What black and white become: as said here, else as the model's configuration says, else by type."""
    from tensorquay_client.cli_images import default_range, value_range  # noqa: PLC0415
    from tensorquay_client.errors import InvalidArgument, NotFound, Unimplemented  # noqa: PLC0415

    if scale is not None:
        try:
            return value_range(scale)
        except ValueError as exc:
            raise InvalidArgument(f"--scale: '{scale}' is no range, expected LOW..HIGH such as 0..16") from exc
    try:
        config = client.model_config(metadata.name, version or None)
        said = config.get("parameters", {}).get("image_range", {}).get("string_value")
    except (NotFound, Unimplemented, AttributeError):  # plain V2 servers have no configuration to show
        return default_range(spec)
    try:
        return default_range(spec) if said is None else value_range(said)
    except ValueError as exc:
        raise InvalidArgument(f"the model's parameter image_range '{said}' is no range; give --scale") from exc


def _classes(client: Client, metadata: ModelMetadata, top: int | None, *, by_default: bool) -> dict[str, int]:
    """Which outputs to show as classes, and how many."""
    if top is None:
        # Asked only where the answer matters; a server without the extension would refuse the prediction.
        able = by_default and "classification" in client.server_metadata().extensions
        top = _CLASSES_OF_AN_IMAGE if able else 0
    floats = ("FP16", "BF16", "FP32", "FP64")
    fitting = [entry.name for entry in metadata.outputs if entry.datatype in floats and len(entry.shape) in (1, 2)]
    return dict.fromkeys(fitting, top) if top else {}
