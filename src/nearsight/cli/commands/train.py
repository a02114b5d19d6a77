"""`train`."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run

if TYPE_CHECKING:
    from nearsight.images import Exclusions
    from nearsight.training import Training

# training.AUGMENTATIONS; importing it would make --help slow.
_AUGMENTATIONS = ["photos", "products", "industrial", "documents"]
# training.DEPTHS and losses.LOSSES.
_DEPTHS = ["auto", "head", "last", "all"]
_LOSSES = ["softmax", "supcon", "arcface", "proxy-anchor"]
_N_SHEET_IMAGES, _N_SHEET_VIEWS = 8, 8


@click.command(
    "train",
    cls=Command,
    json_shape="""{"model", "base", "base_fingerprint", "depth": "head"|"last"|"all", "dim": int,
 "better_than_pretrained": bool, "verdict",
 "figures": {metric: {"pretrained": float, "trained": float, "interval": [low, high], "difference": float,
   "difference_interval": [low, high], "p": float}},
 "unseen_classes": {"difference": float, "interval": [low, high]} or null,
 "setting": {"shrinkage": float, "stretch": float or str, "layers": [str]},
 "dimensions": [{"dim": int, "value": float, "low": float, "high": float}],
 "layers": {"depth", "loss", "device", "views": int, "pretrained_layers_kept": str or null,
   "epoch": int or null, "share_of_trained_weights": float or null, "schedule": {}, "losses": [float],
   "epochs": [{"epoch": int, "share": float, "seen": float, "error": float, "unseen": float or null,
     "is_allowed": bool}]} or null,
 "augmentation", "views": int, "images": {"fitted": int, "test": int, "classes": int},
 "classes": [str], "known_only": bool, "test_split",
 "data_sha256", "seconds": float, "failed": [{"path", "reason"}]}""",
    examples=(
        "nearsight train products/ --to my-model && nearsight index shelf/ --model dir:my-model",
        "nearsight train scans/ --to my-model --augment documents --contact-sheet views.jpg",
        "nearsight train photos/ --labels labels.csv --to my-model --dim 128",
        "nearsight train photos/ --pairs same.csv --to my-model --depth last",
    ),
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--to",
    "to_folder",
    metavar="MODEL",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder to write the model to; dir:MODEL names it.",
)
@click.option(
    "--labels",
    metavar="CSV",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A table with the columns path and label: which images, of which classes. An empty label is the "
    "name of the folder.",
)
@click.option(
    "--pairs",
    metavar="CSV",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A table with the columns first and second, in each row two images of the same thing.",
)
@click.option(
    "--depth",
    type=click.Choice(_DEPTHS),
    default="auto",
    show_default=True,
    metavar="|".join(_DEPTHS),
    help="What is trained: a map behind the network, its last block too, or all layers.",
)
@click.option(
    "--loss",
    type=click.Choice(_LOSSES),
    metavar="|".join(_LOSSES),
    help="By which layers learn.  [default: softmax; supcon with --pairs]",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Most epochs of the layers.  [default: 5 for last, 30 for all]",
)
@click.option("--model", metavar="NAME", help="The pretrained model.  [default: efficientnet-lite0]")
@click.option(
    "--augment",
    type=click.Choice(_AUGMENTATIONS),
    default="photos",
    show_default=True,
    metavar="|".join(_AUGMENTATIONS),
    help="What may change in an image without changing what it shows.",
)
@click.option(
    "--views",
    type=click.IntRange(1, 16),
    metavar="N",
    help="Views of each image to learn from, itself included.  [default: 2; 4 for the last block]",
)
@click.option(
    "--contact-sheet",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="First write views of a few images to FILE, to look at.",
)
@options.dim("Numbers of a vector.  [default: as few as are as good as more]")
@click.option(
    "--known-only",
    is_flag=True,
    help="Only the classes of DIR matter: hold none out, and hold nothing back for others.",
)
@options.walk
@options.strict
@click.pass_obj
def train(
    run: Run,
    /,
    *,
    folder: Path,
    to_folder: Path,
    labels: Path | None,
    pairs: Path | None,
    depth: str,
    loss: str | None,
    epochs: int | None,
    model: str | None,
    augment: str,
    views: int | None,
    contact_sheet: Path | None,
    dim: int | None,
    known_only: bool,
    exclusions: "Exclusions",
) -> int:
    """Train a model on your own labeled images.

    DIR holds one folder of images a class, perhaps in folders train and test. A linear map is fitted behind
    the pretrained network, so that images of one class become alike: in seconds, without a GPU. With PyTorch
    (pip install 'nearsight[train]') and enough images, the last block of the network is trained too, in
    minutes, and with an NVIDIA GPU all layers. If this does not help, the pretrained layers are kept.
    If the command is killed, the same command goes on after the last epoch.

    Settings are chosen on images that are left out, and the figures are of test images: a folder test, or a
    fifth of each class. Near-duplicates are never on both sides. Of 8 classes or more, some are held out, so
    that classes the model never saw do not get worse; with fewer, layers are not trained and the map is held
    back, unless --known-only says that no other classes matter. Where the trained model is not proven better,
    the command says so.
    """
    from nearsight import training
    from nearsight.reports.training import training_charts
    from nearsight.services import training as service

    def look_at(paths: Sequence[str]) -> None:
        if contact_sheet is not None:
            service.write_contact_sheet(
                contact_sheet, paths, augment, n_images=_N_SHEET_IMAGES, n_views=_N_SHEET_VIEWS
            )
            run.console.note(f"Views: {text_format.printable(str(contact_sheet))}")

    if (to_folder / training.RECORD).exists():
        name = text_format.printable(str(to_folder))
        run.console.note(
            f"Note: {name} holds a model, which the new one replaces. A collection of it can be searched"
            f" again after nearsight upgrade --to dir:{name}. Another name keeps both."
        )
    result = service.trained(
        folder,
        to_folder,
        labels=labels,
        pairs=pairs,
        exclusions=exclusions,
        on_paths=look_at,
        depth=depth,
        augment=augment,
        known_only=known_only,
        **options.without_none(model=model, n_views=views, dim=dim, loss=loss, epochs=epochs),
        cache_dir=run.settings.cache_dir,
        progress=run.console.progress,
    )
    training.write_model(result, to_folder, training_charts(result))
    shutil.rmtree(service.state_folder(to_folder), ignore_errors=True)
    run.console.document({"model": f"dir:{to_folder}", **result.to_dict()})
    _say(run, result, to_folder)
    return run.report_failures(result.failed, n_images=result.n_fitted + result.n_test)


def _say(run: Run, result: "Training", folder: Path) -> None:
    from nearsight.evaluation import metric_title

    header = [f"{result.n_test:,} test images", "pretrained", "trained", "difference (95 %)"]
    rows = [
        [
            metric_title(name),
            f"{figure.pretrained.value:.3f}",
            f"{figure.trained.value:.3f}",
            f"{figure.difference.value:+.3f} ({figure.difference.low:+.3f} to {figure.difference.high:+.3f})",
        ]
        for name, figure in result.figures.items()
    ]
    for line in text_format.table(rows, header=header, right=range(1, len(header))):
        run.console.say(line)
    run.console.say()
    run.console.say(result.verdict, bold=True)
    run.console.say(result.unseen_sentence)
    if result.layers_sentence:
        run.console.say(result.layers_sentence)
    name = text_format.printable(str(folder))
    run.console.say(f"Saved {name}, with vectors of {result.dim:,} numbers: --model dir:{name}")
